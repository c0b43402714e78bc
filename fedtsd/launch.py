"""Starting and ending runs: one run through Hydra, a run that goes on, a cell of a sweep."""

import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fedtsd.catalogue import conf_dir
from fedtsd.compose import as_yaml, check, composed, explain, files_of, key_of, resolve
from fedtsd.config import Config, parse
from fedtsd.errors import (
    ConfigError,
    FedtsdError,
    InputError,
    Interrupted,
    RunFolderError,
    Terminated,
)
from fedtsd.experiment import execute, load_federation
from fedtsd.imports import fast_imports
from fedtsd.observer import Observer
from fedtsd.progress import Progress
from fedtsd.run_folder import RunFolder

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
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's own printing
    sys.argv = ["fedtsd", *args]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(_run)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from error
    return 0


def resume(path: Path, others: list[str]) -> int:
    """Continue the run at `path` with its own config."""
    if others:
        raise ConfigError(f"resume: takes no other overrides, got {' '.join(others)}")
    folder = RunFolder.reopen(path)
    config = parse(folder.config())
    federation = load_federation(config)
    _attend(config, federation, folder)
    return 0


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
            _carry_out(config, load_federation(config), folder)
        except Exception as error:
            if folder.status().get("state") != "failed":  # it did not get to its first round
                folder.set_failed(error)
            raise CellFailed(f"{path}: {_one_line(error)}") from error


def _run(cfg: DictConfig) -> None:
    """One run in the folder that Hydra made."""
    path = Path(HydraConfig.get().runtime.output_dir)
    try:
        config = check(cfg)
        federation = load_federation(config)
        folder = RunFolder.create(path, as_yaml(cfg))
    except InputError:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        raise
    _attend(config, federation, folder)


def _attend(config: Config, federation: Any, folder: RunFolder) -> None:
    """Carry out a run that somebody watches, draw it, and say where it is or how to go on."""
    try:
        with folder.lock():
            folder.set_status("running")
            _carry_out(config, federation, folder, [Progress(config)])
    except KeyboardInterrupt:
        _say(f"stopped; continue with: fedtsd train resume={folder.path}")
        raise
    except InputError:
        raise
    except Exception:
        _say(f"failed; the traceback is in {folder.path}/status.json")
        raise
    with fast_imports():  # only now: plotting takes as long to import as torch
        from fedtsd.report.figures import draw
    draw(folder.path)
    private = json.loads((folder.path / "summary.json").read_text())["privacy"]
    if private is not None and private["ending"] is not None:
        _say(private["ending"])
    sys.stdout.write(f"{shown(folder.path)}\n")
    sys.stdout.flush()


def _carry_out(
    config: Config, federation: Any, folder: RunFolder, observers: Sequence[Observer] = ()
) -> None:
    """Execute a run; status.json and run.log tell how it went."""
    _check_files(folder)
    with _log_to(folder.path / "run.log"):
        try:
            tracker = config.tracker.open(folder.config(), folder.path)
            execute(config, federation, folder, [SIGNALS, tracker, *observers])
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


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Send what the package logs to a file, and nowhere else, until the block ends."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("fedtsd")
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        handler.close()


def shown(path: Path) -> Path:
    """Return the path as a person would type it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _one_line(error: Exception) -> str:
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


def _say(line: str) -> None:
    sys.stderr.write(f"fedtsd: {line}\n")
