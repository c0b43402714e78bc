"""Server optimisers: the way from a centre to its members' mean is a gradient to take a step by.

Reddi et al. 2021 (FedOpt). A moment is what an optimiser remembers of earlier rounds. Moments are
kept in the server's memory in float64, so that a step of the whole way ends at the float32 mean.

Only parameters are stepped: BatchNorm's running statistics, and what a solver sends beside the
model, are averaged as in FedAvg. A step beyond the mean could make a variance negative.

Shapes: K clusters.
"""

import dataclasses
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fedtsd.aggregation import check_weighting, means_of, sums_in
from fedtsd.messages import Reply
from fedtsd.models import STATISTICS, Layer
from fedtsd.server import ServerState, Tensors

MARK_BYTES = 16


@dataclass(frozen=True)
class _ServerOptimizer(ABC):
    """A step from each centre towards the weighted mean of its cluster's members.

    Moments belong to centres. All restart as in round 1 once the centres are not those that the
    last step left behind: after a split, a merger, or centres that a policy has made anew. They go
    on where clients only move between centres, or join. A tensor that nobody shares is left alone,
    and so are its moments.
    """

    weighting: str
    lr: float

    partner: ClassVar[str | None] = None
    name: ClassVar[str]
    """In front of everything it keeps in memory."""

    def __post_init__(self) -> None:
        check_weighting(self.weighting)
        if self.lr <= 0:
            raise ValueError(f"lr: must be above 0, got {self.lr}")

    @property
    @abstractmethod
    def moments(self) -> Mapping[str, float]:
        """The key of each moment in memory, and the value that it starts with."""

    @abstractmethod
    def step(self, way: np.ndarray, *moments: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the step to take and the new moments, from the way to the mean, all float64."""

    @property
    def sums(self) -> str | None:
        return self.weighting

    def check(self, num_layers: int) -> None:  # noqa: B027 (there is nothing to override)
        """Fit any model."""

    def update(self, server: ServerState, reply: Reply, layers: Sequence[Layer]) -> ServerState:
        sums = sums_in(server, reply, self.weighting)
        centres = means_of(server.centres, sums)
        memory = self._memory(server, parameters_in(layers))
        for name in parameters_in(layers):
            held = [memory[f"{moment}.{name}"] for moment in self.moments]
            for cluster, centre in enumerate(centres):
                if name not in sums[cluster].tensors:
                    continue
                old = server.centres[cluster][name]
                way = _float64(centre[name]) - _float64(old)
                step, *moments = self.step(way, *(moment[cluster] for moment in held))
                centre[name] = _like(old, _float64(old) + step)
                for moment, value in zip(held, moments, strict=True):
                    moment[cluster] = value
        memory[self._marks] = marks_of(centres)
        return dataclasses.replace(server, centres=centres, memory={**server.memory, **memory})

    @property
    def _marks(self) -> str:
        return f"{self.name}.centres"

    def _memory(self, server: ServerState, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return moments that may be written to: those of the last round, or as they start."""
        marks = server.memory.get(self._marks)
        goes_on = marks is not None and np.array_equal(marks, marks_of(server.centres))
        memory = {}
        for moment, start in self.moments.items():
            for name in names:
                key, shape = f"{moment}.{name}", server.centres[0][name].shape
                fresh = np.full((len(server.centres), *shape), start)
                memory[key] = server.memory[key].copy() if goes_on else fresh
        return memory


@dataclass(frozen=True)
class Momentum(_ServerOptimizer):
    """Momentum on the server (FedAvgM, Hsu et al. 2019): v <- momentum v + (mean - x).

    x <- x + lr v. With momentum 0 and lr 1 this is the weighted mean. Memory: `momentum.NAME`,
    float64 [K, ...], for each parameter; `momentum.centres`, marks of the centres, uint8 [K, 16].
    """

    momentum: float

    name: ClassVar[str] = "momentum"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: must be in [0, 1), got {self.momentum}")

    @property
    def moments(self) -> Mapping[str, float]:
        return {"momentum": 0.0}

    def step(self, way: np.ndarray, *moments: np.ndarray) -> tuple[np.ndarray, ...]:
        (velocity,) = moments
        velocity = self.momentum * velocity + way
        return self.lr * velocity, velocity


@dataclass(frozen=True)
class Adam(_ServerOptimizer):
    """Adam on the server (FedAdam, Reddi et al. 2021, algorithm 2), d being mean - x.

    m <- beta1 m + (1 - beta1) d; v <- beta2 v + (1 - beta2) d^2; x <- x + lr m / (sqrt(v) + tau).
    m starts at 0 and v at tau^2. As in the paper's algorithm, nothing is corrected for that start
    (Kingma and Ba 2015 divide by 1 - beta^t). Memory: `adam.m.NAME` and `adam.v.NAME`, float64
    [K, ...], for each parameter; `adam.centres`, marks of the centres, uint8 [K, 16].
    """

    beta1: float
    beta2: float
    tau: float

    name: ClassVar[str] = "adam"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("beta1", "beta2"):
            if not 0 <= getattr(self, key) < 1:
                raise ValueError(f"{key}: must be in [0, 1), got {getattr(self, key)}")
        if self.tau <= 0:
            raise ValueError(f"tau: must be above 0, got {self.tau}")

    @property
    def moments(self) -> Mapping[str, float]:
        return {"adam.m": 0.0, "adam.v": self.tau**2}

    def step(self, way: np.ndarray, *moments: np.ndarray) -> tuple[np.ndarray, ...]:
        first, second = moments
        first = self.beta1 * first + (1 - self.beta1) * way
        second = self.beta2 * second + (1 - self.beta2) * way**2
        return self.lr * first / (np.sqrt(second) + self.tau), first, second


def parameters_in(layers: Sequence[Layer]) -> list[str]:
    """Return the names of all tensors that are trained, not counted."""
    names = [name for layer in layers for name in layer.tensors]
    return [name for name in names if name.rpartition(".")[2] not in STATISTICS]


def marks_of(centres: Sequence[Tensors]) -> np.ndarray:
    """Return a mark of each centre, uint8 [K, 16]: different ones have different marks."""
    marks = []
    for centre in centres:
        mark = hashlib.blake2b(digest_size=MARK_BYTES)
        for tensor in centre.values():
            mark.update(tensor.detach().cpu().numpy().tobytes())
        marks.append(np.frombuffer(mark.digest(), dtype=np.uint8))
    return np.stack(marks)


def _float64(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().double().numpy())


def _like(tensor: Tensor, values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values)).to(tensor)
