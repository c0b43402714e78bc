"""The parent's end of the pipe: a child process that works when asked and sleeps otherwise."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fedtsd.errors import FedtsdError

PATIENCE = 20.0
"""Seconds that a child has to end by itself."""


class WorkerFailed(FedtsdError):  # noqa: N818  what became of it
    """A child has ended with an error; the message is the last line it printed."""


@dataclass(frozen=True)
class Measured:
    """What some rounds took: seconds in all, samples trained on, seconds by stage."""

    rounds: int
    seconds: float
    samples: int
    split: Mapping[str, float]

    @property
    def samples_per_second(self) -> float:
        """Samples trained on per second."""
        return self.samples / self.seconds

    @property
    def rounds_per_second(self) -> float:
        """Rounds per second."""
        return self.rounds / self.seconds


def child(*args: str) -> list[str]:
    """Return the command of a child of one kind (see `child.py`)."""
    return [sys.executable, "-m", "fedtsd.bench.child", *args]


class Worker:
    """A process that speaks the protocol of `port.py`.

    start_up: seconds from the start of the process to its first round. facts: what it told of
    itself. Raises WorkerFailed if it does not get that far.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by close()
        started = time.perf_counter()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ} if env is None else dict(env),
        )
        self.pid = self._process.pid
        self._started = started
        self.start_up = 0.0
        self.facts: dict[str, Any] = {}

    def wait_until_ready(self) -> None:
        """Wait until the child could begin its first round."""
        self.facts = self._read()
        self.start_up = time.perf_counter() - self._started

    def run(self, rounds: int) -> Measured:
        """Run so many rounds and return what they took."""
        self.ask({"rounds": rounds})
        return self.answer(rounds)

    def finish(self) -> dict[str, float]:
        """Return the seconds of what is no part of rounds; now the child can only be closed."""
        self.ask({"finish": True})
        return self._read()

    def ask(self, order: Mapping[str, Any]) -> None:
        """Send an order; `answer` has to follow."""
        if not self.facts:
            self.wait_until_ready()
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.write(json.dumps(order) + "\n")
                pipe.flush()
        except BrokenPipeError as error:
            raise WorkerFailed(self._last_words()) from error

    def answer(self, rounds: int) -> Measured:
        """Wait for the report on an order of so many rounds."""
        report = self._read()
        return Measured(rounds, report["seconds"], report["samples"], report["split"])

    def close(self) -> None:
        """End the child: by closing the pipe, and by force if that does not help."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # it has ended already
                    pipe.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _read(self) -> dict[str, Any]:
        pipe = self._process.stdout
        line = pipe.readline() if pipe is not None else ""
        if not line:
            raise WorkerFailed(self._last_words())
        report: dict[str, Any] = json.loads(line)
        return report

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return lines[-1] if lines else f"the process ended with exit code {code}"
