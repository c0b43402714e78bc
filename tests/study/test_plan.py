"""What the benchmark is: every run legal, none twice, no seed both tuned on and reported."""

from pathlib import Path

import pytest

from fedtsd.errors import ConfigError
from fedtsd.study.plan import (
    Contestant,
    composed_cells,
    final_jobs,
    narrowed,
    read_study,
    tuning_jobs,
)
from tests.study.made_up import contestant, study

PARTS = ("fashion", "cifar", "partial", "ablation", "plus", "work")
FASHION, ABLATION, PLUS = read_study("fashion"), read_study("ablation"), read_study("plus")
WORK = read_study("work")


def default_choices(one) -> dict[str, tuple[str, ...]]:
    return {c.name: c.points[0] for c in one.contestants}


def test_every_method_of_the_benchmark_exists() -> None:
    assert FASHION.missing == []
    assert study(contestant("fedavg"), contestant("nobody")).missing == ["nobody"]


@pytest.mark.parametrize("one", FASHION.contestants, ids=lambda c: c.name)
def test_every_point_of_every_method_is_legal_and_another_run(one: Contestant) -> None:
    jobs = tuning_jobs(narrowed(FASHION, [one.name], []))
    jobs = jobs or final_jobs(narrowed(FASHION, [one.name], []), {one.name: ()}, (0,))
    settings = {dict(job.values)["setting"] for job in jobs}
    first = min(settings)
    work = composed_cells([j for j in jobs if dict(j.values)["setting"] == first], Path("x"))
    assert len({cell.folder for cell, _ in work}) == len(one.points)
    assert all(cell.folder.name.startswith(f"{one.method}-fashion_mnist-") for cell, _ in work)


@pytest.mark.parametrize("part", ["fashion", "partial"])
def test_every_setting_is_legal_and_deals_other_data(part: str) -> None:
    chosen = narrowed(read_study(part), ["fedavg"], [])
    work = composed_cells(final_jobs(chosen, {"fedavg": ("training.lr=0.1",)}, (0,)), Path("x"))
    dealt = {str((cfg.partition, cfg.shift)) for _, cfg in work}
    assert len(work) == len(dealt) == len(FASHION.settings) == 10
    assert all(cfg.training.lr == 0.1 for _, cfg in work)


@pytest.mark.parametrize("part", ["cifar", "partial"])
def test_parts_differ_in_their_recipe_alone(part: str) -> None:
    other = read_study(part)
    assert (other.contestants, other.settings) == (FASHION.contestants, FASHION.settings)
    ((cell, cfg),) = composed_cells(
        final_jobs(narrowed(other, ["fedavg"], ["iid"]), default_choices(other), (0,)), Path("x")
    )
    assert f"experiment=benchmark_{part}" in cell.overrides
    assert (cfg.dataset.pool, cfg.model._target_.rpartition(".")[2]) == (2, "LeNet")


@pytest.mark.parametrize("one", ABLATION.contestants, ids=lambda c: c.name)
def test_every_variant_is_the_base_as_tuned_with_something_else(one: Contestant) -> None:
    choices = {"fedtsdp_full": ("aggregation.momentum=0.7", "evaluation.head.ridge=0.3")}
    jobs = final_jobs(narrowed(ABLATION, [one.name], ["dir01"]), choices, (0,))
    (base,) = final_jobs(narrowed(ABLATION, ["fedtsdp_full"], ["dir01"]), choices, (0,))
    work = composed_cells([base, *(job for job in jobs if job != base)], Path("x"))
    assert len({cell.folder for cell, _ in work}) == len(work) == (1 if jobs == [base] else 2)
    assert all(cfg.evaluation.head.ridge == 0.3 for _, cfg in work)
    assert ABLATION.choice == "fashion"
    assert not ABLATION.tunes


@pytest.mark.parametrize("one", PLUS.contestants[1:], ids=lambda c: c.name)
def test_a_baseline_plus_is_the_baseline_as_tuned_with_what_the_reference_has(
    one: Contestant,
) -> None:
    ours, plain = PLUS.contestants[0], narrowed(FASHION, [one.method], []).contestants[0]
    assert ours == FASHION.contestants[0]
    assert (one.name, one.role, one.tuned_as) == (f"{one.method}_plus", "baseline", one.method)
    choices = {ours.name: ("aggregation.momentum=0.7",), one.method: plain.points[-1]}
    (_, reference), (_, given) = composed_cells(
        final_jobs(narrowed(PLUS, [ours.name, one.name], ["dir05"]), choices, (0,)), Path("x")
    )
    assert given.evaluation == reference.evaluation
    assert given.aggregation == reference.aggregation
    assert given.prior._target_ == "fedtsd.prior.Everybody"
    assert one.overrides[: len(plain.overrides)] == plain.overrides
    assert not PLUS.tunes


