"""Whatever is written after `fedtsd train`, it runs or one line says why not."""

from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz import fuzz, judged

COUNT = 300


def test_random_overrides_end_in_an_experiment_or_in_one_line(
    outputs, monkeypatch, tmp_path_factory
) -> None:
    data = tmp_path_factory.mktemp("data")
    monkeypatch.setenv("FEDTSD_DATA", str(data))
    cases = list(fuzz(COUNT, seed=0))
    assert [case for case in cases if case[0].startswith("wrong")] == []
    counts = Counter(verdict for verdict, _ in cases)
    assert counts["built"] > COUNT // 10  # both happen often, or little was tried
    assert counts["refused"] > COUNT // 10
    assert [*outputs.iterdir(), *data.iterdir()] == []  # nothing was written or fetched


@pytest.mark.parametrize(
    "overrides",
    [
        ["shift=null"],
        ["dataset=[[1]]"],
        ["method=[null]"],
        ["dataset={}"],
        ["shift=" + "x" * 5000],
        ["--seed=1"],
        ["hydra=null"],
        ["training.lr=" + "9" * 400],
        ["model.hidden=[1000000000000]"],
        ["model.hidden=[" + "9" * 400 + "]"],
        ["model=resnet8", "model.width=1000000000000"],
    ],
)
def test_what_once_ended_in_a_traceback_is_refused(overrides: list[str], outputs: Path) -> None:
    assert judged(overrides) == "refused"


def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert judged(["device=cuda"]) == "refused"
