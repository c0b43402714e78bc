"""What the tables of a report show, each as a frame of cells (setting, seed) x methods."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from fedtsd.errors import RunFolderError
from fedtsd.report.printed import number
from fedtsd.report.ranks import cells, complete
from fedtsd.report.results import Facts, Results


@dataclass(frozen=True)
class Measure:
    """One number of every run.

    `values` returns cells x methods in the unit of the title. `title` is a format that may hold
    `{rule}` and `{alone}`, the method that trains alone. What is not `compared` (traffic: who sends
    nothing always wins) has no best and no ranks. `signed`: print a plus.
    """

    name: str
    title: str
    values: Callable[[Results], pd.DataFrame]
    decimals: int = 1
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
    return str((values if shared.empty else shared).mean().idxmax())


def gain(results: Results) -> pd.DataFrame:
    """Points of accuracy above training alone in the same setting with the same seed.

    Raises RunFolderError if no run trains alone.
    """
    reference = alone(results)
    if reference is None:
        raise RunFolderError("gain: no run of a method that trains alone")
    values = 100 * cells(results)
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


MEASURES = (
    Measure(
        "accuracy",
        "Test accuracy (%), {rule}, mean over clients with equal weight",
        lambda results: 100 * cells(results),
    ),
    Measure(
        "worst_decile",
        "Test accuracy (%) of the worst tenth of clients, {rule}",
        lambda results: 100 * cells(results, "worst10"),
    ),
    Measure("gain", "Points of test accuracy above {alone}, {rule}", gain, signed=True),
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
