"""What the runs of a report can tell and what they cannot, in tests and in plain sentences.

A sentence never says more than its numbers: without enough pairs no difference is called
significant, and no difference found is not called equality.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from fedtsd.errors import RunFolderError
from fedtsd.report.pairs import p_text, paired_tests, smallest_p
from fedtsd.report.ranks import ALPHA, FriedmanResult, cells, complete, friedman
from fedtsd.report.results import RULES, Results

__all__ = ["FriedmanResult", "friedman", "paired_tests", "recommended", "verdict"]

PREFERRED = ("fedtsdp_full", "fedtsdp")  # the first that is there


class Count(int):
    """A number that also knows its plural: `{n} pair{n:s}`."""

    def __format__(self, spec: str) -> str:
        return ("" if self == 1 else "s") if spec == "s" else super().__format__(spec)


# Formats of the sentences; `{n:s}` is the plural ending, `{p}` holds its own = or <.
SENTENCES = {
    "nothing": "No run has finished: there is nothing to compare.",
    "count": "{runs} finished run{runs:s}: {methods} method{methods:s}, {settings} "
    "setting{settings:s}, {seeds} seed{seeds:s}. Reported: {label}, {rule}.",
    "holes": "{holes} run{holes:s} without a result ({states}): left out of all that follows.",
    "one_seed": "One seed per cell: there is no spread over seeds to tell chance from effect by.",
    "some_one_seed": "{few} of {all} cells of the table have one seed only and no spread.",
    "one_method": "One method: there is nothing to compare it with.",
    "picked": "If {reference} was picked for its mean on these very runs, its p-values are lower "
    "than they should be.",
    "too_few": "{reference} has at most {pairs} pair{pairs:s} that differ (same setting, same "
    "seed) with another method. The smallest p that {pairs} can give is {least}: no difference "
    "can be called significant at {alpha}.",
    "too_few_holm": "{reference} has at most {pairs} pair{pairs:s} that differ (same setting, same "
    "seed) with another method. The smallest p that {pairs} can give is {least}, after Holm's "
    "correction for {tests} comparison{tests:s} {least_holm}: no difference can be called "
    "significant at {alpha}.",
    "enough": "{reference} has up to {pairs} pair{pairs:s} that differ (same setting, same seed) "
    "with another method: Wilcoxon's signed-rank tests, two-sided, p adjusted by Holm for {tests} "
    "comparison{tests:s}.",
    "better": "{reference} is significantly more accurate than {other}: {mean} on average, "
    "{wins} won, {losses} lost, {ties} tied, p {p}.",
    "worse": "{reference} is significantly less accurate than {other}: {mean} on average, "
    "{wins} won, {losses} lost, {ties} tied, p {p}.",
    "mixed": "{reference} and {other} differ significantly, but mean ({mean}) and ranks "
    "({wins} won, {losses} lost) point in different directions: p {p}.",
    "undecided": "{reference} is neither shown better nor worse than {others}; that does not show "
    "them equal.",
    "unpaired": "{reference} has no setting and seed in common with {others}.",
    "shared": "Seeds of one setting share its data: these tests speak of new seeds on these "
    "settings, not of other data.",
    "few_settings": "Averaged over seeds, the pairs left are {pairs} setting{pairs:s}: too few for "
    "any test to reach {alpha}.",
    "settings": "Averaged over seeds, with up to {pairs} settings as pairs, {reference} is "
    "significantly better than: {better}; worse than: {worse}.",
    "no_friedman": "No test over all methods: it needs 3 methods and 6 cells (setting and seed) "
    "in which each has a run; there are {methods} and {blocks}.",
    "differ": "Over {blocks} cells Friedman's test finds that the {methods} methods differ "
    "(F = {f}, p {p}). {best} has the best mean rank, {rank}; by Nemenyi's test not told apart "
    "from it: {alike}.",
    "alike": "Over {blocks} cells Friedman's test finds no difference among the {methods} methods "
    "(F = {f}, p {p}).",
}


def recommended(results: Results) -> str:
    """The method to hold others against: the first of PREFERRED, else the best clustered one.

    Without a clustered method, the best of all. The best has the best mean score over the cells
    that every method has; over its own cells where there are none. Raises RunFolderError if
    no run has finished.
    """
    if not results.runs:
        raise RunFolderError("no finished run: there is no method to recommend")
    for method in PREFERRED:
        if method in results.methods:
            return method
    values = cells(results)
    shared = complete(values)
    means = results.score.merit((values if shared.empty else shared).mean())
    clustered = [m for m in results.methods if results.families[m] == "clustered"]
    return str(means[clustered or results.methods].idxmax())


def verdict(results: Results, reference: str) -> list[str]:
    """Say in sentences what the runs can tell about the reference, and what they cannot."""
    said = list(_extent(results))
    if len(results.methods) > 1:
        said += _pairs(results, reference)
        said += _over_settings(results, reference)
        said.append(_ranks(results))
    return said


def _extent(results: Results) -> Iterator[str]:
    """How many runs there are, how many are missing, and what one seed cannot tell."""
    if results.runs:
        yield _say(
            "count",
            runs=Count(len(results.runs)),
            methods=Count(len(results.methods)),
            settings=Count(len(results.settings)),
            seeds=Count(len(results.seeds)),
            label=results.score.label,
            rule=RULES[results.rule],
        )
    else:
        yield _say("nothing")
    if results.holes:
        states = Counter(hole.state for hole in results.holes)
        words = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        yield _say("holes", holes=Count(len(results.holes)), states=words)
    if results.runs:
        seeds = results.table.groupby(["method", "setting"])["seed"].count()
        single = int((seeds == 1).sum())
        if single == len(seeds):
            yield _say("one_seed")
        elif single:
            yield _say("some_one_seed", few=single, all=len(seeds))
    if len(results.methods) == 1:
        yield _say("one_method")


def _pairs(results: Results, reference: str) -> Iterator[str]:
    """What the paired tests over cells show, method by method."""
    name = results.labels[reference]
    if reference not in PREFERRED and reference == recommended(results):
        yield _say("picked", reference=name)
    tests = paired_tests(results, reference)
    tested = tests[tests["pairs"] > 0]
    if len(tested):
        yield _power(name, tested)
    for row in tested[tested["p_holm"] < ALPHA].to_dict("records"):
        yield _difference(results, name, results.labels[row["method"]], row)
    undecided = tested.loc[tested["p_holm"] >= ALPHA, "method"]
    if len(undecided):
        yield _say("undecided", reference=name, others=_listed(results, undecided))
    unpaired = tests.loc[tests["pairs"] == 0, "method"]
    if len(unpaired):
        yield _say("unpaired", reference=name, others=_listed(results, unpaired))


def _power(name: str, tested: pd.DataFrame) -> str:
    """Can tests of so many pairs reach the level at all?"""
    pairs, tests = int((tested["pairs"] - tested["ties"]).max()), len(tested)
    least = smallest_p(pairs)
    kind = "enough"
    if least >= ALPHA:
        kind = "too_few"
    elif least * tests >= ALPHA:
        kind = "too_few_holm"
    return _say(
        kind,
        reference=name,
        pairs=Count(pairs),
        tests=Count(tests),
        least=f"{least:.2g}",
        least_holm=f"{min(least * tests, 1):.2g}",
    )


def _difference(results: Results, name: str, other: str, row: Mapping[Any, Any]) -> str:
    """One significant difference; mean and ranks must agree before a side is called better."""
    mean, effect = row["mean_difference"], row["effect"]
    kind = "better" if effect > 0 else "worse"
    return _say(
        kind if np.sign(mean) == np.sign(effect) else "mixed",
        reference=name,
        other=other,
        mean=results.score.difference(mean, results.decimals),
        p=_signed(row["p_holm"]),
        **{key: row[key] for key in ("wins", "losses", "ties")},
    )


def _over_settings(results: Results, reference: str) -> Iterator[str]:
    """Whether the differences hold once the seeds of a setting count as one."""
    if len(results.seeds) == 1:
        return
    yield _say("shared")
    tests = paired_tests(results, reference, over="settings")
    pairs = Count(tests["pairs"].max())
    if smallest_p(pairs) >= ALPHA:
        yield _say("few_settings", pairs=pairs)
        return
    clear = tests[tests["p_holm"] < ALPHA]
    yield _say(
        "settings",
        reference=results.labels[reference],
        pairs=pairs,
        better=_listed(results, clear.loc[clear["effect"] > 0, "method"]),
        worse=_listed(results, clear.loc[clear["effect"] < 0, "method"]),
    )


def _ranks(results: Results) -> str:
    """What Friedman's test over all methods shows."""
    test = friedman(results)
    methods = len(results.methods)
    if test is None:
        return _say("no_friedman", methods=methods, blocks=len(complete(cells(results))))
    found = {"blocks": test.blocks, "methods": methods, "f": f"{test.f:.2f}", "p": _signed(test.p)}
    if not test.significant:
        return _say("alike", **found)
    best, least = test.ranks.index[0], test.ranks.iloc[0]
    near = test.ranks.index[test.ranks - least < test.critical_difference][1:]
    alike = _listed(results, near)
    return _say("differ", **found, best=results.labels[best], rank=f"{least:.2f}", alike=alike)


def _say(kind: str, **values: Any) -> str:
    return SENTENCES[kind].format(alpha=ALPHA, **values)


def _signed(p: float) -> str:
    """A p-value with its sign: `= 0.031` or `< 0.001`."""
    return f"= {p_text(p)}".replace("= <", "< ")


def _listed(results: Results, methods: Iterable[str]) -> str:
    return ", ".join(results.labels[method] for method in methods) or "none"
