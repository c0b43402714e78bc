"""Models: each is an `nn.Sequential` whose top-level children that hold parameters are its layers.

Layers are counted from the input. A layer is what can be private or shared as a whole: a weight
and its bias, or one residual block. A normalisation layer belongs to the layer before it.

Shapes: B batch, Y classes.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from fedtsd.modules import BatchNorm, Dropout, ResidualBlock

NORMALISATION = (nn.GroupNorm, nn.LayerNorm, nn.BatchNorm1d, nn.BatchNorm2d)


NORMS = ("group", "batch")
OPTIONAL_NORMS = ("none", *NORMS)
STATISTICS = ("running_mean", "running_var")
"""What the tensors are called that count instead of being trained: BatchNorm's running ones."""


class ModelSpec(Protocol):
    """What `conf/model/*.yaml` describes."""

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
        """Build the network for inputs [B, *input_shape] and outputs [B, num_classes]."""
        ...


@dataclass(frozen=True)
class Mlp:
    """A multilayer perceptron with ReLU; `hidden` gives the width of each hidden layer.

    dropout: the share of features that is dropped before the last layer.
    """

    hidden: tuple[int, ...]
    dropout: float

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden: widths must be at least 1, got {list(self.hidden)}")
        _check_rate(self.dropout)

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
        net: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        width = math.prod(input_shape)
        for i, next_width in enumerate(self.hidden, start=1):
            net[f"fc{i}"] = nn.Linear(width, next_width)
            net[f"relu{i}"] = nn.ReLU()
            width = next_width
        net.update(_dropout(self.dropout, width))
        net[f"fc{len(self.hidden) + 1}"] = nn.Linear(width, num_classes)
        return nn.Sequential(net)


@dataclass(frozen=True)
class LeNet:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: two convolutions, three dense layers.

    Both convolutions are padded by 2, so that images from 8 x 8 pixels on fit.

    dropout: the share of features that is dropped before the last layer.
    norm: what follows each convolution: `none`, or as in `ResNet8`.
    groups: of `group`; must divide 6 and 16.
    """

    dropout: float
    norm: str
    groups: int

    def __post_init__(self) -> None:
        _check_rate(self.dropout)
        _check_norm(self.norm, self.groups, (6, 16))

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
        features = _conv_features(input_shape, "LeNet", (6, 16), 2, self.norm, self.groups)
        width = _flat_width(16, 2, input_shape)
        return nn.Sequential(
            OrderedDict(
                **features,
                flatten=nn.Flatten(),
                fc1=nn.Linear(width, 120),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84),
                relu4=nn.ReLU(),
                **_dropout(self.dropout, 84),
                fc3=nn.Linear(84, num_classes),
            )
        )


@dataclass(frozen=True)
class FedAvgCnn:
    """The CNN of the FedAvg paper (McMahan et al. 2017): 5x5 convolutions 32 and 64, dense 512.

    With `padding` 2, as in the original, 28 x 28 x 1 inputs and 10 classes give 1,663,370
    parameters; with 0, as in many later papers, 582,026.

    dropout: the share of features that is dropped before the last layer.
    norm: what follows each convolution: `none`, or as in `ResNet8`.
    groups: of `group`; must divide 32 and 64.
    """

    padding: int
    dropout: float
    norm: str
    groups: int

    def __post_init__(self) -> None:
        if not 0 <= self.padding <= 2:
            raise ValueError(f"padding: must be 0, 1 or 2, got {self.padding}")
        _check_rate(self.dropout)
        _check_norm(self.norm, self.groups, (32, 64))

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
        features = _conv_features(
            input_shape, "FedAvgCnn", (32, 64), self.padding, self.norm, self.groups
        )
        width = _flat_width(64, self.padding, input_shape)
        return nn.Sequential(
            OrderedDict(
                **features,
                flatten=nn.Flatten(),
                fc1=nn.Linear(width, 512),
                relu3=nn.ReLU(),
                **_dropout(self.dropout, 512),
                fc2=nn.Linear(512, num_classes),
            )
        )


@dataclass(frozen=True)
class ResNet8:
    """ResNet-8: a stem, three residual blocks of growing width, a dense head.

    norm: `group` (GroupNorm, Wu and He 2018: `groups` groups) or `batch` (BatchNorm, whose running
    statistics are averaged, sent and kept like parameters).
    """

    width: int
    groups: int
    norm: str

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm: must be one of {', '.join(NORMS)}, got {self.norm!r}")
        if self.width < 1 or self.groups < 1 or self.width % self.groups:
            raise ValueError(
                f"width: must be a positive multiple of groups ({self.groups}), got {self.width}"
            )

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
        channels, *_ = _image_shape(input_shape, "ResNet8", smallest=4)
        w, norm = self.width, self._norm
        return nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(channels, w, 3, padding=1, bias=False),
                norm=norm(w),
                relu=nn.ReLU(),
                block1=ResidualBlock(w, w, 1, norm),
                block2=ResidualBlock(w, 2 * w, 2, norm),
                block3=ResidualBlock(2 * w, 4 * w, 2, norm),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                fc=nn.Linear(4 * w, num_classes),
            )
        )

    def _norm(self, channels: int) -> nn.Module:
        return _norm(self.norm, self.groups, channels)


@dataclass(frozen=True)
class Layer:
    """One layer of a model: its name and the names of its tensors, as in the state dict.

    normalises: whether it is nothing but normalisation.
    """

    name: str
    tensors: tuple[str, ...]
    normalises: bool = False


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return what of a model can be sent, kept and averaged, by its state-dict name.

    Parameters, and the buffers that hold numbers (BatchNorm's running statistics, not its counter
    of batches). The tensors are the model's own: they change as it trains.
    """
    found = model.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in found.items() if tensor.is_floating_point()}


