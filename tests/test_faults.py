"""Clients that fail, on a virtual clock: by hand, as invariants, and in whole runs."""

import csv
import dataclasses
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.catalogue import options
from fedtsd.errors import ConfigError, ProtocolError
from fedtsd.faults import Course, Faults
from tests.needs import fit, small
from tests.runs import run_toy, run_twice

SMALL = ("model.hidden=[8]", "similarity.public_batch=20", "training.lr=0.02")

SURE = Faults(
    availability=1.0, crash_before=0.0, crash_during=0.0, crash_after=0.0, lost=0.0,
    duplicated=0.0, samples_per_second=100.0, speed_sigma=0.0, bytes_per_second=1000.0,
    link_sigma=0.0, deadline=None, quorum=0.0, over_selection=0.0,
)  # fmt: skip
LOST = ("lost", "its reply never came")


def faults(**changes) -> Faults:
    return dataclasses.replace(SURE, **changes)


def test_time_is_that_of_the_way_there_the_work_and_the_way_back() -> None:
    # 500 bytes down .5 s, 300 samples 3 s, 250 bytes up .25 s.
    course = SURE.course(7, 3, 300, 500, 250, seed=0)
    assert course == Course(3.75, 3.75, True)


@pytest.mark.parametrize(
    ("chance", "noticed", "trains", "how"),
    [
        ("crash_before", (0, 0), False, "before"),
        ("crash_during", (0.5, 3.5), False, "while"),
        ("crash_after", (3.5, 3.5), True, "after"),
    ],
)
def test_a_crash_is_noticed_when_it_happens(chance, noticed, trains, how) -> None:
    for client in range(20):
        course = faults(**{chance: 1.0}).course(client, 1, 300, 500, 250, seed=0)
        assert course.arrives is None
        assert course.trains is trains
        assert course.failed[0] == "crashed"
        assert how in course.failed[1]
        assert noticed[0] <= course.noticed <= noticed[1]


def test_speed_belongs_to_a_client_and_chance_to_a_round() -> None:
    spread = faults(speed_sigma=1.0, link_sigma=1.0, lost=0.5)
    courses = [[spread.course(c, r, 300, 500, 250, seed=0) for r in range(30)] for c in range(30)]
    times = np.array([[course.noticed for course in row] for row in courses])
    assert (times == times[:, :1]).all()
    assert len(np.unique(times)) == 30
    lost = np.array([[course.failed == LOST for course in row] for row in courses])
    assert 0.4 < lost.mean() < 0.6
    assert lost.any(axis=1).all()
    assert not lost.all(axis=1).any()
    assert courses[3][4] == spread.course(3, 4, 300, 500, 250, seed=0)
    assert courses[3] != [spread.course(3, r, 300, 500, 250, seed=1) for r in range(30)]


def came(*seconds: float | None) -> dict[int, Course]:
    """Courses of clients 0, 1, ...; None: a reply that was lost after 4 s."""
    return {
        c: Course(None, 4.0, True, failed=LOST) if s is None else Course(s, s, True)
        for c, s in enumerate(seconds)
    }


@pytest.mark.parametrize(
    ("deadline", "wanted", "courses", "taken", "late", "ends"),
    [
        (None, 3, came(2, 1, 3), [1, 0, 2], [], 3),
        (2.5, 3, came(2, 1, 3), [1, 0], [2], 2.5),
        (9.0, 2, came(2, 1, 3), [1, 0], [2], 2),  # enough: nobody waits for the third
        (None, 3, came(2, None, 3), [0, 2], [], 4),
        (9.0, 3, came(2, None, 3), [0, 2], [], 9),  # a lost reply is waited for
        (9.0, 2, came(2, None, 3), [0, 2], [], 3),
        (0.5, 3, came(2, 1, 3), [], [0, 1, 2], 0.5),
        (None, 3, {}, [], [], 0),
        (5.0, 3, {}, [], [], 5),
        (5.0, 2, {0: Course(None, 1.0, False, failed=("crashed", "x"))}, [], [], 1),
    ],
)
def test_who_is_taken_and_when_a_round_ends(deadline, wanted, courses, taken, late, ends) -> None:
    found = faults(deadline=deadline).outcome(courses, wanted)
    assert found[0] == taken
    assert sorted(found[1]) == late
    assert found[2] == ends


@given(
    st.lists(st.one_of(st.none(), st.floats(0.1, 20)), max_size=12),
    st.integers(1, 12),
    st.one_of(st.none(), st.floats(0.1, 20)),
)
def test_everybody_is_taken_late_or_missing(seconds, wanted, deadline) -> None:
    courses = came(*seconds)
    taken, late, ends = faults(deadline=deadline).outcome(courses, wanted)
    lost = {c for c, course in courses.items() if course.arrives is None}
    assert sorted([*taken, *late, *lost]) == sorted(courses)
    assert len(taken) <= wanted
    assert all(courses[c].arrives <= ends for c in taken)
    assert ends <= (math.inf if deadline is None else deadline)
    if taken and late:
        assert max(courses[c].arrives for c in taken) <= min(courses[c].arrives for c in late)


