"""What the benchmark consists of: conf/benchmark.yaml as typed values, and the jobs of a stage.

A *contestant* is a row of the tables: a method, or a variant of one. A *point* is one combination
of the values that a contestant is tuned over. A *job* is one run that is wanted.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig

from fedtsd.catalogue import conf_dir, options
from fedtsd.cell import Cell
from fedtsd.compose import check, composed, resolve
from fedtsd.errors import ConfigError
from fedtsd.launch import cell_name
from fedtsd.schema import convert, unknown

ROLES = ("ours", "baseline", "bound", "variant")
MOST_POINTS = 4  # as many tries for a baseline as for ours

Point = tuple[str, ...]
Choices = Mapping[str, Point]
"""Contestant -> the overrides that were chosen for it."""


@dataclass(frozen=True)
class Setting:
    """Data that contestants compete on. planted: clients come in groups."""

    name: str
    overrides: tuple[str, ...]
    planted: bool


@dataclass(frozen=True)
class Contestant:
    """A row of the tables.

    method: its file in conf/method. tuned_as: the contestant whose choice it takes. only_planted:
    it means nothing in settings without groups.
    """

    name: str
    role: str
    method: str
    overrides: tuple[str, ...]
    points: tuple[Point, ...]
    tuned_as: str
    only_planted: bool

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role: must be one of {', '.join(ROLES)}, got {self.role!r}")
        if not 1 <= len(self.points) <= MOST_POINTS:
            raise ValueError(f"grid: must have 1 to {MOST_POINTS} points, got {len(self.points)}")

    @property
    def is_tuned(self) -> bool:
        """Whether there is anything to choose."""
        return len(self.points) > 1

    def competes_in(self, setting: Setting) -> bool:
        """Return whether it is run in a setting."""
        return setting.planted or not self.only_planted


Named = TypeVar("Named", Setting, Contestant)


@dataclass(frozen=True)
class Study:
    """One part of the benchmark.

    recipe: the common values of all runs, a file in conf/experiment. choice: the part whose tuned
    values are taken. tuning_seed, tuning_settings: what is tuned on.
    """

    part: str
    recipe: str
    choice: str
    settings: tuple[Setting, ...]
    contestants: tuple[Contestant, ...]
    tuning_seed: int
    tuning_settings: tuple[str, ...]

    @property
    def tunes(self) -> bool:
        """Whether the part has a tuning stage of its own."""
        return self.choice == self.part

    @property
    def missing(self) -> list[str]:
        """Methods that conf/method does not have (yet)."""
        wanted = dict.fromkeys(contestant.method for contestant in self.contestants)
        return [method for method in wanted if method not in options("method")]


@dataclass(frozen=True)
class Job:
    """A run that is wanted; `values` tells it from the others, as a sweep's values do a cell."""

    values: tuple[tuple[str, str], ...]
    overrides: tuple[str, ...]
    seed: int


def read_study(part: str) -> Study:
    """Return one part of conf/benchmark.yaml; raise ConfigError for another name or a wrong file.

    A part with a `base` compares that method with the `variants` of it, or with the methods that
    the part gives something `to`.
    """
    text = yaml.safe_load((conf_dir() / "benchmark.yaml").read_text(encoding="utf-8"))
    if part not in text["parts"]:
        raise ConfigError(unknown(part, text["parts"], "part"))
    facts = text["parts"][part]
    methods = [_method(name, node) for name, node in text["methods"].items()]
    if "base" in facts:
        named = {method.name: method for method in methods}
        base = named[facts["base"]]
        others = (
            [_variant(named[n], f"{n}_{part}", facts["given"], named[n].role) for n in facts["to"]]
            if "to" in facts
            else [_variant(base, n, own, "variant") for n, own in text["variants"].items()]
        )
        methods = [base, *others]
    settings = [
        convert({"name": name, "planted": False, **node}, Setting, f"settings.{name}")
        for name, node in text["settings"].items()
    ]
    return Study(
        part,
        facts["recipe"],
        facts["choice"],
        tuple(settings),
        tuple(methods),
        text["tuning"]["seed"],
        tuple(text["tuning"]["settings"]),
    )


