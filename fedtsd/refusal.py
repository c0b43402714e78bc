"""What is wrong with a reply, in words: why it is refused at the door.

Whoever adds up models looks at them first by the same rules, since a sum hides who spoilt it.
These are checks of form: a lie that looks like a model is what robust aggregation is for.
"""

import math

import torch
from torch import Tensor

from fedtsd.server import Tensors

LARGEST = 1e6
"""No element of a model that learns comes near this."""

MOST_EXAMPLES = 2**29 - 1
"""The largest weight by which float32 numbers can be multiplied exactly in a float64 sum."""


def within_bounds(tensor: Tensor) -> bool:
    """Return whether all elements lie in -LARGEST..LARGEST; NaN does not."""
    if not tensor.numel():
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.maximum(-low, high) <= LARGEST)


def flaw_of_model(tensors: Tensors) -> str | None:
    """Say what is wrong with the values of trained tensors; None if nothing is."""
    for name, tensor in tensors.items():
        if not within_bounds(tensor):
            if torch.isfinite(tensor).all():
                return f"{name} has values beyond {LARGEST:g}; try a smaller training.lr"
            return (
                f"{name} has NaN or infinite values; training diverged, try a smaller training.lr"
            )
    return None


def flaw_of_weight(num_examples: int) -> str | None:
    """Say what is wrong with the number of samples that a client claims; None if nothing is."""
    if isinstance(num_examples, int) and 1 <= num_examples <= MOST_EXAMPLES:
        return None
    return f"num_examples is {num_examples}, must be 1 to {MOST_EXAMPLES}"


def flaw_in_sum(num_examples: int, tensors: Tensors) -> str | None:
    """Say why a model should not be summed; None if it may be."""
    return flaw_of_weight(num_examples) or flaw_of_model(tensors)


def flaw_of_outputs(outputs: Tensor, shape: tuple[int, int]) -> str | None:
    """Say what is wrong with outputs on public samples, which are probabilities [B, Y]."""
    if outputs.shape != shape or outputs.dtype != torch.float32:
        return f"outputs are {outputs.dtype} {tuple(outputs.shape)}, must be torch.float32 {shape}"
    # NaN fails both comparisons.
    if not (outputs >= 0).all() or not ((outputs.sum(dim=1) - 1).abs() < 1e-3).all():
        return "outputs must be finite, not negative and add up to 1 in each row"
    return None


def flaw_of_losses(losses: tuple[float, ...], expected: int) -> str | None:
    """Say what is wrong with the losses of a probe."""
    if len(losses) == expected and all(map(math.isfinite, losses)):
        return None
    return f"{expected} finite losses were asked for, got {losses}"


def flaw_of_noise(noise: float) -> str | None:
    """Say what is wrong with the divergence of two models."""
    return None if 0 <= noise <= 1 else f"a divergence must be in 0 to 1, got {noise}"


def flaw_of_subspace(subspace: Tensor, most: int) -> str | None:
    """Say what is wrong with directions [D, v], v up to `most`: orthonormal columns."""
    if subspace.ndim != 2 or subspace.dtype != torch.float32 or subspace.shape[1] > most:
        return f"directions of the data must be a float32 matrix of at most {most} columns"
    off = subspace.T @ subspace - torch.eye(subspace.shape[1])
    if not (off.abs() < 1e-3).all():
        return "directions of the data must be finite, of length 1 and at right angles"
    return None
