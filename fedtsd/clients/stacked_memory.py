"""How many clients train side by side on a device.

Shapes: B samples in a batch.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fedtsd.models import tensors_of
from fedtsd.training import Training

ON_CPU = 16
"""Clients per stack where memory is not the limit: more only fall out of the caches."""
SHARE = 0.5
"""Of the free memory of a GPU; the rest is for samples, sums, and what the estimate misses."""
COPIES = 4
"""Of the tensors: themselves, gradients, and what the update makes of them on its way."""
PASSES = 4
"""Of the activations: kept for the backward pass, rearranged, and their gradients."""


def clients_that_fit(
    model: nn.Module, input_shape: tuple[int, ...], training: Training, device: torch.device
) -> int:
    """Return how many clients one stack may hold; on a GPU, by the memory that is free now."""
    if device.type != "cuda":
        return ON_CPU
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, int(SHARE * free) // bytes_per_client(model, input_shape, training))


def bytes_per_client(model: nn.Module, input_shape: tuple[int, ...], training: Training) -> int:
    """Return an estimate of what a client's training takes, beside its samples."""
    held = sum(tensor.numel() for tensor in tensors_of(model).values())
    copies = COPIES + bool(training.momentum) + any(phase.proximal for phase in training.phases)
    activations = PASSES * training.batch_size * _outputs_per_sample(model, input_shape)
    return torch.float32.itemsize * (copies * held + activations)


@torch.no_grad()
def _outputs_per_sample(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Return the numbers that all modules of the model put out for one sample."""
    counts: list[int] = []

    def count(module: nn.Module, inputs: Any, outputs: Tensor) -> None:
        counts.append(outputs.numel())

    scratch = copy.deepcopy(model).cpu().eval()
    for module in scratch.modules():
        if not list(module.children()):
            module.register_forward_hook(count)
    scratch(torch.zeros(1, *input_shape))
    return sum(counts)
