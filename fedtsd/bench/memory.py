"""The memory of a process and all processes below it, read from /proc while it works."""

import threading
from pathlib import Path
from types import TracebackType

PROC = Path("/proc")
SECONDS = 0.1
"""Between two looks."""


def descendants(pid: int) -> list[int]:
    """Return the processes below a process."""
    parents: dict[int, int] = {}
    for place in PROC.glob("[0-9]*"):
        try:
            # The name in brackets may hold spaces and brackets of its own.
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(place.name)] = int(fields[1])
    found, seen = [pid], 0
    while seen < len(found):
        found += [child for child, parent in parents.items() if parent == found[seen]]
        seen += 1
    return found[1:]


def tree_bytes(pid: int) -> int:
    """Return the memory of a process tree: all that the process holds, and what only children hold.

    Pages that a child shares with another process count once, with the process itself.
    """
    total = _rollup(pid, ("Rss",))
    return total + sum(_rollup(p, ("Private_Clean", "Private_Dirty")) for p in descendants(pid))


def _rollup(pid: int, names: tuple[str, ...]) -> int:
    """Return the sum of some lines of smaps_rollup, in bytes; 0 for a process that has ended."""
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    split = [line.split() for line in lines]
    return sum(1024 * int(words[1]) for words in split if words[0].rstrip(":") in names)


class Peak:
    """The most memory that a process tree had while the block ran; 0 where there is no /proc."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.num_bytes = 0

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(SECONDS):
            self._look()

    def _look(self) -> None:
        self.num_bytes = max(self.num_bytes, tree_bytes(self._pid))
