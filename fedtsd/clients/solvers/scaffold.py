"""SCAFFOLD (Karimireddy et al. 2020): steps corrected by how a client's gradient differs."""

from dataclasses import dataclass
from typing import ClassVar

import torch

from fedtsd.aggregation_scaffold import CONTROL
from fedtsd.clients.solvers.solver import Quiet, Workbench
from fedtsd.clients.solvers.steps import Descent, check_whole
from fedtsd.models import STATISTICS
from fedtsd.server import Tensors
from fedtsd.training import Training, epochs_of

OWN = "scaffold/"


@dataclass(frozen=True)
class Scaffold(Quiet):
    """K steps y <- y - lr (g(y) - c_i + c), from the model x and the control variate c received.

    Then c_i+ = c_i - c + (x - y) / (K lr): option II of the paper, the mean of the gradients that
    the client has met, as they were clipped and decayed. c_i is kept, and starts at 0; its change
    is sent. The server folds it in by `fedtsd.aggregation_scaffold.ScaffoldMean`.

    Only parameters have control variates; BatchNorm's running statistics are what training makes
    of them. What was received is served.
    """

    partner: ClassVar[str | None] = "scaffold"

    def check(self, training: Training, num_personal: int) -> None:
        """Raise ValueError if layers are personal, or if K steps are not K times lr long."""
        check_whole("SCAFFOLD", training, num_personal)
        if training.momentum:
            raise ValueError(
                "_target_: SCAFFOLD needs training.momentum=0: with momentum the way of K steps "
                f"is not K lr times their mean gradient; got {training.momentum}"
            )
        if not epochs_of(training.phases):
            raise ValueError("_target_: SCAFFOLD needs an epoch of training.phases at least")

    def private(self, model: Tensors) -> Tensors:
        return _zeros(OWN, model)

    def crossing(self, model: Tensors) -> Tensors:
        return _zeros(CONTROL, model)

    def train(self, bench: Workbench) -> int:
        control = {name: bench.received[CONTROL + name] for name in bench.parameters}
        descent = Descent(bench.parameters, bench.training)
        steps = processed = 0
        for inputs, labels in bench.steps(epochs_of(bench.phases)):
            gradient = bench.gradient(inputs, labels)
            for name, found in gradient.items():
                found.add_(control[name]).sub_(bench.kept[OWN + name])
            descent.step(gradient)
            steps += 1
            processed += len(labels)
        for name, parameter in bench.parameters.items():
            way = bench.received[name] - parameter.detach()
            change = way / (steps * bench.training.lr) - control[name]
            bench.kept[OWN + name].add_(change)
            bench.sent[CONTROL + name] = change
        return processed


def _zeros(prefix: str, model: Tensors) -> dict[str, torch.Tensor]:
    """Return a control variate before the first round: zero for each parameter."""
    return {
        prefix + name: torch.zeros_like(tensor)
        for name, tensor in model.items()
        if name.rpartition(".")[2] not in STATISTICS
    }
