import platform
import resource
import subprocess
import sys

import pytest

from fedtsd.clients import allocator

BLOCK, BLOCKS, STEPS = 24 << 20, 4, 8
FAULTS = f"""
import ctypes, resource
from fedtsd.clients.allocator import keep_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def step():
    blocks = [libc.malloc({BLOCK}) for _ in range({BLOCKS})]
    for block in blocks:
        ctypes.memset(block, 1, {BLOCK})
    for block in reversed(blocks):
        libc.free(block)
WAY
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({STEPS}):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(way: str) -> int:
    command = [sys.executable, "-c", FAULTS.replace("WAY", way)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone")
def test_memory_is_fetched_once() -> None:
    pages = STEPS * BLOCKS * BLOCK // resource.getpagesize()
    assert page_faults("") > pages / 4
    assert page_faults("keep_memory()") < pages / 1000


def test_other_c_libraries_are_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: pytest.fail("a library was opened"))
    assert allocator.keep_memory() is None
