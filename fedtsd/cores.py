"""How many cores a run may use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from fedtsd.errors import ConfigError

VARIABLE = "FEDTSD_WORKERS"


def usable_cores() -> int:
    """Return how many processes a run may keep busy: FEDTSD_WORKERS, or the cores of this process.

    One where processes cannot fork. Raises ConfigError if the variable is not a number.
    """
    if found := os.environ.get(VARIABLE):
        if not found.isdecimal() or int(found) < 1:
            raise ConfigError(f"{VARIABLE}: must be a whole number from 1 on, got {found!r}")
        return int(found)
    if not hasattr(os, "fork"):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def limited_cores(cores: int) -> Iterator[None]:
    """Let runs inside the block use so many cores, unless the user has said how many."""
    if VARIABLE in os.environ:
        yield
        return
    os.environ[VARIABLE] = str(cores)
    try:
        yield
    finally:
        del os.environ[VARIABLE]
