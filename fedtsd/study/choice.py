"""Each contestant's values, chosen by validation scores on the tuning runs; test plays no part."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fedtsd.cell import Cell
from fedtsd.disk import write_atomically
from fedtsd.score import ACCURACY
from fedtsd.search.results import validation_score
from fedtsd.study.plan import Choices, Contestant, Point, Study

FILE = "choice.yaml"
RULE = (
    "highest validation accuracy of the served model in the last round, mean over clients, then "
    "over the tuning settings; of equal points the earlier one; a point with a failed run is out; "
    "test accuracy played no part"
)


@dataclass(frozen=True)
class Tried:
    """One point of a contestant.

    validation: mean over its runs, None if one has failed. waiting: how many have not ended.
    """

    overrides: Point
    validation: float | None
    waiting: int


@dataclass(frozen=True)
class Chosen:
    """All points of a contestant."""

    name: str
    tried: tuple[Tried, ...]

    @property
    def overrides(self) -> Point | None:
        """The best point; None before all runs have ended, and if every point failed."""
        if any(point.waiting for point in self.tried):
            return None
        known = [point for point in self.tried if point.validation is not None]
        best = max(known, key=lambda point: point.validation or 0.0, default=None)
        return None if best is None else best.overrides


def choose(study: Study, cells: Sequence[Cell]) -> list[Chosen]:
    """Judge the points of every contestant that is tuned by its tuning cells, run or not."""
    return [
        Chosen(one.name, tuple(_tried(study, one, number, cells) for number in range(len(points))))
        for one in study.contestants
        if one.is_tuned and (points := one.points)
    ]


def write_choice(folder: Path, study: Study, found: Iterable[Chosen]) -> Path:
    """Write choice.yaml; contestants that are not in `found` keep what the file says of them."""
    kept = _read(folder).get("methods", {})
    content = {
        "rule": RULE,
        "seed": study.tuning_seed,
        "settings": list(study.tuning_settings),
        "methods": kept | {one.name: _facts(one) for one in found},
    }
    return _write(folder, content)


def read_choices(folder: Path) -> Choices:
    """Return what was chosen, from choice.yaml; empty if there is none."""
    methods = _read(folder).get("methods", {})
    return {
        name: tuple(facts["chosen"])
        for name, facts in methods.items()
        if facts["chosen"] is not None
    }


def choices_for(study: Study, folder: Path) -> Choices:
    """Return the values to report each contestant with; those that wait for a choice are left out.

    folder: where choice.yaml lies. A value that is no longer in the grid is no choice.
    """
    told = read_choices(folder)
    tuned = {one.tuned_as: one.points for one in study.contestants}
    return {
        name: points[0] if len(points) == 1 else told[name]
        for name, points in tuned.items()
        if len(points) == 1 or told.get(name) in points
    }


def copy_choice(source: Path, target: Path, names: Iterable[str]) -> None:
    """Keep beside the runs what was chosen for them, and how the other points did."""
    content, there = _read(source), _read(target)
    if not content:
        return
    wanted = set(names)
    told = {name: facts for name, facts in content["methods"].items() if name in wanted}
    _write(target, content | {"methods": there.get("methods", {}) | told})


def _tried(study: Study, one: Contestant, number: int, cells: Sequence[Cell]) -> Tried:
    point = one.points[number]
    mine = [cell for cell in cells if _is_of(cell, one.name, number, point)]
    wanted = sum(
        setting.name in study.tuning_settings and one.competes_in(setting)
        for setting in study.settings
    )
    states = [cell.state for cell in mine]
    ended = states.count("done") + states.count("failed")
    failed = "failed" in states or ended < wanted
    scores = [] if failed else [validation_score(cell.folder, ACCURACY) for cell in mine]
    return Tried(point, None if failed else float(np.mean(scores)), wanted - ended)


def _is_of(cell: Cell, name: str, number: int, point: Point) -> bool:
    """Whether a cell tries this point; one of an older grid does not."""
    values = dict(cell.values)
    told = values.get("method"), values.get("point")
    return told == (name, str(number)) and set(point) <= set(cell.overrides)


def _facts(one: Chosen) -> dict[str, Any]:
    points = [
        {"overrides": list(point.overrides), f"validation_{ACCURACY.name}": point.validation}
        for point in one.tried
    ]
    best = one.overrides
    return {"chosen": None if best is None else list(best), "points": points}


def _read(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    content: dict[str, Any] = yaml.safe_load(path.read_text()) if path.is_file() else {}
    return content


def _write(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(content, sort_keys=False, width=1000)
    write_atomically(folder / FILE, text.encode())
    return folder / FILE
