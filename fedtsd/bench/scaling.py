"""How the cost of a round grows: with clients, with parameters, with rounds."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from fedtsd.bench.measure import WARM_UP, Runner, Say, split_of, start
from fedtsd.bench.memory import tree_bytes
from fedtsd.bench.plan import Variant
from fedtsd.bench.statistics import Spread
from fedtsd.bench.table import Cells, milliseconds

METHODS = ("fedavg", "fedtsdp")
COMMON = ("experiment=bench_w3", "cohort.size=null")
LATE = 100
COUNTED = 5
"""The last of LATE rounds are compared with the first ones after warming up, COUNTED of each."""


@dataclass(frozen=True)
class Setting:
    """One point on one axis, all clients training in every round, with 60 samples each.

    hidden: the width of both hidden layers of the MLP.
    """

    axis: str
    value: str
    num_clients: int
    hidden: int

    @property
    def overrides(self) -> tuple[str, ...]:
        """What makes it, on top of COMMON."""
        hidden = f"model.hidden=[{self.hidden},{self.hidden}]"
        return (f"partition.num_clients={self.num_clients}", hidden)


SETTINGS = (
    Setting("clients", "10", 10, 200),
    Setting("clients", "100", 100, 200),
    Setting("clients", "1,000", 1000, 200),
    Setting("parameters", "42,310", 100, 50),
    Setting("parameters", "199,210", 100, 200),
    Setting("parameters", "1,796,010", 100, 1000),
)
COLUMNS = (
    "axis", "value", "FedAvg", "per client", "MB", "FedTSDP", "per client", "MB", "more", "server",
)  # fmt: skip
WHEN = f"Rounds {WARM_UP + 1} to {WARM_UP + COUNTED} and {LATE - COUNTED + 1} to {LATE}"
ROUND_COLUMNS = ("method", "early", "late", "late / early", "early MB", "late MB")


def measure_scaling(
    engine: str, overrides: Sequence[str], repetitions: int, seconds: float, say: Say
) -> dict[str, Any]:
    """Measure all settings, FedAvg and FedTSDP in turn, and 100 rounds of each."""
    rows = []
    for setting in SETTINGS:
        say(f"scaling: {setting.axis} {setting.value}")
        common = (*COMMON, *setting.overrides, *overrides)
        rows.append(_measure(setting, engine, common, repetitions, seconds))
    say(f"scaling: {LATE} rounds")
    common = (*COMMON, "partition.num_clients=20", *overrides)
    return {"engine": engine, "rows": rows, "rounds": [_over(engine, m, common) for m in METHODS]}


def _measure(
    setting: Setting, engine: str, common: tuple[str, ...], repetitions: int, seconds: float
) -> dict[str, Any]:
    with ExitStack() as stack:
        runners = [start(Variant("scaling", engine, m, common), stack) for m in METHODS]
        for runner in runners:
            runner.warm_up(seconds)
        for _ in range(repetitions):
            for runner in runners:
                runner.measure()
    row: dict[str, Any] = asdict(setting)
    for method, runner in zip(METHODS, runners, strict=True):
        row[method] = _cost(runner)
    pairs = zip(*(runner.measured for runner in runners), strict=True)
    more = [b.seconds / b.rounds / (a.seconds / a.rounds) - 1 for a, b in pairs]
    server = row["fedtsdp"]["split"]["cluster"] / row["fedavg"]["seconds"]
    return {**row, "more": Spread.of(more).plain(), "server_share": server}


def _cost(runner: Runner) -> dict[str, Any]:
    """Return the median seconds of a round, by client too, the memory and the stages."""
    seconds = Spread.of([m.seconds / m.rounds for m in runner.measured]).median
    return {
        "seconds": seconds,
        "samples_per_second": Spread.of([m.samples_per_second for m in runner.measured]).median,
        "peak_rss_bytes": runner.peak_bytes,
        "split": split_of(runner.measured),
    }


def _over(engine: str, method: str, common: tuple[str, ...]) -> dict[str, Any]:
    """Return what rounds and memory cost early in a run and at round LATE."""
    with ExitStack() as stack:
        runner = start(Variant("scaling", engine, method, common), stack)
        runner.warm_up(1.0)
        found = []
        for before in (0, LATE - WARM_UP - 2 * COUNTED):
            if before:
                runner.worker.run(before)
            times = [runner.worker.run(1).seconds for _ in range(COUNTED)]
            memory = tree_bytes(runner.worker.pid)
            found.append({"seconds": Spread.of(times).plain(), "rss_bytes": memory})
    return {"method": method, "early": found[0], "late": found[1]}


def growth_rows(scaling: Mapping[str, Any]) -> list[Cells]:
    """Return the cells of the table of growth: milliseconds of a round, by client, and memory."""
    rows: list[Cells] = []
    for row in scaling["rows"]:
        cells = [row["axis"], row["value"]]
        for method in METHODS:
            seconds = row[method]["seconds"]
            cells += [milliseconds(seconds), milliseconds(seconds / row["num_clients"])]
            cells.append(f"{row[method]['peak_rss_bytes'] / 1e6:,.0f}")
        rows.append([*cells, f"{row['more']['median']:+.0%}", f"{row['server_share']:.1%}"])
    return rows


def late_rows(scaling: Mapping[str, Any]) -> list[Cells]:
    """Return the cells of the table of rounds: milliseconds and memory early and late in a run."""
    rows: list[Cells] = []
    for row in scaling["rounds"]:
        times = [row[when]["seconds"]["median"] for when in ("early", "late")]
        memory = [f"{row[when]['rss_bytes'] / 1e6:,.0f}" for when in ("early", "late")]
        ratio = f"{times[1] / times[0]:.2f}"
        rows.append([row["method"], *map(milliseconds, times), ratio, *memory])
    return rows
