"""A place where some clients of a request work side by side, on one stack of models.

Shapes: C clients side by side, M models of a request, Y outputs per sample.
"""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from fedtsd.clients import local
from fedtsd.clients.engine import ClientSide
from fedtsd.clients.log_prior import offset_of
from fedtsd.clients.stacked_graphs import Graphs
from fedtsd.clients.stacked_models import Stack
from fedtsd.clients.stacked_outputs import Outputs
from fedtsd.clients.stacked_training import StackTrainer
from fedtsd.clients.store import ClientStore
from fedtsd.data.federation import Federation
from fedtsd.data.holdings import ClientData, Split
from fedtsd.messages import ClientReply, ClientRequest, Evaluate, Evaluation, Request, Train
from fedtsd.seeding import torch_rng
from fedtsd.server import Tensors
from fedtsd.training import Phase


@dataclass(frozen=True)
class Chunk:
    """C rows of a request, those with most training samples first.

    models: all of the request's on the device, by name [M, ...].
    """

    request: Request
    models: Tensors
    rows: tuple[ClientRequest, ...]


class StackedWorkplace:
    """Room for a stack, the data and the private tensors of the clients that work on it."""

    def __init__(
        self, side: ClientSide, data: Federation, store: ClientStore, room: int, graphs: bool
    ) -> None:
        """room: how many models the stack holds. graphs: whether to record CUDA graphs."""
        self._side = side
        self._data = data
        self._store = store
        self._stack = Stack(side.model, room, side.device)
        self._trainer = StackTrainer(
            self._stack,
            side.model,
            side.training,
            side.precision,
            side.device,
            partial(Graphs, rows=room) if graphs else None,
        )
        self._outputs = Outputs(side.model, side.training.batch_size, side.device)

    def tensors(self, count: int) -> dict[str, Tensor]:
        """Return the models of the first `count` clients [C, ...]: after work, trained ones."""
        return self._stack.rows.first(count).tensors

    def train(self, chunk: Chunk, task: Train) -> list[ClientReply]:
        """Let clients train; their tensors are left in the stack.

        Each is said to have worked its share of the time, by the samples it processed.
        """
        started = time.perf_counter()
        held = self._held(chunk)
        processed = self._fit(chunk, held, task.phases, "train")
        told = self._told(chunk, task)
        self._keep(chunk)
        each = (time.perf_counter() - started) / max(1, sum(processed))
        return [
            ClientReply(row.client, {}, len(data.train), samples, each * samples, outputs)
            for row, data, samples, outputs in zip(chunk.rows, held, processed, told, strict=True)
        ]

    def evaluate(self, chunk: Chunk, task: Evaluate) -> list[ClientReply]:
        """Let clients evaluate the stages that are asked for."""
        held = self._held(chunk)
        splits = [local.evaluated_splits(data) for data in held]
        joined = [_joined(data.val, data.test) for data in held]
        found: list[list[Evaluation]] = [[] for _ in held]
        for stage in task.stages:
            if stage == "tuned":
                self._fit(chunk, held, (task.tuning,), "tune")
                outputs = self._outputs.of_each(self._inputs(len(held)), joined)
            else:
                outputs = self._untrained(chunk, chunk.rows, joined)
            for mine, own, both in zip(found, splits, outputs, strict=True):
                parts = torch.split(both, [len(split) for split in own.values()])
                mine += local.evaluations_of(dict(zip(own, parts, strict=True)), own, stage)
        return [
            ClientReply(row.client, {}, len(data.train), evaluations=tuple(mine))
            for row, data, mine in zip(chunk.rows, held, found, strict=True)
        ]

    def probe(self, chunk: Chunk) -> list[ClientReply]:
        """Let clients try every model of the request."""
        splits = [data.train for data in self._held(chunk)]
        losses: list[list[float]] = [[] for _ in splits]
        for model in range(len(chunk.request.models)):
            rows = [dataclasses.replace(row, model=model) for row in chunk.rows]
            outputs = self._untrained(chunk, rows, splits)
            for mine, own, split in zip(losses, outputs, splits, strict=True):
                mine.append(local.loss_of(own, split.labels).item())
        return [
            ClientReply(row.client, {}, len(split), losses=tuple(mine))
            for row, split, mine in zip(chunk.rows, splits, losses, strict=True)
        ]

    def _held(self, chunk: Chunk) -> list[ClientData]:
        return [self._data.data_of(row.client, chunk.request.round) for row in chunk.rows]

    def _fit(
        self, chunk: Chunk, held: Sequence[ClientData], phases: Sequence[Phase], purpose: str
    ) -> list[int]:
        """Lay the clients' models out and train them; return the samples each has processed."""
        self._lay_out(chunk, chunk.rows)
        seed, round = self._side.seed, chunk.request.round
        rngs = [torch_rng(seed, purpose, round, row.client) for row in chunk.rows]
        personal = [row.personal for row in chunk.rows]
        return self._trainer.train([data.train for data in held], phases, personal, rngs)

    def _lay_out(self, chunk: Chunk, rows: Sequence[ClientRequest]) -> None:
        kept = [self._store.get(row.client) if row.personal else {} for row in rows]
        self._stack.lay_out(chunk.models, rows, kept)
        self._stack.shift(self._offsets(chunk, rows))

    def _offsets(self, chunk: Chunk, rows: Sequence[ClientRequest]) -> Tensor:
        """Return what clients add to their logits [C, Y]."""
        held = [self._data.data_of(row.client, chunk.request.round).train.labels for row in rows]
        width = self._data.num_outputs
        pairs = zip(rows, held, strict=True)
        return torch.stack([offset_of(row.prior, labels, width) for row, labels in pairs])

    def _inputs(self, count: int) -> dict[str, Tensor]:
        """Return all that a run of the first `count` clients' models needs beside samples."""
        return self._stack.rows.first(count).inputs

    def _told(self, chunk: Chunk, task: Train) -> Sequence[Tensor | None]:
        """Return what each client tells of its outputs on the public samples asked for."""
        public, count = task.public, len(chunk.rows)
        if public is None or not any(row.tells for row in chunk.rows):
            return [None] * count
        inputs = self._data.public[public.to(self._side.device)]
        outputs = self._outputs.of_all(self._inputs(count), inputs)
        told = local.probabilities(outputs.flatten(0, 1), self._data.regression).cpu()
        each = told.view(count, len(inputs), -1).unbind()
        return [own if row.tells else None for row, own in zip(chunk.rows, each, strict=True)]

    def _keep(self, chunk: Chunk) -> None:
        tensors = self.tensors(len(chunk.rows))
        kept = {name: tensors[name].cpu() for name in self._side.keeps}
        for i, row in enumerate(chunk.rows):
            self._store.put(row.client, {name: tensor[i] for name, tensor in kept.items()})

    def _untrained(
        self, chunk: Chunk, rows: Sequence[ClientRequest], splits: Sequence[Split]
    ) -> list[Tensor]:
        """Return each client's outputs on its split with the model it is sent.

        Those who keep nothing to themselves have the same model: it is run once, on all samples,
        before each adds its own prior.
        """
        offsets = self._offsets(chunk, rows)
        found: dict[int, Tensor] = {}
        for model in range(len(chunk.request.models)):
            same = [i for i, row in enumerate(rows) if row.model == model and not row.personal]
            if same:
                tensors = {name: tensor[model] for name, tensor in chunk.models.items()}
                outputs = self._outputs.of_one(tensors, torch.cat([splits[i].inputs for i in same]))
                parts = torch.split(outputs, [len(splits[i]) for i in same])
                found.update((i, part + offsets[i]) for i, part in zip(same, parts, strict=True))
        own = [i for i, row in enumerate(rows) if row.personal]
        if own:
            self._lay_out(chunk, [rows[i] for i in own])
            each = self._outputs.of_each(self._inputs(len(own)), [splits[i] for i in own])
            found.update(zip(own, each, strict=True))
        return [found[i] for i in range(len(rows))]


def _joined(first: Split, second: Split) -> Split:
    inputs = torch.cat([first.inputs, second.inputs])
    return Split(inputs, torch.cat([first.labels, second.labels]))
