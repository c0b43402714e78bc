"""summary.json: the numbers of a run, by the rules of `fedtsd.metrics`, from its tables."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fedtsd import metrics
from fedtsd.config import Config
from fedtsd.errors import RunFolderError
from fedtsd.models import Layer

RULE = "served model, test data, mean over clients; last round and best round by validation"


def summarise(path: Path, config: Config, layers: tuple[Layer, ...]) -> dict[str, Any]:
    """Return the summary of a run whose tables are complete. Accuracies in 0..1."""
    rounds = pd.read_csv(path / "rounds.csv")
    clients = pd.read_csv(path / "clients.csv")
    stage = config.evaluation.stages[-1]
    last = int(clients["round"].max())
    best = metrics.best_validation_round(clients, stage)
    assignments = pd.read_csv(path / "assignments.csv")
    final = assignments[assignments["round"] == assignments["round"].max()]
    accuracy = metrics.accuracy_at(clients, stage, last)
    return {
        "method": config.method.name,
        "dataset": config.dataset.name,
        "seed": config.seed,
        "rule": RULE,
        "stage": stage,
        "last": _accuracy(clients, stage, last),
        "best_by_validation": None if best is None else _accuracy(clients, stage, best),
        "accuracy_per_client": {str(c): value for c, value in accuracy.items()},
        "gain_over_local": _gain(accuracy, config),
        "clusters": [
            rows["client"].tolist() for _, rows in final.sort_values("client").groupby("cluster")
        ],
        "agreement_with_planted_groups": _agreement(path, final),
        "label_skew": metrics.label_skew(_label_counts(path)),
        "layers": [layer.name for layer in layers],
        "personal_layers": final.sort_values("client")["personal_layers"].tolist(),
        "bytes_up": int(rounds["bytes_up"].sum()),
        "bytes_down": int(rounds["bytes_down"].sum()),
        "samples": int(rounds["samples"].sum()),
        "seconds": float(rounds["seconds"].sum()),
    }


def _agreement(path: Path, final: pd.DataFrame) -> dict[str, float] | None:
    """Compare the final clusters with the groups that the partition planted, if it planted any."""
    groups = json.loads((path / "groups.json").read_text())
    if groups is None:
        return None
    # Lazily: scikit-learn takes a second to import.
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    clusters = final.sort_values("client")["cluster"].tolist()
    return {
        "adjusted_rand_index": float(adjusted_rand_score(groups, clusters)),
        "normalised_mutual_information": float(normalized_mutual_info_score(groups, clusters)),
    }


def _label_counts(path: Path) -> np.ndarray:
    """Return the training samples by client and class, int64 [N, Y]."""
    rows = pd.read_csv(path / "partition.csv")
    rows = rows[rows["split"] == "train"]
    counts = rows.pivot_table("count", "client", "label", fill_value=0, aggfunc="sum")
    return np.asarray(counts.to_numpy(np.int64))


def _accuracy(clients: pd.DataFrame, stage: str, round: int) -> dict[str, Any]:
    spread = metrics.spread(metrics.accuracy_at(clients, stage, round).tolist())
    return {
        "round": round,
        "accuracy_mean": spread.mean,
        "accuracy_std": spread.std,
        "accuracy_worst10": spread.worst10,
    }


def _gain(accuracy: pd.Series, config: Config) -> dict[str, Any] | None:
    """Compare with a finished run of method=local: the mean gain, each client's, and who loses."""
    if config.evaluation.local_run is None:
        return None
    alone = local_accuracy(Path(config.evaluation.local_run))
    if not alone.index.equals(accuracy.index):
        raise RunFolderError(f"{config.evaluation.local_run}: holds other clients than this run")
    gain = accuracy - alone
    return {
        "mean": float(gain.mean()),
        "per_client": {str(c): value for c, value in gain.items()},
        "clients_that_lose": [int(c) for c in gain.index[gain < 0]],
    }


def local_accuracy(path: Path) -> pd.Series:
    """Return the last test accuracy of each client of a finished run, indexed by client."""
    file = path / "clients.csv"
    if not (path / "summary.json").is_file() or not file.is_file():
        raise RunFolderError(f"evaluation.local_run: {path} is not the folder of a finished run")
    clients = pd.read_csv(file)
    stage = str(clients["stage"].iloc[-1])
    return metrics.accuracy_at(clients, stage, int(clients["round"].max()))


def check_local_run(path: Path, resolved: dict[str, Any]) -> None:
    """Raise RunFolderError unless the run at `path` has the same clients as this config."""
    local_accuracy(path)
    theirs = yaml.safe_load((path / "config.yaml").read_text())
    for key in ("dataset", "partition", "split", "seed"):
        if theirs.get(key) != resolved.get(key):
            raise RunFolderError(
                f"evaluation.local_run: {path} has another {key}: "
                f"{theirs.get(key)} instead of {resolved.get(key)}"
            )
