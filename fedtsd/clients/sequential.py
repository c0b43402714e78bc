"""The reference engine: one client after the other, plain PyTorch. Other engines must agree."""

import copy
import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedtsd.clients import local
from fedtsd.clients.engine import ClientSide, ClientStore
from fedtsd.messages import (
    ClientReply,
    ClientRequest,
    Evaluate,
    Evaluation,
    Probe,
    Reply,
    Request,
    Train,
)
from fedtsd.seeding import torch_rng


@dataclass(frozen=True)
class Sequential:
    """Settings. `threads` is fixed, not the machine's: sums split over threads change the bits."""

    threads: int

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads: must be at least 1, got {self.threads}")

    def build(self, side: ClientSide) -> "SequentialEngine":
        """Start the engine."""
        torch.set_num_threads(self.threads)
        return SequentialEngine(side)


class SequentialEngine:
    """Runs each row of a request on one shared network, whose parameters are overwritten."""

    def __init__(self, side: ClientSide) -> None:
        self._side = side
        self._store = ClientStore(dict(side.model.named_parameters()), side.keeps)
        self._data = side.federation.to(side.device)
        self._model = side.model.to(side.device)
        _warm_up(self._model, self._data.public[:1])

    def handle(self, request: Request) -> Reply:
        """Let every client of the request do its task, in order."""
        task = request.task
        if isinstance(task, Train):
            rows = [self._train(request.round, task, row) for row in request.rows]
        elif isinstance(task, Probe):
            rows = [self._probe(request.round, task, row) for row in request.rows]
        else:
            rows = [self._evaluate(request.round, task, row) for row in request.rows]
        return Reply(request.round, tuple(rows))

    def state_dict(self) -> dict[int, dict[str, Tensor]]:
        """Return the personal tensors of all clients."""
        return self._store.state_dict()

    def load_state_dict(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Take back what `state_dict` returned."""
        self._store.load_state_dict(state)

    def _train(self, round: int, task: Train, row: ClientRequest) -> ClientReply:
        started = time.perf_counter()
        split = self._data.data_of(row.client, round).train
        self._lay_out(row)
        rng = torch_rng(self._side.seed, "train", round, row.client)
        num_samples = local.train(
            self._model, split, task.phases, row.personal, self._side.training, rng
        )
        outputs = None
        if task.public is not None:
            chosen = self._data.public[task.public.to(self._side.device)]
            outputs = local.public_outputs(self._model, chosen, self._data.regression)
        trained = {n: p.detach().cpu().clone() for n, p in self._model.named_parameters()}
        self._store.put(row.client, trained)
        shared = {name: trained[name] for name in row.tensors}
        seconds = time.perf_counter() - started
        return ClientReply(row.client, shared, len(split), num_samples, seconds, outputs)

    def _evaluate(self, round: int, task: Evaluate, row: ClientRequest) -> ClientReply:
        data = self._data.data_of(row.client, round)
        found: list[Evaluation] = []
        for stage in task.stages:
            self._lay_out(row)
            if stage == "tuned":
                rng = torch_rng(self._side.seed, "tune", round, row.client)
                phases, training = (task.tuning,), self._side.training
                local.train(self._model, data.train, phases, row.personal, training, rng)
            found += local.evaluate(self._model, data, stage)
        return ClientReply(row.client, {}, len(data.train), evaluations=tuple(found))

    def _probe(self, round: int, task: Probe, row: ClientRequest) -> ClientReply:
        split = self._data.data_of(row.client, round).train
        losses = []
        for model in task.models:
            self._lay_out(dataclasses.replace(row, tensors=model))
            losses.append(local.mean_loss(self._model, split))
        return ClientReply(row.client, {}, len(split), losses=tuple(losses))

    @torch.no_grad()
    def _lay_out(self, row: ClientRequest) -> None:
        """Overwrite the shared layers with what was received; keep the personal ones."""
        kept = self._store.get(row.client)
        for name, parameter in self._model.named_parameters():
            source = kept if name in row.personal else row.tensors
            parameter.copy_(source[name])


def _warm_up(model: nn.Module, inputs: Tensor) -> None:
    """Pay for what a process does once before anybody is timed: the first step takes a second."""
    scratch = copy.deepcopy(model)
    torch.autograd.backward(scratch(inputs).sum())
    torch.optim.SGD(scratch.parameters(), lr=0.0).step()
