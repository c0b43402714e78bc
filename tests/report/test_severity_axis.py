from collections.abc import Callable
from math import inf, log10
from pathlib import Path

import pytest

from fedtsd.report.places import axes_of
from fedtsd.report.results import Results
from fedtsd.report.severity_axis import pieces
from tests.report.sweeps import dirichlet, write

Swept = Callable[[str], Results]


def test_places_are_iid_then_alphas_on_a_log_scale_then_the_rest(swept: Swept) -> None:
    results = swept("severities")
    ((name, places),) = axes_of(results).items()
    assert name == ""
    assert [place.alpha for place in places[:4]] == [inf, 1.0, 0.5, 0.1]
    assert [place.tick for place in places[:4]] == ["IID", "1", "0.5", "0.1"]
    assert {p.tick for p in places[4:]} == {"2 classes\nper\nclient", "4 label\ngroups"}
    xs = [place.x for place in places]
    assert xs == sorted(xs)
    # One decade is two mean steps long: alphas 1, 0.5, 0.1 have two steps between them.
    assert xs[1:4] == pytest.approx([0, -2 * log10(0.5), 2])
    assert list(pieces(places)) == [[1, 2, 3], [0], [4], [5]]


def test_data_sets_and_cohorts_have_axes_of_their_own(swept: Swept, tmp_path: Path) -> None:
    axes = axes_of(swept("two_data_sets"))
    assert len(axes) == 2
    assert "Fashion-MNIST" in axes
    write(tmp_path / "a", ("fedavg",), (dirichlet(1.0), dirichlet(0.1)), seeds=(0,), rounds=1)
    small = {"cohort": {"size": 3}}
    write(tmp_path / "b", ("fedavg",), (dirichlet(0.1),), (0,), rounds=1, changes=small)
    (places,) = axes_of(Results.read([tmp_path])).values()  # the small cohort has one place: none
    assert [place.alpha for place in places] == [1.0, 0.1]


def test_settings_of_one_alpha_are_places_without_alpha(tmp_path: Path) -> None:
    for name, kind in {"a": "x", "b": "y"}.items():
        changes = {"partition": {"balance": kind}}
        write(tmp_path / name, ("fedavg",), seeds=(0,), rounds=1, changes=changes)
    write(tmp_path / "c", ("fedavg",), (dirichlet(1.0),), seeds=(0,), rounds=1)
    (places,) = axes_of(Results.read([tmp_path])).values()
    assert [place.alpha for place in places[:1]] == [1.0]
    ticks = [place.tick.replace("\n", " ") for place in places[1:]]
    assert all("balance=" in tick.replace(" ", "") for tick in ticks)