def test_numbers_of_asked_and_needed_clients() -> None:
    assert [faults(over_selection=o).asked(10) for o in (0.0, 0.1, 0.25, 1.0)] == [10, 11, 13, 20]
    assert [faults(quorum=q).needed(10) for q in (0.0, 0.05, 0.3, 0.31, 1.0)] == [1, 1, 3, 4, 10]


def test_availability_is_by_client_and_round() -> None:
    world, everybody = faults(availability=0.7), np.arange(200)
    first, second = (world.available(everybody, r, seed=0) for r in (1, 2))
    assert 110 < len(first) < 170
    assert first.tolist() != second.tolist()
    some = np.array([3, 50, 120])
    assert world.available(some, 1, 0).tolist() == [c for c in some if c in first]
    assert len(world.available(everybody[:0], 1, 0)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"availability": 0.0}, r"availability: must be in \(0, 1\]"),
        ({"lost": 1.1}, r"lost: must be in \[0, 1\]"),
        ({"crash_before": 0.6, "crash_after": 0.6}, "crash_before: with crash_during and"),
        ({"samples_per_second": 0.0}, "samples_per_second: must be above 0"),
        ({"bytes_per_second": math.nan}, "bytes_per_second: must be above 0"),
        ({"link_sigma": -1.0}, "link_sigma: must be in"),
        ({"deadline": 0.0}, "deadline: must be null or above 0"),
        ({"quorum": 2.0}, "quorum: must be in"),
    ],
)
def test_bad_values_are_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        faults(**change)


def test_more_cannot_be_asked_than_there_are(config) -> None:
    ten = ("partition.num_clients=10", "faults=none", "faults.over_selection=0.5")
    config(*ten, "cohort.size=6")  # asks 9
    with pytest.raises(ConfigError, match=r"faults\.over_selection: asks 11 .* there are 10"):
        config(*ten, "cohort.size=7")
    with pytest.raises(ConfigError, match=r"faults\.over_selection: asks 15"):
        config(*ten)


def tables(folder) -> dict[str, list[dict[str, str]]]:
    names = ("rounds", "clients", "replies", "incidents", "assignments", "traffic")
    texts = {name: (folder / f"{name}.csv").read_text() for name in names}
    return {name: list(csv.DictReader(io.StringIO(text))) for name, text in texts.items()}


