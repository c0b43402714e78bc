"""The accountant: the epsilon that a run has spent after each round.

Costs are Rényi divergences (Mironov 2017) by dp-accounting: they add up over rounds, and are then
turned into epsilon at the mechanism's delta. Nothing is measured: who trains when, and on how many
samples, follows from config and data. So all rounds are known before the first, and a run that is
resumed finds the same numbers without having kept any.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import dp_accounting
import numpy as np
from dp_accounting.rdp import RdpAccountant, compute_epsilon

from fedtsd.config import Config
from fedtsd.data.federation import Federation
from fedtsd.errors import ConfigError
from fedtsd.privacy import EVERYBODY, Mechanism, Turn

# It warns of orders that it leaves out, one by one; epsilon is then the least of the others.
logging.getLogger("absl").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Account:
    """What a run spends.

    spent: epsilon by client (or for EVERYBODY) after round 0, 1, ..., up to the last round that the
    budget allows. planned: how many rounds were asked for.
    """

    mechanism: Mechanism
    spent: tuple[Mapping[int, float], ...]
    planned: int

    @property
    def rounds(self) -> int:
        """How many rounds the budget allows, at most those planned."""
        return len(self.spent) - 1

    def epsilon(self, round: int) -> float:
        """Return what is spent after a round: of the client of whom most is."""
        return max(self.spent[round].values(), default=0.0)

    @property
    def ending(self) -> str | None:
        """Why the run ends early, in words; None if it does not."""
        if self.rounds == self.planned:
            return None
        return (
            f"the budget of epsilon {self.mechanism.target_epsilon:g} ends the run after round "
            f"{self.rounds} of {self.planned}, with {self.epsilon(self.rounds):.3g} spent"
        )

    def described(self) -> Iterator[str]:
        """Yield lines about what is going to be spent."""
        how = self.mechanism
        yield (
            f"privacy: {how.level} level ({how.relation}), clip {how.clip:g}, noise multiplier "
            f"{how.noise_multiplier:g}: epsilon {self.epsilon(self.rounds):.3g} at delta "
            f"{how.delta:g} after round {self.rounds}"
        )
        if self.ending is not None:
            yield f"privacy: {self.ending}"

    def summary(self) -> dict[str, Any]:
        """Return what summary.json says of a run that is over."""
        how, last = self.mechanism, self.spent[-1]
        each = {str(c): epsilon for c, epsilon in sorted(last.items()) if c != EVERYBODY}
        return {
            "level": how.level,
            "relation": how.relation,
            "epsilon": self.epsilon(self.rounds),
            "delta": how.delta,
            "target_epsilon": how.target_epsilon,
            "clip": how.clip,
            "noise_multiplier": how.noise_multiplier,
            "rounds": self.rounds,
            "ending": self.ending,
            "epsilon_per_client": each or None,
        }


def open_account(config: Config, federation: Federation, mechanism: Mechanism) -> Account:
    """Work out what a run spends. Raises ConfigError if the budget does not last for a round."""
    known: list[Mapping[int, float]] = [{}]
    for round, after in enumerate(spending(config, turns(config, federation), mechanism), start=1):
        epsilon, target = max(after.values()), mechanism.target_epsilon
        if target is not None and epsilon > target:
            if round == 1:
                raise ConfigError(
                    f"{mechanism.group}.target_epsilon: one round spends {epsilon:.3g} at delta "
                    f"{mechanism.delta:g}; must be more than that, got {target:g}"
                )
            break
        known.append(after)
    return Account(mechanism, tuple(known), config.rounds)


def turns(config: Config, federation: Federation) -> Iterator[Turn]:
    """Yield who trains in each round, as far as privacy depends on it."""
    everybody = np.arange(federation.num_clients)
    before = np.setdiff1d(everybody, federation.newcomers)
    joining = config.cohort.join_round
    for round in range(1, config.rounds + 1):
        present = everybody if joining is not None and round >= joining else before
        chosen = config.cohort.choose(present, config.seed, round)
        sizes = {c: federation.num_training(c, round) for c in chosen.tolist()}
        yield Turn(len(present), sizes)


def spending(
    config: Config, turns: Iterable[Turn], mechanism: Mechanism
) -> Iterator[dict[int, float]]:
    """Yield after each round the epsilon spent by client, or for EVERYBODY."""
    past: dict[int, Counter[Any]] = {}
    for turn in turns:
        for client, releases in mechanism.releases(turn, config.training).items():
            counted = past.setdefault(client, Counter())
            for event, count in releases:
                counted[event] += count
        yield {
            client: _epsilon(frozenset(counted.items()), mechanism.relation, mechanism.delta)
            for client, counted in past.items()
        }


@cache
def _epsilon(releases: frozenset[Any], relation: str, delta: float) -> float:
    orders = RdpAccountant().orders
    total = sum((count * _cost(event, relation) for event, count in releases), 0.0 * orders)
    return float(compute_epsilon(orders, total, delta)[0])


@cache
def _cost(event: Any, relation: str) -> np.ndarray:
    """Return the Rényi divergence of one release at each of the accountant's orders."""
    accountant = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation[relation])
    return np.asarray(accountant.compose(event).rdp)
