"""No tracker: the run's own tables are the record."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtsd.observer import Observer


@dataclass(frozen=True)
class NoTracker:
    """Keeps nothing and needs nothing."""

    def check(self) -> None:
        """Nothing can be missing."""

    def open(self, config: Mapping[str, Any], folder: Path) -> Observer:
        """Return an observer that does nothing."""
        return _Silent()


class _Silent:
    def start(self, done: int) -> None:
        return None

    def round(self, row: Mapping[str, Any]) -> None:
        return None

    def stop(self) -> None:
        return None
