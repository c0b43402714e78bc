"""Client-level differential privacy: the aggregate does not tell whether a client was there.

DP-FedAvg (McMahan et al. 2018), with cohorts of a fixed size.

Shapes: N clients, M of them in a cohort.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedtsd.imports import from_extra
from fedtsd.messages import Reply
from fedtsd.models import Layer, length_of
from fedtsd.privacy import EVERYBODY, Mechanism, Release, Turn
from fedtsd.robust import updates_of
from fedtsd.seeding import torch_rng
from fedtsd.server import ServerState, Tensors
from fedtsd.training import Training

with from_extra("privacy"):
    import dp_accounting


@dataclass(frozen=True)
class ClientDp(Mechanism):
    """centre <- centre + (sum of clipped updates + noise) / M, all clients alike.

    Neighbours are federations in one of which a client holds other data (REPLACE_ONE): M of N
    clients are drawn without replacement, so both numbers are known to everybody. Then the sum
    moves by up to two clips, and the noise is half its multiplier in units of that. The cost is
    that of Wang et al. 2019 for Gaussian noise and such draws.

    cohort: M, the denominator, whoever answers; None means all clients that are there. seed: of the
    noise. Who knows it can take the noise away again: it is there for simulations.
    """

    cohort: int | None
    seed: int

    partner: ClassVar[str | None] = None
    group: ClassVar[str] = "aggregation"
    level: ClassVar[str] = "client"
    relation: ClassVar[str] = "REPLACE_ONE"

    @property
    def sums(self) -> str | None:
        return None

    def check(self, num_layers: int) -> None:
        """Fit any model."""

    def update(self, server: ServerState, reply: Reply, layers: Sequence[Layer]) -> ServerState:
        (centre,) = server.centres
        size = self._size(len(server.present))
        rng = torch_rng(self.seed, "client noise", reply.round)
        way = {
            name: total + self.clip * self.noise_multiplier * _normal(total, rng)
            for name, total in self.clipped_sum(centre, reply).items()
        }
        moved = {n: (centre[n].double() + w / size).to(centre[n].dtype) for n, w in way.items()}
        return dataclasses.replace(server, centres=({**centre, **moved},))

    def clipped_sum(self, centre: Tensors, reply: Reply) -> dict[str, Tensor]:
        """Return the sum of updates, none longer than the clip, of the tensors that are shared."""
        rows = sorted(reply.rows, key=lambda row: row.client)
        updates = updates_of(centre, rows)
        scales = [min(1.0, self.clip / (length_of(update) or math.inf)) for update in updates]
        total = {n: 0.0 * centre[n].double() for n in centre if any(n in u for u in updates)}
        for update, scale in zip(updates, scales, strict=True):
            for name, tensor in update.items():
                total[name] += scale * tensor
        return total

    def releases(self, turn: Turn, training: Training) -> Mapping[int, Sequence[Release]]:
        noise = dp_accounting.GaussianDpEvent(self.noise_multiplier / 2)
        drawn = dp_accounting.SampledWithoutReplacementDpEvent(
            turn.present, self._size(turn.present), noise
        )
        return {EVERYBODY: [(drawn, 1)]}

    def _size(self, present: int) -> int:
        return present if self.cohort is None else self.cohort


def _normal(like: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=rng, dtype=torch.float64).to(like.device)
