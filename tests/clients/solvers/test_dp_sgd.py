"""DP-SGD: each step against a loop that takes samples one by one, sampling, noise, whole runs."""

import copy

import pandas as pd
import pytest
import torch
from torch import nn

from fedtsd.clients.flat import FlatModel
from fedtsd.clients.local import losses_of
from fedtsd.clients.solvers.dp_sgd import DpSgd, poisson_batches, steps_of
from fedtsd.data.holdings import Split
from fedtsd.models import LeNet, Mlp, ResNet8
from fedtsd.privacy import Turn
from fedtsd.seeding import torch_rng
from fedtsd.training import Phase
from tests.clients.solvers.benches import (
    SEED,
    assert_resumes,
    classes,
    copies,
    drawn,
    linear,
    make,
    settings,
    values,
)
from tests.runs import run_toy, table, tables_of

RUN = (
    "method=fedavg", "solver=dp_sgd", "rounds=2", "partition.num_clients=4", "model.hidden=[8]",
    "cohort.size=3",
)  # fmt: skip
QUIET = 1e-9
"""A noise multiplier that leaves steps as they would be without noise."""


def solver(clip=1.0, noise=1.0) -> DpSgd:
    return DpSgd(clip, noise, 1e-5, None)


def one_by_one(network: nn.Module, split: Split, clip: float) -> dict[str, torch.Tensor]:
    """The sum of the samples' gradients, each clipped, by a pass for every sample."""
    network, total = copy.deepcopy(network), {}
    for i in range(len(split)):
        loss = losses_of(network(split.inputs[i : i + 1]), split.labels[i : i + 1]).sum()
        found = torch.autograd.grad(loss, list(network.parameters()))
        length = torch.stack([g.norm() for g in found]).norm()
        scale = min(1.0, clip / length.item())
        for (name, _), gradient in zip(network.named_parameters(), found, strict=True):
            total[name] = total.get(name, 0.0) + scale * gradient
    return total


MODELS = {
    "mlp": lambda: Mlp((7,), 0.0).build((2, 8, 8), 3),
    "lenet": lambda: LeNet(0.0, "group", 2).build((2, 8, 8), 3),
    "resnet8": lambda: ResNet8(4, 2, "group").build((2, 8, 8), 3),
    "flat lenet": lambda: FlatModel(drawn(LeNet(0.0, "none", 2).build((2, 8, 8), 3))).module,
}
"""The last one has its convolutions channels last, as the engine `parallel` trains it."""


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("clip", [0.5, 100.0])
def test_a_step_is_that_of_a_loop_over_samples(name: str, clip: float) -> None:
    network, split = drawn(MODELS[name]()), classes(6, 2, 8, 8)
    bench = make(solver(clip, QUIET), network, split, settings())
    expected = one_by_one(network, split, clip)
    assert solver(clip, QUIET).train(bench) == 6  # one batch holds all: everybody is drawn
    for key, parameter in network.named_parameters():
        step = (bench.received[key] - parameter.detach()) / 0.1
        torch.testing.assert_close(step, expected[key] / 6, rtol=1e-3, atol=1e-5)


def test_steps_noise_and_momentum_follow_the_client_generator() -> None:
    split, network = values(10), linear(1, 1)
    bench = make(solver(0.7, 1.5), network, split, settings(2, batch_size=5, momentum=0.6))
    w, velocity, used = network.fc1.weight.item(), 0.0, 0
    rng = torch_rng(SEED, "train")
    for _ in range(2 * 2):
        taken = torch.rand(10, generator=rng) < 0.5
        x, y = split.inputs[taken, 0], split.labels[taken]
        gradients = (2 * x * (w * x - y)).clamp(-0.7, 0.7)
        noise = torch.normal(0.0, 1.5 * 0.7, (1, 1), generator=rng).item()
        velocity = 0.6 * velocity + (gradients.sum().item() + noise) / 5
        w -= 0.1 * velocity
        used += int(taken.sum())
    assert solver(0.7, 1.5).train(bench) == used
    assert network.fc1.weight.item() == pytest.approx(w, abs=1e-5)


def test_the_noise_is_as_wide_as_promised_and_there_when_nobody_is_drawn() -> None:
    network = linear(200, 100)
    split = Split(torch.zeros(4, 200), torch.zeros(4, dtype=torch.long))  # gradients are zero
    bench = make(solver(3.0, 2.0), network, split, settings())
    solver(3.0, 2.0).train(bench)
    step = (bench.received["fc1.weight"] - network.fc1.weight.detach()) / 0.1
    assert step.std().item() == pytest.approx(3.0 * 2.0 / 4, rel=0.02)
    nobody = make(solver(3.0, 2.0), linear(200, 100), split, settings(batch_size=1))
    nobody.rng = torch_rng(4, "train")
    drawn_first = torch.rand(4, generator=torch_rng(4, "train")) < 0.25
    before = nobody.snapshot()
    assert solver(3.0, 2.0).train(nobody) >= 0
    assert not drawn_first.all()
    moved = (before["fc1.weight"] - nobody.tensors["fc1.weight"].detach()) / 0.1
    # Four steps of noise over an expected batch of one, whoever was drawn.
    assert moved.std().item() == pytest.approx(3.0 * 2.0 * 4**0.5, rel=0.02)


