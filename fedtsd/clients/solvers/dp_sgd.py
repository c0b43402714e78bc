"""DP-SGD (Abadi et al. 2016): what a client sends does not tell whether it holds a sample."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedtsd.clients.dropout import Masks
from fedtsd.clients.local import losses_of
from fedtsd.clients.solvers.solver import Quiet, Workbench
from fedtsd.data.holdings import Split
from fedtsd.imports import from_extra
from fedtsd.privacy import Mechanism, Release, Turn
from fedtsd.training import Phase, Training, epochs_of

with from_extra("privacy"):
    import dp_accounting
    from opacus.grad_sample.grad_sample_module import GradSampleHooks
    from opacus.optimizers import DPOptimizer


@dataclass(frozen=True)
class DpSgd(Mechanism, Quiet):
    """SGD through the phases, with each sample's gradient clipped and noise added to their sum.

    An epoch of n samples has T = ceil(n / batch_size) steps. A step takes each sample with
    probability 1 / T, independently (Poisson sampling), by the client's own generator, and divides
    the noisy sum by n / T. Clipping, noise and per-sample gradients are Opacus's (Yousefpour et al.
    2021). Momentum, weight decay and a proximal term act on what is private already.

    Neighbours are clients one of whose samples is left out and leaves its place empty
    (REPLACE_SPECIAL): how many samples a client has is taken to be known. The sum moves by up to
    one clip. What was received is served.
    """

    group: ClassVar[str] = "solver"
    level: ClassVar[str] = "example"
    relation: ClassVar[str] = "REPLACE_SPECIAL"
    phased: ClassVar[bool] = True

    def check(self, training: Training, num_personal: int) -> None:
        """Raise ValueError if gradients would be clipped as a whole too."""
        if training.max_grad_norm is not None:
            raise ValueError(
                "clip: is of each sample's gradient; set training.max_grad_norm=null, got "
                f"{training.max_grad_norm:g}"
            )

    def train(self, bench: Workbench) -> int:
        bench.network.train()
        masks = Masks(bench.network, bench.rng)
        return sum(self._descend(bench, phase, masks) for phase in bench.phases)

    def releases(self, turn: Turn, training: Training) -> Mapping[int, Sequence[Release]]:
        noise = dp_accounting.GaussianDpEvent(self.noise_multiplier)
        found = {}
        for client, size in turn.sizes.items():
            steps = steps_of(size, training.batch_size)
            drawn = dp_accounting.PoissonSampledDpEvent(1 / steps, noise)
            found[client] = [(drawn, steps * epochs_of(training.phases))]
        return found

    def _descend(self, bench: Workbench, phase: Phase, masks: Masks) -> int:
        """Carry out one phase; return the number of samples processed."""
        moving = {
            name: parameter
            for name, parameter in bench.parameters.items()
            if phase.moves(name, bench.personal)
        }
        if not moving:
            return 0
        for name, parameter in bench.parameters.items():
            parameter.requires_grad_(name in moving)
        # Opacus's own rule for convolutions takes activations for contiguous, and is silently wrong
        # where an engine has them channels last; by functorch they are right, and slower.
        convolves = any(isinstance(module, nn.Conv2d) for module in bench.network.modules())
        hooks = GradSampleHooks(bench.network, loss_reduction="sum", force_functorch=convolves)
        try:
            return self._steps(bench, phase, moving, masks)
        finally:
            hooks.cleanup()

    @torch.enable_grad()
    def _steps(
        self, bench: Workbench, phase: Phase, moving: Mapping[str, nn.Parameter], masks: Masks
    ) -> int:
        size, training = len(bench.split), bench.training
        steps = steps_of(size, training.batch_size)
        descent = torch.optim.SGD(
            moving.values(),
            lr=training.lr,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
        private = DPOptimizer(
            descent,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=self.clip,
            expected_batch_size=size / steps,
            generator=_noise_of(bench),
        )
        processed = 0
        batches = poisson_batches(bench.split, steps * phase.epochs, 1 / steps, bench.rng)
        for inputs, labels in batches:
            private.zero_grad()
            if len(labels):
                masks.set(len(labels))
                inputs.requires_grad_()  # or torch warns of the hooks on the first layer
                with bench.precision.autocast(inputs.device):
                    loss = losses_of(bench.network(inputs), labels).sum()
                # The hooks keep each sample's gradient; the sum of them is of no use.
                torch.autograd.grad(loss, [inputs, *moving.values()])
            else:  # noise is added all the same: that nobody was drawn must not show
                for parameter in moving.values():
                    none = parameter.new_zeros(0, *parameter.shape)
                    parameter.grad_sample = none  # type: ignore[attr-defined]  # as the hooks do
            if private.pre_step():
                if phase.proximal:
                    _pull(moving, bench.received, phase.proximal)
                descent.step()
            processed += len(labels)
        return processed


def steps_of(size: int, batch_size: int) -> int:
    """Return the steps of an epoch of so many samples."""
    return -(-size // batch_size)


def poisson_batches(
    split: Split, steps: int, rate: float, rng: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield so many batches; each sample is in each with probability `rate`, independently."""
    for _ in range(steps):
        drawn = torch.rand(len(split), generator=rng) < rate
        chosen = drawn.nonzero().squeeze(1).to(split.labels.device)
        yield split.inputs[chosen], split.labels[chosen]


def _noise_of(bench: Workbench) -> torch.Generator:
    """Return the client's generator, or one of its device that starts from it."""
    device = bench.split.labels.device
    if device == bench.rng.device:
        return bench.rng
    start = torch.randint(2**63 - 1, (1,), generator=bench.rng).item()
    return torch.Generator(device).manual_seed(int(start))


def _pull(moving: Mapping[str, nn.Parameter], received: Mapping[str, Tensor], mu: float) -> None:
    """Add the gradient of mu/2 ||w - w_received||^2."""
    for name, parameter in moving.items():
        if parameter.grad is not None:
            parameter.grad.add_(parameter.detach() - received[name], alpha=mu)
