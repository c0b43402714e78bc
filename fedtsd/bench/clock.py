"""Where the time of a round goes, measured from outside: parts of an experiment put in timers."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

STAGES = ("train", "cluster", "aggregate", "write")
"""What is timed of a round; `rest` is what remains of it."""


class Clock:
    """Seconds by stage. Of nested stages the inner one gets the time, the outer one does not."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block for a stage."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def take(self) -> dict[str, float]:
        """Return what was counted since the last time, and begin anew."""
        taken, self._seconds = dict(self._seconds), defaultdict(float)
        return taken

    def _switch(self) -> None:
        now = self._now()
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now


class Timed:
    """Stands for `part`; calls of the methods named in `stages` are timed, all else is the part's.

    stages: the stage that each timed method counts for. last: what each of them returned last.
    """

    def __init__(self, part: Any, stages: Mapping[str, str], clock: Clock) -> None:
        self._part = part
        self._stages = stages
        self._clock = clock
        self.last: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name not in self._stages:
            return found

        def call(*args: Any, **named: Any) -> Any:
            with self._clock.stage(self._stages[name]):
                self.last[name] = found(*args, **named)
            return self.last[name]

        return call
