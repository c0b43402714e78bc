from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from fedtsd.report.ablation import ablation, differences
from fedtsd.report.across import NotApplicableError
from fedtsd.report.results import Results
from tests.report.drawn import group, words
from tests.report.sweeps import dirichlet, set_accuracy, write

Swept = Callable[[str], Results]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """FedAvg and FedTSDP with two seeds in two settings; local lacks one run."""
    write(tmp_path, partitions=(dirichlet(1.0), dirichlet(0.1)), rounds=2)
    for i in (0, 1):
        for seed in (0, 1):
            level = 0.5 + 0.2 * seed
            set_accuracy(tmp_path / f"fedtsdp-{i}-{seed}", {2: level})
            set_accuracy(tmp_path / f"fedavg-{i}-{seed}", {2: level - 0.1 - 0.02 * i})
            set_accuracy(tmp_path / f"local-{i}-{seed}", {2: level + 0.05})
    (tmp_path / "local-1-1/summary.json").unlink()
    return tmp_path


def test_differences_are_paired_by_setting_and_seed(folder: Path) -> None:
    points = differences(Results.read([folder]), "fedtsdp", ["fedavg", "local"])
    assert list(points.columns) == ["local", "fedavg"]  # the best first
    assert points["fedavg"].tolist() == pytest.approx([-12, -12, -10, -10])
    assert points["local"].count() == 3
    assert points["local"].dropna().tolist() == pytest.approx([5, 5, 5])


def test_bars_whiskers_and_dots_are_those_of_the_pairs(folder: Path) -> None:
    figure = ablation(Results.read([folder]), "fedtsdp")
    (bar,) = group(figure, "bar fedavg")
    assert isinstance(bar, Rectangle)
    assert bar.get_width() == pytest.approx(-11)
    (whisker,) = group(figure, "std fedavg")
    std = np.std([10, 10, 12, 12], ddof=1)
    np.testing.assert_allclose(np.sort(whisker.get_segments()[0][:, 0]), [-11 - std, -11 + std])
    (dots,) = group(figure, "pairs fedavg")
    assert sorted(dots.get_xdata()) == pytest.approx([-12, -12, -10, -10])
    assert {"−11.0", "+5.0", "FedAvg", "Local only"} <= set(words(figure))
    title = " ".join(words(figure)).replace("\n", " ")
    assert "difference to FedTSDP" in title
    assert "3 to 4 pairs" in title


def test_variants_are_compared_to_the_most_usual_one_and_one_baseline(swept: Swept) -> None:
    figure = ablation(swept("variants"))
    shown = [word.replace("\n", " ") for word in words(figure)]
    assert any("FedTSDP, hopkins_threshold=0.75, stage2=true" in word for word in shown)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert set(names) == {
        "hopkins_threshold=0.6",
        "hopkins_threshold=0.9",
        "hopkins_threshold=0.95",
        "stage2=false",
        "FedAvg",
    }
    assert names[-1] == "FedAvg"


def test_of_two_variants_the_one_that_switches_on_is_the_base(tmp_path: Path) -> None:
    for on in (False, True):
        changes = {"clustering": {"stage2": on}}
        write(tmp_path / str(on), ("fedtsdp",), seeds=(0,), rounds=1, changes=changes)
    figure = ablation(Results.read([tmp_path]))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["stage2=false"]
    assert not group(figure, "std fedtsdp stage2=false")  # one pair has no std
    assert any("one pair" in word.replace("\n", " ") for word in words(figure))


def test_without_variants_a_base_has_to_be_named(folder: Path) -> None:
    results = Results.read([folder])
    with pytest.raises(NotApplicableError, match="needs two variants of a method, or the base"):
        ablation(results)
    with pytest.raises(NotApplicableError, match="no run of method 'fedprox'"):
        ablation(results, "fedprox")


def test_a_base_that_shares_no_cell_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ("fedavg",), seeds=(0,), rounds=1)
    write(tmp_path, ("fedtsdp",), seeds=(1,), rounds=1)
    with pytest.raises(NotApplicableError, match="no run shares a setting and a seed"):
        ablation(Results.read([tmp_path]), "fedtsdp")
