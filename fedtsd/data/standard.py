"""Standardisation: what inputs are centred and scaled by, and sums from which it follows.

Images have one mean and one standard deviation per channel, tables one per feature. Missing values
(NaN) do not count, and become the mean.

Shapes: n samples, K channels of images or features of tables.
"""

from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-6


@dataclass(frozen=True)
class Standard:
    """Mean and scale, broadcastable to inputs [n, ...]."""

    mean: np.ndarray
    scale: np.ndarray

    def apply(self, inputs: np.ndarray) -> np.ndarray:
        """Return float32 inputs with this mean and scale taken out, and 0 for what is missing."""
        standard = (np.asarray(inputs, dtype=np.float32) - self.mean) / self.scale
        if inputs.dtype != np.uint8:
            np.nan_to_num(standard, copy=False, nan=0.0)
        return np.asarray(standard, dtype=np.float32)


@dataclass(frozen=True)
class Moments:
    """Per channel or feature [K]: how many values there are, their sum, the sum of their squares.

    These are all that a client tells so that everybody can standardise alike; sums of several
    clients add up to those of their pooled data.
    """

    count: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    ndim: int

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.ndim,
        )

    @property
    def size(self) -> int:
        """How many numbers this is."""
        return 3 * len(self.total)

    def standard(self, scaled: np.ndarray | None) -> Standard:
        """Return mean and standard deviation; features that are not `scaled` stay as they are."""
        count = np.maximum(self.count, 1)
        mean = self.total / count
        std = np.sqrt(np.maximum(0.0, self.squares / count - mean**2))
        return _shaped(mean, std, scaled, self.ndim)


def moments_of(inputs: np.ndarray) -> Moments:
    """Return the moments of inputs [n, K, ...], in float64."""
    values = np.asarray(inputs, dtype=np.float64)
    axes = (0, *range(2, values.ndim))
    known = ~np.isnan(values)
    values = np.where(known, values, 0.0)
    return Moments(
        known.sum(axis=axes), values.sum(axis=axes), (values**2).sum(axis=axes), values.ndim
    )


def standard_of(inputs: np.ndarray, scaled: np.ndarray | None) -> Standard:
    """Return the standard of inputs [n, K, ...] that are all in one place."""
    if inputs.dtype != np.uint8:
        return moments_of(inputs).standard(scaled)
    pixels = np.asarray(inputs, dtype=np.float32)
    axes = (0, *range(2, pixels.ndim))
    mean = pixels.mean(axis=axes, keepdims=True)
    return Standard(mean, pixels.std(axis=axes, keepdims=True) + np.float32(SMALLEST))


def raw_standard(inputs: np.ndarray) -> Standard:
    """Return the standard that leaves tables as they are and brings pixels to 0..1."""
    top = 255 if inputs.dtype == np.uint8 else 1
    return Standard(np.array(0, dtype=np.float32), np.array(top, dtype=np.float32))


def _shaped(mean: np.ndarray, std: np.ndarray, scaled: np.ndarray | None, ndim: int) -> Standard:
    if scaled is not None:
        mean, std = np.where(scaled, mean, 0.0), np.where(scaled, std, 1.0)
    shape = (1, -1, *[1] * (ndim - 2))
    # A feature that never varies has nothing to scale; dividing by its 0 would blow up noise.
    scale = np.where(std > SMALLEST * np.maximum(1.0, np.abs(mean)), std, 1.0)
    return Standard(mean.reshape(shape).astype(np.float32), scale.reshape(shape).astype(np.float32))
