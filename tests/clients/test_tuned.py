import copy
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedtsd.clients import local
from fedtsd.clients.flat import FlatModel
from fedtsd.clients.tuned import GATHERED, Trainer
from fedtsd.data.federation import Split
from fedtsd.models import ModelSpec, initialise, layers_of, tensors_of
from fedtsd.precision import Precision
from fedtsd.schema import convert
from fedtsd.seeding import torch_rng
from fedtsd.training import Phase, Training

MODELS = Path(__file__).parents[2] / "conf/model"
ALL = (Phase("all", 2, 0.0),)
HEAD_THEN_BODY = (Phase("personal", 1, 0.0), Phase("shared", 2, 0.0))
VARIANTS = [
    *((path.stem, {}) for path in sorted(MODELS.glob("*.yaml"))),
    ("mlp", {"dropout": 0.5}),
    ("lenet", {"dropout": 0.5}),
    ("resnet8", {"norm": "batch"}),
    ("lenet", {"norm": "batch"}),
    ("lenet", {"norm": "group"}),
    ("cnn", {"norm": "batch"}),
]
SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "weight decay": {"weight_decay": 0.1},
    "clipped": {"max_grad_norm": 0.05},
    "everything": {"momentum": 0.9, "weight_decay": 0.1, "max_grad_norm": 0.5},
}


def training(**changes) -> Training:
    values = {
        "epochs": 1,
        "head_epochs": 1,
        "batch_size": 16,
        "lr": 0.05,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "proximal": 0.0,
        "max_grad_norm": None,
        "phases": ALL,
    }
    return Training(**{**values, **changes})


def built(name: str, changes=None, shape=(1, 16, 16), outputs=10) -> nn.Sequential:
    node = {**yaml.safe_load((MODELS / f"{name}.yaml").read_text()), **(changes or {})}
    model = convert(node, ModelSpec, "model").build(shape, outputs)
    initialise(model, torch_rng(0, "model"))
    return model


def samples(shape=(1, 16, 16), size=40) -> Split:
    rng = torch.Generator().manual_seed(0)
    return Split(torch.randn(size, *shape, generator=rng), torch.arange(size) % 10)


def head_of(model: nn.Sequential) -> frozenset[str]:
    return frozenset(layers_of(model)[-1].tensors)


def assert_trains_like_the_reference(
    model, split, phases, personal, settings, tolerance=1e-5
) -> None:
    """The reference computes in float64: in float32 it is itself off where a ReLU tips over."""
    flat, exact = FlatModel(model), copy.deepcopy(model).double()
    precise = Split(split.inputs.double(), split.labels)
    if split.labels.is_floating_point():
        precise = Split(precise.inputs, split.labels.double())
    precision = Precision("fp32")
    order = lambda: torch_rng(0, "train", 1, 0)  # noqa: E731
    count = Trainer(flat, settings, precision).train(split, phases, personal, order())
    assert count == local.train(exact, precise, phases, personal, settings, order(), precision)
    before, after = tensors_of(model), tensors_of(exact)
    for name, tensor in flat.layout.read(flat.vector, flat.layout.names).items():
        error = (tensor - after[name]).norm()
        assert error <= tolerance * after[name].norm() + 1e-6, name
        assert error <= 1e-2 * (after[name] - before[name]).norm() + 1e-6, name


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_every_model_trains_like_the_reference(name, variant, changes) -> None:
    # Dividing by the deviation of a few samples makes much of how a sum was rounded.
    tolerance = 1e-2 if variant.get("norm") == "batch" else 1e-5
    model, settings = built(name, variant), training(**changes)
    assert_trains_like_the_reference(model, samples(), ALL, frozenset(), settings, tolerance)


@pytest.mark.parametrize("phases", [HEAD_THEN_BODY, HEAD_THEN_BODY[::-1]])
@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet8"])
def test_phases_move_what_they_name(name, phases) -> None:
    model = built(name)
    settings = training(momentum=0.5)
    assert_trains_like_the_reference(model, samples(), phases, head_of(model), settings)


LAYERS = ("fc1", "fc2", "fc3")


