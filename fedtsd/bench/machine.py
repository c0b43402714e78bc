"""The machine: what it is, and the most it can do: its peak of fp32 operations, measured."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedtsd import __version__
from fedtsd.bench.port import Port
from fedtsd.bench.worker import Worker, child
from fedtsd.cores import usable_cores

SIZE = {"cpu": 1536, "cuda": 8192}
"""Rows and columns of the square matrices: large enough that a product runs at the peak."""
SECONDS = 0.5
TRIES = 4


def serve_matmul(port: Port, device: str) -> None:
    """Multiply two square matrices in fp32, on one thread, as often as ordered."""
    import torch

    from fedtsd.bench.clock import Clock
    from fedtsd.bench.port import Pacer

    torch.set_num_threads(1)
    size = SIZE[device]
    a, b = torch.ones(2, size, size, device=device)
    out = torch.empty_like(a)

    def multiply() -> int:
        torch.mm(a, b, out=out)
        if device == "cuda":
            torch.cuda.synchronize()
        return 1

    Pacer(port, Clock(), {}).pace(multiply)


def peak_flops(device: str) -> float:
    """Return the floating point operations per second of all cores at once, or of the GPU.

    The best of a few tries: each core multiplies large matrices at the same time as the others.
    """
    workers = [
        Worker(child("matmul", device)) for _ in range(usable_cores() if device == "cpu" else 1)
    ]
    try:
        best = max(_together(workers, _count(workers[0])) for _ in range(TRIES))
    finally:
        for worker in workers:
            worker.close()
    return best * 2 * SIZE[device] ** 3


def _count(worker: Worker) -> int:
    """Return how many products fill the time."""
    worker.run(2)
    return max(1, round(SECONDS * worker.run(2).rounds_per_second))


def _together(workers: list[Worker], count: int) -> float:
    """Return the products per second of all workers at the same time."""
    for worker in workers:
        worker.ask({"rounds": count})
    return sum(worker.answer(count).rounds_per_second for worker in workers)


def describe_machine(device: str) -> dict[str, Any]:
    """Return what the numbers depend on: versions, cores, memory, processor, the measured peak."""
    import torch

    return {
        "fedtsd": __version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "platform": platform.platform(),
        "processor": processor(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "cores": usable_cores(),
        "memory_bytes": memory(),
        "device": device,
        "peak_flops": peak_flops(device),
    }


def memory() -> int | None:
    """Return the bytes of main memory, None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def processor() -> str:
    """Return the name of the processor."""
    known = Path("/proc/cpuinfo")
    if known.is_file():
        for line in known.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
