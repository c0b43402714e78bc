"""FedALA (Zhang et al. 2023): each client learns how much of what it received it takes over.

Adaptive local aggregation: element by element, a client starts from
local + (received - local) W, with W in 0..1, learned on its own samples.
"""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from fedtsd.clients import local
from fedtsd.clients.solvers.solver import Quiet, Workbench
from fedtsd.clients.solvers.steps import check_shared
from fedtsd.data.holdings import Split
from fedtsd.models import STATISTICS
from fedtsd.server import Tensors
from fedtsd.training import Training

LOCAL = "ala/"
WEIGHT = "ala_weight/"
TRAININGS = "ala/trainings"
LOOKED_AT = 10
STEADY = 0.1
"""W is learned when the last ten losses deviate by less than this (both from the paper)."""


@dataclass(frozen=True)
class FedAla(Quiet):
    """Merge the top layers with the client's own ones, then train as plain SGD does.

    top_layers: to how many of the last layers; those below are overwritten. A layer is what stands
    before the first dot of tensors' names, so normalisation beside a layer counts as one.
    share: of the training samples, drawn anew each time, on which W is learned. lr: of W.
    patience: passes over them in the second training, at most, if the loss is not steady before.
    Later trainings make one pass. The loss is that of all those samples, after a pass; gradients
    are clipped and decayed as in training.

    A client keeps its own top layers as they were after its last training, and W. In its first
    training there is nothing to merge. It serves the merged model with the W that it has, which is
    what it received while W is 1. BatchNorm's running statistics are overwritten in all layers.
    """

    top_layers: int
    share: float
    lr: float
    patience: int

    def __post_init__(self) -> None:
        if self.top_layers < 1:
            raise ValueError(f"top_layers: must be at least 1, got {self.top_layers}")
        if not 0 < self.share <= 1:
            raise ValueError(f"share: must be in (0, 1], got {self.share}")
        if self.lr < 0:
            raise ValueError(f"lr: must be at least 0, got {self.lr}")
        if self.patience < 1:
            raise ValueError(f"patience: must be at least 1, got {self.patience}")

    def check(self, training: Training, num_personal: int) -> None:
        check_shared("FedALA", num_personal)

    def private(self, model: Tensors) -> Tensors:
        """Return the client's own top layers, the weights W, and how often it has trained [1]."""
        top = self._top(model)
        kept = {LOCAL + name: model[name] for name in top}
        weights = {WEIGHT + name: torch.ones_like(model[name]) for name in top}
        return {**kept, **weights, TRAININGS: torch.zeros(1)}

    def train(self, bench: Workbench) -> int:
        trainings = bench.kept[TRAININGS]
        self.serve(bench)
        processed = 0
        if trainings > 0:
            processed = self._learn(bench, first=bool(trainings == 1))
            self.serve(bench)
        processed += bench.fit(bench.split, bench.phases, bench.personal, bench.rng)
        for name in self._top(bench.tensors):
            bench.kept[LOCAL + name].copy_(bench.tensors[name].detach())
        trainings.add_(1)
        return processed

    def serve(self, bench: Workbench) -> None:
        bench.load(bench.received)
        bench.load(self._merged(bench))

    def _learn(self, bench: Workbench, first: bool) -> int:
        """Learn W from where it is; return the number of samples processed."""
        sample = sample_of(bench.split, self.share, bench.rng)
        place = replace(bench, split=sample)
        losses: list[float] = []
        processed = 0
        for _ in range(self.patience if first else 1):
            for inputs, labels in place.steps(1):
                self._improve(bench, bench.gradient(inputs, labels))
                bench.load(self._merged(bench))
            processed += len(sample)
            if first:
                losses.append(local.mean_loss(bench.network, sample))
            if steady(losses):
                break
        return processed

    @torch.no_grad()
    def _improve(self, bench: Workbench, gradient: Tensors) -> None:
        """Move W against the gradient of the loss of the merged model, and hold it in 0..1."""
        for name in self._top(gradient):
            way = bench.received[name] - bench.kept[LOCAL + name]
            bench.kept[WEIGHT + name].sub_(gradient[name] * way, alpha=self.lr).clamp_(0, 1)

    def _merged(self, bench: Workbench) -> Tensors:
        """Return the top layers between the client's own (W = 0) and those received (W = 1)."""
        kept = bench.kept
        return {
            name: torch.lerp(kept[LOCAL + name], bench.received[name], kept[WEIGHT + name])
            for name in self._top(bench.tensors)
        }

    def _top(self, names: Iterable[str]) -> list[str]:
        """Return the parameters of the top layers; names are in the model's order."""
        parameters = [name for name in names if name.split(".")[-1] not in STATISTICS]
        layers = dict.fromkeys(name.split(".")[0] for name in parameters)
        top = list(layers)[-self.top_layers :]
        return [name for name in parameters if name.split(".")[0] in top]


def sample_of(split: Split, share: float, rng: torch.Generator) -> Split:
    """Return a random share of the samples, at least one."""
    order = torch.randperm(len(split), generator=rng)
    chosen = order[: max(1, round(share * len(split)))].to(split.labels.device)
    return replace(split, inputs=split.inputs[chosen], labels=split.labels[chosen])


def steady(losses: Sequence[float]) -> bool:
    """Return whether the last losses hardly deviate from one another."""
    return len(losses) > LOOKED_AT and statistics.pstdev(losses[-LOOKED_AT:]) < STEADY
