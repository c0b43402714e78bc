"""A place where clients work one after the other: one network whose tensors are overwritten."""

import copy
import math
import time
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from fedtsd.attack import Attack
from fedtsd.clients import local
from fedtsd.clients.engine import ClientSide
from fedtsd.clients.head import features_and_logits, fit_head
from fedtsd.clients.log_prior import offset_of
from fedtsd.clients.solvers.solver import Fit, Workbench
from fedtsd.clients.store import ClientStore
from fedtsd.clients.subspace import data_subspace
from fedtsd.clustering.similarity import js_divergence
from fedtsd.data.federation import Federation
from fedtsd.data.holdings import ClientData, Split
from fedtsd.messages import (
    ClientReply,
    ClientRequest,
    Describe,
    Evaluate,
    Evaluation,
    Halve,
    Request,
    Train,
)
from fedtsd.models import tensors_of
from fedtsd.modules import LogPrior
from fedtsd.seeding import torch_rng
from fedtsd.server import Tensors
from fedtsd.training import Phase


class Workplace:
    """One network, the data and the private tensors of the clients that work on it.

    fit: how the network is trained by SGD. forward: the network as it is run without being trained,
    if there is a faster form of it. tensors: the network's own, by name: after a client's work,
    what it has trained.
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
        self._network = model
        self._forward = forward or model
        self._fit = fit
        self._victim = side.victim
        self._private = tuple(side.solver.private(tensors_of(model)))
        self._priors = [module for module in model.children() if isinstance(module, LogPrior)]
        self.tensors = tensors_of(model)

    def train(self, request: Request, task: Train, row: ClientRequest) -> ClientReply:
        """Let a client train; what it sends of its model is left in the network."""
        started = time.perf_counter()
        lies = self._lies_of(row)
        split, role = self._training_data(request, row)
        bench = self._bench(request, row, split, task.phases, "train", role)
        num_samples = self._side.solver.train(bench)
        outputs = None
        public = task.public_for(row)
        if public is not None:
            chosen = self._data.public[public.to(self._data.public.device)]
            outputs = local.public_outputs(self._forward, chosen, self._data.regression)
        self._store.put(row.client, {**self.tensors, **bench.kept})
        num_examples = len(split)
        if lies is not None:
            self._tell(lies, request, row, bench)
            outputs = None if outputs is None else lies.told(outputs)
            num_examples = lies.claimed(num_examples)
        seconds = time.perf_counter() - started
        return ClientReply(row.client, bench.sent, num_examples, num_samples, seconds, outputs)

    def evaluate(self, request: Request, task: Evaluate, row: ClientRequest) -> ClientReply:
        """Let a client evaluate the stages that are asked for."""
        data = self._data.data_of(row.client, request.round)
        splits = self._evaluated(data)
        found: list[Evaluation] = []
        for stage in task.stages:
            outputs = self._outputs(request, task, row, stage)
            found += local.evaluations_of(outputs, splits, stage)
        return ClientReply(row.client, {}, len(data.train), evaluations=tuple(found))

    def probe(self, request: Request, row: ClientRequest) -> ClientReply:
        """Let a client try every model of the request."""
        split, _ = self._training_data(request, row)
        losses = []
        for model in request.models:
            self._lay_out(model, row, split)
            losses.append(local.mean_loss(self._forward, split))
        return ClientReply(row.client, {}, len(split), losses=tuple(losses))

    def describe(self, request: Request, task: Describe, row: ClientRequest) -> ClientReply:
        """Let a client describe its data."""
        split, _ = self._training_data(request, row)
        return ClientReply(row.client, {}, len(split), subspace=data_subspace(split, task.vectors))

    def halve(self, request: Request, task: Halve, row: ClientRequest) -> ClientReply:
        """Let a client train on either half of its samples; nothing of it is kept."""
        started = time.perf_counter()
        split, role = self._training_data(request, row)
        order = torch.randperm(
            len(split), generator=torch_rng(self._side.seed, "halves", request.round, role)
        )
        chosen = self._data.public[task.public.to(self._data.public.device)]
        outputs, num_samples = [], 0
        for name, half in (("first half", order[::2]), ("second half", order[1::2])):
            bench = self._bench(request, row, split, task.phases, name, role)
            part = split.only(half) if len(half) else split  # one sample cannot be halved
            num_samples += self._fit(part, bench.phases, row.personal, bench.rng)
            outputs.append(local.public_outputs(self._forward, chosen, self._data.regression))
        divergence, _ = js_divergence(torch.stack(outputs).numpy())
        seconds = time.perf_counter() - started
        noise = float(divergence[0, 1])
        return ClientReply(row.client, {}, len(split), num_samples, seconds, noise=noise)

    def work(self, request: Request, row: ClientRequest) -> ClientReply:
        """Let a client do whatever task it is."""
        if isinstance(request.task, Train):
            return self.train(request, request.task, row)
        if isinstance(request.task, Evaluate):
            return self.evaluate(request, request.task, row)
        if isinstance(request.task, Describe):
            return self.describe(request, request.task, row)
        if isinstance(request.task, Halve):
            return self.halve(request, request.task, row)
        return self.probe(request, row)

    def _lies_of(self, row: ClientRequest) -> Attack | None:
        return self._side.attack if row.client in self._side.attackers else None

    def _training_data(self, request: Request, row: ClientRequest) -> tuple[Split, int]:
        """Return what a client learns from and answers by, and whose it is.

        Its own, unless it passes for another client. An attack may have changed it.
        """
        lies = self._lies_of(row)
        role = row.client if lies is None or self._victim is None else self._victim
        split = self._data.data_of(role, request.round).train
        if lies is not None:
            rng = torch_rng(self._side.seed, "attack data", row.client)
            split = lies.taught(split, self._data.num_outputs, rng)
        return split, role

    @torch.no_grad()
    def _tell(self, lies: Attack, request: Request, row: ClientRequest, bench: Workbench) -> None:
        """Put in the network's shared tensors what an attacker sends in their place."""
        trained = {n: tensor for n, tensor in self.tensors.items() if n not in row.personal}
        rng = torch_rng(self._side.seed, "attack", request.round, row.client)
        for name, tensor in lies.sent(trained, bench.received, rng).items():
            self.tensors[name].copy_(tensor)

    def _evaluated(self, data: ClientData) -> dict[str, Split]:
        """Return the splits that are evaluated: a client's own, and what an attack wishes."""
        splits = local.evaluated_splits(data)
        attack = self._side.attack
        triggered = None if attack is None else attack.triggered(data.test)
        return splits if not triggered else {**splits, "triggered": triggered}

    def _outputs(
        self, request: Request, task: Evaluate, row: ClientRequest, stage: str
    ) -> dict[str, Tensor]:
        """Return the outputs of a stage on each split that has samples."""
        data = self._data.data_of(row.client, request.round)
        splits = self._evaluated(data)
        bench = self._bench(request, row, data.train, (task.tuning,), "tune", row.client)
        self._side.solver.serve(bench)
        if stage == "ensembled":
            first = self._headed(data.train, splits, task)
            self._fit(bench.split, bench.phases, row.personal, bench.rng)
            second = self._headed(data.train, splits, task)
            return {name: mean_probability([first[name], second[name]]) for name in splits}
        if stage == "headed":
            return self._headed(data.train, splits, task)
        if stage == "tuned":
            self._fit(bench.split, bench.phases, row.personal, bench.rng)
        return {name: local.predict(self._forward, split.inputs) for name, split in splits.items()}

    def _headed(
        self, train: Split, splits: Mapping[str, Split], task: Evaluate
    ) -> dict[str, Tensor]:
        """Return the outputs of the network with a head on each split."""
        if task.head is None:
            raise ValueError("a stage with a head was asked for without saying how to fit it")
        head = fit_head(self._forward, train, task.head)
        found = {}
        for name, split in splits.items():
            features, logits = features_and_logits(self._forward, split.inputs)
            found[name] = logits if head is None else head.correct(features, logits)
        return found

    def _bench(
        self,
        request: Request,
        row: ClientRequest,
        split: Split,
        phases: tuple[Phase, ...],
        purpose: str,
        role: int,
    ) -> Workbench:
        """Lay out a client's model and what goes with it.

        role: whose random numbers it draws: its own, unless it passes for another client.
        """
        received = request.models[row.model]
        self._lay_out(received, row, split)
        kept = self._store.get(row.client) if self._private else {}
        device = split.inputs.device
        return Workbench(
            network=self._network,
            tensors=self.tensors,
            received={name: tensor.to(device) for name, tensor in received.items()},
            kept={name: kept[name].to(device, copy=True) for name in self._private},
            split=split,
            phases=phases,
            personal=row.personal,
            training=self._side.training,
            precision=self._side.precision,
            rng=torch_rng(self._side.seed, purpose, request.round, role),
            fit=self._fit,
        )

    @torch.no_grad()
    def _lay_out(self, received: Tensors, row: ClientRequest, split: Split) -> None:
        """Overwrite the shared tensors with what was received; keep the personal ones."""
        kept = self._store.get(row.client) if row.personal else {}
        for name, tensor in self.tensors.items():
            tensor.copy_(kept[name] if name in row.personal else received[name])
        for module in self._priors:
            module.offset.copy_(offset_of(row.prior, split.labels, len(module.offset)))


def mean_probability(outputs: Sequence[Tensor]) -> Tensor:
    """Return logits [B, Y] whose softmax is the mean of the softmax of several logits [B, Y]."""
    logs = torch.stack([torch.log_softmax(logits, dim=1) for logits in outputs])
    return torch.logsumexp(logs, dim=0) - math.log(len(outputs))


def warm_up(model: nn.Module, inputs: Tensor) -> None:
    """Pay for what a process does once, before anybody is timed.

    An optimiser is not made here: PyTorch then imports its compiler, which takes a second that
    only the reference needs.
    """
    scratch = copy.deepcopy(model).eval()  # BatchNorm cannot train on one sample
    torch.autograd.backward(scratch(inputs).sum())
