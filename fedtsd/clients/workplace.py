"""A place where clients work one after the other: one network whose tensors are overwritten."""

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fedtsd.clients import local
from fedtsd.clients.engine import ClientSide
from fedtsd.clients.store import ClientStore
from fedtsd.data.federation import Federation
from fedtsd.data.holdings import Split
from fedtsd.messages import ClientReply, ClientRequest, Evaluate, Evaluation, Request, Train
from fedtsd.models import tensors_of
from fedtsd.seeding import torch_rng
from fedtsd.server import Tensors
from fedtsd.training import Phase

Fit = Callable[[Split, tuple[Phase, ...], frozenset[str], torch.Generator], int]
"""Trains the network in place on a split, like `local.train`; returns the samples processed."""


class Workplace:
    """One network, the data and the private tensors of the clients that work on it.

    fit: how the network is trained. forward: the network as it is run without being trained, if
    there is a faster form of it. tensors: the network's own, by name: after a client's work, what
    it has trained.
    """

    def __init__(
        self,
        side: ClientSide,
        data: Federation,
        store: ClientStore,
        model: nn.Module,
        fit: Fit,
        forward: nn.Module | None = None,
    ) -> None:
        self._side = side
        self._data = data
        self._store = store
        self._forward = forward or model
        self._fit = fit
        self.tensors = tensors_of(model)

    def train(self, request: Request, task: Train, row: ClientRequest) -> ClientReply:
        """Let a client train; its tensors are left in the network."""
        started = time.perf_counter()
        split = self._data.data_of(row.client, request.round).train
        self._lay_out(request.models[row.model], row)
        rng = torch_rng(self._side.seed, "train", request.round, row.client)
        num_samples = self._fit(split, task.phases, row.personal, rng)
        outputs = None
        public = task.public_for(row)
        if public is not None:
            chosen = self._data.public[public.to(self._data.public.device)]
            outputs = local.public_outputs(self._forward, chosen, self._data.regression)
        self._store.put(row.client, self.tensors)
        seconds = time.perf_counter() - started
        return ClientReply(row.client, {}, len(split), num_samples, seconds, outputs)

    def evaluate(self, request: Request, task: Evaluate, row: ClientRequest) -> ClientReply:
        """Let a client evaluate the stages that are asked for."""
        data = self._data.data_of(row.client, request.round)
        found: list[Evaluation] = []
        for stage in task.stages:
            self._lay_out(request.models[row.model], row)
            if stage == "tuned":
                rng = torch_rng(self._side.seed, "tune", request.round, row.client)
                self._fit(data.train, (task.tuning,), row.personal, rng)
            found += local.evaluate(self._forward, data, stage)
        return ClientReply(row.client, {}, len(data.train), evaluations=tuple(found))

    def probe(self, request: Request, row: ClientRequest) -> ClientReply:
        """Let a client try every model of the request."""
        split = self._data.data_of(row.client, request.round).train
        losses = []
        for model in request.models:
            self._lay_out(model, row)
            losses.append(local.mean_loss(self._forward, split))
        return ClientReply(row.client, {}, len(split), losses=tuple(losses))

    def work(self, request: Request, row: ClientRequest) -> ClientReply:
        """Let a client do whatever task it is."""
        if isinstance(request.task, Train):
            return self.train(request, request.task, row)
        if isinstance(request.task, Evaluate):
            return self.evaluate(request, request.task, row)
        return self.probe(request, row)

    @torch.no_grad()
    def _lay_out(self, received: Tensors, row: ClientRequest) -> None:
        """Overwrite the shared tensors with what was received; keep the personal ones."""
        kept = self._store.get(row.client) if row.personal else {}
        for name, tensor in self.tensors.items():
            tensor.copy_(kept[name] if name in row.personal else received[name])


def warm_up(model: nn.Module, inputs: Tensor) -> None:
    """Pay for what a process does once, before anybody is timed.

    An optimiser is not made here: PyTorch then imports its compiler, which takes a second that
    only the reference needs.
    """
    scratch = copy.deepcopy(model).eval()  # BatchNorm cannot train on one sample
    torch.autograd.backward(scratch(inputs).sum())
