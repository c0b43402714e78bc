from pathlib import Path

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from fedtsd.catalogue import GROUPS, conf_dir, options
from fedtsd.compose import cells, check, composed, key_of, resolve
from fedtsd.config import parse
from fedtsd.data.partition import Dirichlet
from fedtsd.errors import ConfigError
from fedtsd.personalization import Adaptive
from tests.own import write_clinics, write_pictures

ALL = [(group, option) for group in GROUPS for option in options(group)]
TABLE = ("dataset=table", "dataset.path=clinics", "dataset.target=diagnosis")
NEEDS = {
    "dataset=table": TABLE[1:],
    "dataset=image_folder": ("dataset.path=pictures",),
    "dataset=arrays": ("dataset.path=arrays.npz",),
    "partition=by_site": TABLE,
    "public=folder": ("public.path=other", "dataset.standardise=moments"),
    "public=noise": ("dataset.standardise=moments",),
    "public=contaminated": ("dataset.standardise=moments",),
    "public=other": ("dataset=fashion_mnist", "dataset.standardise=moments"),
    "clustering=oracle": ("partition=label_groups",),
    "aggregation=client_dp": ("method=fedavg",),
    "aggregation=scaffold": ("method=scaffold",),
    "solver=apfl": ("method=apfl",),
    "solver=dp_sgd": ("method=fedavg",),
    "solver=fedala": ("method=fedala",),
    "solver=per_fedavg": ("method=per_fedavg",),
    "solver=pfedme": ("method=pfedme",),
    "solver=scaffold": ("method=scaffold",),
    "solver=twin": ("method=ditto",),
    "personalization=normalisation": ("model=resnet8",),
    "method=fedbn": ("model=resnet8",),
    "method=oracle": ("partition=label_groups",),
}
"""What these options cannot do without."""


@pytest.mark.parametrize(("group", "option"), ALL)
def test_every_config_file_composes_and_says_what_it_is(
    group: str, option: str, outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDTSD_DATA", str(outputs / "data"))
    write_clinics(outputs / "clinics")
    write_pictures(outputs / "pictures", per_class=40)
    write_pictures(outputs / "other")
    np.savez(outputs / "arrays.npz", x=np.eye(300)[:, :4], y=np.arange(300) % 3)
    config = check(composed([f"{group}={option}", *NEEDS.get(f"{group}={option}", ())]))
    assert config.dataset.facts.num_samples >= 100
    assert options(group)[option]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("clinics", "clinics"),
        ("clinics/lima.csv", "lima"),
        ("clinics/", "clinics"),
        ("./my data", "my_data"),
    ],
)
def test_own_data_are_named_after_their_place(path: str, name: str, outputs: Path) -> None:
    write_clinics(outputs / "clinics")
    write_clinics(outputs / "my data")
    known = ["dataset=table", "dataset.target=diagnosis", "partition.num_clients=5"]
    assert check(composed([*known, f'dataset.path="{path}"'])).dataset.name == name
    given = composed(["dataset=table", f'dataset.path="{path}"', "dataset.name=mine"])
    assert resolve(given)["dataset"]["name"] == "mine"


def test_a_node_becomes_its_dataclass(config) -> None:
    cfg = config("partition.alpha=0.3", "partition.num_clients=7", "model.hidden=[4]")
    assert cfg.partition == Dirichlet(7, 10, None, None, 0.3)
    assert isinstance(cfg.personalization, Adaptive)
    assert cfg.training.phases[0].epochs == cfg.training.epochs == 2


def test_the_command_line_wins_over_the_method(config) -> None:
    cfg = config("method=fedtsdp", "clustering=one", "training.proximal=0.5")
    assert type(cfg.clustering).__name__ == "OneCluster"
    assert cfg.training.phases[0].proximal == 0.5