def tuning_jobs(study: Study) -> list[Job]:
    """Every point of every contestant that has several, point by point within a contestant."""
    settings = [s for s in study.settings if s.name in study.tuning_settings]
    return [
        Job(
            (*_who(one), ("point", str(number)), ("setting", setting.name)),
            _overrides(study, one, setting, point),
            study.tuning_seed,
        )
        for one in study.contestants
        if one.is_tuned
        for number, point in enumerate(one.points)
        for setting in settings
        if one.competes_in(setting)
    ]


def final_jobs(study: Study, choices: Choices, seeds: Sequence[int]) -> list[Job]:
    """The runs that are reported: seed by seed, within it contestant by contestant.

    Contestants that wait for a choice have none. Raises ConfigError if a seed was tuned on, or is
    given twice.
    """
    if study.tuning_seed in seeds:
        raise ConfigError(f"seeds: {study.tuning_seed} was tuned on; report others")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds: must be different, got {', '.join(map(str, seeds))}")
    return [
        Job(
            (*_who(one), ("setting", setting.name), ("seed", str(seed))),
            _overrides(study, one, setting, choices[one.tuned_as]),
            seed,
        )
        for seed in seeds
        for one in study.contestants
        if one.tuned_as in choices
        for setting in study.settings
        if one.competes_in(setting)
    ]


def narrowed(study: Study, methods: Sequence[str], settings: Sequence[str]) -> Study:
    """Keep the named contestants and settings; nothing named keeps all.

    Raises ConfigError for a name that the study does not have.
    """
    return replace(
        study,
        contestants=_named(study.contestants, methods, "method"),
        settings=_named(study.settings, settings, "setting"),
    )


def composed_cells(
    jobs: Iterable[Job], folder: Path, extra: Sequence[str] = ()
) -> list[tuple[Cell, DictConfig]]:
    """Compose and check every job; jobs that differ in their seed alone are composed once.

    extra: overrides that all runs are told last. Raises ConfigError for a config that is not legal,
    and if two jobs come to one run.
    """
    known: dict[tuple[str, ...], DictConfig] = {}
    found: dict[Path, tuple[Cell, DictConfig]] = {}
    for job in jobs:
        overrides = (*job.overrides, *extra)
        if overrides not in known:
            known[overrides] = composed(list(overrides))
            check(known[overrides])
        cfg = known[overrides].copy()
        cfg.seed = job.seed
        place = folder / cell_name(resolve(cfg))
        told = (*overrides, f"seed={job.seed}")
        if place in found:
            others = " ".join(found[place][0].overrides)
            raise ConfigError(f"benchmark: {' '.join(told)} is the same run as {others}")
        found[place] = (Cell(place, told, job.values, cfg.rounds), cfg)
    return list(found.values())


def _overrides(study: Study, one: Contestant, setting: Setting, point: Point) -> tuple[str, ...]:
    common = (f"experiment={study.recipe}", f"method={one.method}")
    # What was tuned of a part that is replaced goes with it.
    replaced = {key for key, _, _ in (own.partition("=") for own in one.overrides)}
    point = tuple(value for value in point if value.partition(".")[0] not in replaced)
    return (*common, *setting.overrides, *point, *one.overrides)


def _who(one: Contestant) -> tuple[tuple[str, str], ...]:
    return ("method", one.name), ("role", one.role)


def _method(name: str, node: Mapping[str, Any]) -> Contestant:
    grid = node.get("grid") or {}
    own = [[f"{key}={value}" for value in values] for key, values in grid.items()]
    values = {
        "name": name,
        "role": node["role"],
        "method": name,
        "overrides": node.get("overrides", ()),
        "points": tuple(itertools.product(*own)),
        "tuned_as": name,
        "only_planted": node.get("only") == "planted",
    }
    contestant: Contestant = convert(values, Contestant, f"methods.{name}")
    return contestant


def _variant(base: Contestant, name: str, overrides: Sequence[str], role: str) -> Contestant:
    """The base, as it was tuned, with something else on top."""
    return replace(base, name=name, role=role, overrides=(*base.overrides, *overrides))


def _named(among: tuple[Named, ...], names: Sequence[str], what: str) -> tuple[Named, ...]:
    known = [one.name for one in among]
    for name in names:
        if name not in known:
            raise ConfigError(unknown(name, known, what))
    return tuple(one for one in among if not names or one.name in names)
