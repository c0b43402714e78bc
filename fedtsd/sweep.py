"""A sweep: every combination of the given values is a cell, a run in a folder of its own.

The sweep's folder is named by what is swept and what is fixed, a cell's folder by the key of its
resolved config. So the same command finds finished cells again and runs only the others, and more
values of a swept key extend the sweep that is there. A recipe may say what is swept, as Hydra has
it, in `hydra.sweeper.params`.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fedtsd.catalogue import conf_dir
from fedtsd.cell import ENDED, Cell, write_plan, write_summary
from fedtsd.compose import (
    cells,
    check,
    composed,
    digest,
    explain,
    last_given,
    parsed,
    resolve,
    swept_keys,
)
from fedtsd.config import Config
from fedtsd.cores import limited_cores, usable_cores
from fedtsd.errors import RunFolderError
from fedtsd.imports import fast_imports
from fedtsd.launch import CellFailed, carry_out_cell, cell_name, shown
from fedtsd.loading import load_arrays
from fedtsd.run_folder import RunFolder
from fedtsd.sweep_progress import SweepProgress

ROOT = Path("outputs/sweeps")
DIED = "the process that ran it ended without a word: killed, or out of memory"


def sweep(args: list[str]) -> int:
    """Run what is missing of a sweep and print its folder; 0 if every cell is done, else 1."""
    folder, complete = run_sweep(args)
    place = shown(folder.absolute())
    if complete:
        sys.stderr.write(f"tables, statistics, figures and a page: fedtsd report {place}\n")
    sys.stdout.write(f"{place}\n")
    return 0 if complete else 1


def run_sweep(args: list[str]) -> tuple[Path, bool]:
    """Run what is missing of a sweep; return its folder, and whether every cell is done.

    Raises ConfigError or DataError with one line, before anything is written, if a cell's config or
    its data set cannot be used.
    """
    hydras = [arg for arg in args if arg.startswith("hydra")]
    ours = [arg for arg in args if not arg.startswith(("hydra", "-"))]
    ours = last_given([*_recipe(hydras, ours), *ours])
    folder = sweep_folder(ours, hydras)
    configs = planned(ours, folder)
    wanted = list(configs)
    left = [cell for cell in wanted if not cell.done and not cell.is_running]
    for cell in left:
        load_arrays(configs[cell])  # kept in memory: the cells share them
    folder.mkdir(parents=True, exist_ok=True)
    write_plan(folder, wanted)
    with SweepProgress(wanted, lambda: write_summary(folder, wanted)):
        launch(left, hydras, folder)
    if any(cell.done for cell in wanted):
        with fast_imports():  # only now, as in `launch`
            from fedtsd.report.figures import draw_results
            from fedtsd.report.results import Results
        draw_results(Results.read([folder]), folder)
    return folder, all(cell.done for cell in wanted)


def sweep_folder(ours: Sequence[str], hydras: Sequence[str]) -> Path:
    """Return hydra.sweep.dir if it was given, else a folder named by swept keys and fixed values.

    The values of the swept keys are no part of the name: with more of them the sweep goes on.
    """
    for override in hydras:
        key, _, value = override.partition("=")
        if key == "hydra.sweep.dir":
            return Path(value)
    swept = swept_keys(list(ours))
    fixed = sorted(str(o.input_line) for o in parsed(list(ours)) if not o.is_sweep_override())
    named = [o.partition("=")[2] for o in fixed if o.startswith("experiment=")]
    words = [*named, *(key.rpartition(".")[2] for key in swept)]
    return ROOT / "-".join([*words, digest([sorted(swept), fixed])])


def planned(ours: Sequence[str], folder: Path) -> dict[Cell, Config]:
    """Compose and check every cell; combinations that come to one config are one cell."""
    found: dict[Path, tuple[Cell, Config]] = {}
    keys = swept_keys(list(ours))
    for overrides in cells(list(ours)):
        cfg = composed(overrides)
        config = check(cfg)
        place = folder / cell_name(resolve(cfg))
        given = {key: value for key, _, value in (o.partition("=") for o in overrides)}
        values = tuple((key, given[key]) for key in keys)
        found.setdefault(place, (Cell(place, tuple(overrides), values, config.rounds), config))
    return dict(found.values())


def launch(left: Sequence[Cell], hydras: Sequence[str], folder: Path) -> None:
    """Hand cells to Hydra's launcher until each has ended.

    A launcher whose worker dies gives up all its cells, and nobody knows which was the cause. So
    those that were running get a second try; a cell that is running at two breakdowns has failed.
    """
    breakdowns: Counter[Path] = Counter()
    while left:
        try:
            _launch(left, hydras, folder)
        except KeyboardInterrupt:
            settle(left, "interrupted")
            raise
        except Exception as error:  # whatever a launcher raises when it breaks down
            dead = orphans(left)
            if not dead:
                raise
            breakdowns.update(cell.folder for cell in dead)
            settle([cell for cell in dead if breakdowns[cell.folder] > 1], "failed")
            sys.stderr.write(f"fedtsd: the launcher broke down ({type(error).__name__}); again\n")
        else:
            settle(left, "failed")
            return
        left = [cell for cell in left if cell.state not in ENDED and not cell.is_running]


def orphans(begun: Iterable[Cell]) -> list[Cell]:
    """Return the cells that say they run though no process is at work on them."""
    return [cell for cell in begun if cell.state == "running" and not cell.is_running]


def settle(begun: Iterable[Cell], state: str) -> list[Cell]:
    """Give orphaned cells this state; return them."""
    dead = orphans(begun)
    facts: dict[str, Any] = {"error": DIED, "traceback": None} if state == "failed" else {}
    for cell in dead:
        RunFolder(cell.folder).set_status(state, **facts)
    return dead


def run_task(cfg: DictConfig) -> str | None:
    """Carry out one cell, in this process or in a launcher's; return why it has no result, if so.

    A failed cell ends nothing but itself.
    """
    hydra = HydraConfig.get()
    try:
        with limited_cores(cores_per_cell(hydra.launcher, usable_cores())):
            carry_out_cell(cfg, Path(hydra.runtime.output_dir))
    except (CellFailed, RunFolderError) as error:
        return str(error)
    return None


def cores_per_cell(launcher: Mapping[str, Any], cores: int) -> int:
    """Return how many processes a cell may use beside those that the launcher runs with it."""
    if "cpus_per_task" in launcher:  # submitit asks the scheduler for so many
        return max(1, int(launcher["cpus_per_task"] or 1))
    at_once = int(launcher.get("n_jobs") or 1)
    return max(1, cores // (at_once if at_once > 0 else cores + 1 + at_once))


def _launch(left: Sequence[Cell], hydras: Sequence[str], folder: Path) -> None:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        others = [override for override in hydras if not override.startswith("hydra.sweep.dir=")]
        config = _multirun_config([*others, f"hydra.sweep.dir={folder}"])
        context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks())
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=context, task_function=run_task, config=config
        )
        jobs = [[*cell.overrides, f"hydra.sweep.subdir={cell.folder.name}"] for cell in left]
        with warnings.catch_warnings():
            # Workers that have imported torch look to joblib as if they leaked memory.
            warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)
            launcher.launch(jobs, initial_job_idx=0)


def _recipe(hydras: Sequence[str], ours: Sequence[str]) -> list[str]:
    """Return what the config itself sweeps: hydra.sweeper.params.

    Raises ConfigError for a launcher or a setting of Hydra's that is not legal.
    """
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            params = _multirun_config([*hydras, *ours]).hydra.sweeper.params or {}
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from error
    return [f"{key}={value}" for key, value in params.items()]


def _multirun_config(overrides: list[str]) -> DictConfig:
    loader = GlobalHydra.instance().config_loader()
    return loader.load_configuration("train", overrides, run_mode=RunMode.MULTIRUN)
