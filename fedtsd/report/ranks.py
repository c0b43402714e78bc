"""Ranks of methods over many cells, and Friedman's test with Nemenyi's critical difference.

Source: Demsar (2006), Statistical comparisons of classifiers over multiple data sets, JMLR 7:1-30;
the F of Iman and Davenport (1980). A *cell* is a setting and a seed.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedtsd.report.results import Results

ALPHA = 0.05  # the level of every test in a report
MIN_METHODS = 3
# Without any difference, 20,000 simulated tables of 3, 4, 6 or 12 methods and 6 to 12 blocks are
# rejected by F in 4-6 % and by Nemenyi in 3-5 %. Demsar's rule of thumb for the chi-square, more
# than 10 blocks and 5 methods, is stricter than F needs.
MIN_BLOCKS = 6
DIGITS = 10  # values that differ only further down are equal


@dataclass(frozen=True, eq=False)
class FriedmanResult:
    """Do `k` methods differ over `blocks` complete cells, and which?

    `ranks`: method -> mean rank, 1 is best, ascending. `chi_square` is corrected for ties;
    `f` and `p` are Iman and Davenport's. Two methods differ if their mean ranks are at least
    `critical_difference` apart. `cliques`: the largest sets of neighbours that do not differ; all
    methods at once where the test itself finds nothing.
    """

    ranks: "pd.Series[float]"
    blocks: int
    chi_square: float
    f: float
    p: float
    critical_difference: float
    cliques: tuple[tuple[str, ...], ...]

    @property
    def significant(self) -> bool:
        """Whether the test itself finds a difference at the level ALPHA."""
        return self.p < ALPHA


def cells(results: Results, column: str = "score") -> pd.DataFrame:
    """One column of `results.table` as cells (setting, seed) x methods; NaN where no run is."""
    table = results.table.pivot(index=["setting", "seed"], columns="method", values=column)
    return table.astype(float).reindex(results.settings, level="setting")[results.methods]


def complete(values: pd.DataFrame) -> pd.DataFrame:
    """The cells in which every method has a run: the blocks of rank statistics."""
    return values.dropna()


def mean_ranks(values: pd.DataFrame, highest: bool = True) -> "pd.Series[float]":
    """Method -> mean rank over complete cells; the best value has rank 1, equals share."""
    return complete(values).round(DIGITS).rank(axis=1, ascending=not highest).mean()


def friedman(results: Results) -> FriedmanResult | None:
    """Test the scores of all methods; None below MIN_METHODS methods or MIN_BLOCKS blocks."""
    from scipy import stats  # lazily: it takes as long to import as torch

    blocks = complete(cells(results)).round(DIGITS)
    n, k = blocks.shape
    if k < MIN_METHODS or n < MIN_BLOCKS:
        return None
    ranks = mean_ranks(blocks, results.score.higher_is_better).sort_values(kind="stable")
    chi_square = _chi_square(blocks)
    room = n * (k - 1) - chi_square
    f = (n - 1) * chi_square / room if room > 1e-9 else float("inf")
    p = float(stats.f.sf(f, k - 1, (k - 1) * (n - 1)))
    difference = critical_difference(k, n)
    groups = cliques(ranks, difference if p < ALPHA else float("inf"))
    return FriedmanResult(ranks, n, chi_square, f, p, difference, groups)


def critical_difference(methods: int, blocks: int) -> float:
    """Nemenyi's critical difference of mean ranks at the level ALPHA."""
    from scipy import stats

    q = stats.studentized_range.ppf(1 - ALPHA, methods, np.inf)
    return float(q * np.sqrt(methods * (methods + 1) / (12 * blocks)))


def cliques(ranks: "pd.Series[float]", difference: float) -> tuple[tuple[str, ...], ...]:
    """The largest runs of at least two neighbours in `ranks` (ascending) closer than that."""
    names, values = list(ranks.index), ranks.to_numpy()
    found: list[tuple[str, ...]] = []
    reached = 0
    for start in range(len(names)):
        stop = int(np.searchsorted(values - values[start], difference, side="left"))
        if stop > reached and stop - start > 1:
            found.append(tuple(names[start:stop]))
        reached = max(reached, stop)
    return tuple(found)


def _chi_square(blocks: pd.DataFrame) -> float:
    """Friedman's statistic, 0 where all methods tie in every block."""
    from scipy import stats

    if (blocks.nunique(axis=1) == 1).all():
        return 0.0
    return float(stats.friedmanchisquare(*blocks.to_numpy().T).statistic)
