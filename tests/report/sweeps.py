"""Made-up sweeps for the figures across runs: many methods, many settings, long names, one run."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from tests.report.runs import RunBuilder

POLICIES = {"fedavg": "Nothing", "local": "Everything", "fedtsdp": "Adaptive"}
TWELVE = (
    "local", "fedavg", "fedprox", "scaffold", "fedper", "fedrep", "ditto", "fedbn", "ifca", "cfl",
    "fedtsdp", "a method with a long name",
)  # fmt: skip
IID: dict[str, object] = {"alpha": None}
TWO_CLASSES: dict[str, object] = {
    "alpha": None,
    "changes": {"partition": {"_target_": "a.Pathological", "classes_per_client": 2}},
}
GROUPS: dict[str, object] = {
    "alpha": None,
    "changes": {"partition": {"_target_": "a.LabelGroups", "num_groups": 4}},
}


def dirichlet(alpha: float) -> dict[str, object]:
    return {"alpha": alpha}


def write(
    folder: Path,
    methods: tuple[str, ...] = ("local", "fedavg", "fedtsdp"),
    partitions: tuple[Mapping[str, object], ...] = (dirichlet(0.1),),
    seeds: tuple[int, ...] = (0, 1),
    **options: object,
) -> Path:
    """One small run per method, partition and seed."""
    for i, partition in enumerate(partitions):
        for method in methods:
            for seed in seeds:
                personal = {"_target_": f"a.{POLICIES.get(method, 'Nothing')}"}
                changes = {"personalization": personal}
                settings = {
                    "clients": 6, "rounds": 6, "classes": 4, "groups": 1, "tests": False,
                    "outputs": False, "method": method, "seed": seed, "lead": -0.01 * len(method),
                    "personal": 5 if method == "local" else i % 3,
                }  # fmt: skip
                settings |= options | dict(partition)
                changes |= dict(settings.pop("changes", {}))
                builder = RunBuilder(**settings, changes=changes)
                builder.write(folder / f"{method}-{i}-{seed}".replace(" ", "_"))
    return folder


def write_variants(folder: Path) -> Path:
    """Five variants of one method, the second the most usual, and two baselines."""
    for i, (threshold, second) in enumerate(
        [(0.6, True), (0.75, True), (0.75, False), (0.9, True), (0.95, True)]
    ):
        values = {"hopkins_threshold": threshold, "stage2": second}
        write(
            folder / f"variant{i}",
            ("fedtsdp",),
            (dirichlet(1.0), dirichlet(0.1)),
            changes={"clustering": values, "personalization": {"_target_": "a.Adaptive"}},
            lead=0.03 - 0.01 * i,
        )
    return write(folder, ("local", "fedavg"), (dirichlet(1.0), dirichlet(0.1)))


def write_two_data_sets(folder: Path) -> Path:
    for name in ("fashion_mnist", "a data set with a name of forty-five letters."):
        write(folder / name[:5], partitions=(dirichlet(1.0), dirichlet(0.1)), dataset=name)
    return folder


SEVERITIES = (IID, dirichlet(1.0), dirichlet(0.5), dirichlet(0.1), TWO_CLASSES, GROUPS)
SWEEPS: dict[str, Callable[[Path], Path]] = {
    "severities": lambda folder: write(folder, partitions=SEVERITIES),
    "twelve_methods": lambda folder: write(folder, TWELVE, seeds=(0,), rounds=45),
    "variants": write_variants,
    "two_data_sets": write_two_data_sets,
    "many_alphas": lambda folder: write(
        folder,
        ("fedavg", "fedtsdp"),
        tuple(dirichlet(a) for a in (100.0, 10.0, 5.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05)),
        evaluate_every=3,
    ),
    "regression": lambda folder: write(
        folder, partitions=(IID, dirichlet(1.0), dirichlet(0.1), TWO_CLASSES), regression=True
    ),
    "newcomers": lambda folder: write(
        folder,
        partitions=(dirichlet(1.0), dirichlet(0.1)),
        newcomers=2,
        join_round=4,
        drift_round=3,
    ),
    "one_run": lambda folder: write(folder, ("fedtsdp",), seeds=(3,), rounds=1),
}


def set_accuracy(run: Path, curve: Mapping[int, float]) -> None:
    """Let a run have been evaluated at these rounds, with these mean accuracies, alone."""
    rounds = pd.read_csv(run / "rounds.csv")
    rounds["accuracy_mean"] = rounds["round"].map(lambda at: curve.get(at, np.nan))
    rounds.to_csv(run / "rounds.csv", index=False)
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    if curve:
        summary["last"]["accuracy_mean"] = curve[max(curve)]
    path.write_text(json.dumps(summary))


def write_two_seeds(folder: Path) -> Path:
    """FedAvg with two seeds that were evaluated at different rounds."""
    write(folder, ("fedavg",), seeds=(0, 1))
    set_accuracy(folder / "fedavg-0-0", {2: 0.2, 4: 0.6, 6: 0.8})
    set_accuracy(folder / "fedavg-0-1", {1: 0.1, 4: 0.8, 5: 0.9})
    return folder