@settings(max_examples=30, deadline=None)
@given(
    personal=st.sets(st.sampled_from([f"{n}.{k}" for n in LAYERS for k in ("weight", "bias")])),
    layers=st.lists(st.sampled_from(["all", "personal", "shared"]), min_size=1, max_size=3),
    proximal=st.sampled_from([0.0, 0.3]),
    momentum=st.sampled_from([0.0, 0.9]),
    decay=st.sampled_from([0.0, 0.1]),
    length=st.sampled_from([None, 0.05]),
    size=st.integers(1, 40),
)
def test_any_combination_trains_like_the_reference(
    personal, layers, proximal, momentum, decay, length, size
) -> None:
    model = built("mlp", {"hidden": [6, 5]}, (3,))
    phases = tuple(Phase(name, 1, proximal) for name in layers)
    settings = training(momentum=momentum, weight_decay=decay, max_grad_norm=length, batch_size=7)
    split = samples((3,), size)
    assert_trains_like_the_reference(model, split, phases, frozenset(personal), settings)


@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet8"])
def test_colour_images_train_like_the_reference(name) -> None:
    model = built(name, shape=(3, 16, 16))
    split = samples((3, 16, 16))
    assert_trains_like_the_reference(model, split, ALL, frozenset(), training())


def test_values_are_learned_like_the_reference_does() -> None:
    model = built("mlp", shape=(4,), outputs=1)
    rng = torch.Generator().manual_seed(0)
    split = Split(torch.randn(40, 4, generator=rng), torch.randn(40, generator=rng))
    assert_trains_like_the_reference(model, split, ALL, frozenset(), training())


def test_a_model_without_dense_end_trains_like_the_reference() -> None:
    model = nn.Sequential(nn.Conv2d(1, 10, 16), nn.Flatten(), nn.LayerNorm(10))
    assert_trains_like_the_reference(model, samples(), ALL, frozenset(), training())


def test_layers_without_bias_train_like_the_reference() -> None:
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 10, bias=False))
    assert_trains_like_the_reference(model, samples((3,)), ALL, frozenset(), training())


def test_samples_that_are_gathered_in_parts_come_in_the_same_order() -> None:
    model = built("mlp", {"hidden": []}, (3,))
    split = samples((3,), 2 * GATHERED + 1)
    assert_trains_like_the_reference(model, split, ALL, frozenset(), training(batch_size=1))


def test_a_constant_background_pools_like_the_reference() -> None:
    # All values of a window are equal there, and the gradient goes to the first of them.
    split = samples()
    split.inputs[:, :, :9] = 0
    model = built("lenet")
    assert_trains_like_the_reference(model, split, ALL, frozenset(), training())


def test_one_client_leaves_nothing_behind_for_the_next() -> None:
    model = built("lenet")
    flat = FlatModel(model)
    trainer = Trainer(flat, training(momentum=0.9), Precision("fp32"))
    start = flat.vector.clone()
    found = []
    for _ in range(2):
        flat.vector.copy_(start)
        trainer.train(samples(), ALL, frozenset(), torch_rng(0, "train"))
        found.append(flat.vector.clone())
    assert torch.equal(*found)
    assert not torch.equal(found[0], start)


def test_a_phase_in_which_nothing_moves_costs_nothing() -> None:
    flat = FlatModel(built("mlp"))
    start = flat.vector.clone()
    trainer = Trainer(flat, training(), Precision("fp32"))
    phases = (Phase("personal", 1, 0.0), Phase("all", 0, 0.0))
    assert trainer.train(samples(), phases, frozenset(), torch_rng(0, "train")) == 0
    assert torch.equal(flat.vector, start)


def test_bfloat16_learns_nearly_the_same() -> None:
    model = built("lenet")
    flats = [FlatModel(model), FlatModel(model)]
    for flat, name in zip(flats, ["fp32", "bf16"], strict=True):
        trainer = Trainer(flat, training(), Precision(name))
        trainer.train(samples(), ALL, frozenset(), torch_rng(0, "train"))
    exact, rounded = (flat.vector - FlatModel(model).vector for flat in flats)
    assert not torch.equal(exact, rounded)
    assert (exact - rounded).norm() < 0.3 * exact.norm()
    assert flats[1].vector.dtype == torch.float32
