"""One client's training with as little as possible around the arithmetic.

Trains as `local.train` does, on a model whose tensors are views of one vector: the same batches,
the same results within rounding. What is saved: an optimiser object and gradients on parameters,
gathering each batch, layouts that convolutions on CPUs have to convert, a graph for dense layers
(`dense.py`), and three quarters of each ReLU before a pooling.

Shapes: B batch, Y outputs.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from fedtsd.clients.dense import Dense, Sink, loss_gradient
from fedtsd.clients.dropout import Masks
from fedtsd.clients.flat import FlatModel
from fedtsd.data.holdings import Split
from fedtsd.modules import Dropout
from fedtsd.precision import Precision
from fedtsd.training import Phase, Training

GATHERED = 64
"""Batches whose samples are copied together; bounds the memory, not the result."""


class Trainer:
    """Trains one flat model in place, for one client after another.

    The module must be an nn.Sequential, as all models are.
    """

    def __init__(
        self,
        flat: FlatModel,
        training: Training,
        precision: Precision,
        device: torch.device | None = None,
    ) -> None:
        self._flat = flat
        self._training = training
        self._precision = precision
        self._device = device or torch.device("cpu")
        self._parameters = dict(flat.module.named_parameters())
        self._network = Network(flat.module, by_hand=precision.name != "bf16")
        self._drops = any(isinstance(module, Dropout) for module in flat.module.modules())

    @torch.no_grad()
    def train(
        self,
        split: Split,
        phases: Iterable[Phase],
        personal: frozenset[str],
        rng: torch.Generator,
    ) -> int:
        """Train through all phases; return the number of samples processed."""
        phases = tuple(phases)
        # Not only if the module says that it evaluates: others put its children to that.
        self._flat.module.train()
        masks = Masks(self._flat.module, rng) if self._drops else None
        received = self._received(phases)
        processed = 0
        with self._precision.autocast(self._device):
            for phase in phases:
                moving = self._moving(phase, personal)
                if not moving:
                    continue
                descent = Descent(moving, received, self._training, phase.proximal)
                for _ in range(phase.epochs):
                    for inputs, labels in self._batches(split, rng):
                        if masks is not None:
                            masks.set(labels.shape[0])
                        self._network.differentiate(inputs, labels, descent)
                        descent.step()
                    processed += len(split)
        return processed

    def _moving(self, phase: Phase, personal: frozenset[str]) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._parameters.items() if phase.moves(name, personal)}

    def _received(self, phases: tuple[Phase, ...]) -> dict[str, Tensor]:
        """Return the tensors before training, if any phase is pulled back to them."""
        if not any(phase.proximal for phase in phases):
            return {}
        return self._flat.layout.views(self._flat.vector.clone())

    def _batches(self, split: Split, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one epoch in the order of `local.batches`."""
        size, layout = self._training.batch_size, self._network.memory_format
        order = torch.randperm(len(split), generator=rng).to(split.labels.device)
        for chosen in torch.split(order, size * GATHERED):
            inputs = split.inputs[chosen].contiguous(memory_format=layout)
            inputs = self._network.before(inputs)
            labels = torch.split(split.labels[chosen], size)
            yield from zip(torch.split(inputs, size), labels, strict=True)


class Network:
    """A model cut in two: a body for autograd, and a dense end that is differentiated by hand.

    by_hand: whether there is a dense end; it computes in float32.
    """

    def __init__(self, module: nn.Module, by_hand: bool) -> None:
        if not isinstance(module, nn.Sequential):
            raise TypeError(f"the model must be an nn.Sequential, got {type(module).__name__}")
        self._dense = Dense(module if by_hand else nn.Sequential())
        body = self._dense.body if by_hand else list(module.children())
        self._body = nn.Sequential(*pooled_first(body))
        self._before = nn.Sequential()
        if not any(True for _ in self._body.parameters()):
            self._before, self._body = self._body, self._before
        names = {parameter: name for name, parameter in module.named_parameters()}
        self._parameters = {names[p]: p for p in self._body.parameters()}
        for parameter in self._parameters.values():
            parameter.requires_grad_()
        images = any(isinstance(child, nn.Conv2d) for child in module.modules())
        self.memory_format = torch.channels_last if images else torch.contiguous_format

    def before(self, inputs: Tensor) -> Tensor:
        """Map inputs of any number of samples to those that `differentiate` takes.

        Where no parameter comes before the dense end, that part is computed for many batches.
        """
        return self._before(inputs) if len(self._before) else inputs

    def differentiate(self, inputs: Tensor, labels: Tensor, descent: "Descent") -> None:
        """Give `descent` the gradients of the mean loss of a batch."""
        moving = [name for name in self._parameters if name in descent.sink.targets]
        features = inputs
        if self._parameters:
            with torch.set_grad_enabled(bool(moving)):
                features = self._body(inputs)
        outputs = self._dense.forward(features.detach())
        gradient = loss_gradient(outputs.float(), labels)
        gradient = self._dense.backward(gradient, descent.sink, bool(moving))
        if moving:
            parameters = [self._parameters[name] for name in moving]
            gradient = gradient.to(features.dtype)
            descent.add(moving, torch.autograd.grad(features, parameters, gradient))


