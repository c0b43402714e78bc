"""Made-up run folders, written once; tests that change one copy it first."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fedtsd.report.figures import FIGURES
from fedtsd.report.results import Results
from fedtsd.report.tables import RunTables
from tests.report.runs import RunBuilder
from tests.report.sweeps import SWEEPS

VARIANTS = {
    "typical": RunBuilder(unmeasured=12),
    "large": RunBuilder(
        clients=100, classes=100, groups=7, rounds=60, evaluate_every=5, dataset="cifar100"
    ),
    "fedavg": RunBuilder(
        method="fedavg", groups=1, tests=False, outputs=False, alpha=None, rounds=50
    ),
    "ten": RunBuilder(clients=10, groups=2, rounds=8, method="fedper"),
    "twelve_clusters": RunBuilder(clients=40, classes=20, groups=12, rounds=30, method="ifca"),
    "one_client": RunBuilder(clients=1, groups=1, rounds=3, tests=False),
    "one_round": RunBuilder(rounds=1),
    "never_evaluated": RunBuilder(rounds=3, evaluate_every=0),
    "just_started": RunBuilder(rounds=0, tests=False),
    "regression": RunBuilder(regression=True, drift_round=12),
    "joined": RunBuilder(newcomers=5, join_round=9),
    "kept_out": RunBuilder(newcomers=5, regression=True, unmeasured=12),
    "unequal": RunBuilder(clients=23, groups=9, method="fedavg_ft", dataset="x" * 45),
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {name: builder.write(root / name) for name, builder in VARIANTS.items()}


@pytest.fixture(scope="session")
def tables(folders: dict[str, Path]) -> dict[str, RunTables]:
    return {name: RunTables.read(folder) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def page(tables: dict[str, RunTables]) -> Callable[[str, str], Figure]:
    """A figure of a variant by its name, made once: look, but do not change it."""
    return cache(lambda figure, variant: FIGURES[figure](tables[variant]))


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a variant that a test may break."""
    bare = shutil.ignore_patterns("figures")
    return lambda name: Path(shutil.copytree(folders[name], tmp_path / "run", ignore=bare))


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a made-up sweep by its name, written when first asked for."""
    root = tmp_path_factory.mktemp("sweeps")
    return cache(lambda name: SWEEPS[name](root / name))


@pytest.fixture(scope="session")
def swept(sweep_folder: Callable[[str], Path]) -> Callable[[str], Results]:
    """The results of a made-up sweep by its name."""
    return cache(lambda name: Results.read([sweep_folder(name)]))
