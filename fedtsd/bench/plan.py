"""What is to be measured: workloads, engines and methods, checked before anything starts."""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fedtsd.catalogue import options
from fedtsd.errors import ConfigError
from fedtsd.schema import unknown

WORKLOADS = {
    "W1": "bench_w1",
    "W2": "bench_w2",
    "W3": "bench_w3",
    "LeNet": "bench_lenet",
    "ResNet8": "bench_resnet8",
    "digits": None,
}
"""The recipe of each workload; digits is what `fedtsd train` runs without overrides."""


USAGE = """\
usage: fedtsd bench [OPTION ...] [KEY=VALUE ...]

Measure how fast engines train, over a plain centralized loop on one core of this machine. Overrides
hold for all of it, as in fedtsd train.

Options
  --workloads NAMES   of W1, W2, W3, LeNet, ResNet8, digits [W1,W2,W3]
  --engines NAMES     engines [sequential,auto]; overrides of one follow a colon, as in
                      'parallel,parallel:engine.workers=1;precision=bf16'
  --methods NAMES     methods [fedavg,fedtsdp]
  --repetitions N     measurements of each, in turn [3]
  --seconds S         how long a measurement takes, in whole rounds [3]
  --scaling           instead of the workloads: how cost grows with clients, parameters and rounds,
                      for the first of the engines
  --json FILE         write all numbers
  --markdown FILE     put the tables into a page, between its marks
"""


@dataclass(frozen=True)
class Variant:
    """One thing to measure.

    engine: as given, overrides of its own after a colon. common: the overrides of the workload,
    which hold for the yardstick too.
    """

    workload: str
    engine: str
    method: str
    common: tuple[str, ...]

    @property
    def overrides(self) -> list[str]:
        """What `fedtsd train` would be told."""
        engine, _, own = self.engine.partition(":")
        found = [*self.common, f"method={self.method}", f"engine={engine}"]
        return found + [override for override in own.split(";") if override]


@dataclass(frozen=True)
class Plan:
    """The command line of `fedtsd bench`, checked.

    seconds: how long one measurement takes, about; it is always whole rounds. overrides: what all
    configs are told on top of their workload.
    """

    workloads: tuple[str, ...]
    engines: tuple[str, ...]
    methods: tuple[str, ...]
    repetitions: int
    seconds: float
    scaling: bool
    overrides: tuple[str, ...]
    json: Path | None
    markdown: Path | None

    def __post_init__(self) -> None:
        _known("workload", self.workloads, WORKLOADS)
        _known("engine", [engine.partition(":")[0] for engine in self.engines], options("engine"))
        _known("method", self.methods, options("method"))
        if self.repetitions < 1:
            raise ConfigError(f"--repetitions: must be at least 1, got {self.repetitions}")
        if not self.seconds > 0:
            raise ConfigError(f"--seconds: must be above 0, got {self.seconds}")
        for name, file in (("--json", self.json), ("--markdown", self.markdown)):
            if file is not None and not file.absolute().parent.is_dir():
                raise ConfigError(f"{name}: there is no folder {file.absolute().parent}")

    @property
    def subject(self) -> str:
        """What the tables are about, as a page's marks say."""
        return "growth" if self.scaling else "speed"

    def common(self, workload: str) -> tuple[str, ...]:
        """Return the overrides of a workload."""
        name = WORKLOADS[workload]
        return (*([f"experiment={name}"] if name else []), *self.overrides)

    def variants(self, workload: str) -> list[Variant]:
        """Return what is measured of a workload."""
        common = self.common(workload)
        return [Variant(workload, e, m, common) for e in self.engines for m in self.methods]

    def check(self) -> None:
        """Compose every config. Raises ConfigError for overrides that are not legal."""
        from fedtsd.compose import check, composed

        for workload in self.workloads:
            for variant in self.variants(workload):
                check(composed(variant.overrides))


def read_plan(args: Sequence[str]) -> Plan:
    """Read the command line. Raises ConfigError with one line for what is not legal."""
    found = parser().parse_args(args)
    return Plan(
        workloads=_names(found.workloads),
        engines=_names(found.engines),
        methods=_names(found.methods),
        repetitions=found.repetitions,
        seconds=found.seconds,
        scaling=found.scaling,
        overrides=tuple(found.overrides),
        json=found.json,
        markdown=found.markdown,
    )


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"bench: {message.removeprefix('argument ')}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; USAGE explains it."""
    found = _Parser(prog="fedtsd bench", add_help=False, allow_abbrev=False)
    add = found.add_argument
    add("overrides", nargs="*")
    add("--workloads", default="W1,W2,W3")
    add("--engines", default="sequential,auto")
    add("--methods", default="fedavg,fedtsdp")
    add("--repetitions", type=int, default=3)
    add("--seconds", type=float, default=3.0)
    add("--scaling", action="store_true")
    add("--json", type=Path)
    add("--markdown", type=Path)
    return found


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _known(what: str, names: Sequence[str], legal: Collection[str]) -> None:
    if not names:
        raise ConfigError(f"--{what}s: must name one or more of {', '.join(legal)}")
    for name in names:
        if name not in legal:
            raise ConfigError(unknown(name, legal, what))
