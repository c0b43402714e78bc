"""The engine that suits the device."""

import logging
from dataclasses import dataclass

import torch

from fedtsd.clients.engine import ClientSide, EngineSpec
from fedtsd.messages import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Auto:
    """Takes `stacked` on CUDA and `parallel` elsewhere, each with its settings."""

    parallel: EngineSpec
    stacked: EngineSpec

    def check(self, device: torch.device) -> None:
        """Raise ValueError if the one that is chosen cannot run."""
        self._choose(device)[1].check(device)

    def build(self, side: ClientSide) -> Engine:
        """Start the engine that suits the device, and say which and why."""
        name, spec = self._choose(side.device)
        log.info("engine: %s, as the device is %s", name, side.device.type)
        return spec.build(side)

    def _choose(self, device: torch.device) -> tuple[str, EngineSpec]:
        if device.type == "cuda":
            return "stacked", self.stacked
        return "parallel", self.parallel
