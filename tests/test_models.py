import pytest
import torch
from torch import nn

from fedtsd.models import FedAvgCnn, LeNet, Mlp, ResNet8, initialise, layers_of
from fedtsd.seeding import torch_rng

SPECS = [
    (Mlp((100, 50)), (1, 8, 8), 3),
    (LeNet(), (1, 8, 8), 5),
    (LeNet(), (3, 32, 32), 5),
    (FedAvgCnn(), (1, 28, 28), 4),
    (ResNet8(16, 4), (3, 32, 32), 5),
]


@pytest.mark.parametrize(("spec", "shape", "num_layers"), SPECS)
def test_layers_hold_every_parameter_once_in_order(spec, shape, num_layers) -> None:
    model = spec.build(shape, 10)
    layers = layers_of(model)
    names = [name for layer in layers for name in layer.tensors]
    assert len(layers) == num_layers
    assert names == [name for name, _ in model.named_parameters()]
    assert model(torch.zeros(2, *shape)).shape == (2, 10)


def test_parameters_of_the_fedavg_cnn_are_those_of_the_paper() -> None:
    # McMahan et al. 2017: 1,663,370 parameters.
    model = FedAvgCnn().build((1, 28, 28), 10)
    assert sum(p.numel() for p in model.parameters()) == 1_663_370


def test_norm_belongs_to_the_layer_before() -> None:
    layers = layers_of(ResNet8(16, 4).build((1, 8, 8), 10))
    assert layers[0].name == "stem"
    assert layers[0].tensors == ("stem.weight", "norm.weight", "norm.bias")


def test_batchnorm_is_refused() -> None:
    with pytest.raises(ValueError, match="norm has buffers"):
        layers_of(_with_batchnorm())


def _with_batchnorm() -> nn.Sequential:
    model = nn.Sequential()
    model.add_module("fc", nn.Linear(2, 2))
    model.add_module("norm", nn.BatchNorm1d(2))
    return model


def test_initialisation_is_a_function_of_the_seed() -> None:
    a, b, c = (LeNet().build((1, 8, 8), 10) for _ in range(3))
    initialise(a, torch_rng(0, "model"))
    initialise(b, torch_rng(0, "model"))
    initialise(c, torch_rng(1, "model"))
    same = [torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    other = [torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True)]
    assert all(same)
    assert not any(other)


def test_initialisation_has_the_bounds_of_pytorch() -> None:
    model = Mlp((200,)).build((100,), 10)
    initialise(model, torch_rng(0, "model"))
    weight = model.get_submodule("fc1").weight
    assert weight.abs().max() <= 0.1  # 1 / sqrt(100 inputs)
    assert weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.02)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 x 4"):
        LeNet().build((64,), 10)


def test_width_must_fit_the_groups() -> None:
    with pytest.raises(ValueError, match="width: must be a positive multiple of groups"):
        ResNet8(10, 4)
