"""What a solver is, and the workbench on which it trains a client.

A solver is a value of the config. It never knows other clients, the server, or the engine: the
workbench gives it one network, one client's data and what that client was sent and has kept.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from fedtsd.clients.dropout import Masks
from fedtsd.clients.local import batches, loss_of
from fedtsd.data.holdings import Split
from fedtsd.precision import Precision
from fedtsd.server import Tensors
from fedtsd.training import Phase, Training

Fit = Callable[[Split, tuple[Phase, ...], frozenset[str], torch.Generator], int]
"""Trains the network in place on a split, like `local.train`; returns the samples processed."""


@dataclass
class Workbench:
    """One client's place at work, for one task.

    network: its parameters and buffers hold the model that the client starts from: what it was
    sent, under its personal layers. A solver overwrites them in place. After training they must
    hold what is sent, and what the outputs on public samples come from; after serving, the model to
    evaluate.
    tensors: the network's own, by name. received: what the server sent, the tensors that cross
    beside the model included (`Solver.crossing`); never changed. kept: copies of the solver's
    private tensors (`Solver.private`); what they hold after training is kept. sent: tensors to send
    beside the model, by name: all those of `Solver.crossing`, set in training.
    fit: the engine's own SGD on the network.
    """

    network: nn.Module
    tensors: dict[str, Tensor]
    received: Tensors
    kept: dict[str, Tensor]
    split: Split
    phases: tuple[Phase, ...]
    personal: frozenset[str]
    training: Training
    precision: Precision
    rng: torch.Generator
    fit: Fit
    sent: dict[str, Tensor] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The network's parameters by name: its tensors without buffers."""
        return dict(self.network.named_parameters())

    def steps(self, epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of so many epochs, in random orders; dropout is drawn for each."""
        self.network.train()
        masks = Masks(self.network, self.rng)
        for _ in range(epochs):
            for inputs, labels in batches(self.split, self.training.batch_size, self.rng):
                masks.set(len(labels))
                yield inputs, labels

    def gradient(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return the gradient of the batch's mean loss at the network as it stands, by name.

        Clipped and with weight decay, in the order of the reference (`local.train`).
        """
        moving = self.parameters
        for parameter in moving.values():
            parameter.requires_grad_(True)
        with torch.enable_grad(), self.precision.autocast(inputs.device):
            loss = loss_of(self.network(inputs), labels)
            found = list(torch.autograd.grad(loss, list(moving.values())))
        if self.training.max_grad_norm is not None:
            length = torch.stack(torch._foreach_norm(found)).norm()
            scale = torch.clamp(self.training.max_grad_norm / (length + 1e-6), max=1)
            torch._foreach_mul_(found, scale)
        if self.training.weight_decay:
            values = [parameter.detach() for parameter in moving.values()]
            torch._foreach_add_(found, values, alpha=self.training.weight_decay)
        return dict(zip(moving, found, strict=True))

    @torch.no_grad()
    def load(self, tensors: Tensors) -> None:
        """Overwrite tensors of the network by those of these names."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)

    def snapshot(self) -> dict[str, Tensor]:
        """Return a copy of the network's tensors."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors.items()}


class Solver(Protocol):
    """How a client trains, and which model it serves."""

    plain: ClassVar[bool]
    """Whether it is SGD through the phases, which engines may do in ways of their own."""

    phased: ClassVar[bool]
    """Whether it trains the layers of the phases, in their order; others train all layers."""

    partner: ClassVar[str | None]
    """The aggregation, by its config file, that knows what this sends beside the model; None where
    it sends nothing."""

    def check(self, training: Training, num_personal: int) -> None:
        """Raise ValueError naming the field if it does not go with the training or with clients
        that keep so many layers to themselves.
        """
        ...

    def private(self, model: Tensors) -> Tensors:
        """Return what each client keeps besides its personal layers, as it is at the start.

        Names must differ from the model's: `solver/name`.
        """
        ...

    def crossing(self, model: Tensors) -> Tensors:
        """Return what crosses the door beside the model in both directions, as it is at the start.

        The server keeps it with each centre. Names as in `private`.
        """
        ...

    def train(self, bench: Workbench) -> int:
        """Train the client; return the number of samples processed, all passes counted."""
        ...

    def serve(self, bench: Workbench) -> None:
        """Lay out the model that the client serves: overwrite the network's tensors."""
        ...


class Quiet:
    """A base for solvers: nothing is kept, nothing more is sent, what was received is served."""

    plain: ClassVar[bool] = False
    phased: ClassVar[bool] = False
    partner: ClassVar[str | None] = None

    def check(self, training: Training, num_personal: int) -> None:
        """Go with everything."""

    def private(self, model: Tensors) -> Tensors:
        return {}

    def crossing(self, model: Tensors) -> Tensors:
        return {}

    def serve(self, bench: Workbench) -> None:
        """The network holds it already."""
