"""What every engine is built from."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn

from fedtsd.data.federation import Federation
from fedtsd.messages import Engine
from fedtsd.precision import Precision
from fedtsd.training import Training


@dataclass(frozen=True)
class ClientSide:
    """All that is on the clients' side when a run starts.

    model: the network, with the initial tensors that every client starts from.
    keeps: the tensors that may be personal; clients store these after training.
    cohort_size: how many clients train in a round.
    """

    federation: Federation
    model: nn.Sequential
    keeps: frozenset[str]
    training: Training
    seed: int
    device: torch.device
    precision: Precision
    cohort_size: int


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
