"""What commands import before they do anything; time itself is not tested."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedtsd.imports import fast_imports

HEAVY = {
    "jinja2", "joblib", "matplotlib", "mlflow", "optuna", "pandas", "PIL", "pyarrow", "scipy",
    "sklearn", "submitit", "sympy", "tensorboard", "torch._dynamo", "torch._inductor",
    "torchvision", "triton", "wandb",
}  # fmt: skip
"""Packages that take from 0.1 s to 2 s to import, and that no run needs before its first round."""

LIST = """
import sys
from fedtsd.cli import main
status = main(sys.argv[1:])
print(*sys.modules)
sys.exit(status)
"""

STOP = """
import sys
from fedtsd import launch
from fedtsd.cli import main
from fedtsd.errors import Interrupted

def stop(self, done):  # observers start when all is set up for the first round
    print(*sys.modules)
    raise Interrupted

launch.Signals.start = stop
sys.exit(main(sys.argv[1:]))
"""


def imported(code: str, *args: str, cwd: Path, status: int = 0) -> set[str]:
    """Run code that prints the modules in its last line, in a process of its own."""
    command = [sys.executable, "-W", "error", "-c", code, *args]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.fixture
def unfrozen() -> Iterator[None]:
    """Leave the collector as tests expect it."""
    gc.unfreeze()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize(
    "args", [["--help"], ["methods"], ["data"], ["train", "--help"], ["report", "--help"]]
)
def test_commands_that_only_tell_do_without_torch(args: list[str], tmp_path: Path) -> None:
    modules = imported(LIST, *args, cwd=tmp_path)
    assert "fedtsd.cli" in modules
    assert not modules & {"torch", "hydra"}


@pytest.mark.parametrize("overrides", [[], ["method=fedavg", "model=lenet", "partition=iid"]])
def test_the_first_round_waits_for_no_package_that_it_does_not_need(
    overrides: list[str], tmp_path: Path
) -> None:
    run = ["train", "hydra.run.dir=run", "partition.num_clients=8", *overrides]
    modules = imported(STOP, *run, cwd=tmp_path, status=130)
    assert {"torch", "fedtsd.experiment"} <= modules
    assert modules & HEAVY == set()


def test_drawing_one_run_needs_no_statistics() -> None:
    code = "import sys, fedtsd.report.figures; print(*sys.modules)"
    modules = imported(code, cwd=Path.cwd())
    assert "matplotlib.figure" in modules
    assert not modules & {"torch", "matplotlib.pyplot", "scipy.stats", "sklearn"}


def test_nothing_is_collected_during_fast_imports(unfrozen: None) -> None:
    with fast_imports():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    with fast_imports():
        pass
    assert not gc.isenabled()  # as it was


def test_later_collections_pass_over_what_came_with_torch_and_nothing_else(
    unfrozen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = sys.modules["torch"]
    with fast_imports():
        other = [[] for _ in range(1000)]
    assert gc.get_freeze_count() == 0
    monkeypatch.delitem(sys.modules, "torch")
    with fast_imports():
        monkeypatch.setitem(sys.modules, "torch", torch)
    assert gc.get_freeze_count() > len(other)


def test_an_error_while_importing_leaves_the_collector_on() -> None:
    with pytest.raises(ModuleNotFoundError), fast_imports():
        __import__("no_such_package_anywhere")
    assert gc.isenabled()
