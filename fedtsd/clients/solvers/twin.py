"""Ditto (Li et al. 2021): beside the shared model a client trains a twin, which it serves."""

from dataclasses import dataclass

from fedtsd.clients.solvers.own import keep_own, own_at_start, own_of
from fedtsd.clients.solvers.solver import Quiet, Workbench
from fedtsd.clients.solvers.steps import Descent, check_shared
from fedtsd.server import Tensors
from fedtsd.training import Training

TWIN = "twin/"


@dataclass(frozen=True)
class Twin(Quiet):
    """Train the shared model in the phases; then the twin, which is pulled towards what came.

    The twin v goes on from where it was: v <- v - lr (g(v) + pull (v - w)), with w as received, for
    `epochs` and with the momentum of `training`. pull: lambda of the paper; with 0 the twin is
    trained alone. Clipping and weight decay act on the gradient of the loss, not on the pull.
    Buffers (BatchNorm) are not pulled: shared model and twin each have their own.
    """

    pull: float
    epochs: int

    def __post_init__(self) -> None:
        if self.pull < 0:
            raise ValueError(f"pull: must be at least 0, got {self.pull}")
        if self.epochs < 0:
            raise ValueError(f"epochs: must be at least 0, got {self.epochs}")

    def check(self, training: Training, num_personal: int) -> None:
        """Raise ValueError if layers are personal, or if the twin would leap beyond its aim."""
        check_shared("a twin", num_personal)
        if training.lr * self.pull >= 2:
            raise ValueError(
                f"pull: must be below 2 / training.lr ({2 / training.lr:g}), from where the twin "
                f"diverges, got {self.pull}"
            )

    def private(self, model: Tensors) -> Tensors:
        return own_at_start(TWIN, model)

    def train(self, bench: Workbench) -> int:
        processed = bench.fit(bench.split, bench.phases, bench.personal, bench.rng)
        shared = bench.snapshot()
        bench.load(own_of(TWIN, bench))
        processed += self._follow(bench)
        keep_own(TWIN, bench, bench.tensors)
        bench.load(shared)
        return processed

    def serve(self, bench: Workbench) -> None:
        bench.load(own_of(TWIN, bench))

    def _follow(self, bench: Workbench) -> int:
        """Train the twin, which the network holds; return the number of samples processed."""
        descent = Descent(bench.parameters, bench.training)
        processed = 0
        for inputs, labels in bench.steps(self.epochs):
            gradient = bench.gradient(inputs, labels)
            for name, parameter in bench.parameters.items():
                away = parameter.detach() - bench.received[name]
                gradient[name].add_(away, alpha=self.pull)
            descent.step(gradient)
            processed += len(labels)
        return processed
