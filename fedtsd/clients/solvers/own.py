"""A whole model of its own that a client keeps beside the shared one.

A client that has not trained yet has none: it takes what it received, so that newcomers start, and
are served, from the model that the others have made.
"""

import torch
from torch import Tensor

from fedtsd.clients.solvers.solver import Workbench
from fedtsd.server import Tensors

TRAINED = "trained"


def own_at_start(prefix: str, model: Tensors) -> dict[str, Tensor]:
    """Return what to keep: the tensors of the model, and whether they are in use yet [1]."""
    kept = {prefix + name: tensor.detach() for name, tensor in model.items()}
    return {**kept, prefix + TRAINED: torch.zeros(1)}


def own_of(prefix: str, bench: Workbench) -> dict[str, Tensor]:
    """Return a copy of the client's own model, by the names of the network."""
    if not bench.kept[prefix + TRAINED]:
        return {name: bench.received[name].clone() for name in bench.tensors}
    return {name: bench.kept[prefix + name].clone() for name in bench.tensors}


@torch.no_grad()
def keep_own(prefix: str, bench: Workbench, model: Tensors) -> None:
    """Keep the client's own model after training."""
    for name in bench.tensors:
        bench.kept[prefix + name].copy_(model[name])
    bench.kept[prefix + TRAINED].fill_(1)
