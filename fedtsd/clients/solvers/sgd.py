"""SGD through the phases of `training.phases`: FedAvg's local work, and that of most methods."""

from dataclasses import dataclass
from typing import ClassVar

from fedtsd.clients.solvers.solver import Quiet, Workbench


@dataclass(frozen=True)
class Sgd(Quiet):
    """Train in the phases; serve what was received under the personal layers."""

    plain: ClassVar[bool] = True
    phased: ClassVar[bool] = True

    def train(self, bench: Workbench) -> int:
        return bench.fit(bench.split, bench.phases, bench.personal, bench.rng)
