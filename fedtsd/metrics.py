"""Scores over clients, by stated rules.

The headline is the served model's score (accuracy, or in regression the mean absolute error) on
test data, averaged over clients with equal weight: in the last round, and in the round that was
best on validation data. The best test round is never reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedtsd.score import ACCURACY, Score

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and mean of the worst tenth over clients, as stored."""

    mean: float
    std: float
    worst10: float

    def named(self, score: Score) -> dict[str, float]:
        """Return the three by their names in the tables."""
        return dict(zip(score.columns, (self.mean, self.std, self.worst10), strict=True))


def spread(values: Sequence[float], score: Score = ACCURACY) -> Spread:
    """Summarise one score per client; the worst tenth has ceil(N / 10) clients."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    worst = score.worst_tenth(values)
    return Spread(float(ordered.mean()), float(ordered.std()), float(np.mean(worst)))


def best_validation_round(
    clients: "pd.DataFrame", stage: str, score: Score = ACCURACY
) -> int | None:
    """Return the round whose mean validation score is best (the earliest, if several).

    Returns None when no client has validation data.
    """
    rows = clients[(clients["stage"] == stage) & (clients["split"] == "val")]
    if rows.empty:
        return None
    means = rows.groupby("round")[score.name].mean()
    return int(means.index[int(score.merit(means.to_numpy()).argmax())])


def scores_at(
    clients: "pd.DataFrame",
    stage: str,
    round: int,
    column: str = ACCURACY.name,
    split: str = "test",
) -> "pd.Series":
    """Return the score of every client in one round, indexed by client.

    split: `val` has only the clients that hold validation data.
    """
    rows = clients[
        (clients["stage"] == stage) & (clients["split"] == split) & (clients["round"] == round)
    ]
    return rows.set_index("client")[column].sort_index()
