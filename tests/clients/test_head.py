import dataclasses
import math
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.spatial.distance import jensenshannon
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from fedtsd.clients.head import ResidualHead, features_and_logits, fit_head, label_skew
from fedtsd.clients.softmax_regression import TOLERANCE, fitted
from fedtsd.clients.workplace import mean_probability
from fedtsd.data.holdings import Split
from fedtsd.models import LeNet, Mlp, initialise
from fedtsd.modules import LogPrior
from fedtsd.seeding import torch_rng
from fedtsd.training import Head

ANYBODY = Head(ridge=5.0, skew_above=0.0, bias_ridge=None)  # 0.1 a sample, where there are 50


@pytest.fixture(autouse=True)
def one_thread():
    """As in all engines; with more, small products wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def given_features(width: int, logits: int, seed: int = 0) -> nn.Sequential:
    """Features are the inputs themselves; logits a dense layer of them."""
    model = nn.Sequential(OrderedDict(fc=nn.Linear(width, logits)))
    initialise(model, torch_rng(seed, "model"))
    return model


def samples(
    n: int, width: int, classes: int, seed: int = 0, held: int | None = None, reach: float = 1.0
) -> Split:
    """Classes shift features; only the first `held` classes occur, with falling shares.

    reach: features differ in size by up to as many powers of ten in either direction.
    """
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, (held or classes) + 1)
    labels = rng.choice(held or classes, n, p=share / share.sum())
    means = rng.normal(size=(classes, width))
    scale = 10.0 ** rng.uniform(-reach, reach, width)
    inputs = (rng.normal(size=(n, width)) + means[labels]) * scale + 3 * scale
    return Split(torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels))


def scaled(split: Split) -> np.ndarray:
    x = split.inputs.double().numpy()
    spread = x.std(axis=0)
    return (x - x.mean(axis=0)) / np.where(spread < 1e-12, 1, spread)


def gradient(
    x: np.ndarray, z: np.ndarray, y: np.ndarray, weights, bias, ridge, bias_ridge=0.0
) -> np.ndarray:
    """Of mean cross-entropy + ridge / 2 ||W||^2 + bias_ridge / 2 ||b||^2, [F + 1, Y]."""
    u = z + x @ weights + bias
    share = np.exp(u - u.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    residual = (share - np.eye(z.shape[1])[y]) / len(y)
    slopes = residual.sum(axis=0) + bias_ridge * bias
    return np.vstack([x.T @ residual + ridge * weights, slopes])


def loss(logits: Tensor, split: Split) -> float:
    return nn.functional.cross_entropy(logits.double(), split.labels).item()


SHAPES = [(40, 3, 3, None), (60, 8, 5, 3), (12, 30, 4, None), (30, 5, 3, 1), (1, 4, 3, None),
          (1, 1, 2, None)]  # fmt: skip
"""n, F, Y, classes held: more samples than features and the other way, classes absent, one only."""


@pytest.mark.parametrize(("n", "width", "classes", "held"), SHAPES)
@pytest.mark.parametrize("ridge", [0.001, 0.1, 10.0])
@pytest.mark.parametrize("bias_ridge", [None, 0.01, 1.0])
def test_the_fit_is_the_optimum(n, width, classes, held, ridge, bias_ridge) -> None:
    model, split = given_features(width, classes), samples(n, width, classes, held=held)
    head = fit_head(model, split, Head(ridge * n, 0.0, bias_ridge and bias_ridge * n))
    z = features_and_logits(model, split.inputs)[1].double().numpy()
    x, y = scaled(split), split.labels.numpy()
    slope = gradient(x, z, y, head.weights.numpy(), head.bias.numpy(), ridge, bias_ridge or 0.0)
    # The problem is convex. In directions with variance s: |slope| <= TOLERANCE sqrt(s).
    assert np.abs(slope).max() <= TOLERANCE * math.sqrt(width)
    assert head.weights.dtype == head.bias.dtype == torch.float64


def test_the_fit_is_that_of_a_direct_solver() -> None:
    model, split = given_features(4, 3), samples(50, 4, 3)
    head = fit_head(model, split, ANYBODY)
    z = features_and_logits(model, split.inputs)[1].double().numpy()
    x, y = scaled(split), split.labels.numpy()

    def objective(vector):
        weights, bias = vector[:12].reshape(4, 3), vector[12:]
        u = z + x @ weights + bias
        entropy = np.log(np.exp(u).sum(axis=1)) - u[np.arange(50), y]
        slope = gradient(x, z, y, weights, bias, 0.1)
        return entropy.mean() + 0.05 * (weights**2).sum(), slope.ravel()

    best = minimize(objective, np.zeros(15), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    np.testing.assert_allclose(head.weights.numpy(), best[:12].reshape(4, 3), atol=2e-3)
    np.testing.assert_allclose(head.bias.numpy(), best[12:], atol=2e-3)
    mine = objective(np.concatenate([head.weights.ravel().numpy(), head.bias.numpy()]))[0]
    assert mine <= objective(best)[0] + 1e-6


def test_what_few_samples_say_is_believed_less() -> None:
    model = given_features(4, 3)
    many, few = samples(400, 4, 3), samples(400, 4, 3)
    few = Split(few.inputs[:20], few.labels[:20])
    large, small = (fit_head(model, one, Head(30.0, 0.0, None)) for one in (many, few))
    assert small.weights.norm() < 0.5 * large.weights.norm()
    # The same samples twice count twice.
    twice = Split(few.inputs.repeat(2, 1), few.labels.repeat(2))
    other = fit_head(model, twice, Head(60.0, 0.0, None))
    np.testing.assert_allclose(other.weights.numpy(), small.weights.numpy(), atol=2e-3)


def test_beside_no_logits_it_is_the_ridge_regression_of_scikit_learn() -> None:
    split = samples(60, 5, 4)
    x = torch.tensor(scaled(split))
    weights, bias = fitted(x, torch.zeros(60, 4).double(), split.labels, 0.1)
    other = LogisticRegression(C=1 / (60 * 0.1), tol=1e-10, max_iter=5000)
    other.fit(x.numpy(), split.labels.numpy())
    mine = torch.softmax(x @ weights + bias, dim=1).numpy()
    np.testing.assert_allclose(mine, other.predict_proba(x.numpy()), atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 12), st.integers(2, 5), st.integers(1, 5),
    st.floats(1e-4, 100.0), st.integers(0, 1000),
)  # fmt: skip
def test_no_head_is_never_better_on_training_data(n, width, classes, held, ridge, seed) -> None:
    model = given_features(width, classes, seed)
    # Among these are models that are certain and wrong.
    split = samples(n, width, classes, seed, min(held, classes), reach=2.0)
    head = fit_head(model, split, Head(ridge, 0.0, None))
    if head is None:
        assert label_skew(split.labels, classes) == 0
        return
    features, logits = features_and_logits(model, split.inputs)
    corrected = head.correct(features, logits)
    assert corrected.isfinite().all()
    assert loss(corrected, split) <= loss(logits, split) + 1e-6


def test_certain_and_wrong_models_are_corrected() -> None:
    """Where the loss has no curvature: logits miss by 60 and by 90."""
    split, model = samples(90, 3, 3), given_features(3, 3)
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.copy_(torch.tensor([-60.0, -90.0, 0.0]))
    head = fit_head(model, split, Head(9.0, 0.0, None))
    z = features_and_logits(model, split.inputs)[1].double().numpy()
    slope = gradient(
        scaled(split), z, split.labels.numpy(), head.weights.numpy(), head.bias.numpy(), 0.1
    )
    assert np.abs(slope).max() <= TOLERANCE * math.sqrt(3)


def test_it_corrects_what_a_shifted_model_gets_wrong() -> None:
    """Of two classes that exchange places, and where one is rarer than the model thinks."""
    split = samples(300, 3, 2)
    model = given_features(3, 2)
    with torch.no_grad():
        model.fc.weight.zero_()
        model.fc.bias.copy_(torch.tensor([-3.0, 3.0]))
    head = fit_head(model, split, Head(0.001, 0.0, None))
    features, logits = features_and_logits(model, split.inputs)
    before = (logits.argmax(dim=1) == split.labels).float().mean().item()
    after = (head.correct(features, logits).argmax(dim=1) == split.labels).float().mean().item()
    assert before < 0.5 < 0.85 < after


def test_correction_by_hand() -> None:
    head = ResidualHead(
        weights=torch.tensor([[1.0, -1.0], [0.0, 2.0]]).double(),
        bias=torch.tensor([0.5, 0.0]).double(),
        centre=torch.tensor([1.0, 2.0]).double(),
        spread=torch.tensor([2.0, 1.0]).double(),
    )
    # Scaled features (1, 1): (1, -1 + 2) + (.5, 0) on top of (10, 20)
    found = head.correct(torch.tensor([[3.0, 3.0]]), torch.tensor([[10.0, 20.0]]))
    assert found.tolist() == [[11.5, 21.0]]
    assert found.dtype == torch.float32


def test_only_skewed_clients_have_one() -> None:
    model, split = given_features(3, 3), samples(20, 3, 3)
    skew = label_skew(split.labels, 3)
    assert 0 < skew < 1
    assert fit_head(model, split, Head(0.1, skew, None)) is None
    assert fit_head(model, split, Head(0.1, np.nextafter(skew, 0), None)) is not None
    uniform = Split(split.inputs[:3], torch.arange(3))
    assert fit_head(model, uniform, ANYBODY) is None


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=50))
def test_skew_is_the_divergence_of_scipy(labels) -> None:
    law = np.bincount(labels, minlength=6) / len(labels)
    expected = jensenshannon(law, np.full(6, 1 / 6)) ** 2 / math.log(2)
    assert label_skew(torch.tensor(labels), 6) == pytest.approx(expected, abs=1e-12)


def test_skew_by_hand() -> None:
    # One of two classes: (KL(1, 0 | 3/4, 1/4) + KL(1/2, 1/2 | 3/4, 1/4)) / 2 in bits
    expected = (math.log2(4 / 3) + math.log2(2 / 3) / 2 + math.log2(2) / 2) / 2
    assert label_skew(torch.tensor([1, 1, 1]), 2) == pytest.approx(expected)
    assert label_skew(torch.tensor([0, 1]), 2) == 0


def test_features_that_do_not_vary_count_for_nothing() -> None:
    split = samples(40, 4, 3)
    inputs = split.inputs.clone()
    inputs[:, 2] = 5.3
    model, dull = given_features(4, 3), Split(inputs, split.labels)
    head = fit_head(model, dull, ANYBODY)
    assert head.weights[2].abs().max() < 1e-6
    features, logits = features_and_logits(model, inputs)
    assert loss(head.correct(features, logits), dull) < loss(logits, dull)
    same = fit_head(model, Split(torch.ones(40, 4), split.labels), ANYBODY)
    assert same.weights.abs().max() < 1e-6  # a bias alone
    share = torch.softmax(model(torch.ones(1, 4)).double() + same.bias, dim=1)[0].tolist()
    assert share == pytest.approx((torch.bincount(split.labels) / 40).tolist(), abs=1e-3)


def test_a_client_with_one_class_is_told_that_class() -> None:
    split = Split(samples(20, 3, 4).inputs, torch.full((20,), 2))
    model = given_features(3, 4)
    head = fit_head(model, split, ANYBODY)
    share = torch.softmax(head.correct(*features_and_logits(model, split.inputs)), dim=1)
    assert share.isfinite().all()
    assert 1 - 4 * TOLERANCE < share[:, 2].mean() <= 1


def test_classes_without_samples_end_at_the_tolerance() -> None:
    split, model = samples(80, 4, 6, held=3), given_features(4, 6)
    head = fit_head(model, split, ANYBODY)
    share = torch.softmax(head.correct(*features_and_logits(model, split.inputs)), dim=1)
    means = share.mean(dim=0)[3:]
    assert (means <= 1.01 * TOLERANCE).all()
    assert means.max() >= TOLERANCE / 100  # it goes no further than it must
    assert head.bias.isfinite().all()


def test_a_class_that_few_samples_lack_is_not_ruled_out_by_a_penalised_bias() -> None:
    split, model = samples(12, 4, 6, held=3), given_features(4, 6)
    features, logits = features_and_logits(model, split.inputs)
    share = {}
    for bias_ridge in (None, 3.0):
        head = fit_head(model, split, dataclasses.replace(ANYBODY, bias_ridge=bias_ridge))
        share[bias_ridge] = torch.softmax(head.correct(features, logits), dim=1).mean(dim=0)[3:]
    assert (share[None] <= 1.01 * TOLERANCE).all()
    assert share[3.0].sum() > 300 * TOLERANCE
    # Many samples without it say more: sums of losses against one penalty.
    many = Split(split.inputs.repeat(50, 1), split.labels.repeat(50))
    head = fit_head(model, many, dataclasses.replace(ANYBODY, bias_ridge=3.0))
    there = torch.softmax(head.correct(features, logits), dim=1).mean(dim=0)[3:]
    assert there.sum() < share[3.0].sum() / 5


@pytest.mark.parametrize("bias_ridge", [0.0, -1.0])
def test_a_penalty_that_is_none_is_refused(bias_ridge) -> None:
    with pytest.raises(ValueError, match="bias_ridge: must be above 0, or null"):
        dataclasses.replace(ANYBODY, bias_ridge=bias_ridge)


def test_a_diverged_model_has_none() -> None:
    model, split = given_features(3, 3), samples(20, 3, 3)
    with torch.no_grad():
        model.fc.weight[0, 0] = math.nan
    assert fit_head(model, split, ANYBODY) is None


@pytest.mark.parametrize("spec", [Mlp((), 0.0), Mlp((5,), 0.5), LeNet(0.2, "none", 2)])
def test_features_are_what_goes_into_the_last_dense_layer(spec) -> None:
    model = spec.build((1, 8, 8), 3)
    initialise(model, torch_rng(0, "model"))
    model.add_module("prior", LogPrior(3))
    model.prior.offset.copy_(torch.tensor([1.0, 0.0, -1.0]))
    inputs = torch.randn(1030, 1, 8, 8, generator=torch_rng(0, "x"))  # more than one chunk
    features, logits = features_and_logits(model, inputs)
    last = [child for child in model if isinstance(child, nn.Linear)][-1]
    with torch.no_grad():
        torch.testing.assert_close(logits, model.eval()(inputs))
        torch.testing.assert_close(last(features) + model.prior.offset, logits)


def test_the_mean_of_probabilities_by_hand() -> None:
    # Softmaxes (.75, .25) and (.25, .75), and (.9, .1) and (.5, .5)
    first = torch.tensor([[3.0, 1.0], [9.0, 1.0]]).log() + 5
    second = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).log()
    found = mean_probability([first, second])
    torch.testing.assert_close(found.exp(), torch.tensor([[0.5, 0.5], [0.7, 0.3]]))


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(0, 100))
def test_the_mean_of_probabilities_is_that_of_softmaxes(count, seed) -> None:
    rng = np.random.default_rng(seed)
    logits = [torch.tensor(5 * rng.normal(size=(3, 4))) for _ in range(count)]
    expected = torch.stack([torch.softmax(one, dim=1) for one in logits]).mean(dim=0).log()
    torch.testing.assert_close(mean_probability(logits), expected)


def test_probabilities_near_zero_have_finite_logs() -> None:
    far = torch.tensor([[0.0, -200.0]])
    assert mean_probability([far, far]).tolist() == [[0.0, -200.0]]
