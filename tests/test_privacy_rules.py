"""What the account does not cover is refused; what it covers is not."""

import pytest

from fedtsd.catalogue import conf_dir, options
from fedtsd.clustering.policy import Quiet
from fedtsd.compose import composed, resolve
from fedtsd.config import parse
from fedtsd.errors import ConfigError
from tests.own import write_diabetes

CLIENT = "method=fedavg", "aggregation=client_dp"
EXAMPLE = "method=fedavg", "solver=dp_sgd"
BATCH = "model=resnet8", "model.norm=batch"
GROUPS = "partition=label_groups"
FIELDS = r"^[a-z_.]+: .*(set|must be|choose) .*"


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (("solver=dp_sgd",), "solver._target_"),
        (("clustering=two_stage",), "clustering._target_"),
        (("clustering=ifca",), "clustering._target_"),
        (("clustering=pacfl",), "clustering._target_"),
        (("clustering=cfl",), "clustering._target_"),
        (("clustering=fedgroup",), "clustering._target_"),
        (("clustering=fesem",), "clustering._target_"),
        (("clustering=oracle", GROUPS), "clustering._target_"),
        (("personalization=adaptive",), "personalization._target_"),
        (("prior=skewed",), "prior._target_"),
        (("coding=matched",), "coding"),
        (("dataset.standardise=moments",), "dataset.standardise"),
        (("faults=flaky",), "faults"),
        (BATCH, "model.norm"),
    ],
)
def test_client_level_refuses_who_reads_a_single_client(overrides, field, config) -> None:
    with pytest.raises(ConfigError, match=FIELDS) as error:
        config(*CLIENT, *overrides)
    assert str(error.value).startswith(f"{field}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ("personalization=last",),
        ("personalization=normalisation", *BATCH),
        ("prior=everybody",),
        ("dataset.standardise=site",),
        ("solver=twin",),
        ("solver=apfl",),
        ("cohort.newcomers=0.2", "cohort.join_round=3"),
        ("attack=sign_flip",),
        ("evaluation.stages=[headed]",),
    ],
)
def test_client_level_allows_what_stays_with_a_client(overrides, config) -> None:
    assert config(*CLIENT, *overrides).mechanism.level == "client"


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (("clustering=two_stage",), "clustering._target_"),
        (("clustering=ifca",), "clustering._target_"),
        (("clustering=pacfl",), "clustering._target_"),
        (("clustering=cfl", "cohort.newcomers=0.2", "cohort.join_round=3"), "cohort.join_round"),
        (("prior=everybody",), "prior._target_"),
        (("prior=skewed",), "prior._target_"),
        (
            ("personalization=adaptive", "personalization.noise_floor=null"),
            "personalization.noise_floor",
        ),
        (("prior=skewed", "prior.noise_floor=null"), "prior.noise_floor"),
        (("dataset.standardise=moments",), "dataset.standardise"),
        (("dataset.standardise=site",), "dataset.standardise"),
        (BATCH, "model.norm"),
        (("faults=none",), "faults"),
        (("precision=bf16",), "precision"),
        (("training.max_grad_norm=1.0",), "solver.clip"),
        (("aggregation=scaffold",), "aggregation._target_"),
    ],
)
def test_example_level_refuses_what_no_noise_was_added_to(overrides, field, config) -> None:
    with pytest.raises(ConfigError, match=FIELDS) as error:
        config(*EXAMPLE, *overrides)
    assert str(error.value).startswith(f"{field}: ")


@pytest.mark.parametrize(
    "overrides",
    [
        ("clustering=cfl",),
        ("clustering=fedgroup",),
        ("clustering=fesem",),
        ("clustering=oracle", GROUPS),
        ("personalization=adaptive",),
        ("personalization=last",),
        ("robust=median",),
        ("coding=matched",),
        ("aggregation=adam",),
        ("dataset.standardise=none",),
        ("cohort.newcomers=0.2", "cohort.join_round=3"),
        ("evaluation.stages=[tuned]",),
        ("model=resnet8",),
    ],
)
def test_example_level_allows_what_is_made_of_private_weights(overrides, config) -> None:
    assert config(*EXAMPLE, *overrides).mechanism.level == "example"


@pytest.mark.parametrize("how", [CLIENT, EXAMPLE])
def test_sums_of_targets_are_not_covered(how, config, outputs) -> None:
    write_diabetes(outputs / "sites")
    table = "dataset=table", "dataset.path=sites", "dataset.target=target", "partition=by_site"
    raw = "dataset.standardise=none"
    assert config(*table, raw, "method=fedavg").mechanism is None
    with pytest.raises(ConfigError, match=r"^dataset: the target is a number, .*"):
        config(*table, raw, *how)


def test_whoever_asks_says_so() -> None:
    """A policy with questions of its own is one whose answers the account would miss."""
    for option in options("clustering"):
        how = [f"clustering={option}", *([GROUPS] if option == "oracle" else [])]
        policy = parse(resolve(composed(how))).clustering
        assert policy.asks == (type(policy).question is not Quiet.question), option


def test_most_runs_are_not_private(config) -> None:
    assert config().mechanism is None
    assert (conf_dir() / "aggregation/client_dp.yaml").is_file()
