"""The clients of one request: who works next, and what becomes of what they have trained.

Shapes: K models of the request, S slots, D all elements of a model.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtsd.clients.flat import Layout
from fedtsd.messages import ClientReply, Reply, Request, Train
from fedtsd.sums import Sums, summing_order, weight_of

JOB_CLIENTS = 8
"""The most clients in a job."""


@dataclass(frozen=True)
class Job:
    """Clients by their position in the request; each has a slot for what it has trained."""

    positions: tuple[int, ...]
    slots: tuple[int, ...]


class Gathering:
    """One request on its way.

    Clients start in the order in which models are summed, and what they have trained waits in its
    slot until its turn: so a sum has one order, and memory for S models is enough for any cohort.
    """

    def __init__(
        self, request: Request, sizes: Sequence[int], layout: Layout, slots: Tensor, hands: int
    ) -> None:
        """Begin; `sizes` are the clients' training samples, `slots` float32 [S, D]."""
        self._request = request
        self._sizes = sizes
        self._layout = layout
        self._slots = slots
        self._hands = hands
        self._order = summing_order(sizes)
        self._started = self._added = 0
        self._left = sum(sizes)
        self._free = list(range(len(slots)))
        self._waiting: dict[int, tuple[int, ClientReply]] = {}
        self._replies: dict[int, ClientReply] = {}
        task = request.task
        self._weighting = task.sums if isinstance(task, Train) else None
        self._sums = [FlatSumming(layout) for _ in request.models] if self._weighting else []

    @property
    def done(self) -> bool:
        """Whether everybody has replied."""
        return self._added == len(self._order)

    def next_job(self) -> Job | None:
        """Return clients that have not started yet; None if there are none, or no free slot.

        Jobs become smaller towards the end, so that all hands finish together.
        """
        positions: list[int] = []
        samples, most = 0, self._left / (2 * self._hands)
        room = min(JOB_CLIENTS, len(self._free), len(self._order) - self._started)
        while len(positions) < room:
            position = self._order[self._started]
            samples += self._sizes[position]
            if positions and samples > most:
                break
            positions.append(position)
            self._started += 1
            self._left -= self._sizes[position]
        if not positions:
            return None
        return Job(tuple(positions), tuple(self._free.pop() for _ in positions))

    def take(self, job: Job, replies: Sequence[ClientReply]) -> None:
        """Take what came of a job."""
        for position, slot, reply in zip(job.positions, job.slots, replies, strict=True):
            self._waiting[position] = slot, reply

    def settle(self) -> None:
        """Add up or collect all models whose turn it is; their slots are free again."""
        while not self.done and self._order[self._added] in self._waiting:
            position = self._order[self._added]
            slot, reply = self._waiting.pop(position)
            self._replies[position] = self._settled(position, self._slots[slot], reply)
            self._free.append(slot)
            self._added += 1

    def reply(self) -> Reply:
        """Return all replies in the order of the request."""
        rows = tuple(self._replies[position] for position in range(len(self._order)))
        sums = tuple(summing.result() for summing in self._sums) if self._weighting else None
        return Reply(self._request.round, rows, sums)

    def _settled(self, position: int, trained: Tensor, reply: ClientReply) -> ClientReply:
        if not isinstance(self._request.task, Train):
            return reply
        row = self._request.rows[position]
        if self._weighting and reply.flaw is not None:
            return reply
        if self._weighting:
            weight = weight_of(reply.num_examples, self._weighting)
            self._sums[row.model].add(trained, row.personal, weight)
            return reply
        shared = [name for name in self._layout.names if name not in row.personal]
        # A solver may have sent more than its model (`Solver.crossing`).
        tensors = {**self._layout.read(trained, shared), **reply.tensors}
        return dataclasses.replace(reply, tensors=tensors)


class FlatSumming:
    """A sum of models that is being taken (`fedtsd.sums.Summing`), of flat vectors [D]."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._sum: Tensor | None = None
        self._weights: dict[str, float] = {}

    def add(self, model: Tensor, personal: frozenset[str], weight: float) -> None:
        """Add all tensors of one client's model but the personal ones."""
        if self._sum is None:
            self._sum = torch.zeros(self._layout.size, dtype=torch.float64)
        for start, stop in self._runs(personal):
            # Converted first: faster than adding numbers of two kinds.
            self._sum[start:stop].add_(model[start:stop].double(), alpha=weight)
        for name in self._layout.names:
            if name not in personal:
                self._weights[name] = self._weights.get(name, 0.0) + weight

    def result(self) -> Sums:
        """Return the sum so far, in the plain layout."""
        if self._sum is None:
            return Sums({}, {})
        views = self._layout.views(self._sum)
        return Sums({name: views[name].contiguous() for name in self._weights}, self._weights)

    def _runs(self, personal: frozenset[str]) -> list[tuple[int, int]]:
        """Return the longest stretches of a vector without personal tensors."""
        runs: list[tuple[int, int]] = []
        for name in self._layout.names:
            if name in personal:
                continue
            place = self._layout.slices[name]
            if runs and runs[-1][1] == place.start:
                runs[-1] = runs[-1][0], place.stop
            else:
                runs.append((place.start, place.stop))
        return runs
