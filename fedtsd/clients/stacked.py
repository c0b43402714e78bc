"""The engine for GPUs: clients of a cohort side by side as one stack of tensors.

It agrees with the reference within rounding: a product of many matrices at once may add up in
another order than one matrix after the other.

Shapes: C clients side by side, M models of a request.
"""

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtsd.clients.engine import ClientSide
from fedtsd.clients.sequential import SequentialEngine
from fedtsd.clients.stacked_memory import clients_that_fit
from fedtsd.clients.stacked_workplace import Chunk, StackedWorkplace
from fedtsd.clients.store import ClientStore
from fedtsd.errors import EngineError
from fedtsd.messages import (
    HEADED,
    ClientReply,
    ClientRequest,
    Describe,
    Evaluate,
    Halve,
    Reply,
    Request,
    Task,
    Train,
)
from fedtsd.refusal import flaw_in_sum, within_bounds
from fedtsd.server import Tensors
from fedtsd.sums import Summing, Sums, summing_order, weight_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stacked:
    """Settings.

    chunk: how many clients are stacked at once; None: what the memory holds. cuda_graphs: whether
    a GPU starts all kernels of a step at once. threads: of the processor, fixed like the
    reference's.
    """

    chunk: int | None
    cuda_graphs: bool
    threads: int

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"chunk: must be null or at least 1, got {self.chunk}")
        if self.threads < 1:
            raise ValueError(f"threads: must be at least 1, got {self.threads}")

    def check(self, device: torch.device) -> None:
        """Run on any device."""

    def build(self, side: ClientSide) -> "StackedEngine":
        """Start the engine."""
        torch.set_num_threads(self.threads)
        shape = side.federation.input_shape
        room = self.chunk or clients_that_fit(side.model, shape, side.training, side.device)
        graphs = self.cuda_graphs and side.device.type == "cuda"
        return StackedEngine(side, min(room, side.cohort_size), graphs)


class StackedEngine:
    """Runs the rows of a request in chunks, each as one stack."""

    def __init__(self, side: ClientSide, room: int, graphs: bool) -> None:
        """room: how many clients are stacked at once. graphs: whether to record CUDA graphs."""
        clients = side.federation.num_clients
        self._device = side.device
        self._room = room
        self._data = side.federation.to(side.device)
        self._store = ClientStore(side.initial, side.keeps, clients)
        self._workplace = StackedWorkplace(side, self._data, self._store, room, graphs)
        self._plain = side.solver.plain and side.attack is None
        self._side = side
        self._reference: SequentialEngine | None = None

    def handle(self, request: Request) -> Reply:
        """Let every client of the request do its task.

        Raises EngineError if the device has too little memory for a stack.
        """
        try:
            return self._handle(request)
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"round {request.round}: no memory for {self._room} clients side by side; "
                "set engine.chunk to fewer"
            ) from error

    def state_dict(self) -> dict[str, Tensor]:
        """Return the personal tensors of all clients."""
        return self._store.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self._store.load_state_dict(state)

    def close(self) -> None:
        """Nothing was started."""

    def _stacks(self, task: Task) -> bool:
        """Whether a task is done side by side."""
        if isinstance(task, Evaluate):
            return self._plain and not set(HEADED) & set(task.stages)
        return self._plain and not isinstance(task, Describe | Halve)

    def _one_by_one(self, request: Request) -> Reply:
        if self._reference is None:
            log.info("clients work one after the other at what cannot be stacked")
            self._reference = SequentialEngine(self._side, self._data, self._store)
        return self._reference.handle(request)

    def _handle(self, request: Request) -> Reply:
        task = request.task
        if not self._stacks(task):
            return self._one_by_one(request)
        sums = [Summing() for _ in request.models]
        replies: dict[int, ClientReply] = {}
        for positions, chunk in self._chunks(request):
            if isinstance(task, Train):
                found = self._train(chunk, task, sums)
            elif isinstance(task, Evaluate):
                found = self._workplace.evaluate(chunk, task)
            else:
                found = self._workplace.probe(chunk)
            replies.update(zip(positions, found, strict=True))
        rows = tuple(replies[position] for position in range(len(request.rows)))
        summed = isinstance(task, Train) and task.sums is not None
        return Reply(request.round, rows, tuple(_on_cpu(s) for s in sums) if summed else None)

    def _chunks(self, request: Request) -> Iterator[tuple[list[int], Chunk]]:
        """Yield chunks and the positions of their rows, in the order in which models are summed."""
        models = {
            name: torch.stack([model[name] for model in request.models]).to(self._device)
            for name in request.models[0]
        }
        sizes = [self._data.num_training(client, request.round) for client in request.clients]
        order = summing_order(sizes)
        for begin in range(0, len(order), self._room):
            positions = order[begin : begin + self._room]
            yield positions, Chunk(request, models, tuple(request.rows[i] for i in positions))

    def _train(self, chunk: Chunk, task: Train, sums: list[Summing]) -> list[ClientReply]:
        """Let clients train; send their tensors, or add them up where they are."""
        replies = self._workplace.train(chunk, task)
        tensors = self._workplace.tensors(len(replies))
        if task.sums is None:
            copies = {name: tensor.to("cpu", copy=True) for name, tensor in tensors.items()}
            return [
                dataclasses.replace(reply, tensors=_shared(copies, i, row))
                for i, (reply, row) in enumerate(zip(replies, chunk.rows, strict=True))
            ]
        # One look at a whole stack is faster than at each client's part of it.
        odd = {name: tensor for name, tensor in tensors.items() if not within_bounds(tensor)}
        summed = []
        for i, (reply, row) in enumerate(zip(replies, chunk.rows, strict=True)):
            flaw = flaw_in_sum(reply.num_examples, _shared(odd, i, row))
            if flaw is None:
                weight = weight_of(reply.num_examples, task.sums)
                sums[row.model].add(_shared(tensors, i, row), weight)
            summed.append(dataclasses.replace(reply, flaw=flaw))
        return summed


def _shared(tensors: Tensors, place: int, row: ClientRequest) -> dict[str, Tensor]:
    """Return of the models [C, ...] what the client at a place shares."""
    return {name: t[place] for name, t in tensors.items() if name not in row.personal}


def _on_cpu(summing: Summing) -> Sums:
    found = summing.result()
    return Sums({n: t.cpu() for n, t in found.tensors.items()}, found.weights)
