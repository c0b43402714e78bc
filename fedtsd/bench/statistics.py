"""Ratios of measurements that were made side by side."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Spread:
    """The median of some values, the lowest and the highest."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of one or more values."""
        return cls(statistics.median(values), min(values), max(values))

    def plain(self) -> dict[str, float]:
        """Return it as plain data."""
        return asdict(self)


def ratios(rates: Sequence[float], references: Sequence[float]) -> list[float]:
    """Return each rate over the mean of the two references between which it was measured.

    references: one more than rates; the machine's drift between the two cancels to first order.
    """
    means = [(before + after) / 2 for before, after in pairwise(references)]
    return [rate / mean for rate, mean in zip(rates, means, strict=True)]
