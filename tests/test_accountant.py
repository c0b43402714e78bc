"""What is spent: against other accountants and by hand, over rounds, and up to a budget."""

import dataclasses
import json

import dp_accounting
import numpy as np
import pytest
from opacus.accountants.analysis import rdp as opacus_rdp
from scipy.special import ndtr

from fedtsd.accountant import open_account
from fedtsd.aggregation_private import ClientDp
from fedtsd.clients.solvers.dp_sgd import DpSgd
from fedtsd.errors import ConfigError
from fedtsd.privacy import EVERYBODY
from tests.runs import run_toy, run_twice, table

CLIENT = (
    "method=fedavg", "aggregation=client_dp", "partition.num_clients=6", "model.hidden=[8]",
    "engine=sequential",
)  # fmt: skip
EXAMPLE = (
    "method=fedavg", "solver=dp_sgd", "partition.num_clients=6", "model.hidden=[8]",
    "engine=sequential",
)  # fmt: skip


def account(config, federation, *overrides: str):
    cfg = config(*overrides)
    return open_account(cfg, federation, cfg.mechanism)


def least_delta(epsilon: float, sigma: float) -> float:
    """Of the Gaussian mechanism with sensitivity 1 (Balle and Wang 2018, theorem 8)."""
    a, b = 1 / (2 * sigma), epsilon * sigma
    return float(ndtr(a - b) - np.exp(epsilon) * ndtr(-a - b))


def test_dp_sgd_costs_what_opacus_says(config, toy) -> None:
    """40 samples in batches of 10: four steps an epoch, each sample with probability 1/4."""
    how = *EXAMPLE, "training.batch_size=10", "rounds=3", "solver.noise_multiplier=1.3"
    found = account(config, toy(6), *how)
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(11, 64))
    for round in (1, 2, 3):
        # Two epochs a round.
        rdp = opacus_rdp.compute_rdp(q=1 / 4, noise_multiplier=1.3, steps=8 * round, orders=orders)
        expected, _ = opacus_rdp.get_privacy_spent(orders=orders, rdp=rdp, delta=1e-5)
        assert found.epsilon(round) == pytest.approx(expected, rel=5e-3)
    assert set(found.spent[3]) == set(range(6))


def test_everybody_in_every_round_is_gaussian_noise_and_no_more(config, toy) -> None:
    """Five rounds of noise z = 8 against a move of 2: one with sigma = 8 / 2 / sqrt(5)."""
    how = *CLIENT, "rounds=5", "aggregation.noise_multiplier=8.0"
    epsilon = account(config, toy(6), *how).epsilon(5)
    sigma = 4 / np.sqrt(5)
    assert least_delta(epsilon, sigma) <= 1e-5  # a true bound
    assert least_delta(0.85 * epsilon, sigma) > 1e-5  # and not far from the best
    assert epsilon == pytest.approx(dp_accounting.get_epsilon_gaussian(sigma, 1e-5), rel=0.15)


def test_a_draw_without_replacement_costs_less_than_everybody(config, toy) -> None:
    how = *CLIENT, "rounds=5", "aggregation.noise_multiplier=8.0"
    all_of_them = account(config, toy(6), *how).epsilon(5)
    some = account(config, toy(6), *how, "cohort.size=2").epsilon(5)
    assert some < 0.8 * all_of_them
    # Theorem 27 of Wang et al. at order 2 by hand: log(1 + q^2 min(4 (e^r - 1), 2 e^r)), with
    # r = 2 / (2 sigma^2) = 1 / 16 the divergence of order 2 of sigma = 4.
    event = dp_accounting.SampledWithoutReplacementDpEvent(6, 2, dp_accounting.GaussianDpEvent(4.0))
    relation = dp_accounting.NeighboringRelation.REPLACE_ONE
    rdp = dp_accounting.rdp.RdpAccountant([2.0], relation).compose(event).rdp[0]
    growth = np.exp(1 / 16)
    expected = np.log(1 + (2 / 6) ** 2 * min(4 * (growth - 1), 2 * growth))
    assert rdp == pytest.approx(expected)


