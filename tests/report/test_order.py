from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest

from fedtsd.report.order import least_skewed_first


@dataclass
class Made:
    setting: str
    skew: float
    config: dict[str, Any] = field(default_factory=dict)


def dirichlet(alpha: float, **more: Any) -> dict[str, Any]:
    return {"partition": {"_target_": "a.Dirichlet", "alpha": alpha}, **more}


def test_settings_are_ordered_by_measured_label_skew_over_their_runs() -> None:
    runs = [Made("b", 0.1), Made("a", 0.3), Made("b", 0.6)]
    assert least_skewed_first(runs) == ["a", "b"]  # 0.3 and (0.1 + 0.6) / 2


def test_equal_skew_is_ordered_by_alpha() -> None:
    runs = [Made("a", 0.2, dirichlet(0.1)), Made("b", 0.2, dirichlet(10.0))]
    assert least_skewed_first(runs) == ["b", "a"]


@pytest.mark.parametrize(
    ("target", "knob", "values"),
    [
        ("a.Rotation", "degrees", (0.0, 90.0, 270.0)),
        ("a.LabelNoise", "rate", (0.0, 0.1, 0.6)),
    ],
)
def test_shifts_are_ordered_by_their_knob_whatever_the_labels_measure(
    target: str, knob: str, values: tuple[float, ...]
) -> None:
    runs = [
        Made(
            str(value), 1.0 - value / 1000, dirichlet(0.5, shift={"_target_": target, knob: value})
        )
        for value in values
    ]
    runs.append(Made("as they are", 0.0, dirichlet(0.5, shift=None)))
    assert least_skewed_first(runs) == ["as they are", *map(str, values)]


def test_few_classes_are_more_skewed_than_many() -> None:
    def classes(number: int | None) -> dict[str, Any]:
        sizes = {"_target_": "a.Lognormal", "sigma": 1.0}
        kind = {"_target_": "a.Pathological", "classes_per_client": number, "sizes": sizes}
        return {"partition": kind}

    runs = [Made(str(n), 0.2, classes(n)) for n in (1, 5, None, 2)]
    assert least_skewed_first(runs) == ["None", "5", "2", "1"]


def test_named_severities_come_first_where_all_settings_have_one() -> None:
    runs = [
        Made("a", 0.1, dirichlet(0.05, severity="extreme")),
        Made("b", 0.9, dirichlet(inf, severity="iid")),
        Made("c", 0.2, dirichlet(1.0, severity="mild")),
        Made("d", 0.15, {"partition": {"_target_": "a.Iid"}, "severity": "mild"}),
    ]
    assert least_skewed_first(runs) == ["b", "d", "c", "a"]
    runs.append(Made("e", 0.0, dirichlet(0.7, severity="default")))
    assert least_skewed_first(runs) == ["e", "a", "d", "c", "b"]
