"""Modules that models are made of and PyTorch lacks. Shapes: B batch, Y classes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout (Srivastava et al. 2014) whose mask is an input, like the batch.

    mask: float32 [B, width], 0 where a feature is dropped and 1 / (1 - rate) where it stays. It is
    set before each training step (`fedtsd.clients.dropout`), so that the draw is the client's own
    and the same whoever computes the step.
    """

    mask: Tensor

    def __init__(self, rate: float, width: int) -> None:
        super().__init__()
        self.rate = rate
        self.width = width
        self.register_buffer("mask", torch.empty(0, width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, width] to the same. Raises RuntimeError if no mask was set for the batch."""
        if not self.training:
            return x
        if self.mask.shape != x.shape:
            raise RuntimeError(f"the mask is {tuple(self.mask.shape)}, the batch {tuple(x.shape)}")
        return x * self.mask.to(x.dtype)


class LogPrior(nn.Module):
    """The end of a network whose logits get a client's log prior added (`fedtsd.prior`).

    offset: float32 [Y], an input like a dropout mask: it is set before a client works, never sent.
    """

    offset: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("offset", torch.zeros(num_classes), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map logits [B, Y] to the same."""
        return x + self.offset


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation (Ioffe and Szegedy 2015) that also trains where a batch tells nothing.

    One value per channel (one sample with maps of 1 x 1) has no variance: such a batch is
    normalised by the running statistics, as in evaluation, and leaves them as they are.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels, H, W] to the same."""
        counts = x.numel() > x.shape[1]
        return nn.functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training and counts,
            self.momentum or 0.0,
            self.eps,
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each normalised, and a shortcut (He et al. 2016).

    norm: makes the normalisation of so many channels.
    """

    def __init__(
        self, channels_in: int, channels_out: int, stride: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = norm(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = norm(channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels_out, H / stride, W / stride]."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))