def test_an_experiment_is_overridden_by_the_command_line(config) -> None:
    cfg = config("experiment=fashion_prototype", "partition=iid", "method=fedavg", "rounds=3")
    assert (cfg.dataset.name, type(cfg.partition).__name__, cfg.rounds) == (
        "fashion_mnist",
        "Iid",
        3,
    )
    assert cfg.partition.samples_per_client == 534


@pytest.mark.parametrize("experiment", options("experiment"))
def test_severity_wins_over_an_experiment(experiment: str, config) -> None:
    mild, severe, extreme = (
        config(f"experiment={experiment}", f"severity={level}").partition
        for level in ("mild", "severe", "extreme")
    )
    assert mild not in (severe, extreme)
    assert severe != extreme


def test_severity_sets_every_knob_that_is_there(config) -> None:
    assert config("severity=severe").partition.alpha == 0.1
    assert config("severity=iid").partition.alpha == float("inf")
    mixed = config(
        "partition=pathological", "sizes=lognormal", "shift=rotation", "drift=new_law",
        "severity=severe",
    )  # fmt: skip
    assert mixed.partition.classes_per_client == 2
    assert mixed.partition.sizes.sigma == 1.2
    assert mixed.shift.degrees == 90
    assert mixed.drift.share == 0.5
    # Who sets a knob by hand means it; the others still follow.
    by_hand = config("partition.alpha=0.3", "sizes=lognormal", "severity=mild").partition
    assert (by_hand.alpha, by_hand.sizes.sigma) == (0.3, 0.3)


def test_a_knob_set_by_hand_and_the_same_by_severity_are_one_run() -> None:
    by_hand, by_severity = (
        key_of(resolve(composed([o]))) for o in ("partition.alpha=0.1", "severity=severe")
    )
    assert by_hand == by_severity
    assert by_hand != key_of(resolve(composed([])))


def test_a_part_that_is_null_leaves_the_key_as_it_is() -> None:
    plain = resolve(composed([]))
    assert plain["drift"] is None
    without = {key: value for key, value in plain.items() if key != "drift"}
    assert key_of(without) == key_of(plain) == key_of({**plain, "later": None})
    assert key_of({**plain, "later": {"_target_": "x"}}) != key_of(plain)


def test_what_is_null_of_a_head_leaves_the_key_as_it_is() -> None:
    free = ["evaluation.stages=[headed]", "evaluation.head.bias_ridge=null"]
    headed = resolve(composed(free))
    head = {k: v for k, v in headed["evaluation"]["head"].items() if k != "bias_ridge"}
    without = {**headed, "evaluation": {**headed["evaluation"], "head": head}}
    penalised = resolve(composed(free[:1]))
    assert key_of(without) == key_of(headed) != key_of(penalised)


def test_how_heads_are_fitted_counts_where_there_is_one() -> None:
    plain, headed = [], ["evaluation.stages=[personalized,headed]"]
    other = "evaluation.head.ridge=7"
    assert key_of(resolve(composed(plain))) == key_of(resolve(composed([*plain, other])))
    assert key_of(resolve(composed(headed))) != key_of(resolve(composed([*headed, other])))


def test_changed_files_are_another_run(outputs) -> None:
    write_clinics(outputs / "clinics")
    before = key_of(resolve(composed(list(TABLE))))
    assert before == key_of(resolve(composed(list(TABLE))))
    with (outputs / "clinics/lima.csv").open("a") as file:
        file.write("\n")
    assert before != key_of(resolve(composed(list(TABLE))))


