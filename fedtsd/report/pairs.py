"""One method against each other one, paired over the cells that both have.

Wilcoxon's signed-rank test (1945), Holm's correction (1979), the matched-pairs rank-biserial
correlation (Kerby 2014). Differences of zero are dropped from test and effect, as Wilcoxon did;
they count as ties.
"""

from typing import Any, Literal

import numpy as np
import pandas as pd

from fedtsd.errors import RunFolderError
from fedtsd.report.printed import Printed, number
from fedtsd.report.ranks import ALPHA, DIGITS, cells, friedman
from fedtsd.report.results import RULES, Results
from fedtsd.report.tables import FloatArray

Over = Literal["cells", "settings"]
EXACT_WITH_TIES = 13  # pairs up to which all 2^n signs are tried, 8192 at most
HEADINGS = {"cells": "Pairs: settings and seeds", "settings": "Pairs: settings, seeds averaged"}
COLUMNS = (
    "reference", "method", "over", "pairs", "mean_difference", "median_difference",
    "wins", "ties", "losses", "effect", "p", "p_holm",
)  # fmt: skip


def paired_tests(results: Results, reference: str, over: Over = "cells") -> pd.DataFrame:
    """One row per other method; differences are gains of the reference over it, as stored.

    Columns: COLUMNS. `pairs` are the cells that both have, or with `over="settings"` the settings,
    each averaged over its common seeds: seeds of one setting share its data, so over cells the test
    speaks of new seeds on these settings, and only over settings of new settings. `effect` is the
    rank-biserial correlation, 1 where the reference wins every pair. Two-sided `p` is exact up to
    50 pairs without equal differences and up to 13 with them, normal with tie correction beyond;
    `p_holm` is adjusted for all rows. NaN where there is no pair. Raises RunFolderError if the
    reference has no run.
    """
    if reference not in results.methods:
        known = ", ".join(results.methods)
        raise RunFolderError(f"reference: must be one of {known}, got {reference!r}")
    values = cells(results)
    rows = []
    for other in results.methods:
        if other != reference:
            pairs = values[[reference, other]].dropna()
            if over == "settings":
                pairs = pairs.groupby("setting", sort=False).mean()
            gains = results.score.gain(pairs[reference], pairs[other])
            differences = gains.round(DIGITS).to_numpy()
            names = {"reference": reference, "method": other, "over": over}
            rows.append({**names, **_signed_ranks(differences)})
    table = pd.DataFrame(rows, columns=list(COLUMNS[:-1]))
    return table.assign(p_holm=holm(table["p"].to_numpy(float)))


def holm(p: FloatArray) -> FloatArray:
    """Adjust p-values for being tested together; NaNs stay and do not count."""
    adjusted = np.full(len(p), np.nan)
    order = np.argsort(p)[: int(np.sum(~np.isnan(p)))]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def smallest_p(pairs: int) -> float:
    """The least two-sided p that a signed-rank test of so many pairs can give: 2 / 2^n."""
    return min(1.0, 2.0 ** (1 - pairs))


def _signed_ranks(differences: FloatArray) -> dict[str, Any]:
    from scipy import stats  # lazily: it takes as long to import as torch

    wins, losses = int(np.sum(differences > 0)), int(np.sum(differences < 0))
    some = len(differences) > 0
    moved = differences[differences != 0]
    ranks = stats.rankdata(np.abs(moved))
    balance = float(np.sum(ranks * np.sign(moved)) / ranks.sum()) if len(moved) else 0.0
    return {
        "pairs": len(differences),
        "mean_difference": float(np.mean(differences)) if some else np.nan,
        "median_difference": float(np.median(differences)) if some else np.nan,
        "wins": wins,
        "ties": len(differences) - wins - losses,
        "losses": losses,
        "effect": balance if some else np.nan,
        "p": _p(moved) if some else np.nan,
    }


def _p(moved: FloatArray) -> float:
    """Two-sided p of differences without zeros; 1 if none is left."""
    from scipy import stats

    if not len(moved):
        return 1.0
    method: Any = "auto"
    if len(set(np.abs(moved))) < len(moved) <= EXACT_WITH_TIES:
        method = stats.PermutationMethod(n_resamples=2**EXACT_WITH_TIES)
    return float(stats.wilcoxon(moved, method=method).pvalue)


def printed_tests(results: Results, tests: pd.DataFrame) -> Printed:
    """Print the rows of `paired_tests` of one reference; what is significant after Holm is bold."""
    counts = tests[["wins", "ties", "losses"]].astype(str)
    columns = {
        "pairs": tests["pairs"].map(str),
        "mean": [_signed(results, gain) for gain in tests["mean_difference"]],
        "median": [_signed(results, gain) for gain in tests["median_difference"]],
        "won/tied/lost": counts.agg("/".join, axis=1),
        "effect": tests["effect"].map(lambda value: number(value, "+.2f")),
        "p": tests["p"].map(p_text),
        "Holm p": tests["p_holm"].map(p_text),
    }
    texts = pd.DataFrame(columns).set_axis([results.labels[m] for m in tests["method"]])
    marks = texts.map(lambda _: "")
    marks["Holm p"] = ["best" if p < ALPHA else "" for p in tests["p_holm"]]
    several = tests["over"].nunique() > 1
    return Printed(
        name="statistics",
        corner="Method",
        texts=texts,
        marks=marks,
        groups=tuple(HEADINGS[over] if several else "" for over in tests["over"]),
        caption=_caption(results, results.labels[tests["reference"].iloc[0]]),
    )


def p_text(p: float) -> str:
    """A p-value with three decimals, `<0.001` below."""
    return "<0.001" if p < 0.001 else number(p, ".3f")


def _caption(results: Results, reference: str) -> str:
    said = (
        f"{reference} against each method: {results.score.gain_label}, "
        f"{RULES[results.rule]}, above 0 where {reference} is better; matched-pairs "
        "rank-biserial effect; Wilcoxon's signed-rank test, two-sided, zero differences dropped; "
        f"bold: below {ALPHA} after Holm's correction."
    )
    ranks = friedman(results)
    if ranks is None:
        return said
    return (
        f"{said} Friedman's test of all methods over {ranks.blocks} cells (setting, seed): "
        f"F = {ranks.f:.2f}, p = {p_text(ranks.p)}; Nemenyi's critical difference of mean ranks "
        f"{ranks.critical_difference:.2f}.".replace("= <", "< ")
    )


def _signed(results: Results, gain: float) -> str:
    return number(results.score.scale * gain, f"+.{results.decimals}f")
