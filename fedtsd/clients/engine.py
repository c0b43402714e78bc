"""What every engine is built from, and the model of one client."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from fedtsd.data.federation import Federation
from fedtsd.messages import Engine
from fedtsd.server import Tensors
from fedtsd.training import Training


@dataclass(frozen=True)
class ClientSide:
    """All that is on the clients' side when a run starts.

    model: the network, with the initial parameters that every client starts from.
    keeps: the tensors that may be personal; clients store these after training.
    """

    federation: Federation
    model: nn.Module
    keeps: frozenset[str]
    training: Training
    seed: int
    device: torch.device


class EngineSpec(Protocol):
    """What `conf/engine/*.yaml` describes."""

    def build(self, side: ClientSide) -> Engine:
        """Start the engine."""
        ...


class ClientStore:
    """The tensors each client keeps to itself between rounds; on the CPU, never changed in place.

    A client that has not trained yet keeps the initial model.
    """

    def __init__(self, initial: Tensors, keeps: frozenset[str]) -> None:
        self._initial = {name: initial[name].detach().cpu().clone() for name in sorted(keeps)}
        self._kept: dict[int, dict[str, Tensor]] = {}

    def get(self, client: int) -> Tensors:
        """Return what the client keeps."""
        return self._kept.get(client, self._initial)

    def put(self, client: int, model: Tensors) -> None:
        """Keep the client's tensors of `model` that may be personal."""
        if self._initial:
            self._kept[client] = {name: model[name] for name in self._initial}

    def state_dict(self) -> dict[int, dict[str, Tensor]]:
        """Return all kept tensors; the dictionaries are copies, the tensors are shared."""
        return {client: dict(kept) for client, kept in sorted(self._kept.items())}

    def load_state_dict(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Take back what `state_dict` returned."""
        self._kept = {int(client): dict(kept) for client, kept in state.items()}