def pooled_first(modules: list[nn.Module]) -> list[nn.Module]:
    """Put max pooling before the ReLU that it follows: the same outputs and gradients.

    The largest of a window is the same before and after; where it is negative, the gradient is 0
    either way. The ReLU then sees only what was pooled.
    """
    found = list(modules)
    for i in range(1, len(found)):
        if isinstance(found[i], nn.MaxPool2d) and isinstance(found[i - 1], nn.ReLU):
            found[i - 1], found[i] = found[i], found[i - 1]
    return found


class Descent:
    """SGD on what moves in one phase, from a momentum of zero.

    The order is that of the reference: proximal term, clipping, weight decay, momentum. Where only
    momentum or nothing is asked for, gradients go straight to the momentum or the parameters.
    """

    def __init__(
        self,
        moving: dict[str, nn.Parameter],
        received: dict[str, Tensor],
        training: Training,
        proximal: float,
    ) -> None:
        self._moving = [parameter.detach() for parameter in moving.values()]
        self._received = [received[name] for name in moving] if proximal else []
        self._training = training
        self._proximal = proximal
        self._direct = not (proximal or training.weight_decay or training.max_grad_norm)
        self._velocity = [torch.zeros_like(p) for p in self._moving] if training.momentum else []
        if not self._direct:
            gradients = [torch.zeros_like(p) for p in self._moving]
            self.sink = Sink(dict(zip(moving, gradients, strict=True)), 0.0, 1.0)
        elif training.momentum:
            velocity = dict(zip(moving, self._velocity, strict=True))
            self.sink = Sink(velocity, training.momentum, 1.0)
        else:
            self.sink = Sink(dict(zip(moving, self._moving, strict=True)), 1.0, -training.lr)

    def add(self, names: list[str], gradients: tuple[Tensor, ...]) -> None:
        """Send gradients to the sink."""
        targets = [self.sink.targets[name] for name in names]
        if not self.sink.beta:
            torch._foreach_copy_(targets, gradients)
            return
        if self.sink.beta != 1:
            torch._foreach_mul_(targets, self.sink.beta)
        torch._foreach_add_(targets, gradients, alpha=self.sink.alpha)

    def step(self) -> None:
        """Move by the gradients that were sent."""
        training = self._training
        if not self._direct:
            gradients = self._whole_gradients()
            if training.momentum:
                torch._foreach_mul_(self._velocity, training.momentum)
                torch._foreach_add_(self._velocity, gradients)
            else:
                torch._foreach_add_(self._moving, gradients, alpha=-training.lr)
        if training.momentum:
            torch._foreach_add_(self._moving, self._velocity, alpha=-training.lr)

    def _whole_gradients(self) -> list[Tensor]:
        training, gradients = self._training, list(self.sink.targets.values())
        if self._proximal:
            away = torch._foreach_sub(self._moving, self._received)
            torch._foreach_add_(gradients, away, alpha=self._proximal)
        if training.max_grad_norm is not None:
            length = torch.stack(torch._foreach_norm(gradients)).norm()
            torch._foreach_mul_(
                gradients, torch.clamp(training.max_grad_norm / (length + 1e-6), max=1)
            )
        if training.weight_decay:
            torch._foreach_add_(gradients, self._moving, alpha=training.weight_decay)
        return gradients
