"""SGD through the phases of `training.phases`: FedAvg's local work, and that of most methods."""

from dataclasses import dataclass
from typing import ClassVar

from fedtsd.clients.solvers.solver import Workbench
from fedtsd.server import Tensors
from fedtsd.training import Training


@dataclass(frozen=True)
class Sgd:
    """Train in the phases; serve what was received under the personal layers."""

    plain: ClassVar[bool] = True

    def check(self, training: Training, num_personal: int) -> None:
        """Go with everything."""

    def private(self, model: Tensors) -> Tensors:
        return {}

    def crossing(self, model: Tensors) -> Tensors:
        return {}

    def train(self, bench: Workbench) -> int:
        return bench.fit(bench.split, bench.phases, bench.personal, bench.rng)

    def serve(self, bench: Workbench) -> None:
        """The network holds it already."""
