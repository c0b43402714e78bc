"""What a network trains that adds the log prior of a client's labels to its logits."""

from collections import OrderedDict

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedtsd.clients import local
from fedtsd.clients.flat import FlatModel
from fedtsd.clients.log_prior import log_prior, offset_of
from fedtsd.clients.tuned import Trainer
from fedtsd.data.holdings import Split
from fedtsd.models import Mlp, initialise, layers_of, tensors_of
from fedtsd.modules import LogPrior
from fedtsd.precision import Precision
from fedtsd.seeding import torch_rng
from fedtsd.training import Phase
from tests.clients.stacks import CPU, settings

FP32 = Precision("fp32")
deadline_free = hypothesis.settings(deadline=None, max_examples=25)
LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=40).map(torch.tensor)


def test_by_hand() -> None:
    # Counts 2, 1, 0 and a half each, of 4.5 in all, times three classes.
    found = log_prior(torch.tensor([0, 1, 0]), 3)
    assert found.dtype == torch.float32
    assert found.tolist() == pytest.approx([np.log(5 / 3), 0.0, np.log(1 / 3)], abs=1e-7)


def test_uniform_labels_add_nothing() -> None:
    assert log_prior(torch.arange(10).repeat(3), 10).tolist() == [0.0] * 10


def test_a_client_without_a_prior_adds_nothing() -> None:
    labels = torch.tensor([0, 0, 0])
    assert offset_of(False, labels, 3).tolist() == [0.0] * 3
    assert torch.equal(offset_of(True, labels, 3), log_prior(labels, 3))


@deadline_free
@given(LABELS)
def test_it_is_the_log_of_the_smoothed_law_over_the_uniform_one(labels) -> None:
    counts = np.array([(labels == c).sum().item() for c in range(5)])
    expected = np.log(5 * (counts + 0.5) / (len(labels) + 2.5))
    found = log_prior(labels, 5)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    # Classes that are absent included: what it multiplies odds by is finite, and 1 on the mean.
    assert found.exp().mean().item() == pytest.approx(1.0, abs=1e-6)
    # Logits that know nothing become the client's own law.
    law = torch.softmax(torch.full((5,), 7.0) + found, dim=0)
    assert law.tolist() == pytest.approx((counts + 0.5) / (len(labels) + 2.5), abs=1e-6)


@deadline_free
@given(LABELS, st.floats(-20, 20))
def test_a_shift_of_all_logits_changes_nothing(labels, shift) -> None:
    module = LogPrior(5)
    module.offset.copy_(log_prior(labels, 5))
    logits = torch.randn(3, 5, generator=torch_rng(0, "logits"))
    shifted = torch.softmax(module(logits + shift), dim=1)
    torch.testing.assert_close(shifted, torch.softmax(module(logits), dim=1), atol=1e-5, rtol=1e-4)


def network(dropout: float = 0.0) -> nn.Sequential:
    model = Mlp((6,), dropout).build((4,), 3)
    model.add_module("prior", LogPrior(3))
    initialise(model, torch_rng(0, "model"))
    return model


def split(n: int = 17) -> Split:
    rng = torch_rng(0, "samples")
    return Split(torch.randn(n, 4, generator=rng), torch.randint(0, 2, (n,), generator=rng))


def test_it_is_no_part_of_the_model() -> None:
    with_it, without = network(), Mlp((6,), 0.0).build((4,), 3)
    initialise(without, torch_rng(0, "model"))
    assert tensors_of(with_it).keys() == tensors_of(without).keys()
    assert layers_of(with_it) == layers_of(without)
    for name, tensor in tensors_of(without).items():  # it takes nothing from the generator
        assert torch.equal(tensors_of(with_it)[name], tensor)


def test_training_follows_the_gradient_of_adjusted_logits() -> None:
    """One step of a single dense layer, by hand: X^T (softmax(x W + b + a) - truth) / n."""
    layer = nn.Linear(4, 3)
    model = nn.Sequential(OrderedDict(fc=layer, prior=LogPrior(3)))
    data = split()
    weight, bias = (p.detach().double().numpy().copy() for p in layer.parameters())
    x, y = data.inputs.double().numpy(), data.labels.numpy()
    counts = np.bincount(y, minlength=3) + 0.5
    adjusted = x @ weight.T + bias + np.log(3 * counts / counts.sum())
    share = np.exp(adjusted) / np.exp(adjusted).sum(axis=1, keepdims=True)
    residual = (share - np.eye(3)[y]) / len(y)
    model.prior.offset.copy_(log_prior(data.labels, 3))
    local.train(
        model, data, (Phase("all", 1, 0.0),), frozenset(), settings(batch_size=99, lr=0.5),
        torch_rng(0, "batches"), FP32,
    )  # fmt: skip
    expected = weight - 0.5 * residual.T @ x, bias - 0.5 * residual.sum(axis=0)
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected[0], atol=1e-6)
    np.testing.assert_allclose(layer.bias.detach().numpy(), expected[1], atol=1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("personal", [frozenset(), frozenset({"fc2.weight", "fc2.bias"})])
def test_by_hand_and_by_autograd_the_same_is_trained(dropout, personal) -> None:
    phases = (Phase("shared", 2, 0.1), Phase("all", 2, 0.0))
    training = settings(momentum=0.9, max_grad_norm=0.5)
    reference, flat = network(dropout), FlatModel(network(dropout))
    found = []
    for has_prior in (True, False):
        trainer = Trainer(flat, training, FP32, CPU)
        for model in (reference, flat.module):
            initialise(model, torch_rng(0, "model"))
            model.prior.offset.copy_(offset_of(has_prior, split().labels, 3))
        local.train(reference, split(), phases, personal, training, torch_rng(0, "sgd"), FP32)
        trainer.train(split(), phases, personal, torch_rng(0, "sgd"))
        for name, tensor in tensors_of(reference).items():
            torch.testing.assert_close(tensors_of(flat.module)[name], tensor, rtol=1e-5, atol=1e-6)
        found.append(reference.fc2.bias.detach().clone())
    # The class that the client lacks is not unlearned where the prior explains it.
    assert found[0][2] > found[1][2]
