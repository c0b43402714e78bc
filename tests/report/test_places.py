"""Axes of severity for what is no Dirichlet sweep; see test_severity_axis.py for those."""

import json
from collections.abc import Mapping
from math import isnan
from pathlib import Path

import pytest

from fedtsd.report.places import axes_of
from fedtsd.report.results import Results
from fedtsd.report.severity import severity
from tests.report.drawn import words
from tests.report.sweeps import write

Levels = tuple[tuple[str, Mapping[str, object]], ...]


def swept(
    folder: Path, levels: Levels, skews: tuple[Mapping[str, float], ...] = (), alpha: float = 0.5
) -> Results:
    """One run per severity and the groups of its config, with what its summary tells of skew."""
    partitions = tuple({"alpha": alpha, "changes": dict(groups)} for _, groups in levels)
    write(folder, ("fedavg",), partitions, (0,), rounds=1)
    for i, (name, _) in enumerate(levels):
        run = folder / f"fedavg-{i}-0"
        config = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(f"{config}severity: {name}\n")
        if skews:
            summary = json.loads((run / "summary.json").read_text())
            (run / "summary.json").write_text(json.dumps({**summary, "skew": skews[i]}))
    return Results.read([folder])


def rotation(degrees: float) -> dict[str, object]:
    return {"shift": {"_target_": "a.Rotation", "degrees": degrees, "num_groups": 4}}


SHIFTED = tuple({"label_js": 0.2, "input_shift": value} for value in (0.0, 0.9, 0.4))


def test_a_knob_is_the_tick_and_what_it_turns_is_measured(tmp_path: Path) -> None:
    levels = tuple(zip(("iid", "extreme", "mild"), map(rotation, (0, 270, 20)), strict=True))
    results = swept(tmp_path, levels, SHIFTED)
    ((name, places),) = axes_of(results).items()
    assert name == "Dirichlet α = 0.5"
    assert [place.tick for place in places] == ["0", "20", "270"]
    assert [place.x for place in places] == [0, 1, 2]
    assert [place.skew for place in places] == [0.0, 0.4, 0.9]
    assert all(place.on_scale and isnan(place.alpha) for place in places)
    shown = words(severity(results))
    assert "measured shift of inputs (std)" in shown
    assert "largest rotation (degrees)" in shown


def test_where_no_severity_is_named_the_knob_orders(tmp_path: Path) -> None:
    levels = tuple(("default", rotation(degrees)) for degrees in (270, 20, 90))
    (places,) = axes_of(swept(tmp_path, levels, SHIFTED)).values()
    assert [place.tick for place in places] == ["20", "90", "270"]


def test_few_classes_stand_on_the_right_and_all_of_them_on_the_left(tmp_path: Path) -> None:
    partition = {"_target_": "a.Pathological", "alpha": None}
    levels = tuple(
        ("default", {"partition": {**partition, "classes_per_client": number}})
        for number in (1, None, 3)
    )
    results = swept(tmp_path, levels)
    (places,) = axes_of(results).values()
    assert [place.tick for place in places] == ["all", "3", "1"]
    assert {place.measure for place in places} == {"label_js"}
    assert places[0].axis == "classes per client (skew grows to the right)"


def test_sizes_are_measured_by_gini(tmp_path: Path) -> None:
    levels = tuple(
        ("default", {"partition": {"sizes": {"_target_": "a.Lognormal", "sigma": sigma}}})
        for sigma in (0.3, 2.0)
    )
    skews = ({"label_js": 0.1, "size_gini": 0.2}, {"label_js": 0.4, "size_gini": 0.7})
    (places,) = axes_of(swept(tmp_path, levels, skews)).values()
    assert [(place.tick, place.skew) for place in places] == [("0.3", 0.2), ("2", 0.7)]
    assert places[0].measure == "size_gini"


def test_knobs_turned_together_stand_by_the_name_of_their_severity(tmp_path: Path) -> None:
    levels = tuple(
        (name, {"partition": {"alpha": alpha}, **rotation(degrees)})
        for name, alpha, degrees in (("severe", 0.1, 90.0), ("mild", 1.0, 20.0))
    )
    (places,) = axes_of(swept(tmp_path, levels)).values()
    assert [place.tick for place in places] == ["mild", "severe"]
    assert places[0].axis == "severity of Dirichlet α, largest rotation (degrees)"
    assert places[0].measure == "label_js"


def test_without_named_severities_they_stand_in_words(tmp_path: Path) -> None:
    levels = tuple(
        ("default", {"partition": {"alpha": alpha}, **rotation(degrees)})
        for alpha, degrees in ((0.1, 90.0), (1.0, 20.0))
    )
    (places,) = axes_of(swept(tmp_path, levels)).values()
    ticks = [" ".join(place.tick.split()) for place in places]
    assert [tick.partition(",")[0] for tick in ticks] == ["Dirichlet α = 1", "Dirichlet α = 0.1"]
    assert not any(place.on_scale for place in places)
    assert places[0].axis == "how the data are dealt"


def test_each_kind_has_an_axis_of_its_own_if_it_has_two_levels(tmp_path: Path) -> None:
    noise = {"_target_": "a.LabelNoise", "num_groups": None}
    levels = (
        *(("default", rotation(degrees)) for degrees in (20, 90)),
        *(("default", {"shift": {**noise, "rate": rate}}) for rate in (0.1, 0.4)),
    )
    results = swept(tmp_path, levels)
    axes = axes_of(results)
    assert {tuple(p.tick for p in places) for places in axes.values()} == {
        ("20", "90"),
        ("10", "40"),
    }
    assert set(axes) == {
        "Dirichlet α = 0.5, largest rotation (degrees)",
        "Dirichlet α = 0.5, largest share of wrong labels (%)",
    }


@pytest.mark.parametrize("num_groups", [2, 4])
def test_settings_of_one_knob_differ_in_something_else_and_are_not_joined(
    tmp_path: Path, num_groups: int
) -> None:
    other = {"shift": {"_target_": "a.Rotation", "degrees": 90, "num_groups": num_groups + 1}}
    levels = (
        ("default", {"shift": {"_target_": "a.Rotation", "degrees": 90, "num_groups": num_groups}}),
        ("default", other),
    )
    (places,) = axes_of(swept(tmp_path, levels)).values()
    assert not any(place.on_scale for place in places)
