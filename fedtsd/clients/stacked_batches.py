"""The batches of clients that train side by side: one tensor [C, B, ...] per step.

Each client sees the batches of `local.batches`, in the same order. Clients differ in how many they
have and how large the last one of an epoch is: places are filled up with samples of weight 0.

Shapes: C clients side by side, B places in a batch, S steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtsd.clients.dropout import Masks
from fedtsd.data.holdings import Split

AHEAD = 128
"""Steps whose places are worked out together; bounds the memory, not the result."""


@dataclass(frozen=True)
class Batch:
    """What C clients see in one step.

    inputs: [C, B, ...]. labels: [C, B]. weights: float32 [C, B], 1 / n for the n real samples of a
    client's batch and 0 for the others. active: bool [C], whether a client has a batch at all.
    masks: of dropout, by the name of their buffer [C, B, width].
    """

    inputs: Tensor
    labels: Tensor
    weights: Tensor
    active: Tensor
    masks: dict[str, Tensor]


class Schedule:
    """Which samples clients see when: in each epoch all of their own once, batch by batch.

    Samples of all clients are numbered through. Clients with most samples come first, so that
    those who still train are mostly the first ones.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        epochs: Sequence[int],
        batch_size: int,
        rngs: Sequence[torch.Generator] | None,
    ) -> None:
        """Draw the order of every epoch.

        sizes: samples of each client. epochs: of each client; 0 if it does not take part. rngs:
        each client's generator; None: samples are seen in their own order.
        """
        self._batch_size = batch_size
        self._sizes = torch.tensor(sizes)
        self._per_epoch = (self._sizes + batch_size - 1) // batch_size
        self._steps = self._per_epoch * torch.tensor(epochs)
        self.num_clients = len(sizes)
        self.num_steps = int(self._steps.max())
        # Rounded up, so that batches of clients with few samples come in few widths.
        self.width = min(batch_size, -(-max(sizes) // 8) * 8)
        offsets, starts, orders, drawn = 0, [], [torch.zeros(1, dtype=torch.int64)], 1
        for client, size in enumerate(sizes):
            starts.append(drawn)
            for _ in range(epochs[client]):
                order = torch.randperm(size, generator=rngs[client]) if rngs else torch.arange(size)
                orders.append(offsets + order)
                drawn += size
            offsets += size
        self._starts = torch.tensor(starts)
        self._order = torch.cat(orders)

    def still(self, step: int) -> int:
        """Return how many of the first clients are needed to have all who train in this step."""
        return int(torch.nonzero(self._steps > step)[-1]) + 1

    def all_train(self, step: int, count: int) -> bool:
        """Return whether all of the first `count` clients train in this step."""
        return bool((self._steps[:count] > step).all())

    def sizes(self, first: int, last: int) -> Tensor:
        """Return the samples that each client sees in steps first to last - 1, int64 [S, C]."""
        steps = torch.arange(first, last)[:, None]
        seen = steps % self._per_epoch.clamp(min=1) * self._batch_size
        sizes = (self._sizes - seen).clamp(max=self._batch_size)
        return torch.where(steps < self._steps, sizes, 0)

    def places(self, first: int, last: int, count: int) -> Tensor:
        """Return the samples of the first `count` clients in these steps, int64 [S, count, B].

        Free places repeat the last sample of the batch.
        """
        steps = torch.arange(first, last)[:, None]
        per_epoch = self._per_epoch[:count].clamp(min=1)
        seen = steps // per_epoch * self._sizes[:count] + steps % per_epoch * self._batch_size
        begin = torch.where(steps < self._steps[:count], self._starts[:count] + seen, 0)
        ends = (self.sizes(first, last)[:, :count] - 1).clamp(min=0)
        within = torch.minimum(torch.arange(self.width), ends[..., None])
        return self._order[begin[..., None] + within]


class Batches:
    """Gathers batches from the samples of C clients, which lie on the device as one tensor."""

    def __init__(
        self, splits: Sequence[Split], schedule: Schedule, masks: Sequence[Masks] | None
    ) -> None:
        """masks: each client's dropout; None if nothing is dropped."""
        self._inputs = torch.cat([split.inputs for split in splits])
        self._labels = torch.cat([split.labels for split in splits])
        self._schedule = schedule
        self._masks = masks
        self._first = -AHEAD
        self.sizes: list[list[int]] = []

    def at(self, step: int, rows: Tensor | slice, width: int) -> Batch:
        """Return the batches of the clients at `rows` in a step, cut to `width` places.

        Steps are asked for in their order, each client once in each.
        """
        self.look_ahead(step)
        now = step - self._first
        places = self._places[now][rows, :width]
        weights = self._weights[now][rows, :width]
        return Batch(
            self._inputs[places],
            self._labels[places],
            weights,
            weights[:, 0] > 0,
            self._drawn(now, rows, width),
        )

    def look_ahead(self, step: int) -> None:
        """Work out who sees what from `step` on, unless that is done."""
        if step < self._first + AHEAD:
            return
        device, schedule = self._labels.device, self._schedule
        last = min(step + AHEAD, schedule.num_steps)
        sizes = schedule.sizes(step, last)
        self.sizes = sizes.tolist()
        self._first = step
        self._places = schedule.places(step, last, sizes.shape[1]).to(device)
        real = torch.arange(schedule.width) < sizes[..., None]
        self._weights = (real / sizes[..., None].clamp(min=1)).to(device)

    def sizes_at(self, step: int) -> list[int]:
        """Return how many samples each client sees in a step."""
        self.look_ahead(step)
        return self.sizes[step - self._first]

    def _drawn(self, now: int, rows: Tensor | slice, width: int) -> dict[str, Tensor]:
        if self._masks is None:
            return {}
        clients = torch.arange(len(self._masks))[rows].tolist()
        found: dict[str, Tensor] = {}
        for i, client in enumerate(clients):
            size = self.sizes[now][client]
            for name, mask in self._masks[client].draw(size).items() if size else ():
                shape = (len(clients), width, mask.shape[1])
                found.setdefault(name, torch.zeros(shape))[i, :size] = mask
        return {name: mask.to(self._labels.device) for name, mask in found.items()}