ERRORS = [
    ("sed=1", "key 'sed' is unknown; did you mean seed?"),
    ("partition.alhpa=1", "did you mean partition.alpha?"),
    ("datset=digits", "did you mean dataset?"),
    ("method=fedprx", "method: 'fedprx' is unknown; did you mean fedprox?"),
    ("dataset=digit", "did you mean digits?"),
    ("seed=one", "seed: must be a whole number, got 'one'"),
    ("seed=-1", "seed: must be at least 0, got -1"),
    ("rounds=0", "rounds: must be at least 1, got 0"),
    ("rounds=1.5", "rounds: must be a whole number, got 1.5"),
    ("partition.alpha=0", "partition.alpha: must be above 0, got 0"),
    ("partition.alpha=-1", "partition.alpha: must be above 0, got -1"),
    ("partition.alpha=nan", "partition.alpha: must be a number, got nan"),
    ("partition.alpha=x", "partition.alpha: must be a number, got 'x'"),
    ("partition.num_clients=0", "partition.num_clients: must be at least 1, got 0"),
    ("partition.num_clients=500", "partition.num_clients: 500 clients with at least 10 samples"),
    ("cohort.size=21", "cohort.size: must be null or 1 to the 20 clients there are, got 21"),
    ("severity=sever", "severity: 'sever' is unknown; did you mean severe?"),
    ("cohort.newcomers=1", "cohort.newcomers: must be in [0, 1), got 1"),
    ("cohort.join_round=3", "cohort.join_round: 3 means nothing without newcomers"),
    ("shift=rotatoin", "shift: 'rotatoin' is unknown; did you mean rotation?"),
    ("partition=by_site", "partition.by_site: needs data that say whose each sample is"),
    ("dataset=table", "dataset.path"),
    ("public=noise", "dataset.standardise: public needs public samples of the data set itself"),
    ("dataset.standardise=mean", "dataset.standardise: must be one of public, moments, site, none"),
    ("cohort.size=0", "cohort.size: must be null or 1"),
    ("device=gpu", "device: must be one of auto, cpu, cuda, got 'gpu'"),
    ("training.lr=0", "training.lr: must be above 0 and finite, got 0"),
    ("training.batch_size=0", "training.batch_size: must be at least 1"),
    ("training=3", "training"),
    ("public.size=1797", "public.size: must be below the 1797 samples of the data set"),
    ("public.size=0", "public.size: must be null or at least 1, got 0"),
    ("dataset.public_size=1797", "dataset.public_size: must be below the 1797 samples"),
    ("dataset.public_size=0", "dataset.public_size: must be null or at least 1, got 0"),
    ("evaluation.stages=[best]", "evaluation.stages: must be one or more of personalized, tuned"),
    ("evaluation.clients=0", "evaluation.clients: must be null or at least 1, got 0"),
    ("evaluation.clients=99", "evaluation.clients: must be null or 1 to the 20 clients there are"),
    ("precision=fp64", "precision: must be one of fp32, tf32, bf16, got 'fp64'"),
    ("precision=tf32", "precision: tf32 needs device=cuda, got cpu; take fp32 or bf16"),
    ("split.test=1", "split.test: must be in [0, 1), got 1"),
    ("clustering.confirmations=0", "clustering.confirmations: must be at least 1"),
    ("clustering.hopkins.dimensions=0", "clustering.hopkins.dimensions must be at least 1, got 0"),
    ("+clustering.extra=1", "key 'clustering.extra' is unknown"),
    ("evaluation.local_run=/nowhere", "evaluation.local_run: /nowhere is not the folder"),
    ("dataset.name=a;b", "dataset.name: 'a;b' needs quotes, written as 'dataset.name=\"a;b\"'"),
    ("seed=", "seed: must be a whole number, got ''"),
    ("=", "No match"),
    ("model=0", "model: '0' is unknown; legal: cnn, lenet, mlp, resnet8"),
]