def without_time(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_a_clock_alone_changes_no_result(config, toy, tmp_path) -> None:
    plain, timed = tmp_path / "plain", tmp_path / "timed"
    run_toy(config("method=fedtsdp", "rounds=3", "partition.num_clients=4", *SMALL), toy(4), plain)
    run_toy(
        config("method=fedtsdp", "rounds=3", "faults=none", "partition.num_clients=4", *SMALL),
        toy(4),
        timed,
    )
    one, other = tables(plain), tables(timed)
    for name in ("rounds", "clients", "assignments", "traffic", "incidents"):
        assert without_time(one[name]) == without_time(other[name])
    assert [row["simulated_seconds"] for row in one["replies"]] == [""] * 3
    assert all(float(row["simulated_seconds"]) > 0 for row in other["replies"])


WORLD = (
    "faults=flaky", "faults.crash_before=0.1", "faults.crash_during=0.1", "faults.crash_after=0.1",
    "faults.lost=0.1", "faults.duplicated=0.2", "faults.deadline=0.2", "faults.availability=0.7",
    "faults.speed_sigma=1.0", "faults.quorum=0.3",
)  # fmt: skip


def test_counts_add_up_and_an_abandoned_round_changes_nothing(config, toy, tmp_path) -> None:
    cfg = config("method=fedavg", "rounds=30", *WORLD, "partition.num_clients=8", *SMALL)
    run_toy(cfg, toy(8), tmp_path)
    found = tables(tmp_path)
    outcomes = set()
    for row in found["replies"]:
        number = {name: int(row[name]) for name in row if name != "simulated_seconds"}
        missing = sum(number[name] for name in ("crashed", "lost", "late", "refused"))
        assert number["asked"] == number["taken"] + missing
        assert bool(number["abandoned"]) == (number["taken"] < 3)  # .3 of 8
        mine = [i for i in found["incidents"] if i["round"] == row["round"]]
        assert len(mine) == missing + number["duplicated"]
        outcomes |= {i["outcome"] for i in mine}
    assert outcomes == {"crashed", "lost", "late", "duplicated"}
    accuracy = [row["accuracy_mean"] for row in found["rounds"]]
    losses = [row["loss_mean"] for row in found["rounds"]]
    abandoned = [row["abandoned"] == "1" for row in found["replies"]]
    assert any(abandoned)
    assert not all(abandoned)
    for r in range(1, 30):
        assert (losses[r] == losses[r - 1]) == abandoned[r], r
        assert not abandoned[r] or accuracy[r] == accuracy[r - 1]
    summary = json.loads((tmp_path / "summary.json").read_text())["replies"]
    assert summary["abandoned"] == sum(abandoned)
    assert summary["asked"] == sum(int(row["asked"]) for row in found["replies"])
    assert summary["simulated_seconds"] == pytest.approx(
        sum(float(row["simulated_seconds"]) for row in found["replies"])
    )


def test_who_crashes_while_training_keeps_its_personal_layers(config, toy, tmp_path) -> None:
    """And who has trained has new ones, although nobody has heard of it."""

    def run(name: str, *more: str) -> list[dict[str, str]]:
        run_toy(
            config("method=local", "rounds=2", *more, "partition.num_clients=4", *SMALL),
            toy(4),
            tmp_path / name,
        )
        return tables(tmp_path / name)["clients"]

    honest = run("honest")
    off = ("faults=none", "faults.quorum=0.0")
    during = run("during", *off, "faults.crash_during=1.0")
    lost = run("lost", *off, "faults.lost=1.0")
    after = run("after", *off, "faults.crash_after=1.0")
    first, second = ([row for row in during if row["round"] == r] for r in "12")
    assert [row["loss"] for row in first] == [row["loss"] for row in second]
    assert lost == after == honest != during


def test_a_round_without_anybody_is_an_ordinary_round(config, toy, tmp_path) -> None:
    cfg = config("method=fedtsdp_full", "rounds=6", "faults=none", "faults.availability=0.05",
                 "faults.deadline=3.0", "partition.num_clients=4", *SMALL)  # fmt: skip
    run_toy(cfg, toy(4), tmp_path)
    replies = tables(tmp_path)["replies"]
    empty = [row for row in replies if row["asked"] == "0"]
    assert len(empty) > 2
    assert {(row["taken"], row["abandoned"], row["simulated_seconds"]) for row in empty} == {
        ("0", "1", "3.0")
    }


def test_the_first_replies_of_more_than_a_cohort_are_taken(config, toy, tmp_path) -> None:
    more = ("cohort.size=4", "faults.over_selection=0.5", "faults.speed_sigma=1.0")
    cfg = config(
        "method=fedavg", "rounds=8", "faults=none", *more, "partition.num_clients=8", *SMALL
    )
    run_toy(cfg, toy(8), tmp_path)
    found = tables(tmp_path)
    for row in found["replies"]:
        assert (row["asked"], row["taken"], row["late"]) == ("6", "4", "2")
    assert {i["reason"] for i in found["incidents"]} == {"when enough had replied"}


def test_without_a_fault_policy_a_round_without_replies_ends_the_run(config, toy, tmp_path) -> None:
    cfg = config("method=fedavg", "rounds=3", "partition.num_clients=4", *SMALL, "training.lr=1e30")
    with pytest.raises(ProtocolError, match=r"round 1, client 0: .* try a smaller training.lr"):
        run_toy(cfg, toy(4), tmp_path)


@pytest.mark.parametrize("method", sorted(options("method")))
def test_every_method_bears_clients_that_fail(method: str, config, toy, tmp_path) -> None:
    """With all policies' questions, few replies, and rounds without any."""
    cfg = config(*small(method, 6), "rounds=6", "training.lr=0.02", *WORLD, "faults.quorum=0.0",
                 "faults.deadline=1.0")  # fmt: skip
    run_toy(cfg, fit(toy(6), method), tmp_path)
    found = tables(tmp_path)
    assert len(found["rounds"]) == 6
    assert sum(int(row["taken"]) for row in found["replies"]) > 0
    assert sum(int(row["crashed"]) for row in found["replies"]) > 0
    assert float(found["rounds"][-1]["accuracy_mean"]) > 0.4


def test_a_resumed_run_meets_the_same_failures(config, toy, tmp_path) -> None:
    cfg = config("method=fedper", "rounds=6", "checkpoint_every=2", "partition.num_clients=6",
                 *WORLD, *SMALL)  # fmt: skip
    whole, resumed = run_twice(cfg, toy(6), tmp_path, 5)
    for name, rows in tables(whole).items():
        assert without_time(rows) == without_time(tables(resumed)[name]), name


def test_engines_meet_the_same_failures(config, toy, tmp_path) -> None:
    for engine in ("sequential", "parallel"):
        cfg = config("method=fedtsdp", "rounds=4", "partition.num_clients=6", *WORLD, *SMALL,
                     f"engine={engine}")  # fmt: skip
        run_toy(cfg, toy(6), tmp_path / engine)
    one, other = (tables(tmp_path / engine) for engine in ("sequential", "parallel"))
    assert one["replies"] == other["replies"]
    assert one["incidents"] == other["incidents"]
    assert one["assignments"] == other["assignments"]
