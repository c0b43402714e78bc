"""Weights & Biases, offline: files that `wandb sync FOLDER` sends later, if you want it to."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtsd.observer import Observer
from fedtsd.trackers.tracker import Guarded, ending, numbers, parameters, require, run_id


@dataclass(frozen=True)
class WandB:
    """folder: where `wandb/` is, shared by several runs, or null for the run's own folder.

    project: the project to which `wandb sync` adds the runs.
    """

    folder: str | None
    project: str

    def __post_init__(self) -> None:
        if not self.project.strip() or set(self.project) & set("/\\#?%:"):
            raise ValueError(
                f"project: must be text without any of / \\ # ? % :, got {self.project!r}"
            )

    def check(self) -> None:
        """Raise ValueError if wandb is missing."""
        require("wandb", extra="wandb")

    def open(self, config: Mapping[str, Any], folder: Path) -> Observer:
        """Record config and history in `wandb/` of the run's folder."""
        place = Path(self.folder) if self.folder is not None else folder
        record = _Record(parameters(config), place.absolute(), self.project, folder)
        return Guarded("wandb", record)


class _Record:
    def __init__(self, config: dict[str, Any], place: Path, project: str, folder: Path) -> None:
        self._config = config
        self._place = place
        self._project = project
        self._folder = folder
        self._run: Any = None

    def start(self, done: int) -> None:
        # Both are read when wandb is imported: its crash reports would use the network, and its
        # service writes a log into the user's cache.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        os.environ.setdefault("WANDB_CACHE_DIR", str(self._place / "wandb" / "cache"))
        import wandb

        self._place.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self._project,
            name=self._folder.name,
            id=run_id(self._folder),
            config=self._config,
            settings=_settings(wandb, self._place),
        )

    def round(self, row: Mapping[str, Any]) -> None:
        self._run.log(numbers(row), step=int(row["round"]))

    def stop(self) -> None:
        if self._run is None:
            return
        self._run.summary["status"] = ending()
        self._run.finish(exit_code=0 if ending() == "done" else 1)


def _settings(wandb: Any, place: Path) -> Any:
    """Return settings that keep to this machine, to the numbers given, and to one folder."""
    return wandb.Settings(
        mode="offline",
        root_dir=str(place),
        reinit="create_new",  # a run of the caller's own stays as it is
        console="off",
        silent=True,
        disable_git=True,
        disable_code=True,
        disable_job_creation=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
