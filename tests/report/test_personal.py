from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from fedtsd.report.across import NotApplicableError
from fedtsd.report.personal import BestFixed, best_fixed, personal_layers, unlike_in_layers
from fedtsd.report.places import axes_of
from fedtsd.report.results import Results
from fedtsd.report.severity_axis import pieces
from tests.report.drawn import group, words
from tests.report.sweeps import dirichlet, set_accuracy, write

Swept = Callable[[str], Results]
ALPHAS = (dirichlet(1.0), dirichlet(0.1))
MILD, SEVERE = "Dirichlet α = 1", "Dirichlet α = 0.1"


def write_fixed(
    folder: Path, accuracies: dict[int, tuple[float, float]], **options: object
) -> None:
    """Runs with a fixed number of personal layers: accuracies of two seeds, the same everywhere."""
    for layers, pair in accuracies.items():
        policy = {"personalization": {"_target_": "a.LastLayers", "layers": layers}}
        changes = {**policy, **dict(options)}
        place = write(folder / f"p{layers}", ("fedper",), ALPHAS, changes=changes, rounds=2)
        for i in range(len(ALPHAS)):
            for seed in (0, 1):
                set_accuracy(place / f"fedper-{i}-{seed}", {2: pair[seed]})


def test_the_best_fixed_number_and_those_within_one_standard_error(tmp_path: Path) -> None:
    # Two seeds: the standard error of the best, 0.9 and 0.8, is their half difference 0.05.
    write_fixed(tmp_path, {1: (0.7, 0.78), 2: (0.9, 0.8), 3: (0.8, 0.81), 4: (0.79, 0.8)})
    found = best_fixed(Results.read([tmp_path]))
    assert found == {MILD: BestFixed(2, (2, 3)), SEVERE: BestFixed(2, (2, 3))}


def test_sharing_all_and_nothing_count_as_zero_and_all_layers(tmp_path: Path) -> None:
    write(tmp_path, ("fedavg", "local"), ALPHAS, seeds=(0,), rounds=2)
    for i, (alone, shared) in enumerate([(0.3, 0.9), (0.8, 0.2)]):
        set_accuracy(tmp_path / f"local-{i}-0", {2: alone})
        set_accuracy(tmp_path / f"fedavg-{i}-0", {2: shared})
    found = best_fixed(Results.read([tmp_path]))
    # One seed has no standard error: only the best itself is close.
    assert found == {MILD: BestFixed(0, (0,)), SEVERE: BestFixed(5, (5,))}


def test_only_runs_that_differ_in_nothing_else_are_compared(tmp_path: Path) -> None:
    write_fixed(tmp_path, {1: (0.5, 0.5), 2: (0.6, 0.6)})
    # The best of all, but with a proximal term: nothing to compare its number with.
    other = {"training": {"proximal": 0.1}}
    write_fixed(tmp_path / "other", {4: (0.9, 0.9)}, **other)
    assert best_fixed(Results.read([tmp_path]))[MILD].best == 2
    # With a second number it is a family of its own; the one like the adaptive method counts.
    write_fixed(tmp_path / "other", {3: (0.8, 0.8)}, **other)
    adaptive = {"personalization": {"_target_": "a.Adaptive"}, **other}
    write(tmp_path / "adaptive", ("fedtsdp",), ALPHAS, changes=adaptive, rounds=2)
    assert best_fixed(Results.read([tmp_path]))[MILD].best == 4


def test_fixed_numbers_count_beside_an_adaptive_run_of_the_same_method(tmp_path: Path) -> None:
    """Their policies have other keys than its, and yet each number is a method of its own."""
    write_fixed(tmp_path, {1: (0.5, 0.5), 2: (0.7, 0.7), 4: (0.6, 0.6)})
    adaptive = {"personalization": {"_target_": "a.Adaptive", "power": 3.0}}
    write(tmp_path / "adaptive", ("fedper",), ALPHAS, changes=adaptive, rounds=2)
    other = {**adaptive, "training": {"proximal": 0.1}}
    write(tmp_path / "other", ("fedprox",), ALPHAS, changes=other, rounds=2)
    results = Results.read([tmp_path])
    names = [name for name in results.methods if name.startswith("fedper")]
    assert [name.partition("layers=")[2] for name in names if "LastLayers" in name] == [*"124"]
    assert len(names) == 4
    assert best_fixed(results)[MILD].best == 2
    (chosen,) = [name for name in names if "Adaptive" in name]
    found = {run.method for run in unlike_in_layers(results, chosen)}
    assert found == set(names)


def test_one_number_is_no_comparison(tmp_path: Path) -> None:
    write_fixed(tmp_path, {1: (0.5, 0.5)})
    assert best_fixed(Results.read([tmp_path])) == {}


def test_drawn_are_mean_and_std_over_clients_of_adaptive_methods(swept: Swept) -> None:
    results = swept("severities")
    figure = personal_layers(results)
    (places,) = axes_of(results).values()
    groups = results.clients.query("method == 'fedtsdp'").groupby("setting")["personal_layers"]
    order = [places[i].setting for piece in pieces(places) for i in piece]
    lines = group(figure, "mean fedtsdp")
    drawn = np.concatenate([np.asarray(line.get_ydata()) for line in lines])
    np.testing.assert_allclose(drawn, groups.mean()[order])
    (whiskers,) = group(figure, "std fedtsdp")
    assert isinstance(whiskers, LineCollection)
    assert whiskers.get_segments()[0][0, 1] >= 0
    assert not group(figure, "mean fedavg")
    assert "best fixed number" in words(figure)


def test_marks_of_the_best_fixed_number_stand_at_their_place(swept: Swept) -> None:
    results = swept("severities")
    found = best_fixed(results)
    (places,) = axes_of(results).values()
    dashes = [line for line in group(personal_layers(results), "best") if isinstance(line, Line2D)]
    drawn = {(float(line.get_xdata()[0]), int(line.get_ydata()[0])) for line in dashes}
    assert drawn == {(place.x, found[place.setting].best) for place in places}


def test_without_fixed_numbers_only_the_chosen_ones_are_shown(tmp_path: Path) -> None:
    figure = personal_layers(Results.read([write(tmp_path, ("fedtsdp",), ALPHAS, rounds=5)]))
    assert group(figure, "mean fedtsdp")
    assert not group(figure, "best")
    assert "best fixed number" not in words(figure)


def test_without_an_adaptive_method_there_is_nothing_to_show(tmp_path: Path) -> None:
    results = Results.read([write(tmp_path, ("fedavg", "local"), ALPHAS, rounds=1)])
    with pytest.raises(NotApplicableError, match="needs a method that adapts"):
        personal_layers(results)