def test_who_trains_more_often_spends_more_and_the_tables_have_the_most(config, toy) -> None:
    found = account(config, toy(6), *EXAMPLE, "rounds=6", "cohort.size=2")
    cfg = config(*EXAMPLE, "rounds=6", "cohort.size=2")
    cohorts = [cfg.cohort.choose(np.arange(6), cfg.seed, r).tolist() for r in range(1, 7)]
    often = {c: sum(c in cohort for cohort in cohorts) for c in range(6)}
    last = found.spent[6]
    assert last.keys() == {c for c, times in often.items() if times}
    for a in last:
        for b in last:
            assert (last[a] < last[b]) == (often[a] < often[b])
    assert found.epsilon(6) == max(last.values())
    assert found.epsilon(0) == 0.0


def test_newcomers_count_from_when_they_join(config, toy) -> None:
    federation = dataclasses.replace(toy(6), newcomers=(4, 5))
    late = "cohort.newcomers=0.34", "cohort.join_round=3"
    spent = account(config, federation, *EXAMPLE, "rounds=3", *late).spent
    assert [sorted(after) for after in spent[1:]] == [[0, 1, 2, 3], [0, 1, 2, 3], list(range(6))]
    assert spent[3][4] == spent[1][0]
    with_all = account(config, toy(6), *CLIENT, "rounds=3", "cohort.size=2")
    with_few = account(config, federation, *CLIENT, "rounds=3", "cohort.size=2", *late)
    assert with_few.epsilon(2) > with_all.epsilon(2)  # 2 of 4 are drawn, not 2 of 6
    assert with_few.spent[3].keys() == {EVERYBODY}


@pytest.mark.parametrize("how", [CLIENT, EXAMPLE], ids=["client", "example"])
def test_a_run_ends_before_it_would_spend_too_much(how, config, toy, tmp_path) -> None:
    group = "aggregation" if how is CLIENT else "solver"
    free = account(config, toy(6), *how, "rounds=6")
    target = (free.epsilon(3) + free.epsilon(4)) / 2
    budget = f"{group}.target_epsilon={target}"
    cfg = config(*how, "rounds=6", budget, "eval_every=5", "checkpoint_every=2")
    whole, parts = run_twice(cfg, toy(6), tmp_path, stop=2)
    for path in (whole, parts):
        rounds = table(path, "rounds")
        assert rounds["round"].tolist() == [1, 2, 3]
        assert rounds["epsilon"].tolist() == [free.epsilon(r) for r in (1, 2, 3)]
        assert table(path, "clients")["round"].unique().tolist() == [3]  # it is the last
        said = json.loads((path / "summary.json").read_text())["privacy"]
        assert said["epsilon"] == free.epsilon(3) <= target < free.epsilon(4)
        assert (said["delta"], said["rounds"], said["target_epsilon"]) == (1e-5, 3, target)
        assert "ends the run after round 3 of 6" in said["ending"]
    texts = [(path / "clients.csv").read_text() for path in (whole, parts)]
    assert texts[0] == texts[1]


def test_a_budget_that_lasts_is_not_spoken_of(config, toy, tmp_path) -> None:
    run_toy(config(*CLIENT, "rounds=2", "aggregation.target_epsilon=1e6"), toy(6), tmp_path)
    said = json.loads((tmp_path / "summary.json").read_text())["privacy"]
    assert said["ending"] is None
    assert said["level"] == "client"
    assert said["epsilon_per_client"] is None
    assert table(tmp_path, "rounds")["epsilon"].iloc[-1] == said["epsilon"]


@pytest.mark.parametrize(("how", "group"), [(CLIENT, "aggregation"), (EXAMPLE, "solver")])
def test_a_budget_of_less_than_a_round_is_refused(how, group, config, toy) -> None:
    with pytest.raises(ConfigError, match=f"{group}.target_epsilon: one round spends .* got 0.01"):
        account(config, toy(6), *how, f"{group}.target_epsilon=0.01")


def test_both_say_between_which_data_nobody_can_tell() -> None:
    assert (ClientDp.level, ClientDp.relation) == ("client", "REPLACE_ONE")
    assert (DpSgd.level, DpSgd.relation) == ("example", "REPLACE_SPECIAL")
