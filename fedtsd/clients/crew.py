"""Processes at work on the clients of one request after the other, and the memory they share.

Shapes: K models of a request, S slots, D all elements of a model.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedtsd.clients.flat import FlatModel
from fedtsd.clients.gathering import JOB_CLIENTS, Gathering, Job
from fedtsd.clients.pool import ForkedPool, InlinePool, Pool
from fedtsd.clients.workplace import Workplace
from fedtsd.messages import ClientReply, ClientRequest, Reply, Request, Train
from fedtsd.refusal import flaw_in_sum, within_bounds
from fedtsd.server import Tensors
from fedtsd.shared import shared_tensor


@dataclass(frozen=True)
class Opening:
    """What the next jobs are about: a request without its models, which lie in shared memory.

    beside: for each of its models, what a solver sends beside it.
    """

    request: Request
    beside: tuple[Tensors, ...]


class Memory:
    """What all processes see.

    models: float32 [K, D], what is sent. slots: float32 [S, D], what was trained. at_work: int64
    [processes], the client that each is at.
    """

    def __init__(self, num_models: int, size: int, processes: int) -> None:
        self.models = shared_tensor((num_models, size))
        # Twice what can be at work: who comes early may wait for a long one before it.
        self.slots = shared_tensor((2 * processes * JOB_CLIENTS, size))
        self.at_work = shared_tensor((processes,), torch.int64)


class Desk:
    """Where one process does its jobs: the `Hand` of a pool."""

    def __init__(self, number: int, workplace: Workplace, flat: FlatModel, memory: Memory) -> None:
        self._number = number
        self._workplace = workplace
        self._flat = flat
        self._memory = memory
        self._request: Request | None = None

    def hear(self, message: Opening) -> None:
        """Turn to another request."""
        sent = self._memory.models[: len(message.beside)]
        models = tuple(
            {**self._flat.layout.views(vector), **beside}
            for vector, beside in zip(sent, message.beside, strict=True)
        )
        self._request = dataclasses.replace(message.request, models=models)

    def do(self, job: Job) -> tuple[Job, list[ClientReply]]:
        """Let the clients of a job work, one after the other."""
        if self._request is None:
            raise RuntimeError("a job came before its request")
        pairs = zip(job.positions, job.slots, strict=True)
        return job, [self._work(self._request, position, slot) for position, slot in pairs]

    def _work(self, request: Request, position: int, slot: int) -> ClientReply:
        row = request.rows[position]
        self._memory.at_work[self._number] = row.client
        reply = self._workplace.work(request, row)
        if isinstance(request.task, Train):
            if request.task.sums is not None:
                reply = dataclasses.replace(reply, flaw=self._flaw(reply, row))
            self._memory.slots[slot].copy_(self._flat.vector)
        return reply

    def _flaw(self, reply: ClientReply, row: ClientRequest) -> str | None:
        """Say what is wrong with the model that is about to be summed, if anything."""
        shared: Tensors = {}
        if not within_bounds(self._flat.vector):  # one look at all is faster than at each
            named = self._workplace.tensors.items()
            shared = {name: tensor for name, tensor in named if name not in row.personal}
        return flaw_in_sum(reply.num_examples, shared)


class Crew:
    """A pool of desks; one process is this one itself.

    num_models: the most models that a request may have.
    """

    def __init__(
        self, processes: int, workplace: Workplace, flat: FlatModel, num_models: int
    ) -> None:
        memory = Memory(num_models, flat.layout.size, processes)

        def desk(number: int) -> Desk:
            return Desk(number, workplace, flat, memory)

        self.num_models = num_models
        self._processes = processes
        self._memory = memory
        self._layout = flat.layout
        self._round = 0
        self._pool: Pool = (
            InlinePool(desk(0)) if processes == 1 else ForkedPool(processes, desk, self._place)
        )

    def handle(self, request: Request, sizes: Sequence[int]) -> Reply:
        """Let all clients of a request work; `sizes` are their numbers of training samples."""
        self._round = request.round
        beside = []
        for vector, model in zip(self._memory.models, request.models, strict=False):
            own = {name: model[name] for name in self._layout.names}
            self._layout.write(vector, own)
            # Cloned: pickling a view would take along all that it is a view of.
            beside.append({name: t.clone() for name, t in model.items() if name not in own})
        self._pool.tell(Opening(dataclasses.replace(request, models=()), tuple(beside)))
        gathering = Gathering(request, sizes, self._layout, self._memory.slots, self._processes)
        self._hand_out(gathering)
        while not gathering.done:
            for job, replies in self._pool.receive():
                gathering.take(job, replies)
            self._hand_out(gathering)  # first, so that nobody waits while we add up
            gathering.settle()
            self._hand_out(gathering)  # slots may have become free
        return gathering.reply()

    def close(self) -> None:
        """End the processes."""
        self._pool.close()

    def _hand_out(self, gathering: Gathering) -> None:
        while free := self._pool.free():
            job = gathering.next_job()
            if job is None:
                return
            self._pool.send(free[0], job)

    def _place(self, number: int) -> str:
        return f"round {self._round}, client {int(self._memory.at_work[number])}"