@pytest.mark.parametrize("one", WORK.contestants[1:], ids=lambda c: c.name)
def test_with_more_work_a_method_is_as_tuned_but_for_its_epochs(one: Contestant) -> None:
    assert WORK.contestants[0] == narrowed(FASHION, ["fedrep"], []).contestants[0]
    plain = narrowed(FASHION, [one.method], [])
    choices = {one.method: plain.contestants[0].points[-1]}
    (_, before), (_, after) = composed_cells(
        [
            *final_jobs(narrowed(plain, [], ["g2"]), choices, (0,)),
            *final_jobs(narrowed(WORK, [one.name], ["g2"]), choices, (0,)),
        ],
        Path("x"),
    )
    assert (before.training.epochs, after.training.epochs) == (2, 4)
    before.training.epochs = 4
    assert before == after


@pytest.mark.parametrize("part", PARTS)
def test_no_seed_is_tuned_on_and_reported(part: str) -> None:
    one = read_study(part)
    assert {job.seed for job in tuning_jobs(one)} <= {100}  # an untuned base is not tuned at all
    assert {job.seed for job in final_jobs(one, default_choices(one), (0, 1, 2))} == {0, 1, 2}
    with pytest.raises(ConfigError, match="seeds: 100 was tuned on"):
        final_jobs(one, {}, (0, 100))
    with pytest.raises(ConfigError, match="seeds: must be different"):
        final_jobs(one, {}, (1, 1))


def test_tuning_settings_are_settings_and_nobody_has_more_tries() -> None:
    assert set(FASHION.tuning_settings) == {"iid", "dir05", "dir01", "g2"}
    assert set(FASHION.tuning_settings) <= {setting.name for setting in FASHION.settings}
    assert {len(c.points) for c in FASHION.contestants} <= {1, 2, 3, 4}
    jobs = [dict(job.values) for job in tuning_jobs(FASHION)]
    assert {job["setting"] for job in jobs} == set(FASHION.tuning_settings)
    assert len({tuple(job.items()) for job in jobs}) == len(jobs)


def test_a_part_of_the_runs_is_of_use_seed_by_seed_leading_methods_first() -> None:
    jobs = final_jobs(FASHION, default_choices(FASHION), (0, 1, 2))
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs)
    order = list(dict.fromkeys(dict(job.values)["method"] for job in jobs))
    assert order == [c.name for c in FASHION.contestants]
    assert order[:4] == ["fedtsdp_full", "fedtsdp_prior", "local", "fedavg"]


def test_an_oracle_is_run_where_groups_are_planted_alone() -> None:
    jobs = final_jobs(FASHION, default_choices(FASHION), (0,))
    told = [dict(job.values) for job in jobs]
    assert {t["setting"] for t in told if t["role"] == "bound"} == {"g1", "g2", "g3"}
    assert {t["setting"] for t in told if t["method"] == "fedavg"} == {
        setting.name for setting in FASHION.settings
    }


def test_contestants_without_a_choice_wait() -> None:
    one = study(contestant("fedavg"), contestant("fedprox", ("a=1",), ("a=2",)))
    jobs = final_jobs(one, {"fedavg": ()}, (0,))
    assert {dict(job.values)["method"] for job in jobs} == {"fedavg"}


def test_two_points_that_are_one_run_are_refused() -> None:
    points = (("training.proximal=0.01",), ("training.proximal=0.010",))
    one = study(contestant("fedprox", *points), settings=("iid",))
    with pytest.raises(ConfigError, match="is the same run as"):
        composed_cells(tuning_jobs(one), Path("x"))


def test_seeds_are_runs_of_their_own_and_overrides_come_last() -> None:
    one = study(contestant("fedavg"), settings=("iid",))
    jobs = final_jobs(one, {"fedavg": ()}, (0, 3))
    work = composed_cells(jobs, Path("x"), ["rounds=2"])
    assert [(cfg.seed, cfg.rounds, cell.rounds) for cell, cfg in work] == [(0, 2, 2), (3, 2, 2)]
    assert len({cell.folder for cell, _ in work}) == 2
    with pytest.raises(ConfigError, match="roundz"):
        composed_cells(jobs, Path("x"), ["roundz=2"])


@pytest.mark.parametrize(
    ("kind", "call"),
    [
        ("part 'fashon' is unknown; did you mean fashion", lambda: read_study("fashon")),
        ("method 'fedavgg' is unknown", lambda: narrowed(FASHION, ["fedavgg"], [])),
        ("setting 'dir10' is unknown", lambda: narrowed(FASHION, [], ["dir10"])),
    ],
)
def test_wrong_names_are_one_line(kind: str, call) -> None:
    with pytest.raises(ConfigError, match=kind):
        call()


def test_contestants_are_checked() -> None:
    with pytest.raises(ValueError, match="role: must be one of"):
        contestant("fedavg", role="rival")
    with pytest.raises(ValueError, match="grid: must have 1 to 4 points, got 5"):
        contestant("fedavg", *((f"training.lr=0.{i}",) for i in range(5)))
