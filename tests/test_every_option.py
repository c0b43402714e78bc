"""Every option of the groups that act while a run runs, and every recipe: two rounds.

Options run on digits. Recipes run on random pixels in the shape of their own data, with few clients
and samples: what they set is all there, what it leads to is not looked at.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from fedtsd.catalogue import options
from fedtsd.compose import check, composed
from fedtsd.data.dataset import Arrays, Dataset
from fedtsd.data.federation import build_federation
from fedtsd.errors import ConfigError
from fedtsd.loading import load_federation
from tests.runs import run_toy

GROUPS = (
    "aggregation", "attack", "clustering", "coding", "faults", "model", "personalization", "prior",
    "robust", "shift", "sizes", "solver",
)  # fmt: skip
ALL = [(group, option) for group in GROUPS for option in options(group)]
FEW = (
    "method=fedavg", "dataset=digits", "rounds=2", "partition.num_clients=6", "training.epochs=1",
    "similarity.public_batch=20", "device=cpu",
)  # fmt: skip
NEEDS = {
    "aggregation=scaffold": ("solver=scaffold", "training.momentum=0.0"),
    "solver=scaffold": ("aggregation=scaffold", "training.momentum=0.0"),
    "clustering=oracle": ("partition=label_groups", "partition.num_groups=2"),
    "personalization=normalisation": ("model=resnet8", "model.norm=batch"),
}


@pytest.mark.parametrize(("group", "option"), ALL, ids=str)
def test_it_runs_two_rounds(group: str, option: str, config, tmp_path: Path) -> None:
    chosen = f"{group}={option}"
    cfg = config(*FEW, *NEEDS.get(chosen, ()), chosen)
    run_toy(cfg, load_federation(cfg), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["last"]["round"] == 2
    assert 0 <= summary["last"]["accuracy_mean"] <= 1
    assert summary["replies"]["asked"] >= 2


# These are what they are by one key of two-stage clustering.
ABLATED = {"fedtsdp_no_ejection", "fedtsdp_no_gate", "fedtsdp_stage1", "fedtsdp_stage2"}


@pytest.mark.parametrize("method", options("method"))
def test_a_method_leaves_no_key_behind_when_one_of_its_parts_is_replaced(method: str) -> None:
    groups = {"aggregation", "clustering", "coding", "personalization", "prior", "solver"}
    groups -= {"clustering"} if method in ABLATED else set()
    told = ""
    for group in sorted(groups):
        for option in options(group):
            try:
                check(composed([f"method={method}", f"{group}={option}"]))
            except ConfigError as error:  # parts that do not go together say which
                told += f"{error}\n"
    assert "is unknown" not in told


def few_of(experiment: str) -> list[str]:
    """The recipe with six clients, two rounds, and samples in proportion."""
    overrides = [f"experiment={experiment}", "rounds=2", "partition.num_clients=6", "device=cpu"]
    overrides += ["training.epochs=1", "similarity.public_batch=20", "dataset.public_size=100"]
    partition = composed(overrides).partition
    if "samples_per_client" in partition:
        overrides.append("partition.samples_per_client=60")
    return [*overrides, "cohort.size=4"]


def random_pixels(dataset: Dataset) -> Arrays:
    facts, rng = dataset.facts, np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1500, *facts.shape), dtype=np.uint8)
    return Arrays(pixels, np.arange(1500) % len(facts.classes), facts.classes)


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_recipe_runs_two_rounds(experiment: str, config, tmp_path: Path) -> None:
    cfg = config(*few_of(experiment))
    federation = build_federation(random_pixels(cfg.dataset), cfg.deal, tmp_path, cfg.seed)
    run_toy(cfg, federation, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["last"]["round"] == 2
    assert summary["replies"]["asked"] == 8
