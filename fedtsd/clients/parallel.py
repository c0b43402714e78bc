"""The fast engine for CPUs: forked processes, one thread each, that share data and parameters.

A client is trained by one process from start to end, and models are added in one order, so the
bits do not depend on how many processes there are.

Shapes: K models of a request, S slots, D all elements of a model.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedtsd.clients.allocator import keep_memory
from fedtsd.clients.crew import Crew
from fedtsd.clients.engine import ClientSide
from fedtsd.clients.flat import FlatModel
from fedtsd.clients.store import ClientStore
from fedtsd.clients.tuned import Trainer, pooled_first
from fedtsd.clients.workplace import Workplace, warm_up
from fedtsd.cores import usable_cores
from fedtsd.messages import Reply, Request

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parallel:
    """Settings.

    workers: processes; None means one per core that may be used (`fedtsd.cores`).
    """

    workers: int | None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers: must be null or at least 1, got {self.workers}")

    def check(self, device: torch.device) -> None:
        """Raise ValueError where there is no CPU to run on, or nothing to fork with."""
        if device.type != "cpu":
            raise ValueError(
                f"_target_: parallel runs on the CPU, not on {device.type}; "
                "take engine=stacked or device=cpu"
            )
        if self.workers is not None and self.workers > 1 and not hasattr(os, "fork"):
            raise ValueError(f"workers: must be 1 where processes cannot fork, got {self.workers}")

    def build(self, side: ClientSide) -> "ParallelEngine":
        """Start the engine."""
        return ParallelEngine(side, self)


class ParallelEngine:
    """Gives clients to processes, and adds up or collects what they have trained."""

    def __init__(self, side: ClientSide, settings: Parallel) -> None:
        torch.set_num_threads(1)
        keep_memory()
        self._side = side
        data = side.federation
        self._num_workers = min(settings.workers or usable_cores(), data.num_clients)
        log.info("%d processes train clients", self._num_workers)
        self._store = ClientStore(side.initial, side.keeps, data.num_clients)
        self._flat = FlatModel(side.model)
        self._trainer = Trainer(self._flat, side.training, side.precision, side.device)
        warm_up(side.model, data.public[:1])
        module, train = self._flat.module, self._trainer.train
        forward = nn.Sequential(*pooled_first(list(module.children())))
        self._workplace = Workplace(side, data, self._store, module, train, forward)
        self._crew: Crew | None = None

    def handle(self, request: Request) -> Reply:
        """Let every client of the request do its task."""
        if self._crew is not None and self._crew.num_models < len(request.models):
            self.close()
        if self._crew is None:
            room = max(8, 2 * len(request.models))
            self._crew = Crew(self._num_workers, self._workplace, self._flat, room)
        data = self._side.federation
        sizes = [data.num_training(client, request.round) for client in request.clients]
        return self._crew.handle(request, sizes)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the personal tensors of all clients."""
        return self._store.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self._store.load_state_dict(state)

    def close(self) -> None:
        """End the processes."""
        if self._crew is not None:
            self._crew.close()
        self._crew = None