@pytest.mark.parametrize(("override", "message"), ERRORS)
def test_errors_are_one_line_with_the_nearest_name(override: str, message: str) -> None:
    from fedtsd.errors import InputError

    with pytest.raises(InputError) as caught:
        check(composed([override]))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=fedper", "personalization.layers=3"], "personalization.layers: must be 0 to 2"),
        (["model=lenet", "method=lg_fedavg", "personalization.layers=5"], "must be 0 to 4"),
        (["partition=pathological", "partition.classes_per_client=11"], "at most the 10 classes"),
        (["model=resnet8", "model.groups=3"], "model.width: must be a positive multiple"),
        (["dataset=mnist", "dataset.pool=3"], "dataset.pool: must divide the image side 28"),
        (["dataset=mnist", "model=lenet", "dataset.pool=14"], "model.LeNet needs images"),
        (["partition=iid", "severity=severe"], "severity: severe changes nothing here"),
        (["partition.alpha=0.3", "severity=severe"], "severity: severe changes nothing here"),
        (
            [*TABLE, "partition=by_site", "drift=new_law"],
            "drift: needs clients to whom samples can",
        ),
        (["drift=new_law", "drift.round=21"], "drift.round: must be at most rounds, got 21"),
        (["drift=new_law", "partition.num_clients=150"], "partition.num_clients: 225 clients"),
        (["cohort.newcomers=0.5", "cohort.join_round=30"], "cohort.join_round: must be at most"),
        (["cohort.newcomers=0.5", "cohort.size=11"], "cohort.size: must be null or 1 to the 10"),
        (["cohort.newcomers=0.99"], "cohort.newcomers: leaves none of 20 clients to train"),
    ],
)
def test_contradictions_are_found_before_training(overrides, message, outputs) -> None:
    write_clinics(outputs / "clinics")
    with pytest.raises(ConfigError) as caught:
        check(composed(overrides))
    assert message in str(caught.value)


def plain() -> dict:
    return resolve(composed([]))


def test_targets_must_be_dataclasses() -> None:
    node = plain()
    node["dataset"] = {"_target_": "os.system"}
    with pytest.raises(ConfigError, match=r"dataset\._target_: 'os\.system' is not a dataclass"):
        parse(node)
    with pytest.raises(ConfigError, match="cannot be imported"):
        parse({**node, "dataset": {"_target_": "fedtsd.nothing.Here"}})


def test_sweeps_are_spread_into_cells() -> None:
    found = list(cells(["seed=0,1", "method=fedavg,fedper", "rounds=3"]))
    assert len(found) == 4
    assert ["seed=1", "method=fedper", "rounds=3"] in found
    assert list(cells(["seed=0"])) == [["seed=0"]]


def test_methods_change_the_defaults(config) -> None:
    assert config("method=fedprox").training.phases[0].proximal == 0.01
    tuned = config("method=fedavg_ft", "training.epochs=3").evaluation
    assert (tuned.stages, tuned.tuning_epochs) == (("personalized", "tuned"), 3)


@pytest.mark.parametrize("group", ["method", "experiment"])
def test_every_value_of_a_global_file_arrives(group: str) -> None:
    def arrived(given: dict, found: dict, path: str) -> None:
        for key, value in given.items():
            if isinstance(value, dict):
                arrived(value, found[key], f"{path}.{key}")
            elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
                for i, (item, its) in enumerate(zip(value, found[key], strict=True)):
                    arrived(item, its, f"{path}.{key}[{i}]")
            elif not (isinstance(value, str) and "${" in value):
                assert found[key] == value, f"{path}.{key}"

    for option in options(group):
        node = yaml.safe_load((conf_dir() / group / f"{option}.yaml").read_text())
        node.pop("defaults", None)
        node.pop("hydra", None)  # what a sweep does, no part of a run
        found = OmegaConf.to_container(composed([f"{group}={option}"]), resolve=True)
        arrived(node, found, option)


@pytest.mark.parametrize(
    ("overrides", "lacks"),
    [
        (("prior._target_=fedtsd.data.sizes.Equal",), "adapt"),
        (("clustering=one", "clustering._target_=fedtsd.prior.NoPrior"), "answered"),
        (("robust=median", "robust._target_=fedtsd.prior.NoPrior"), "summed"),
    ],
)
def test_a_part_of_another_kind_is_refused(overrides, lacks: str, config) -> None:
    with pytest.raises(ConfigError) as error:
        config("method=fedavg", *overrides)
    key, _, target = overrides[-1].partition("=")
    assert str(error.value) == (
        f"{key}: {target!r} is no part of this kind, it has no {lacks}; must be one that the "
        "group's own files name"
    )
