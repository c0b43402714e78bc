"""Accuracy over clients, by stated rules.

The headline is the served model's accuracy on test data, averaged over clients with equal weight:
in the last round, and in the round that was best on validation data. The best test round is never
reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.spatial.distance import jensenshannon


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation and mean of the worst tenth over clients, accuracies in 0..1."""

    mean: float
    std: float
    worst10: float


def spread(values: Sequence[float]) -> Spread:
    """Summarise one accuracy per client; the worst tenth has ceil(N / 10) clients."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    worst = ordered[: max(1, -(-len(ordered) // 10))]
    return Spread(float(ordered.mean()), float(ordered.std()), float(worst.mean()))


def best_validation_round(clients: pd.DataFrame, stage: str) -> int | None:
    """Return the round whose mean validation accuracy is highest (the earliest, if several).

    Returns None when no client has validation data.
    """
    rows = clients[(clients["stage"] == stage) & (clients["split"] == "val")]
    if rows.empty:
        return None
    means = rows.groupby("round")["accuracy"].mean()
    return int(means.index[int(means.to_numpy().argmax())])


def accuracy_at(clients: pd.DataFrame, stage: str, round: int) -> pd.Series:
    """Return the test accuracy of every client in one round, indexed by client."""
    rows = clients[
        (clients["stage"] == stage) & (clients["split"] == "test") & (clients["round"] == round)
    ]
    return rows.set_index("client")["accuracy"].sort_index()


def label_skew(counts: np.ndarray) -> float:
    """Return the mean Jensen-Shannon divergence of the clients' label laws to the pooled law.

    `counts` [N, Y] are label counts. In 0..1 (divided by ln 2); 0 where all laws are alike.
    """
    counts = np.asarray(counts, dtype=np.float64)
    laws = counts / counts.sum(axis=1, keepdims=True)
    pooled = counts.sum(axis=0) / counts.sum()
    divergences = jensenshannon(laws, pooled[None, :], base=2, axis=1) ** 2
    return float(np.mean(divergences))
