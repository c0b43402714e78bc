"""What all trackers share: the interface, the guard around them, and what they are told."""

import hashlib
import importlib.util
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from fedtsd.observer import Observer

log = logging.getLogger("fedtsd")


class Tracker(Protocol):
    """The settings of a tracker."""

    def check(self) -> None:
        """Raise ValueError with one line if a package is missing; imports none."""
        ...

    def open(self, config: Mapping[str, Any], folder: Path) -> Observer:
        """Return the record of the run in `folder`; `config` is its resolved config.

        Nothing is written before the record's `start`. The same folder continues the same record.
        """
        ...


class Guarded:
    """An observer that never stops a run: the first error of `record` is logged, then it is mute.

    After an error `record` is still stopped, so that it can close its files.
    """

    def __init__(self, name: str, record: Observer) -> None:
        self._name = name
        self._record = record
        self._broken = False

    def start(self, done: int) -> None:
        """Begin the record."""
        self._try(lambda: self._record.start(done))

    def round(self, row: Mapping[str, Any]) -> None:
        """Record a round."""
        if not self._broken:
            self._try(lambda: self._record.round(row))

    def stop(self) -> None:
        """End the record."""
        self._try(self._record.stop)

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # whatever a foreign library raises
            if not self._broken:
                reason = f"{type(error).__name__}: {error}"
                log.warning("tracker %s: stopped recording: %s", self._name, reason)
            self._broken = True


def require(*packages: str, extra: str) -> None:
    """Raise ValueError naming the extra if a package is not installed."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"tracker: {extra} needs a package that is not installed ({missing[0]}); "
            f"get it with: pip install 'fedtsd[{extra}]'"
        )


def run_id(folder: Path) -> str:
    """Return 16 hex digits that name the run in this folder; a resumed run has the same."""
    return hashlib.blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()


def parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a config to dotted keys; lists and null become JSON text."""

    def walk(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, Mapping):
                yield from walk(value, f"{path}{key}.")
            elif isinstance(value, bool | int | float | str):
                yield f"{path}{key}", value
            else:
                yield f"{path}{key}", json.dumps(value)

    return dict(walk(config, ""))


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numeric columns of a row of rounds.csv but the round itself, empty cells left out.

    A round without evaluation has no scores, one without a test of the clusters no Hopkins value.
    """
    return {
        name: float(value)
        for name, value in row.items()
        if name != "round" and isinstance(value, int | float) and not math.isnan(value)
    }


def ending() -> str:
    """Return done, failed or interrupted: how the run ends whose record is being stopped.

    `Observer.stop` is called while the exception that ends a run passes.
    """
    error = sys.exception()
    if error is None:
        return "done"
    return "failed" if isinstance(error, Exception) else "interrupted"
