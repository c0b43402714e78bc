"""MLflow: a local SQLite store that `mlflow ui --backend-store-uri sqlite:///PATH` shows.

MLflow no longer takes plain files as a store, hence SQLite.
"""

import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtsd.observer import Observer
from fedtsd.trackers.tracker import Guarded, ending, numbers, parameters, require, run_id

TAG = "fedtsd.run"
STATUS = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
AT_ONCE = 100  # parameters that MLflow takes in one call


@dataclass(frozen=True)
class MLflow:
    """folder: where mlflow.db is, shared by several runs, or null for a folder inside the run's.

    experiment: the name under which MLflow lists the runs.
    """

    folder: str | None
    experiment: str

    def __post_init__(self) -> None:
        if not self.experiment.strip():
            raise ValueError(f"experiment: must not be empty, got {self.experiment!r}")

    def check(self) -> None:
        """Raise ValueError if mlflow or its database drivers are missing."""
        require("mlflow", "sqlalchemy", "alembic", extra="mlflow")

    def open(self, config: Mapping[str, Any], folder: Path) -> Observer:
        """Record parameters and metrics in `mlflow/mlflow.db` of the run's folder."""
        place = Path(self.folder) if self.folder is not None else folder / "mlflow"
        record = _Record(parameters(config), place.absolute(), self.experiment, folder)
        return Guarded("mlflow", record)


class _Record:
    def __init__(self, config: dict[str, Any], place: Path, experiment: str, folder: Path) -> None:
        self._config = config
        self._place = place
        self._experiment = experiment
        self._folder = folder
        self._client: Any = None
        self._run = ""
        self._last = 0

    def start(self, done: int) -> None:
        self._place.mkdir(parents=True, exist_ok=True)
        self._client = _client(self._place / "mlflow.db")
        experiment = self._find_experiment()
        query = f"tags.`{TAG}` = '{run_id(self._folder)}'"
        found = self._client.search_runs([experiment], query)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            # MLflow never forgets a value: what it has of the rounds that are run again stays.
            history = self._client.get_metric_history(self._run, "seconds")
            self._last = max((metric.step for metric in history), default=0)
        else:
            self._run = self._new_run(experiment)

    def round(self, row: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric

        step, now = int(row["round"]), int(1000 * time.time())
        if step > self._last:
            metrics = [Metric(name, value, now, step) for name, value in numbers(row).items()]
            self._client.log_batch(self._run, metrics=metrics)

    def stop(self) -> None:
        if self._run:
            self._client.set_terminated(self._run, STATUS[ending()])

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        artifacts = (self._place / "artifacts").as_uri()
        return str(self._client.create_experiment(self._experiment, artifacts))

    def _new_run(self, experiment: str) -> str:
        from mlflow.entities import Param

        tags = {TAG: run_id(self._folder), "fedtsd.folder": str(self._folder.absolute())}
        run = self._client.create_run(experiment, run_name=self._folder.name, tags=tags)
        params = [Param(key, str(value)) for key, value in self._config.items()]
        for i in range(0, len(params), AT_ONCE):
            self._client.log_batch(run.info.run_id, params=params[i : i + AT_ONCE])
        return str(run.info.run_id)


def _client(database: Path) -> Any:
    """Return MLflow's client of a database, without its telemetry and its talk on the terminal."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read once, when mlflow is imported
    with warnings.catch_warnings():
        # MLflow calls what SQLAlchemy is about to drop; nobody here can mend that.
        warnings.simplefilter("ignore", DeprecationWarning)
        from mlflow.tracking import MlflowClient

        with _quiet("mlflow"):
            return MlflowClient(tracking_uri=f"sqlite:///{database}")


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Let only warnings of a logger through."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