def length_of(tensors: Mapping[str, Tensor]) -> float:
    """Return the L2 norm of a model or an update, all tensors together."""
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))


def layers_of(model: nn.Sequential, separate: bool = False) -> tuple[Layer, ...]:
    """Return the L ordered layers of a model, input first.

    separate: whether normalisation, also inside a block, makes layers of its own.
    """
    if separate:
        return _separate_layers(model)
    layers: list[Layer] = []
    for name, child in model.named_children():
        tensors = tuple(f"{name}.{key}" for key in tensors_of(child))
        if not tensors:
            continue
        if isinstance(child, NORMALISATION) and layers:
            before = layers.pop()
            layers.append(Layer(before.name, before.tensors + tensors))
        else:
            layers.append(Layer(name, tensors))
    return tuple(layers)


def _separate_layers(model: nn.Sequential) -> tuple[Layer, ...]:
    normalising = {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if isinstance(module, NORMALISATION)
        for key in tensors_of(module)
    }
    layers = []
    for name, child in model.named_children():
        tensors = [f"{name}.{key}" for key in tensors_of(child)]
        for end, normalises in (("", False), (".norm", True)):
            mine = tuple(t for t in tensors if (t in normalising) == normalises)
            if mine:
                whole = len(mine) == len(tensors)
                layers.append(Layer(name if whole else name + end, mine, normalises))
    return tuple(layers)


@torch.no_grad()
def initialise(model: nn.Module, rng: torch.Generator) -> None:
    """Draw all parameters from `rng`, by the same laws as PyTorch's constructors.

    The constructors draw from the global generator; drawing again here makes the initial model a
    function of the seed alone.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=math.sqrt(5), generator=rng)
            if module.bias is not None:
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.bias, -bound, bound, generator=rng)
        elif isinstance(module, NORMALISATION):
            module.reset_parameters()
        elif any(True for _ in module.parameters(recurse=False)):
            raise ValueError(f"no initialisation is known for {type(module).__name__}")


def _dropout(rate: float, width: int) -> dict[str, nn.Module]:
    """Nothing where nothing is dropped, so that such a model is what it was without dropout."""
    return {"dropout": Dropout(rate, width)} if rate else {}


def _check_rate(rate: float) -> None:
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: must be in [0, 1), got {rate}")


def _check_norm(norm: str, groups: int, channels: tuple[int, ...]) -> None:
    if norm not in OPTIONAL_NORMS:
        raise ValueError(f"norm: must be one of {', '.join(OPTIONAL_NORMS)}, got {norm!r}")
    if groups < 1 or any(count % groups for count in channels):
        counts = " and ".join(map(str, channels))
        raise ValueError(f"groups: must divide {counts} channels, got {groups}")


def _norm(kind: str, groups: int, channels: int) -> nn.Module:
    return BatchNorm(channels) if kind == "batch" else nn.GroupNorm(groups, channels)


def _conv_features(
    input_shape: tuple[int, ...],
    model: str,
    channels: tuple[int, int],
    padding: int,
    norm: str,
    groups: int,
) -> OrderedDict[str, nn.Module]:
    """Two 5x5 convolutions, padded by 0 to 2, each with `norm`, ReLU and 2x2 max pooling."""
    before, *_ = _image_shape(input_shape, model, smallest=16 - 6 * padding)
    net: OrderedDict[str, nn.Module] = OrderedDict()
    for i, count in enumerate(channels, start=1):
        net[f"conv{i}"] = nn.Conv2d(before, count, 5, padding=padding)
        if norm != "none":
            net[f"norm{i}"] = _norm(norm, groups, count)
        net[f"relu{i}"] = nn.ReLU()
        net[f"pool{i}"] = nn.MaxPool2d(2)
        before = count
    return net


def _flat_width(channels: int, padding: int, input_shape: tuple[int, ...]) -> int:
    """Return how many numbers come out of `_conv_features`, whose last layer has `channels`."""
    sides = list(input_shape[1:])
    for _ in range(2):  # a 5x5 convolution, then pooling by 2
        sides = [(side + 2 * padding - 4) // 2 for side in sides]
    return channels * math.prod(sides)


def _image_shape(input_shape: tuple[int, ...], model: str, smallest: int) -> tuple[int, ...]:
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise ValueError(
            f"{model} needs images of at least {smallest} x {smallest} pixels, "
            f"got inputs of shape {input_shape}; use model=mlp"
        )
    return input_shape
