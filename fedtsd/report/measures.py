"""What the tables of a report show, each as a frame of cells (setting, seed) x methods."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from fedtsd.errors import RunFolderError
from fedtsd.report.printed import number
from fedtsd.report.ranks import cells, complete
from fedtsd.report.results import Facts, Results


@dataclass(frozen=True)
class Measure:
    """One number of every run.

    `values` returns cells x methods in the unit of the title. `title` is a format that may hold
    `{rule}` and `{alone}`, the method that trains alone. `highest`: whether the highest value is
    the best. What is not `compared` (traffic: who sends nothing always wins) has no best and no
    ranks. `signed`: print a plus.
    """

    name: str
    title: str
    values: Callable[[Results], pd.DataFrame]
    decimals: int = 1
    highest: bool = True
    compared: bool = True
    signed: bool = False

    def text(self, value: float) -> str:
        """Print a value with the decimals of the measure; NaN as MISSING."""
        return number(value, f"{'+' if self.signed else ''}.{self.decimals}f")


def alone(results: Results) -> str | None:
    """The method of family `alone` that gains are counted from: `local`, else the best one."""
    methods = [m for m in results.methods if results.families[m] == "alone"]
    if len(methods) < 2 or "local" in methods:
        return "local" if "local" in methods else next(iter(methods), None)
    values = cells(results)[methods]
    shared = complete(values)
    return str(results.score.merit((values if shared.empty else shared).mean()).idxmax())


def printed_scores(results: Results, column: str = "score") -> pd.DataFrame:
    """One column of scores as they are printed: accuracies in %."""
    return cells(results, column) * results.score.scale


def gain(results: Results) -> pd.DataFrame:
    """Gain, as printed, over training alone in the same setting with the same seed.

    Raises RunFolderError if no run trains alone.
    """
    reference = alone(results)
    if reference is None:
        raise RunFolderError("gain: no run of a method that trains alone")
    values = results.score.merit(printed_scores(results))
    return values.sub(values.pop(reference), axis=0)


def megabytes(results: Results) -> pd.DataFrame:
    """Megabytes that crossed the door in a run, both ways."""
    return (cells(results, "bytes_up") + cells(results, "bytes_down")) / 1e6


def megabytes_per_client(results: Results) -> pd.DataFrame:
    """The same over the number of clients, whether or not all took part in every round."""
    frame = results.table.assign(clients=[num_clients(run.summary) for run in results.runs])
    total = megabytes(results)
    clients = frame.pivot(index=["setting", "seed"], columns="method", values="clients")
    clients = clients.reindex(index=total.index, columns=total.columns)
    return total / clients.where(clients > 0)


def num_clients(summary: Facts) -> int:
    """Clients of a run: the members of its last clusters."""
    return sum(len(members) for members in summary.get("clusters") or [])


def measures_of(results: Results) -> tuple[Measure, ...]:
    """Everything that can be told of these runs, in the words of their score."""
    scored = (replace(measure, decimals=results.decimals) for measure in _scored(results))
    planted = results.table["adjusted_rand_index"].notna().any()
    return (*scored, *(AGREEMENT if planted else ()), *SENT)


def _scored(results: Results) -> Iterator[Measure]:
    """The measures of how well clients are served; gains only where a method trains alone."""
    score, table = results.score, results.table
    what = score.heading(_capital(score.label))
    higher = score.higher_is_better

    def column(name: str, title: str, source: str) -> Measure:
        values = partial(printed_scores, column=source)
        return Measure(name, f"{what}{title}", values, highest=higher)

    yield column(score.name, ", {rule}, mean over clients with equal weight", "score")
    yield column("worst_decile", " of the worst tenth of clients, {rule}", "worst10")
    if alone(results) is not None and len(results.methods) > 1:
        title = f"{_capital(score.gain_label)} against {{alone}}, {{rule}}"
        yield Measure("gain", title, gain, signed=True)
    if table["newcomers"].notna().any():
        late = " of clients that join late or never train, last round"
        yield column("newcomers", f"{late}, mean over them", "newcomers")
        yield column("newcomers_worst_decile", f"{late}, worst tenth", "newcomers_worst10")


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


AGREEMENT = (
    Measure(
        "adjusted_rand_index",
        "Adjusted Rand index of the last clusters and the planted groups: 1 if they are the same, "
        "0 on average by chance",
        partial(cells, column="adjusted_rand_index"),
        decimals=2,
    ),
    Measure(
        "mutual_information",
        "Normalised mutual information of the last clusters and the planted groups, 0 to 1",
        partial(cells, column="mutual_information"),
        decimals=2,
    ),
)
SENT = (
    Measure(
        "megabytes_per_client",
        "Megabytes (1e6 bytes) per client, sent and received over the whole run",
        megabytes_per_client,
        decimals=2,
        compared=False,
    ),
    Measure(
        "megabytes",
        "Megabytes (1e6 bytes) of all clients, sent and received over the whole run",
        megabytes,
        compared=False,
    ),
)
