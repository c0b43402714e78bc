"""Outputs of models that are not trained: of one on many samples, or of many side by side.

Always in float32. Shapes: C clients side by side, B samples, Y outputs per sample.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedtsd.clients.local import CHUNK
from fedtsd.clients.stacked_batches import Batches, Schedule
from fedtsd.data.holdings import Split
from fedtsd.precision import Precision


class Outputs:
    """Runs models that are given as tensors by name."""

    def __init__(self, model: nn.Module, batch_size: int, device: torch.device) -> None:
        """batch_size: of training; a stack that could be trained so can also be run so."""
        self._model = copy.deepcopy(model).to(device).eval()
        self._batch_size = batch_size
        self._device = device

    @torch.no_grad()
    def of_one(self, tensors: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Return one model's outputs [B, Y] on `inputs` [B, ...]."""
        with Precision("fp32").autocast(self._device):
            parts = [self._run(tensors, chunk) for chunk in torch.split(inputs, CHUNK)]
        return torch.cat(parts)

    @torch.no_grad()
    def of_all(self, tensors: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Return the outputs [C, B, Y] of C models [C, ...] on the same inputs [B, ...]."""
        size = self._samples_each(len(next(iter(tensors.values()))))
        run = vmap(self._run, in_dims=(0, None))
        with Precision("fp32").autocast(self._device):
            return torch.cat([run(tensors, part) for part in torch.split(inputs, size)], dim=1)

    @torch.no_grad()
    def of_each(self, tensors: Mapping[str, Tensor], splits: Sequence[Split]) -> list[Tensor]:
        """Return the outputs [B, Y] of each of C models [C, ...] on a split of its own."""
        ones = [1] * len(splits)
        sizes = [len(split) for split in splits]
        schedule = Schedule(sizes, ones, self._samples_each(len(splits)), None)
        batches = Batches(splits, schedule, None)
        found: list[list[Tensor]] = [[] for _ in splits]
        with Precision("fp32").autocast(self._device):
            for step in range(schedule.num_steps):
                count = schedule.still(step)
                batch = batches.at(step, slice(0, count), schedule.width)
                first = {name: tensor[:count] for name, tensor in tensors.items()}
                outputs = vmap(self._run)(first, batch.inputs)
                for client, size in enumerate(batches.sizes_at(step)[:count]):
                    found[client].append(outputs[client, :size])
        return [torch.cat(parts) for parts in found]

    def _samples_each(self, models: int) -> int:
        return max(self._batch_size, CHUNK // models)

    def _run(self, tensors: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        found: Tensor = functional_call(self._model, dict(tensors), (inputs,), tie_weights=False)
        return found
