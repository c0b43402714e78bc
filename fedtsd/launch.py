"""Starting and ending runs: one run through Hydra, a run that goes on, a cell of a sweep."""

import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fedtsd.catalogue import conf_dir
from fedtsd.clients.engine import check_machine
from fedtsd.compose import as_yaml, check, composed, explain, files_of, key_of, resolve
from fedtsd.config import Config, parse
from fedtsd.data.federation import Federation
from fedtsd.disk import refusals
from fedtsd.errors import (
    ConfigError,
    FedtsdError,
    InputError,
    Interrupted,
    RunFolderError,
    StorageError,
    Terminated,
)
from fedtsd.execution import account_of, execute
from fedtsd.imports import fast_imports
from fedtsd.loading import load_federation
from fedtsd.observer import Observer
from fedtsd.progress import Progress
from fedtsd.run_folder import RunFolder
from fedtsd.run_log import log_to

log = logging.getLogger("fedtsd")


class CellFailed(FedtsdError):  # noqa: N818  what became of it, not the error itself
    """A run that a sweep or a search asked for has failed; its folder holds the traceback."""


class Signals:
    """An observer that ends the run between two rounds if a signal's exception got lost.

    Python drops an exception that a signal handler raises inside a callback of its own, for
    example while a module is being imported.
    """

    def __init__(self) -> None:
        self._pending: KeyboardInterrupt | None = None

    def listen(self) -> None:
        """Let SIGTERM end the run like Ctrl-C, and remember both."""
        signal.signal(signal.SIGTERM, self._handle)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._handle)

    def start(self, done: int) -> None:
        """Stop at once if the signal came while the run was set up."""
        self.round({})

    def round(self, row: Mapping[str, Any]) -> None:
        """Raise what is pending."""
        if self._pending is not None:
            raise self._pending

    def stop(self) -> None:
        """Nothing is left to do."""

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self._pending = Terminated() if number == signal.SIGTERM else Interrupted()
        raise self._pending


SIGNALS = Signals()


def train(args: list[str]) -> int:
    """Run `fedtsd train` with these arguments through Hydra; return the exit code."""
    if not any(arg.startswith("-") for arg in args):
        check(composed(args))
    elif wrong := [arg for arg in get_args_parser().parse_known_args(args)[1] if arg[:1] == "-"]:
        raise ConfigError(f"{wrong[0]}: is no flag; overrides have no dashes before them")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's own printing
    sys.argv = ["fedtsd", *args]
    failed: list[Exception] = []

    def task(cfg: DictConfig) -> None:
        try:
            _run(cfg)
        except Exception as error:  # Hydra would add a line of its own
            failed.append(error)

    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from error
    if failed:
        raise failed[0]
    return 0


def resume(path: Path, others: list[str]) -> int:
    """Continue the run at `path` with its own config."""
    if others:
        raise ConfigError(f"resume: takes no other overrides, got {' '.join(others)}")
    config = parse(RunFolder.reopen(path).config())
    federation = _ready(config)
    # Opened again once it is ours: until then another process may have finished it.
    _attend(config, federation, path, partial(RunFolder.reopen, path))
    return 0


def _ready(config: Config) -> Federation:
    """Deal the data of a run that can be carried out: by this machine, and within its budget.

    Raises InputError if it cannot.
    """
    check_machine(config.device, config.sketch())
    federation = load_federation(config)
    account_of(config, federation)
    return federation


def run_cell(overrides: list[str], root: Path) -> Path:
    """Make sure that the run of these overrides is done, in a folder under `root`; return it.

    The folder is named by the config's key (see `cell_name`): a finished run is not run again, one
    that stopped goes on from its checkpoint. Raises ConfigError for wrong overrides, CellFailed
    if the run fails, RunFolderError if another process is running it.
    """
    cfg = composed(overrides)
    check(cfg)
    path = root / cell_name(resolve(cfg))
    carry_out_cell(cfg, path)
    return path


