"""Folders of a benchmark as its runs would leave them, small and made up."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fedtsd.cell import Cell, write_plan
from fedtsd.study.plan import Contestant, Setting, Study

FAMILY = {"local": "alone", "fedavg": "global", "ours": "clustered", "fedper": "personalised"}
SKEW = {
    "label_js": 0.1, "label_emd": 0.2, "size_gini": 0.0, "size_min": 30, "size_max": 30,
    "classes_mean": 4.0, "input_shift": 0.0, "label_shift": 0.0,
}  # fmt: skip


def contestant(name: str, *points: tuple[str, ...], role: str = "baseline", **other: Any):
    values = {"overrides": (), "tuned_as": name, "only_planted": False, "method": name} | other
    return Contestant(name=name, role=role, points=points or ((),), **values)


def study(*contestants: Contestant, settings: Sequence[str] = ("iid", "dir01"), **other: Any):
    values = {"part": "toy", "recipe": "benchmark_fashion", "choice": "toy", "tuning_seed": 100}
    return Study(
        settings=tuple(Setting(name, (f"partition={name}",), False) for name in settings),
        contestants=contestants,
        **{"tuning_settings": tuple(settings), **values, **other},
    )


def cell(folder: Path, overrides: Sequence[str] = (), **values: object) -> Cell:
    name = "-".join(map(str, values.values()))
    told = tuple((key, str(value)) for key, value in values.items())
    return Cell(folder / name, tuple(overrides), told, 20)


def write_run(
    cell: Cell,
    test: Sequence[float],
    val: Sequence[float] = (0.5,),
    best: float | None = None,
    state: str = "done",
) -> Cell:
    """Write the run of a cell. test: accuracy of each client in the last round."""
    values = dict(cell.values)
    cell.folder.mkdir(parents=True)
    write(cell, "status", {"state": state, "error": None if state == "done" else "it diverged"})
    if state != "done":
        return cell
    method = {"name": values["method"], "label": values["method"].upper()}
    method |= {"family": FAMILY.get(values["method"], "global")}
    alpha = {"iid": 100.0, "dir01": 0.1}.get(values["setting"], 1.0)
    partition = {"_target_": "fedtsd.data.partition.Dirichlet", "alpha": alpha}
    config = {"method": method, "partition": partition, "seed": int(values.get("seed", 100))}
    (cell.folder / "config.yaml").write_text(yaml.safe_dump(config))
    last = {
        "round": 20,
        "accuracy_mean": float(np.mean(test)),
        "accuracy_std": float(np.std(test)),
        "accuracy_worst10": float(np.min(test)),
        "accuracy_validation": float(np.mean(val)),
    }
    summary = {
        "stage": "personalized",
        "metric": "accuracy",
        "last": last,
        "best_by_validation": last | {"round": 15, "accuracy_mean": best or float(np.mean(test))},
        "accuracy_per_client": {str(i): value for i, value in enumerate(test)},
        "test_samples_per_client": {str(i): 200 for i in range(len(test))},
        "clusters": [list(range(len(test)))],
        "agreement_with_planted_groups": None,
        "skew": SKEW,
        "layers": ["a"],
        "personal_layers": [0] * len(test),
        **dict.fromkeys(("bytes_up", "bytes_down", "samples", "seconds"), 1),
    }
    write(cell, "summary", summary)
    packages = {"torch": "2.15.0", "numpy": "2.1"}
    write(cell, "environment", {"fedtsd": "0.1.0", "python": "3.11.7", "packages": packages})
    return cell


def write(cell: Cell, name: str, content: Mapping[str, object]) -> None:
    (cell.folder / f"{name}.json").write_text(json.dumps(content))


def write_final(folder: Path, scores: Mapping[tuple[str, str], Sequence[Sequence[float]]]) -> Path:
    """Write runs and their plan. scores: (method, setting) -> per seed the clients' accuracies.

    An empty list of clients is a run that was never begun.
    """
    cells = []
    for (method, setting), per_seed in scores.items():
        role = "ours" if method == "ours" else "baseline"
        for seed, test in enumerate(per_seed):
            one = cell(folder, method=method, role=role, setting=setting, seed=seed)
            cells.append(write_run(one, test) if test else one)
    write_plan(folder, cells)
    return folder
