"""The log prior of a client's own labels, which its network adds to the logits."""

import torch
from torch import Tensor

SMOOTHING = 0.5
"""Added to the count of each class, so that a class that a client lacks has a finite prior."""


def log_prior(labels: Tensor, num_classes: int) -> Tensor:
    """Return log(Y (n_c + 1/2) / (n + Y / 2)) of each class c, float32 [Y]: 0 for a uniform law."""
    counts = torch.bincount(labels, minlength=num_classes).double() + SMOOTHING
    return (num_classes * counts / counts.sum()).log().float()


def offset_of(has_prior: bool, labels: Tensor, num_classes: int) -> Tensor:
    """Return what a client adds to its logits, float32 [Y]: its log prior, or nothing."""
    if has_prior:
        return log_prior(labels, num_classes)
    return torch.zeros(num_classes, device=labels.device)
