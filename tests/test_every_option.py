"""Every option of the groups that act while a run runs: two rounds of digits, with all it needs."""

import json
from pathlib import Path

import pytest

from fedtsd.catalogue import options
from fedtsd.experiment import load_federation
from tests.runs import run_toy

GROUPS = (
    "aggregation", "attack", "clustering", "faults", "model", "personalization", "prior", "robust",
    "shift", "sizes", "solver",
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
