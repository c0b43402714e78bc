"""The dense end of a network, differentiated by hand.

The gradient of a dense weight is a product of two matrices. Here that product is added, as it is
computed, to what it is meant for: the weight or its momentum. It is never stored and read again,
and no graph is recorded. In small networks most of the time of a step goes there.

Shapes: B batch, Y outputs.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedtsd.modules import Dropout, LogPrior


@dataclass(frozen=True)
class Sink:
    """Where gradients go: target <- beta * target + alpha * gradient, for what moves, by name."""

    targets: Mapping[str, Tensor]
    beta: float
    alpha: float


class Dense:
    """The longest end of a network that is made of dense layers, ReLU and dropout.

    It starts with a dense layer; `body` holds the modules before it. Both directions run without
    autograd.
    """

    def __init__(self, network: nn.Sequential) -> None:
        children = list(network.named_children())
        start = len(children)
        for i in reversed(range(len(children))):
            if type(children[i][1]) not in OPS:
                break
            if isinstance(children[i][1], nn.Linear):
                start = i
        self.body = [module for _, module in children[:start]]
        self._ops = [OPS[type(module)](name, module) for name, module in children[start:]]

    def forward(self, x: Tensor) -> Tensor:
        """Map features [B, ...] to outputs [B, Y]."""
        for op in self._ops:
            x = op.forward(x)
        return x

    def backward(self, gradient: Tensor, sink: Sink, through: bool) -> Tensor:
        """Send the gradients of parameters to `sink`; map that of outputs to that of features.

        through: whether the gradient of the features is needed. If not, it is not computed, and
        what is returned means nothing.
        """
        lowest = 0 if through else self._lowest_moving(sink)
        for i in range(len(self._ops) - 1, lowest - 1, -1):
            gradient = self._ops[i].backward(gradient, sink, through or i > lowest)
        return gradient

    def _lowest_moving(self, sink: Sink) -> int:
        for i, op in enumerate(self._ops):
            if any(name in sink.targets for name in op.names):
                return i
        return len(self._ops)


class _Op(ABC):
    """One module. `backward` gives the gradient of its input if `through` is true."""

    names: tuple[str, ...] = ()

    def __init__(self, name: str, module: nn.Module) -> None:
        self._module = module

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def backward(self, gradient: Tensor, sink: Sink, through: bool) -> Tensor: ...


class _Linear(_Op):
    def __init__(self, name: str, module: nn.Module) -> None:
        tensors = {f"{name}.{key}": tensor.detach() for key, tensor in module.named_parameters()}
        self.names = tuple(tensors)
        self._weight = tensors[f"{name}.weight"]
        self._transposed = self._weight.t()
        self._bias = tensors.get(f"{name}.bias")

    def forward(self, x: Tensor) -> Tensor:
        self._x = x
        if self._bias is None:
            return torch.mm(x, self._transposed)
        return torch.addmm(self._bias, x, self._transposed)

    def backward(self, gradient: Tensor, sink: Sink, through: bool) -> Tensor:
        # First the input's gradient: the sink may be the weight itself.
        passed = torch.mm(gradient, self._weight) if through else gradient
        columns = gradient.t()
        for name in self.names:
            target = sink.targets.get(name)
            if target is None:
                continue
            if target.ndim == 2:
                target.addmm_(columns, self._x, beta=sink.beta, alpha=sink.alpha)
            else:
                ones = _full(1.0, gradient.shape[0], gradient.device)
                target.addmv_(columns, ones, beta=sink.beta, alpha=sink.alpha)
        return passed


class _Relu(_Op):
    def forward(self, x: Tensor) -> Tensor:
        self._y = x.relu_()  # no layer below needs its output again
        return self._y

    def backward(self, gradient: Tensor, sink: Sink, through: bool) -> Tensor:
        stopped: Tensor = torch.ops.aten.threshold_backward(gradient, self._y, 0)
        return stopped


class _Dropout(_Op):
    def forward(self, x: Tensor) -> Tensor:
        dropped: Tensor = self._module(x)
        return dropped

    def backward(self, gradient: Tensor, sink: Sink, through: bool) -> Tensor:
        return gradient * self._module.get_buffer("mask")


class _LogPrior(_Op):
    def forward(self, x: Tensor) -> Tensor:
        shifted: Tensor = self._module(x)
        return shifted

    def backward(self, gradient: Tensor, sink: Sink, through: bool) -> Tensor:
        return gradient


OPS: dict[type[nn.Module], type[_Op]] = {
    nn.Linear: _Linear,
    nn.ReLU: _Relu,
    Dropout: _Dropout,
    LogPrior: _LogPrior,
}


def loss_gradient(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the gradient [B, Y] of the mean loss of `local.loss_of` with respect to outputs.

    Of cross-entropy: (softmax - one-hot) / B; of the squared error: 2 (output - value) / B.
    """
    size = labels.shape[0]
    if labels.is_floating_point():
        return (outputs - labels[:, None]).mul_(2 / size)
    gradient = torch.softmax(outputs, dim=1)
    minus = _full(-1.0, size, labels.device)
    return gradient.scatter_add_(1, labels[:, None], minus[:, None]).div_(size)


@functools.lru_cache(maxsize=16)
def _full(value: float, length: int, device: torch.device) -> Tensor:
    return torch.full((length,), value, device=device)


@functools.lru_cache(maxsize=8)
def _minus_ones(length: int, device: torch.device) -> Tensor:
    return torch.full((length, 1), -1.0, device=device)