def cell_name(resolved: Mapping[str, Any]) -> str:
    """Return the folder name of a config's run: method, data set, seed and the config's key."""
    method, dataset = resolved["method"]["name"], resolved["dataset"]["name"]
    return f"{method}-{dataset}-seed{resolved['seed']}-{key_of(resolved)}"


def carry_out_cell(cfg: DictConfig, path: Path) -> None:
    """Run or continue one cell without output; a finished one is left alone.

    Raises CellFailed with one line, by then status.json has the traceback; RunFolderError if
    another process is running it.
    """
    path.mkdir(parents=True, exist_ok=True)
    folder = RunFolder(path)
    with folder.lock():
        if folder.status().get("state") == "done":
            return
        if (path / "config.yaml").is_file():
            folder.set_status("running", error=None, traceback=None)
        else:
            folder = RunFolder.create(path, as_yaml(cfg))
        try:
            config = check(cfg)
            _carry_out(config, _ready(config), folder)
        except Exception as error:
            if folder.status().get("state") != "failed":  # it did not get to its first round
                folder.set_failed(error)
            raise CellFailed(f"{path}: {_one_line(error)}") from error


def _run(cfg: DictConfig) -> None:
    """One run in the folder that Hydra made."""
    path = Path(HydraConfig.get().runtime.output_dir)
    try:
        config = check(cfg)
        federation = _ready(config)
    except InputError:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        raise
    _attend(config, federation, path, partial(RunFolder.create, path, as_yaml(cfg)))


def _attend(
    config: Config, federation: Federation, path: Path, opened: Callable[[], RunFolder]
) -> None:
    """Carry out a run that somebody watches, draw it, and say where it is or how to go on."""
    again = f"fedtsd train resume={path}"
    with RunFolder(path).lock():
        folder = opened()
        try:
            folder.set_status("running", error=None, traceback=None)
            with refusals(path):
                _carry_out(config, federation, folder, [Progress(config)], _draw)
        except KeyboardInterrupt:
            _say(f"stopped; continue with: {again}")
            raise
        except InputError:
            raise
        except StorageError as error:
            raise StorageError(f"{error}; with that mended continue with: {again}") from error
        except Exception:
            _say(f"failed; the traceback is in {path}/status.json")
            raise
    private = json.loads((path / "summary.json").read_text())["privacy"]
    if private is not None and private["ending"] is not None:
        _say(private["ending"])
    sys.stdout.write(f"{shown(path)}\n")
    sys.stdout.flush()


def _draw(path: Path) -> None:
    with fast_imports():  # only now: plotting takes as long to import as torch
        from fedtsd.report.figures import draw
    draw(path)


def _carry_out(
    config: Config,
    federation: Federation,
    folder: RunFolder,
    observers: Sequence[Observer] = (),
    finish: Callable[[Path], None] = lambda _: None,
) -> None:
    """Execute a run and finish its folder; status.json and run.log tell how it went."""
    _check_files(folder)
    with log_to(folder.path / "run.log"):
        try:
            tracker = config.tracker.open(folder.config(), folder.path)
            execute(config, federation, folder, [SIGNALS, tracker, *observers])
            finish(folder.path)
        except KeyboardInterrupt:
            folder.set_status("interrupted")
            raise
        except Exception as error:
            folder.set_failed(error)
            log.exception("the run failed")
            raise
        folder.set_status("done")


def _check_files(folder: RunFolder) -> None:
    """Note what people's own data are, or refuse to go on with others than the run began with."""
    found, file = files_of(folder.config()), folder.path / "files.json"
    if not file.is_file():
        folder.write_json("files", found)
        return
    for path, mark in json.loads(file.read_text()).items():
        if found.get(path) != mark:
            raise RunFolderError(
                f"{path}: has changed since the run in {folder.path} began; start a new run"
            )


def shown(path: Path) -> Path:
    """Return the path as a person would type it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _one_line(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


def _say(line: str) -> None:
    sys.stderr.write(f"fedtsd: {line}\n")
