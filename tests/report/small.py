"""Results made of a few accuracies, in memory: for numbers worked out by hand."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fedtsd.report.results import FAMILIES, Hole, Results, Run
from fedtsd.score import ACCURACY, Score

FAMILY = {"local": "alone", "fedavg": "global", "fedper": "personalised", "fedtsdp": "clustered"}
LABEL = {"local": "Local only", "fedavg": "FedAvg", "fedper": "FedPer", "fedtsdp": "FedTSDP"}

Accuracies = Mapping[str, Mapping[str, Sequence[float | None]]]


def small(
    accuracies: Accuracies,
    holes: Sequence[Hole] = (),
    score: Score = ACCURACY,
    **facts: object,
) -> Results:
    """Results of method -> setting -> accuracy by seed (from 0); None is a run that is missing.

    Another `score` is given in the place of accuracies. Each run has 4 clients, the worst decile
    0.1 worse than the mean, and sends 1 MB, receives 3 MB,
    but for one that trains alone. `facts` go into every summary.
    """
    names = list(dict.fromkeys(name for settings in accuracies.values() for name in settings))
    runs = [
        _run(method, setting, names.index(setting), seed, accuracy, score, facts)
        for method, settings in accuracies.items()
        for setting, seeds in settings.items()
        for seed, accuracy in enumerate(seeds)
        if accuracy is not None
    ]
    runs.sort(key=lambda run: FAMILIES.index(run.family))
    return Results(tuple(runs), tuple(holes), "last")


def _run(
    method: str,
    setting: str,
    at: int,
    seed: int,
    value: float,
    score: Score,
    facts: Mapping[str, object],
) -> Run:
    family = FAMILY.get(method.partition(" ")[0].partition("_")[0], "global")
    last = {"round": 5, score.mean: value, score.std: 0.1}
    sent = 0 if family == "alone" else 1_000_000
    summary = {
        "metric": score.name,
        "last": {**last, score.worst10: value - score.sign * 0.1},
        "label_skew": at / 10,
        "clusters": [[0, 1], [2, 3]],
        "bytes_up": sent,
        "bytes_down": 3 * sent,
        **facts,
    }
    folder = Path(f"/runs/{method}-{setting}-{seed}")
    config = {"dataset": {"name": "mnist"}, "seed": seed}
    return Run(folder, config, summary, method, LABEL.get(method, method), family, setting, seed)
