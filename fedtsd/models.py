"""Models: each is an `nn.Sequential` whose top-level children that hold parameters are its layers.

Layers are counted from the input. A layer is what can be private or shared as a whole: a weight
and its bias, or one residual block. A normalisation layer belongs to the layer before it.

Shapes: B batch, Y classes.
"""

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

NORMALISATION = (nn.GroupNorm, nn.LayerNorm)


class ModelSpec(Protocol):
    """What `conf/model/*.yaml` describes."""

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
        """Build the network for inputs [B, *input_shape] and outputs [B, num_classes]."""
        ...


@dataclass(frozen=True)
class Mlp:
    """A multilayer perceptron with ReLU; `hidden` gives the width of each hidden layer."""

    hidden: tuple[int, ...]

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"hidden: widths must be at least 1, got {list(self.hidden)}")

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
        net: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        width = math.prod(input_shape)
        for i, next_width in enumerate(self.hidden, start=1):
            net[f"fc{i}"] = nn.Linear(width, next_width)
            net[f"relu{i}"] = nn.ReLU()
            width = next_width
        net[f"fc{len(self.hidden) + 1}"] = nn.Linear(width, num_classes)
        return nn.Sequential(net)


@dataclass(frozen=True)
class LeNet:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: two convolutions, three dense layers.

    Both convolutions are padded by 2, so that images from 8 x 8 pixels on fit.
    """

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
        features = _conv_features(input_shape, "LeNet", (6, 16))
        width = _flat_width(features, input_shape)
        return nn.Sequential(
            OrderedDict(
                **features,
                flatten=nn.Flatten(),
                fc1=nn.Linear(width, 120),
                relu3=nn.ReLU(),
                fc2=nn.Linear(120, 84),
                relu4=nn.ReLU(),
                fc3=nn.Linear(84, num_classes),
            )
        )


@dataclass(frozen=True)
class FedAvgCnn:
    """The CNN of the FedAvg paper (McMahan et al. 2017): 5x5 convolutions 32 and 64, dense 512.

    Padded by 2 like the original; 28 x 28 x 1 inputs and 10 classes give 1,663,370 parameters.
    """

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
        features = _conv_features(input_shape, "FedAvgCnn", (32, 64))
        width = _flat_width(features, input_shape)
        return nn.Sequential(
            OrderedDict(
                **features,
                flatten=nn.Flatten(),
                fc1=nn.Linear(width, 512),
                relu3=nn.ReLU(),
                fc2=nn.Linear(512, num_classes),
            )
        )


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with GroupNorm and a shortcut (He et al. 2016; Wu and He 2018)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(groups, channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(groups, channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, channels_in, H, W] to [B, channels_out, H / stride, W / stride]."""
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


@dataclass(frozen=True)
class ResNet8:
    """ResNet-8 with GroupNorm: a stem, three residual blocks of growing width, a dense head."""

    width: int
    groups: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.groups < 1 or self.width % self.groups:
            raise ValueError(
                f"width: must be a positive multiple of groups ({self.groups}), got {self.width}"
            )

    def build(self, input_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
        channels, *_ = _image_shape(input_shape, "ResNet8", smallest=4)
        w, g = self.width, self.groups
        return nn.Sequential(
            OrderedDict(
                stem=nn.Conv2d(channels, w, 3, padding=1, bias=False),
                norm=nn.GroupNorm(g, w),
                relu=nn.ReLU(),
                block1=ResidualBlock(w, w, 1, g),
                block2=ResidualBlock(w, 2 * w, 2, g),
                block3=ResidualBlock(2 * w, 4 * w, 2, g),
                pool=nn.AdaptiveAvgPool2d(1),
                flatten=nn.Flatten(),
                fc=nn.Linear(4 * w, num_classes),
            )
        )


@dataclass(frozen=True)
class Layer:
    """One layer of a model: its name and the names of its tensors, as in the state dict."""

    name: str
    tensors: tuple[str, ...]


def layers_of(model: nn.Sequential) -> tuple[Layer, ...]:
    """Return the L ordered layers of a model, input first.

    Raises ValueError for buffers (BatchNorm's running statistics): they are neither trained nor
    averaged by any method here, and taking them from one client would be silently wrong.
    """
    layers: list[Layer] = []
    for name, child in model.named_children():
        if any(True for _ in child.buffers()):
            raise ValueError(f"layer {name} has buffers (BatchNorm?); use GroupNorm or LayerNorm")
        tensors = tuple(f"{name}.{key}" for key, _ in child.named_parameters())
        if not tensors:
            continue
        if isinstance(child, NORMALISATION) and layers:
            before = layers.pop()
            layers.append(Layer(before.name, before.tensors + tensors))
        else:
            layers.append(Layer(name, tensors))
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


def _conv_features(
    input_shape: tuple[int, ...], model: str, channels: tuple[int, int]
) -> OrderedDict[str, nn.Module]:
    """Two padded 5x5 convolutions, each with ReLU and 2x2 max pooling."""
    colours, *_ = _image_shape(input_shape, model, smallest=4)
    first, second = channels
    return OrderedDict(
        conv1=nn.Conv2d(colours, first, 5, padding=2),
        relu1=nn.ReLU(),
        pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(first, second, 5, padding=2),
        relu2=nn.ReLU(),
        pool2=nn.MaxPool2d(2),
    )


def _flat_width(features: OrderedDict[str, nn.Module], input_shape: tuple[int, ...]) -> int:
    with torch.no_grad():
        return int(nn.Sequential(features)(torch.zeros(1, *input_shape)).numel())


def _image_shape(input_shape: tuple[int, ...], model: str, smallest: int) -> tuple[int, ...]:
    if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
        raise ValueError(
            f"{model} needs images of at least {smallest} x {smallest} pixels, "
            f"got inputs of shape {input_shape}; use model=mlp"
        )
    return input_shape
