import pytest
import torch
from torch import nn

from fedtsd.models import FedAvgCnn, LeNet, Mlp, ResNet8, initialise, layers_of, tensors_of
from fedtsd.modules import BatchNorm, Dropout
from fedtsd.seeding import torch_rng

SPECS = [
    (Mlp((100, 50), 0.0), (1, 8, 8), 3),
    (Mlp((100, 50), 0.5), (1, 8, 8), 3),
    (LeNet(0.0, "none", 2), (1, 8, 8), 5),
    (LeNet(0.5, "none", 2), (3, 32, 32), 5),
    (FedAvgCnn(2, 0.0, "none", 4), (1, 28, 28), 4),
    (FedAvgCnn(0, 0.5, "none", 4), (1, 28, 28), 4),
    (LeNet(0.0, "group", 2), (1, 8, 8), 5),
    (LeNet(0.0, "batch", 2), (1, 8, 8), 5),
    (FedAvgCnn(2, 0.0, "group", 32), (3, 16, 16), 4),
    (FedAvgCnn(0, 0.0, "batch", 4), (1, 28, 28), 4),
    (ResNet8(16, 4, "group"), (3, 32, 32), 5),
    (ResNet8(16, 4, "batch"), (3, 32, 32), 5),
]


@pytest.mark.parametrize(("spec", "shape", "num_layers"), SPECS)
def test_layers_hold_every_tensor_once_in_order(spec, shape, num_layers) -> None:
    model = spec.build(shape, 10)
    layers = layers_of(model)
    names = [name for layer in layers for name in layer.tensors]
    assert len(layers) == num_layers
    assert names == list(tensors_of(model))
    assert {name for name, _ in model.named_parameters()} <= set(names)
    assert model.eval()(torch.zeros(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize(("padding", "expected"), [(2, 1_663_370), (0, 582_026)])
def test_parameters_of_the_fedavg_cnn_are_those_of_the_papers(padding, expected) -> None:
    # McMahan et al. 2017, and without padding.
    model = FedAvgCnn(padding, 0.0, "none", 4).build((1, 28, 28), 10)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_norm_belongs_to_the_layer_before() -> None:
    layers = layers_of(ResNet8(16, 4, "group").build((1, 8, 8), 10))
    assert layers[0].name == "stem"
    assert layers[0].tensors == ("stem.weight", "norm.weight", "norm.bias")


def test_running_statistics_belong_to_the_layer_of_their_norm() -> None:
    layers = layers_of(ResNet8(16, 4, "batch").build((1, 8, 8), 10))
    statistics = ("norm.running_mean", "norm.running_var")
    assert layers[0].tensors == ("stem.weight", "norm.weight", "norm.bias", *statistics)
    assert {"block1.norm2.running_mean", "block1.norm2.running_var"} <= set(layers[1].tensors)
    # A counter of batches is no number that can be averaged.
    assert not any("num_batches" in name for layer in layers for name in layer.tensors)


SMALL_CNNS = [lambda norm: LeNet(0.5, norm, 2), lambda norm: FedAvgCnn(2, 0.5, norm, 4)]


@pytest.mark.parametrize("spec", SMALL_CNNS)
def test_each_convolution_is_normalised_before_its_relu(spec) -> None:
    for norm, kind in (("group", nn.GroupNorm), ("batch", BatchNorm)):
        model = spec(norm).build((1, 8, 8), 10)
        types = [type(module) for module in model]
        convolution = [nn.Conv2d, kind, nn.ReLU, nn.MaxPool2d]
        assert types[:8] == convolution * 2
        assert kind not in types[8:]
        assert layers_of(model)[0].tensors[:4] == (
            "conv1.weight", "conv1.bias", "norm1.weight", "norm1.bias",
        )  # fmt: skip
    group = spec("group").build((1, 8, 8), 10)
    assert group.norm1.num_groups == (2 if isinstance(spec("none"), LeNet) else 4)


@pytest.mark.parametrize("spec", SMALL_CNNS)
def test_normalisation_changes_nothing_of_the_rest(spec) -> None:
    plain, normed = spec("none").build((1, 8, 8), 10), spec("batch").build((1, 8, 8), 10)
    names = [name for name, _ in plain.named_children()]
    assert names == [name for name, _ in normed.named_children() if "norm" not in name]
    for model in (plain, normed):
        initialise(model, torch_rng(0, "model"))
    assert all(torch.equal(tensors_of(normed)[n], t) for n, t in tensors_of(plain).items())


def test_building_a_model_leaves_running_statistics_as_they_start() -> None:
    # It is tried on an image of zeros to learn its width; it must train and be fresh afterwards.
    model = LeNet(0.0, "batch", 2).build((1, 8, 8), 10)
    assert model.get_buffer("norm1.running_var").tolist() == [1.0] * 6
    assert model.get_buffer("norm2.running_mean").tolist() == [0.0] * 16
    assert all(module.training for module in model.modules())


def test_batch_norm_is_that_of_pytorch() -> None:
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3)
    for _ in range(3):
        x = torch.randn(4, 3, 2, 2, generator=torch_rng(0, "x"))
        assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_a_batch_that_has_no_variance_is_normalised_by_the_running_statistics() -> None:
    norm = BatchNorm(1)
    norm.running_mean.fill_(1.0)
    norm.running_var.fill_(4.0)
    # (3 - 1) / 2, by hand; one value per channel: nothing is learnt of mean and variance.
    assert norm(torch.full((1, 1, 1, 1), 3.0)).item() == pytest.approx(1.0, abs=1e-5)
    assert (norm.running_mean.item(), norm.running_var.item()) == (1.0, 4.0)
    # Two samples do have a variance: mean 2 (and a tenth of it is taken on), values -1 and 1.
    assert norm(torch.tensor([1.0, 3.0])[:, None, None, None]).flatten().tolist() == pytest.approx(
        [-1, 1], abs=1e-4
    )
    assert norm.running_mean.item() == pytest.approx(1.1)


def test_initialisation_resets_batch_norm() -> None:
    model = ResNet8(4, 2, "batch").build((1, 8, 8), 10)
    fresh = {name: tensor.clone() for name, tensor in tensors_of(model).items() if "norm" in name}
    model(torch.randn(5, 1, 8, 8, generator=torch_rng(0, "x")))
    assert not torch.equal(model.get_buffer("norm.running_mean"), fresh["norm.running_mean"])
    initialise(model, torch_rng(0, "model"))
    assert all(torch.equal(tensors_of(model)[name], tensor) for name, tensor in fresh.items())


def test_dropout_multiplies_by_its_mask_in_training_alone() -> None:
    dropout = Dropout(0.5, 3)
    x = torch.tensor([[1.0, 2.0, 3.0]])
    dropout.mask = torch.tensor([[0.0, 2.0, 2.0]])
    assert dropout(x).tolist() == [[0.0, 4.0, 6.0]]
    assert dropout.eval()(x).tolist() == x.tolist()
    assert not dropout.state_dict()  # a mask is an input, not a part of the model


def test_dropout_without_a_mask_for_the_batch_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"the mask is \(0, 3\), the batch \(1, 3\)"):
        Dropout(0.5, 3)(torch.zeros(1, 3))


