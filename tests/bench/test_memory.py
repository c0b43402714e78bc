import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedtsd.bench import memory
from fedtsd.bench.memory import Peak, descendants, tree_bytes

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="no /proc")
MEGABYTE = 1 << 20
HOLDER = "data = bytearray(80 << 20); print('held', flush=True); input()"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {HOLDER!r}])
child.wait()
"""


FORKED = """
import os
data = bytearray(80 << 20)
os.fork() or print("held", flush=True)
input()
"""


def start(code: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen) -> None:
    process.communicate("\n")


def test_the_memory_of_children_counts() -> None:
    process = start(PARENT)
    try:
        (child,) = descendants(process.pid)
        assert tree_bytes(child) > 80 * MEGABYTE
        assert tree_bytes(process.pid) > 80 * MEGABYTE
    finally:
        end(process)
    assert tree_bytes(process.pid) == 0


def test_pages_that_a_fork_shares_count_once() -> None:
    process = start(FORKED)
    try:
        assert len(descendants(process.pid)) == 1
        assert 80 * MEGABYTE < tree_bytes(process.pid) < 120 * MEGABYTE
    finally:
        end(process)


def test_a_peak_that_has_passed_is_remembered(monkeypatch) -> None:
    monkeypatch.setattr(memory, "SECONDS", 0.002)
    seen = iter([5, 90, 7])
    monkeypatch.setattr(memory, "tree_bytes", lambda pid: next(seen, 6))
    with Peak(1) as peak:
        deadline = time.monotonic() + 10
        while peak.num_bytes < 90 and time.monotonic() < deadline:
            time.sleep(0.002)
    assert peak.num_bytes == 90
