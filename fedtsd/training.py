"""How a client trains: its optimiser's settings and the phases of its local work. Data only."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

NUM_BINS = 12
BIN_REACH = 2.5
BIN_WIDTH = 0.5
"""In regression, clients tell predictions on public samples as probabilities of NUM_BINS bins: ten
between -BIN_REACH and BIN_REACH standard deviations of the target and one beyond either end, under
a Gaussian of standard deviation BIN_WIDTH."""

LAYER_SETS = ("all", "personal", "shared")


@dataclass(frozen=True)
class Phase:
    """One pass of local training: which layers move, for how many epochs, pulled how strongly.

    `proximal` is the weight mu of the term mu/2 ||w - w_received||^2 (FedProx).
    """

    layers: str
    epochs: int
    proximal: float

    def __post_init__(self) -> None:
        if self.layers not in LAYER_SETS:
            raise ValueError(f"layers: must be one of {', '.join(LAYER_SETS)}, got {self.layers!r}")
        if self.epochs < 0:
            raise ValueError(f"epochs: must be at least 0, got {self.epochs}")
        if self.proximal < 0:
            raise ValueError(f"proximal: must be at least 0, got {self.proximal}")

    def moves(self, name: str, personal: frozenset[str]) -> bool:
        """Return whether the phase trains a parameter of a client with these personal tensors."""
        return self.layers == "all" or (name in personal) == (self.layers == "personal")


def epochs_of(phases: Iterable[Phase]) -> int:
    """Return how many epochs the phases have together."""
    return sum(phase.epochs for phase in phases)


@dataclass(frozen=True)
class Head:
    """A residual head: a linear map of a model's last features, added to its logits.

    It is fitted from zero on the client's training samples by their summed cross-entropy with a
    penalty of ridge / 2 ||weights||^2, and never leaves the client. The sum, not the mean: what few
    samples say is then believed less. Its bias has a penalty of bias_ridge / 2 ||bias||^2; without
    one (None) a class that a client lacks is said to be next to impossible, however few samples
    there are. Only clients whose own label law is skewed have a head: its Jensen-Shannon divergence
    from the uniform law, in 0..1, is above `skew_above`.
    """

    ridge: float
    skew_above: float
    bias_ridge: float | None

    def __post_init__(self) -> None:
        if self.ridge <= 0:
            raise ValueError(f"ridge: must be above 0, got {self.ridge}")
        if self.bias_ridge is not None and self.bias_ridge <= 0:
            raise ValueError(f"bias_ridge: must be above 0, or null, got {self.bias_ridge}")
        if not 0 <= self.skew_above < 1:
            raise ValueError(f"skew_above: must be in [0, 1), got {self.skew_above}")


@dataclass(frozen=True)
class Training:
    """Local SGD: the same on every client.

    `epochs`, `head_epochs` and `proximal` are there for the phases to refer to. Gradients longer
    than `max_grad_norm` (L2, all moving layers together) are scaled back to it; None leaves them.
    """

    epochs: int
    head_epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    proximal: float
    max_grad_norm: float | None
    phases: tuple[Phase, ...]

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: must be at least 1, got {self.batch_size}")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr: must be above 0 and finite, got {self.lr}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: must be in [0, 1), got {self.momentum}")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay: must be at least 0, got {self.weight_decay}")
        if self.max_grad_norm is not None and self.max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm: must be null or above 0, got {self.max_grad_norm}")
        if not self.phases:
            raise ValueError("phases: must hold at least one phase")
