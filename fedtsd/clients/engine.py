"""What every engine is built from."""

import math
import os
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from fedtsd.attack import Attack
from fedtsd.clients.solvers.solver import Solver
from fedtsd.data.federation import Federation
from fedtsd.errors import ConfigError
from fedtsd.messages import Engine
from fedtsd.models import tensors_of
from fedtsd.precision import Precision
from fedtsd.server import Tensors
from fedtsd.training import Training


@dataclass(frozen=True)
class ClientSide:
    """All that is on the clients' side when a run starts.

    model: the network, with the initial tensors that every client starts from.
    keeps: what clients store after training: the tensors that may be personal, and those that the
    solver keeps for itself.
    cohort_size: how many clients train in a round. solver: how they train. attack: how those lie
    whose ids are in attackers.
    """

    federation: Federation
    model: nn.Sequential
    keeps: frozenset[str]
    training: Training
    seed: int
    device: torch.device
    precision: Precision
    cohort_size: int
    solver: Solver
    attack: Attack | None = None
    attackers: frozenset[int] = frozenset()

    @property
    def initial(self) -> Tensors:
        """What a client has before it has trained: the model's tensors, and the solver's."""
        tensors = tensors_of(self.model)
        return {**tensors, **self.solver.private(tensors)}

    @property
    def victim(self) -> int | None:
        """Whom attackers pass for, if they do."""
        if self.attack is None or not self.attackers:
            return None
        return self.attack.victim(self.federation.num_clients, self.seed)


class EngineSpec(Protocol):
    """What `conf/engine/*.yaml` describes."""

    def check(self, device: torch.device) -> None:
        """Raise ValueError naming the field if the engine cannot run on the device."""
        ...

    def build(self, side: ClientSide) -> Engine:
        """Start the engine."""
        ...


def choose_device(name: str) -> torch.device:
    """Return the device; `auto` takes CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def check_machine(device: str, model: nn.Module) -> None:
    """Raise ConfigError if this machine has not the device, or no memory for one such model.

    model: may be on the device `meta`, where it takes up no memory.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda needs a GPU that torch can use, and finds none; take cpu")
    tensors = [*model.parameters(), *model.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    known = hasattr(os, "sysconf")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if known else math.inf
    if size > memory:
        raise ConfigError(
            f"model: must fit this machine's memory of {memory / 1e9:.1f} GB, has {size / 1e9:.1f}"
        )
