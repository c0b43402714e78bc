"""Rows that cannot be used: the first one is an error, or all are left out and counted.

Shapes: n rows.
"""

import numpy as np

from fedtsd.data.targets import few
from fedtsd.errors import DataError


class BadRows:
    """What was found bad, in order.

    skip: leave such rows out (`dataset.on_bad=skip`) instead of raising DataError at the first.
    cure: what the error advises.
    """

    def __init__(
        self, skip: bool, cure: str = "mend it, or leave such rows out: dataset.on_bad=skip"
    ) -> None:
        self.skip, self.cure = skip, cure
        self._found: list[str] = []
        self._rows: set[int] = set()

    def add(self, place: str, reason: str, row: int | None = None) -> None:
        """Note a row once; place: its file and line; row: its number, if it has been read.

        Raises DataError with one line unless rows are skipped.
        """
        if not self.skip:
            raise DataError(f"{place}: {reason}; {self.cure}")
        if row not in self._rows:
            self._found.append(f"{place} {reason}")
        if row is not None:
            self._rows.add(row)

    def kept(self, num_rows: int) -> np.ndarray:
        """Return the rows that are good, of so many that were read: int64, sorted."""
        good = np.ones(num_rows, dtype=bool)
        good[sorted(self._rows)] = False
        return np.flatnonzero(good)

    @property
    def notes(self) -> tuple[str, ...]:
        """One line with the number of rows and the first of them; nothing where all are good."""
        if not self._found:
            return ()
        rows = "1 row" if len(self._found) == 1 else f"{len(self._found):,} rows"
        return (f"left out {rows}: {few(self._found, mark='; ')}",)
