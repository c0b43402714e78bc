"""summary.json: the numbers of a run, by the rules of `fedtsd.metrics`, from its tables."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from fedtsd import metrics
from fedtsd.config import Config
from fedtsd.data.federation import Federation
from fedtsd.data.skew import skew_of
from fedtsd.errors import RunFolderError
from fedtsd.models import Layer
from fedtsd.score import MAE, Score, score_in, score_of_task

if TYPE_CHECKING:
    import pandas as pd

RULE = "served model, test data, mean over clients; last round and best round by validation"


def summarise(
    path: Path, config: Config, federation: Federation, layers: tuple[Layer, ...]
) -> dict[str, Any]:
    """Return the summary of a run whose tables are complete; accuracies in 0..1."""
    rounds = _table(path / "rounds.csv")
    clients = _table(path / "clients.csv")
    score = score_of_task(federation.regression)
    stage = config.evaluation.stages[-1]
    last = int(clients["round"].max())
    best = metrics.best_validation_round(clients, stage, score)
    assignments = _table(path / "assignments.csv")
    final = assignments[assignments["round"] == assignments["round"].max()]
    scores = metrics.scores_at(clients, stage, last, score.name)
    lying = config.attackers(federation.num_clients)
    return {
        "method": config.method.name,
        "dataset": config.dataset.name,
        "seed": config.seed,
        "rule": RULE,
        "stage": stage,
        "metric": score.name,
        "last": _scores(clients, stage, last, score),
        "best_by_validation": None if best is None else _scores(clients, stage, best, score),
        f"{score.name}_per_client": {str(c): value for c, value in scores.items()},
        "test_samples_per_client": {
            str(c): int(number)
            for c, number in metrics.scores_at(clients, stage, last, "num_examples").items()
        },
        "gain_over_local": _gain(scores, config, score),
        "newcomers": _newcomers(path, config, federation, score),
        "clusters": [
            rows["client"].tolist() for _, rows in final.sort_values("client").groupby("cluster")
        ],
        "agreement_with_planted_groups": _agreement(path, final[~lying[final["client"]]]),
        "skew": dataclasses.asdict(skew_of(federation)),
        "drift": _drift(federation),
        "replies": _replies(path),
        "attackers": np.flatnonzero(lying).tolist(),
        "attack_success": _success(clients, stage, last, score),
        "notes": list(federation.notes),
        "layers": [layer.name for layer in layers],
        "personal_layers": final.sort_values("client")["personal_layers"].tolist(),
        "bytes_up": int(rounds["bytes_up"].sum()),
        "bytes_down": int(rounds["bytes_down"].sum()),
        "samples": int(rounds["samples"].sum()),
        "seconds": float(rounds["seconds"].sum()),
    }


def _agreement(path: Path, final: "pd.DataFrame") -> dict[str, float] | None:
    """Compare the final clusters with the groups that the partition planted, if it planted any."""
    groups = json.loads((path / "groups.json").read_text())
    if groups is None:
        return None
    # Lazily: scikit-learn takes a second to import.
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    final = final.sort_values("client")
    clusters = final["cluster"].tolist()
    groups = [groups[client] for client in final["client"]]
    return {
        "adjusted_rand_index": float(adjusted_rand_score(groups, clusters)),
        "normalised_mutual_information": float(normalized_mutual_info_score(groups, clusters)),
    }


def _success(
    clients: "pd.DataFrame", stage: str, round: int, score: Score
) -> dict[str, float] | None:
    """Return how far an attack has its wish: mean and most over the honest; None if it has none."""
    found = metrics.scores_at(clients, stage, round, score.name, split="triggered")
    return {"mean": float(found.mean()), "max": float(found.max())} if len(found) else None


def _scores(clients: "pd.DataFrame", stage: str, round: int, score: Score) -> dict[str, Any]:
    values = metrics.scores_at(clients, stage, round, score.name).tolist()
    found: dict[str, Any] = {"round": round, **metrics.spread(values, score).named(score)}
    if score is MAE:
        found["rmse_mean"] = float(metrics.scores_at(clients, stage, round, "rmse").mean())
    seen = metrics.scores_at(clients, stage, round, score.name, split="val")
    found[score.validation] = float(seen.mean()) if len(seen) else None
    return found


def _newcomers(
    path: Path, config: Config, federation: Federation, score: Score
) -> dict[str, Any] | None:
    """Return who came late, when, and how they fare in the last round."""
    if not federation.newcomers:
        return None
    rows = _table(path / "newcomers.csv")
    stage, last = config.evaluation.stages[-1], int(rows["round"].max())
    scores = metrics.scores_at(rows, stage, last, score.name)
    return {
        "clients": list(federation.newcomers),
        "join_round": config.cohort.join_round,
        "last": {"num_clients": len(scores), **_scores(rows, stage, last, score)},
        f"{score.name}_per_client": {str(c): value for c, value in scores.items()},
    }


def _drift(federation: Federation) -> dict[str, Any] | None:
    if federation.drift_round is None:
        return None
    return {"round": federation.drift_round, "clients": sorted(federation.moves)}


def _replies(path: Path) -> dict[str, Any]:
    """Return how many replies were asked for and what came of it, over all rounds."""
    rows = _table(path / "replies.csv").drop(columns="round")
    seconds = rows.pop("simulated_seconds")
    counts = {str(name): int(number) for name, number in rows.sum().items()}
    return {**counts, "simulated_seconds": float(seconds.sum()) if seconds.notna().all() else None}


def _gain(scores: "pd.Series", config: Config, score: Score) -> dict[str, Any] | None:
    """Compare with a finished run of method=local: the mean gain, each client's, and who loses."""
    if config.evaluation.local_run is None:
        return None
    alone = local_scores(Path(config.evaluation.local_run))
    if not alone.index.equals(scores.index):
        raise RunFolderError(f"{config.evaluation.local_run}: holds other clients than this run")
    gain = score.gain(scores, alone)
    return {
        "mean": float(gain.mean()),
        "per_client": {str(c): value for c, value in gain.items()},
        "clients_that_lose": [int(c) for c in gain.index[gain < 0]],
    }


def local_scores(path: Path) -> "pd.Series":
    """Return the last test score of each client of a finished run, indexed by client."""
    file = path / "clients.csv"
    if not (path / "summary.json").is_file() or not file.is_file():
        raise RunFolderError(f"evaluation.local_run: {path} is not the folder of a finished run")
    clients = _table(file)
    stage = str(clients["stage"].iloc[-1])
    column = score_in(clients.columns).name
    return metrics.scores_at(clients, stage, int(clients["round"].max()), column)


def check_local_run(path: Path, resolved: dict[str, Any]) -> None:
    """Raise RunFolderError unless the run at `path` has the same clients as this config."""
    local_scores(path)
    theirs = yaml.safe_load((path / "config.yaml").read_text())
    for key in ("dataset", "partition", "shift", "drift", "public", "split", "seed"):
        if theirs.get(key) != resolved.get(key):
            raise RunFolderError(
                f"evaluation.local_run: {path} has another {key}: "
                f"{theirs.get(key)} instead of {resolved.get(key)}"
            )


def _table(file: Path) -> "pd.DataFrame":
    import pandas as pd  # lazily: a run needs it only at its end

    return pd.read_csv(file)