@pytest.mark.parametrize(
    "spec", [Mlp((5,), 0.25), LeNet(0.25, "none", 2), FedAvgCnn(2, 0.25, "none", 4)]
)
def test_dropout_is_before_the_last_layer(spec) -> None:
    *_, dropout, last = spec.build((1, 8, 8), 10)
    assert isinstance(dropout, Dropout)
    assert (dropout.rate, dropout.width) == (0.25, last.in_features)


def test_without_dropout_the_model_has_no_such_module() -> None:
    model = LeNet(0.0, "none", 2).build((1, 8, 8), 10)
    assert not any(isinstance(module, Dropout) for module in model.modules())


def test_initialisation_is_a_function_of_the_seed() -> None:
    a, b, c = (LeNet(0.0, "none", 2).build((1, 8, 8), 10) for _ in range(3))
    initialise(a, torch_rng(0, "model"))
    initialise(b, torch_rng(0, "model"))
    initialise(c, torch_rng(1, "model"))
    same = [torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    other = [torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True)]
    assert all(same)
    assert not any(other)


def test_initialisation_has_the_bounds_of_pytorch() -> None:
    model = Mlp((200,), 0.0).build((100,), 10)
    initialise(model, torch_rng(0, "model"))
    weight = model.get_submodule("fc1").weight
    assert weight.abs().max() <= 0.1  # 1 / sqrt(100 inputs)
    assert weight.std().item() == pytest.approx(0.1 / 3**0.5, rel=0.02)


def test_too_small_images_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 x 4"):
        LeNet(0.0, "none", 2).build((64,), 10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ResNet8(10, 4, "group"), "width: must be a positive multiple of groups"),
        (lambda: ResNet8(8, 4, "layer"), "norm: must be one of group, batch, got 'layer'"),
        (lambda: Mlp((5,), 1.0), r"dropout: must be in \[0, 1\), got 1.0"),
        (lambda: LeNet(-0.1, "none", 2), r"dropout: must be in \[0, 1\), got -0.1"),
        (lambda: FedAvgCnn(0, 1.5, "none", 4), r"dropout: must be in \[0, 1\), got 1.5"),
        (lambda: LeNet(0.0, "layer", 2), "norm: must be one of none, group, batch, got 'layer'"),
        (lambda: LeNet(0.0, "none", 4), "groups: must divide 6 and 16 channels, got 4"),
        (lambda: FedAvgCnn(2, 0.0, "group", 0), "groups: must divide 32 and 64 channels, got 0"),
        (lambda: FedAvgCnn(2, 0.0, "batch", 64), "groups: must divide 32 and 64 channels"),
        (lambda: FedAvgCnn(3, 0.0, "none", 4), "padding: must be 0, 1 or 2, got 3"),
    ],
)
def test_settings_are_checked(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()
