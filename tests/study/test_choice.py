"""Values are chosen by validation accuracy, and by nothing else."""

import pytest
import yaml

from fedtsd.study.choice import (
    choices_for,
    choose,
    copy_choice,
    read_choices,
    write_choice,
)
from tests.study.made_up import cell, contestant, study, write_run

LOW, HIGH = ("training.lr=0.1",), ("training.lr=0.2",)
TUNED = contestant("fedavg", LOW, HIGH)
PLAIN = contestant("local")
STUDY = study(TUNED, PLAIN)


def tried(folder, val, test=None, states=None):
    """The tuning cells of both points in both settings; val: [point][setting]."""
    cells = []
    for point, overrides in enumerate((LOW, HIGH)):
        for place, setting in enumerate(("iid", "dir01")):
            one = cell(folder, overrides, method="fedavg", point=point, setting=setting)
            score = val[point][place]
            state = (states or {}).get((point, setting), "done")
            shown = test[point][place] if test else 0.5
            cells.append(write_run(one, [shown], [score - 0.1, score + 0.1], state=state))
    return cells


def test_validation_decides_though_test_would_choose_another_point(tmp_path) -> None:
    cells = tried(tmp_path, val=[[0.6, 0.7], [0.5, 0.7]], test=[[0.1, 0.1], [0.9, 0.9]])
    (found,) = choose(STUDY, cells)
    assert [point.validation for point in found.tried] == pytest.approx([0.65, 0.6])
    assert found.overrides == LOW


def test_the_mean_over_settings_decides_not_a_single_one(tmp_path) -> None:
    (found,) = choose(STUDY, tried(tmp_path, val=[[0.9, 0.3], [0.6, 0.7]]))
    assert found.overrides == HIGH


def test_of_equal_points_the_earlier_one_is_taken(tmp_path) -> None:
    (found,) = choose(STUDY, tried(tmp_path, val=[[0.5, 0.5], [0.5, 0.5]]))
    assert found.overrides == LOW


def test_a_point_with_a_failed_run_is_out(tmp_path) -> None:
    cells = tried(tmp_path, val=[[0.9, 0.9], [0.5, 0.5]], states={(0, "dir01"): "failed"})
    (found,) = choose(STUDY, cells)
    assert found.tried[0].validation is None
    assert found.overrides == HIGH


@pytest.mark.parametrize("state", ["interrupted", "running"])
def test_nothing_is_chosen_before_all_runs_have_ended(tmp_path, state: str) -> None:
    cells = tried(tmp_path, val=[[0.9, 0.9], [0.5, 0.5]], states={(1, "iid"): state})
    (found,) = choose(STUDY, cells)
    assert found.tried[1].waiting == 1
    assert found.overrides is None
    (found,) = choose(STUDY, cells[:2])  # the others were never planned
    assert found.overrides is None


def test_nothing_is_chosen_where_every_point_failed(tmp_path) -> None:
    states = {(0, "iid"): "failed", (1, "iid"): "failed"}
    (found,) = choose(STUDY, tried(tmp_path, [[0.9, 0.9], [0.5, 0.5]], states=states))
    assert found.overrides is None


def test_runs_of_an_older_grid_do_not_count(tmp_path) -> None:
    cells = tried(tmp_path, val=[[0.6, 0.7], [0.5, 0.7]])
    other = study(contestant("fedavg", ("training.lr=0.3",), HIGH))
    (found,) = choose(other, cells)
    assert [point.waiting for point in found.tried] == [2, 0]


def test_the_file_is_what_the_run_stage_reads(tmp_path) -> None:
    found = choose(STUDY, tried(tmp_path / "tune", val=[[0.5, 0.5], [0.6, 0.6]]))
    path = write_choice(tmp_path, STUDY, found)
    told = yaml.safe_load(path.read_text())
    assert (told["seed"], told["settings"]) == (100, ["iid", "dir01"])
    assert told["methods"]["fedavg"]["chosen"] == ["training.lr=0.2"]
    tried_points = told["methods"]["fedavg"]["points"]
    assert [p["validation_accuracy"] for p in tried_points] == pytest.approx([0.5, 0.6])
    assert read_choices(tmp_path) == {"fedavg": HIGH}
    assert choices_for(STUDY, tmp_path) == {"fedavg": HIGH, "local": ()}


def test_without_a_choice_only_those_with_nothing_to_choose_run(tmp_path) -> None:
    assert choices_for(STUDY, tmp_path) == {"local": ()}
    other = study(contestant("fedavg", ("a=1",), ("a=2",)), PLAIN)
    write_choice(tmp_path, STUDY, choose(STUDY, tried(tmp_path / "x", [[0.5, 0.5], [0.6, 0.6]])))
    assert choices_for(other, tmp_path) == {"local": ()}  # what was chosen is not in the grid


def test_a_sitting_on_some_methods_keeps_what_was_chosen_for_others(tmp_path) -> None:
    first = choose(STUDY, tried(tmp_path / "x", val=[[0.5, 0.5], [0.6, 0.6]]))
    write_choice(tmp_path, STUDY, first)
    write_choice(tmp_path, study(PLAIN), [])
    assert read_choices(tmp_path) == {"fedavg": HIGH}
    copy_choice(tmp_path, tmp_path / "run", ["fedavg"])
    assert read_choices(tmp_path / "run") == {"fedavg": HIGH}
    copy_choice(tmp_path, tmp_path / "other", ["local"])
    assert read_choices(tmp_path / "other") == {}
