"""Who watches a run."""

from collections.abc import Mapping
from typing import Any, Protocol


class Observer(Protocol):
    """Somebody who is told how a run goes and cannot change it: progress on screen, a tracker."""

    def start(self, done: int) -> None:
        """Begin; `done` rounds were finished before, in a run that is resumed."""
        ...

    def round(self, row: Mapping[str, Any]) -> None:
        """Take note of one finished round, given its row of rounds.csv."""
        ...

    def stop(self) -> None:
        """End, whether the run is done, failed or interrupted."""
        ...
