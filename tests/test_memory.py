"""Long runs need no more memory than short ones."""

import gc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.runs import Quiet, run_toy

STATM = Path("/proc/self/statm")


class Watch(Quiet):
    """An observer that notes how much memory the process has in use, in MB, after some rounds."""

    def __init__(self, *rounds: int) -> None:
        self._rounds = rounds
        self.seen: list[float] = []

    def round(self, row: Mapping[str, Any]) -> None:
        if row["round"] in self._rounds:
            gc.collect()
            pages = int(STATM.read_text().split()[1])
            self.seen.append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


@pytest.mark.skipif(not STATM.exists(), reason="needs /proc")
def test_memory_is_flat_over_500_rounds(config, toy, tmp_path) -> None:
    cfg = config(
        "method=fedtsdp", "rounds=500", "checkpoint_every=50", "eval_every=10", "model.hidden=[8]",
        "training.epochs=1", "engine=sequential", "clustering.hopkins.reference_draws=19",
        "clustering.hopkins.repetitions=5", "similarity.public_batch=40",
    )  # fmt: skip
    watch = Watch(100, 300, 500)
    run_toy(cfg, toy(8, flipped=(4, 5, 6, 7), size=12), tmp_path / "run", watch)
    early, _, late = watch.seen
    assert late - early < 3, watch.seen