def test_a_sample_moves_the_sum_of_gradients_by_one_clip_at_most() -> None:
    network, split = drawn(MODELS["mlp"]()), classes(8, 2, 8, 8)
    wild = Split(split.inputs.clone(), split.labels)
    wild.inputs[3] = 1e4
    steps = []
    for data in (split, wild):
        bench = make(solver(0.5, QUIET), copy.deepcopy(network), data, settings())
        solver(0.5, QUIET).train(bench)
        way = [bench.received[n] - p.detach() for n, p in bench.parameters.items()]
        steps.append(torch.cat([t.reshape(-1) for t in way]) / 0.1 * 8)
    # Replacing is leaving out and putting in: two clips; and each is there, so not much less.
    assert 0.5 < (steps[0] - steps[1]).norm().item() <= 2 * 0.5 * 1.001


def test_samples_are_drawn_independently() -> None:
    split = Split(torch.arange(50.0)[:, None], torch.arange(50))
    batches = list(poisson_batches(split, 400, 0.2, torch_rng(0, "train")))
    counts = torch.zeros(50)
    for inputs, labels in batches:
        assert torch.equal(inputs[:, 0].long(), labels)
        assert len(labels.unique()) == len(labels)
        counts[labels] += 1
    sizes = torch.tensor([float(len(labels)) for _, labels in batches])
    assert sizes.mean().item() == pytest.approx(10, abs=0.5)
    assert sizes.var().item() == pytest.approx(50 * 0.2 * 0.8, rel=0.2)  # binomial, not fixed
    assert counts.min() > 40
    assert counts.max() < 130


def test_a_round_is_accounted_for_as_it_is_trained() -> None:
    training = settings(batch_size=10, phases=(Phase("personal", 1, 0.0), Phase("shared", 2, 0.0)))
    found = solver(noise=1.7).releases(Turn(9, {3: 25, 5: 10}), training)
    assert [steps_of(n, 10) for n in (1, 10, 11, 25)] == [1, 1, 2, 3]
    ((event, count),) = found[3]
    assert (event.sampling_probability, count) == (1 / 3, 3 * 3)
    assert event.event.noise_multiplier == 1.7
    ((whole, once),) = found[5]
    assert (whole.sampling_probability, once) == (1.0, 3)


def test_phases_move_their_layers_and_are_pulled_after_the_noise() -> None:
    training = settings(phases=(Phase("personal", 1, 0.0), Phase("shared", 2, 5.0)))
    network = linear(3, 2, 3)
    bench = make(solver(1.0, QUIET), network, classes(5, 3), training)
    bench.personal = frozenset({"fc2.weight"})
    solver(1.0, QUIET).train(bench)
    pulled = {n: p.detach().clone() for n, p in network.named_parameters()}
    free = make(solver(1.0, QUIET), linear(3, 2, 3), classes(5, 3),
                settings(phases=(Phase("personal", 1, 0.0), Phase("shared", 2, 0.0))))  # fmt: skip
    free.personal = bench.personal
    solver(1.0, QUIET).train(free)
    assert torch.equal(pulled["fc2.weight"], free.tensors["fc2.weight"])
    far = [(m - bench.received["fc1.weight"]).norm() for m in
           (pulled["fc1.weight"], free.tensors["fc1.weight"].detach())]  # fmt: skip
    assert 0 < far[0] < far[1]
    assert solver().train(make(solver(), linear(1, 1), values(3), settings(0))) == 0


def test_nothing_of_opacus_is_left_on_the_network() -> None:
    network = linear(2, 3)
    before = copies(vars(network)["_modules"]["fc1"].state_dict())
    solver().train(make(solver(), network, classes(5, 2), settings()))
    assert not any(module._backward_hooks or module._forward_hooks for module in network.modules())
    assert not any(hasattr(p, "grad_sample") for p in network.parameters())
    assert not torch.equal(before["weight"], network.fc1.weight)


@pytest.mark.parametrize("method", ["fedavg", "fedper"])
def test_engines_agree_to_the_bit_on_dense_layers(method, config, toy, tmp_path) -> None:
    how = *RUN, f"method={method}", "engine.workers=2"
    run_toy(config(*RUN, f"method={method}", "engine=sequential"), toy(4), tmp_path / "sequential")
    run_toy(config(*how, "engine=parallel"), toy(4), tmp_path / "parallel")
    reference = tables_of(tmp_path / "sequential")
    for name, found in tables_of(tmp_path / "parallel").items():
        pd.testing.assert_frame_equal(found, reference[name], check_exact=True)
    assert table(tmp_path / "parallel", "rounds")["epsilon"].gt(0).all()


def test_a_resumed_run_is_the_run_in_one_piece(config, toy, tmp_path) -> None:
    assert_resumes(
        config, toy(4, flipped=(1, 2)), tmp_path, "method=fedper", "solver=dp_sgd", "cohort.size=2"
    )


def test_gradients_are_not_clipped_twice() -> None:
    with pytest.raises(ValueError, match=r"clip: .* training.max_grad_norm=null, got 1"):
        solver().check(settings(max_grad_norm=1.0), 0)
