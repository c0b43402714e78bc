"""Made-up results for the page, written once."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fedtsd.report.cost import Site
from fedtsd.report.results import Results
from tests.report.runs import RunBuilder, write_sweep

SITE = Site(upload=10.0, download=50.0, slowdown=4.0)
NAN = "ProtocolError: round 3, client 2: fc1.weight has NaN or infinite values"


def _old(folder: Path) -> None:
    """A sweep as versions without these files left it."""
    write_sweep(folder, alphas=(0.1,), seeds=(0,), clients=8, rounds=6)
    for name in ("traffic.csv", "exchanged.csv", "model.json", "environment.json"):
        for path in folder.rglob(name):
            path.unlink()


def _holes(folder: Path) -> None:
    """A sweep in which one run failed, one is not finished and one never started."""
    methods = ("local", "fedavg", "fedper", "fedtsdp")
    write_sweep(folder, methods=methods, seeds=(0, 1), clients=8, rounds=6)
    failed = {"state": "failed", "error": NAN, "updated": "2026-01-31T09:00:00+00:00"}
    (folder / "fedtsdp-1.0-1" / "status.json").write_text(json.dumps(failed))
    (folder / "local-0.1-0" / "status.json").write_text(json.dumps({"state": "running"}))
    cells = [{"folder": path.name, "overrides": []} for path in sorted(folder.iterdir())]
    cells.append({"folder": "fedtsdp-9.0-0", "overrides": ["partition.alpha=9"]})
    (folder / "sweep.json").write_text(json.dumps({"cells": cells}))


MAKERS: dict[str, Callable[[Path], object]] = {
    "one": lambda folder: RunBuilder(rounds=6).write(folder / "run"),
    "sweep": lambda folder: write_sweep(
        folder, alphas=(10.0, 1.0, 0.1), seeds=(0, 1), clients=12, rounds=8
    ),
    "old": _old,
    "holes": _holes,
    "many": lambda folder: write_sweep(folder, alphas=(0.1,), seeds=(0, 1, 2), clients=100),
    "regression": lambda folder: write_sweep(
        folder, alphas=(1.0, 0.1), seeds=(0, 1), clients=12, regression=True, drift_round=6
    ),
    "newcomers": lambda folder: RunBuilder(newcomers=4, join_round=9).write(folder / "run"),
    "kept_out": lambda folder: write_sweep(
        folder, alphas=(0.1,), seeds=(0,), clients=12, newcomers=3, regression=True
    ),
    "alone": lambda folder: write_sweep(
        folder, methods=("local",), alphas=(0.1,), seeds=(0,), clients=8, rounds=6
    ),
    "plain": lambda folder: write_sweep(
        folder, methods=("local", "fedavg"), alphas=(0.1,), seeds=(0, 1, 2), clients=8, rounds=6
    ),
}


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Results]:
    """Name -> the results of that kind; each is written when first asked for."""
    root = tmp_path_factory.mktemp("page")
    known: dict[str, Results] = {}

    def get(name: str) -> Results:
        if name not in known:
            MAKERS[name](root / name)
            known[name] = Results.read([root / name])
        return known[name]

    return get
