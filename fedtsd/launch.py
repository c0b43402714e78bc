"""From overrides to runs: Hydra composes and sweeps, this module checks, starts and ends runs."""

import logging
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedtsd.catalogue import GROUPS, conf_dir, options
from fedtsd.config import Config, parse
from fedtsd.errors import ConfigError, InputError
from fedtsd.experiment import execute, load_federation
from fedtsd.progress import Progress
from fedtsd.report.figures import draw
from fedtsd.run_folder import RunFolder
from fedtsd.schema import unknown
from fedtsd.summary import check_local_run

log = logging.getLogger("fedtsd")


def train(args: list[str]) -> int:
    """Run `fedtsd train` with these arguments through Hydra; return the exit code."""
    if not any(arg.startswith("-") and arg not in ("-m", "--multirun") for arg in args):
        for overrides in cells([arg for arg in args if not arg.startswith("-")]):
            check(composed(overrides))
    failures: list[str] = []

    def task(cfg: DictConfig) -> None:
        if HydraConfig.get().mode == hydra.types.RunMode.MULTIRUN:
            try:
                _run(cfg)
            except Exception as error:  # one failed cell must not end the others
                failures.append(f"{HydraConfig.get().runtime.output_dir}: {error}")
                _say(f"failed: {failures[-1]}")
        else:
            _run(cfg)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's own printing
    sys.argv = ["fedtsd", *args]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="train")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from error
    return 1 if failures else 0


def resume(path: Path, others: list[str]) -> int:
    """Continue the run at `path` with its own config."""
    if others:
        raise ConfigError(f"resume: takes no other overrides, got {' '.join(others)}")
    folder = RunFolder.reopen(path)
    config = parse(yaml.safe_load((path / "config.yaml").read_text()))
    federation = load_federation(config)
    folder.set_status("running", resumed=True)
    _carry_out(config, federation, folder)
    return 0


def cells(overrides: list[str]) -> Iterable[list[str]]:
    """Return the overrides of every run: one list, or one for each cell of a sweep."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise explain(error) from error
    if not any(override.is_sweep_override() for override in parsed):
        return [overrides]
    (found,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return found


def composed(overrides: list[str]) -> DictConfig:
    """Compose a config. Raises ConfigError with one line for a wrong group, key or value."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("train", overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from error


def check(cfg: DictConfig) -> Config:
    """Return the typed config, after all checks that need no data."""
    try:
        resolved = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise explain(error) from error
    config = parse(resolved)
    if config.evaluation.local_run is not None and isinstance(resolved, dict):
        check_local_run(Path(config.evaluation.local_run), {str(k): v for k, v in resolved.items()})
    return config


def explain(error: Exception) -> ConfigError:
    """Turn an error of Hydra or OmegaConf into one line, with the nearest legal name if any."""
    text = str(error)
    if isinstance(error, MissingConfigException) and (
        found := re.search(r"Could not find '(\w+)/([^']+)'", text)
    ):
        group, option = found.groups()
        return ConfigError(unknown(option, options(group), f"{group}:"))
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1].split("@")[0]
        return ConfigError(unknown(key, legal_keys(), "key"))
    first = next((line for line in text.splitlines() if line.strip()), type(error).__name__)
    return ConfigError(first)


def legal_keys() -> set[str]:
    """Return all group names and, flattened, the keys of the default config."""
    found = set(GROUPS)

    def walk(node: Any, path: str) -> None:
        for key, value in node.items():
            if key != "_target_":
                found.add(f"{path}{key}")
            if isinstance(value, dict):
                walk(value, f"{path}{key}.")

    walk(OmegaConf.to_container(composed([]), resolve=False), "")
    return found


def _run(cfg: DictConfig) -> None:
    """One run in the folder that Hydra made."""
    path = Path(HydraConfig.get().runtime.output_dir)
    try:
        config = check(cfg)
        federation = load_federation(config)
        folder = RunFolder.create(path, OmegaConf.to_yaml(cfg, resolve=True))
    except InputError:
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
        raise
    _carry_out(config, federation, folder)


def _carry_out(config: Config, federation: Any, folder: RunFolder) -> None:
    handler = _log_to(folder.path / "run.log")
    try:
        execute(config, federation, folder, [Progress(config)])
        draw(folder.path)
    except KeyboardInterrupt:
        folder.set_status("interrupted")
        _say(f"stopped; continue with: fedtsd train resume={folder.path}")
        raise
    except Exception as error:
        folder.set_failed(error)
        log.exception("the run failed")
        _say(f"failed; the traceback is in {folder.path}/status.json")
        raise
    else:
        folder.set_status("done")
    finally:
        logging.getLogger("fedtsd").removeHandler(handler)
        handler.close()
    sys.stdout.write(f"{_shown(folder.path)}\n")
    sys.stdout.flush()


def _log_to(path: Path) -> logging.Handler:
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("fedtsd")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False
    return handler


def _shown(path: Path) -> Path:
    """Return the path as a person would type it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_absolute() and path.is_relative_to(here) else path


def _say(line: str) -> None:
    sys.stderr.write(f"fedtsd: {line}\n")
