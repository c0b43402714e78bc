"""The Ray cluster that a run uses: joined or started, room taken on it, and left again.

Ray is an extra and takes seconds to import, so it is imported here alone and late.
"""

import contextlib
import importlib
import importlib.util
import logging
import math
import os
import re
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedtsd.data.holdings import Split
from fedtsd.errors import ConfigError, EngineError

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray runs actors at 15, where they starve beside anything else that runs.
    "RAY_worker_niceness": "0",
    # Ray warns that it will one day leave CUDA_VISIBLE_DEVICES alone; here it may do so now.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


log = logging.getLogger(__name__)

KNOCK = 10
"""Seconds to wait for an answer at an address."""


def check_ray() -> None:
    """Raise ValueError if the package is missing; imports nothing."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError("_target_: ray is not installed; run pip install 'fedtsd[ray]'")


@dataclass(frozen=True)
class Size:
    """What one actor takes up; both may be fractions."""

    cpus: float
    gpus: float

    def count_in(self, resources: Mapping[str, float]) -> int:
        """Return how many fit into a machine's resources, by Ray's names."""
        rooms = [resources.get("CPU", 0.0) / self.cpus]
        rooms += [resources.get("GPU", 0.0) / self.gpus] if self.gpus else []
        return math.floor(min(rooms))


class Cluster:
    """A connection to a Ray cluster, and the room that a run has taken on it."""

    def __init__(self, address: str | None, num_cpus: int | None, num_gpus: int | None) -> None:
        """Join the cluster at `address`; None starts one on this machine, with so many processors.

        Raises ConfigError if nobody answers there.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        self.ray: Any = importlib.import_module("ray")
        self._ours = not self.ray.is_initialized()
        self._room: Any = None
        if self._ours:
            with _signals_kept():
                self._join(address, num_cpus, num_gpus)
        register_tensors()

    def count(self, size: Size) -> int:
        """Return how many actors the cluster's machines hold together.

        Raises EngineError if there is no machine for one.
        """
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        count = sum(size.count_in(resources) for resources in nodes)
        if not count:
            raise EngineError(
                f"the Ray cluster has no machine with {size.cpus:g} CPUs and {size.gpus:g} GPUs, "
                "which one actor needs (engine.cpus_per_actor, engine.gpus_per_actor)"
            )
        return count

    def take_room(self, actors: int, size: Size, patience: float) -> None:
        """Reserve room for actors; each comes back to its own place as long as its machine lives.

        Raises EngineError if there is none within `patience` seconds.
        """
        bundle = {"CPU": size.cpus} | ({"GPU": size.gpus} if size.gpus else {})
        placement = importlib.import_module("ray.util.placement_group")
        self._room = placement.placement_group([bundle] * actors, strategy="SPREAD")
        if self._room.wait(min(1.0, patience)):
            return
        log.info("waiting for room for %d actors on the Ray cluster", actors)
        if not self._room.wait(patience):
            raise EngineError(
                f"the Ray cluster had no room for {actors} actors of {size.cpus:g} CPUs and "
                f"{size.gpus:g} GPUs within {patience:g} s (engine.actors, engine.patience)"
            )

    def start(self, actor: type, place: int, size: Size, max_restarts: int) -> Any:
        """Return what makes an actor of a class in one of the reserved places."""
        scheduling = importlib.import_module("ray.util.scheduling_strategies")
        return self.ray.remote(actor).options(
            num_cpus=size.cpus,
            num_gpus=size.gpus,
            max_restarts=max_restarts,
            # Calls fail at once where an actor is gone: the driver alone decides what to repeat.
            max_task_retries=0,
            scheduling_strategy=scheduling.PlacementGroupSchedulingStrategy(self._room, place),
        )

    def close(self) -> None:
        """Give back the room, which ends what is there; end Ray if we have started or joined it."""
        if self._room is not None:
            placement = importlib.import_module("ray.util.placement_group")
            placement.remove_placement_group(self._room)
            self._room = None
        if self._ours:
            self._ours = False
            with _signals_kept():
                self.ray.shutdown()

    def _join(self, address: str | None, num_cpus: int | None, num_gpus: int | None) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if address is None:
            # Only this machine can reach a Ray that is there for one run.
            self.ray.init(
                "local",
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                include_dashboard=False,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
            return
        try:
            _knock(address)
            self.ray.init(address, **quiet)
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
            raise ConfigError(
                f"engine.address: {address!r} cannot be joined: {reason}; start Ray there with "
                "`ray start --head`, with the same versions of Ray and Python"
            ) from error


def _knock(address: str) -> None:
    """Raise OSError if nobody listens at HOST:PORT, for which Ray would wait minutes."""
    if found := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address):
        host, port = found.groups()
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK).close()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep our own handlers: Ray sets one for SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def register_tensors() -> None:
    """Let tensors cross Ray's store as arrays, which it copies without going through pickle.

    The samples of a client are not copied at all: all actors of a machine map the same memory,
    which nobody may write to.
    """
    register = importlib.import_module("ray.util").register_serializer
    register(Tensor, serializer=_array, deserializer=_copied)
    register(Split, serializer=_arrays, deserializer=_mapped)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


def _copied(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.copy())


def _arrays(split: Split) -> tuple[np.ndarray, np.ndarray, float]:
    return _array(split.inputs), _array(split.labels), split.unit


def _mapped(parts: tuple[np.ndarray, np.ndarray, float]) -> Split:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        inputs, labels = (torch.from_numpy(array) for array in parts[:2])
    return Split(inputs, labels, parts[2])
