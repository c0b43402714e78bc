"""CUDA graphs of training steps: a step's kernels are recorded once and then started together.

Small models leave a GPU waiting for the processor, which starts some hundred kernels per step one
by one. A graph starts them at once, but only on the same memory: models lie in a `Stack` that
stays in place, batches are copied into buffers that do. One graph per plan, number of clients and
width of the batch.

Sources: PyTorch documentation, "CUDA Graphs" and `torch.cuda.graph`.

Shapes: R rows there is room for, C clients side by side, B places in a batch.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fedtsd.clients.stacked_batches import Batch
from fedtsd.clients.stacked_models import Rows
from fedtsd.clients.stacked_step import Plan

WARM_UPS = 3
"""Steps of a shape that run as usual before one is recorded: libraries set themselves up."""
SIZES = 8
"""Numbers of clients for which graphs are made: as the stack shrinks, it stops at R / 8, 2 R / 8,
..., R, and the rows beyond those who still train stand still."""

Shape = tuple[Plan, int, int]
Take = Callable[[Rows, Batch, Plan], None]


class Graphs:
    """Takes steps like `step`, from recordings where there are some.

    rows: R. cuda: `torch.cuda`; tests put something else in its place.
    """

    def __init__(self, step: Take, rows: int, cuda: Any = torch.cuda) -> None:
        self._step = step
        self._rows = rows
        self._cuda = cuda
        self._aside = cuda.Stream()
        # Nothing that a graph computes in its own memory is read after it, so all share one pool.
        self._pool = cuda.graph_pool_handle()
        self._graphs: dict[Shape, Any] = {}
        self._seen = Counter[Shape]()
        self._buffers: dict[int, Batch] = {}

    def size_for(self, count: int) -> int:
        """Return the number of rows to train so that `count` do."""
        stride = -(-self._rows // SIZES)
        return min(-(-count // stride) * stride, self._rows)

    def __call__(self, rows: Rows, batch: Batch, plan: Plan) -> None:
        """Take a step; `rows` must be the first of a stack that stays in place."""
        count, width = batch.weights.shape
        shape = (plan, count, width)
        fixed = self._filled(batch)
        if shape not in self._graphs and self._seen[shape] < WARM_UPS:
            self._seen[shape] += 1
            self._warm_up(rows, fixed, plan)
            return
        if shape not in self._graphs:
            graph = self._cuda.CUDAGraph()
            with self._cuda.graph(graph, pool=self._pool):  # records, computes nothing
                self._step(rows, fixed, plan)
            self._graphs[shape] = graph
        self._graphs[shape].replay()

    def _warm_up(self, rows: Rows, batch: Batch, plan: Plan) -> None:
        """Take a real step on a stream beside the main one, as recording will."""
        self._aside.wait_stream(self._cuda.current_stream())
        with self._cuda.stream(self._aside):
            self._step(rows, batch, plan)
        self._cuda.current_stream().wait_stream(self._aside)

    def _filled(self, batch: Batch) -> Batch:
        """Copy the batch of C clients to where graphs read theirs."""
        count, width = batch.weights.shape
        if width not in self._buffers:
            self._buffers[width] = self._room_for(batch)
        fixed = _first(self._buffers[width], count)
        for place, tensor in zip(_tensors(fixed), _tensors(batch), strict=True):
            place.copy_(tensor)
        return fixed

    def _room_for(self, batch: Batch) -> Batch:
        inputs, labels, weights, active, *masks = (
            tensor.new_zeros(self._rows, *tensor.shape[1:]) for tensor in _tensors(batch)
        )
        return Batch(inputs, labels, weights, active, dict(zip(batch.masks, masks, strict=True)))


def _tensors(batch: Batch) -> tuple[Tensor, ...]:
    return (batch.inputs, batch.labels, batch.weights, batch.active, *batch.masks.values())


def _first(batch: Batch, count: int) -> Batch:
    masks = {name: mask[:count] for name, mask in batch.masks.items()}
    return Batch(
        batch.inputs[:count],
        batch.labels[:count],
        batch.weights[:count],
        batch.active[:count],
        masks,
    )
