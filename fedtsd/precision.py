"""The arithmetic of training: float32, TF32 or bfloat16. Weights and their sums stay float32.

Sources: PyTorch documentation, "Automatic Mixed Precision" and "CUDA semantics" (TF32).
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

PRECISIONS = ("fp32", "tf32", "bf16")


@dataclass(frozen=True)
class Precision:
    """How products are computed while clients train; evaluation and outputs are always float32.

    fp32: as exact as the device allows. tf32: on CUDA, products of float32 numbers rounded to 10
    bits of mantissa. bf16: products and activations in bfloat16 (7 bits), master weights, sums
    and losses in float32.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in PRECISIONS:
            raise ValueError(
                f"precision: must be one of {', '.join(PRECISIONS)}, got {self.name!r}"
            )

    def check(self, device: torch.device) -> None:
        """Raise ValueError if the device cannot compute so."""
        if self.name == "tf32" and device.type != "cuda":
            raise ValueError(
                f"precision: tf32 needs device=cuda, got {device.type}; take fp32 or bf16"
            )

    def autocast(self, device: torch.device) -> AbstractContextManager[None]:
        """Compute so inside: around forward, loss and backward, or around a whole training.

        Casts of weights are not cached, so the weights may change inside.
        """
        if self.name == "bf16":
            return _bfloat16_products(device)
        if device.type == "cuda":
            return _cuda_products("tf32" if self.name == "tf32" else "ieee")
        return contextlib.nullcontext()


@contextlib.contextmanager
def _bfloat16_products(device: torch.device) -> Iterator[None]:
    with torch.autocast(device.type, torch.bfloat16, cache_enabled=False):
        yield


@contextlib.contextmanager
def _cuda_products(precision: str) -> Iterator[None]:
    """Set how CUDA multiplies float32; convolutions are TF32 unless told otherwise."""
    convolutions = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # made at run time
    kinds = torch.backends.cuda.matmul, convolutions
    before = [kind.fp32_precision for kind in kinds]
    try:
        for kind in kinds:
            kind.fp32_precision = precision
        yield
    finally:
        for kind, was in zip(kinds, before, strict=True):
            kind.fp32_precision = was
