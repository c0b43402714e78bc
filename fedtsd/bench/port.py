"""The child's end of the pipe to the parent: orders come in, reports go out, a line of JSON each.

Orders: {"rounds": k} runs k rounds, {"finish": true} ends them and asks what else there is to
time; a closed pipe ends the child. The first report says that the child is ready; every order is
answered by one report.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from fedtsd.bench.clock import Clock


class Closed(Exception):  # noqa: N818  the normal end, no error
    """The parent wants no more."""


class Finished(Exception):  # noqa: N818  an order, no error
    """The parent wants no more rounds, but to know what else costs time."""


class Port:
    """Standard input and output, kept for the protocol: what libraries print goes to stderr."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def say(self, report: Mapping[str, Any]) -> None:
        """Send a report."""
        self._out.write(json.dumps(report) + "\n")
        self._out.flush()

    def listen(self) -> dict[str, Any]:
        """Sleep until an order comes. Raises Closed at the end."""
        line = sys.stdin.readline()
        if not line:
            raise Closed
        order: dict[str, Any] = json.loads(line)
        return order


class Pacer:
    """An observer that lets a run go on by as many rounds as are ordered, and reports on them.

    Between two orders it holds the run, so that the process sleeps.
    """

    def __init__(self, port: Port, clock: Clock, facts: Mapping[str, Any]) -> None:
        self._port = port
        self._clock = clock
        self._facts = facts
        self._left = 0
        self._samples = 0
        self._started = 0.0

    def start(self, done: int) -> None:
        """Say that the first round could begin now, and wait for the order."""
        self._port.say({"ready": True, **self._facts})
        self._wait()

    def round(self, row: Mapping[str, Any]) -> None:
        """Count a round; after the last one that was ordered, report and wait."""
        self._samples += int(row["samples"])
        self._left -= 1
        if not self._left:
            seconds = time.perf_counter() - self._started
            split = self._clock.take()
            self._port.say({"seconds": seconds, "samples": self._samples, "split": split})
            self._wait()

    def stop(self) -> None:
        """Nothing is left to do."""

    def _wait(self) -> None:
        order = self._port.listen()
        if "finish" in order:
            raise Finished
        self._left, self._samples = int(order["rounds"]), 0
        self._clock.take()
        self._started = time.perf_counter()

    def pace(self, step: Any) -> NoReturn:
        """Run `step() -> samples` as the rounds of a run without end."""
        self.start(0)
        while True:
            self.round({"samples": step()})
