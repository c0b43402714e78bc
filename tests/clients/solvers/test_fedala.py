import copy

import pytest
import torch
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from fedtsd.clients import local
from fedtsd.clients.solvers.fedala import FedAla, sample_of, steady
from fedtsd.models import Mlp, ResNet8, tensors_of
from fedtsd.seeding import torch_rng
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

TOP = "fc2.weight"
NO_TRAINING = settings(epochs=0)
"""What is left in the network is then the merged model."""


def ala(**changes) -> FedAla:
    return FedAla(**{"top_layers": 1, "share": 1.0, "lr": 1.0, "patience": 1, **changes})


def trained(trainings: int, own, weight=None) -> dict[str, torch.Tensor]:
    """What a client has kept; own: its fc2.weight."""
    kept = {"ala/trainings": torch.tensor([float(trainings)]), f"ala/{TOP}": own}
    return kept if weight is None else kept | {f"ala_weight/{TOP}": weight}


def test_the_weights_move_against_the_gradient_times_the_way() -> None:
    split, network = values(8), linear(1, 1, 1)
    bottom, received = network.fc1.weight.item(), network.fc2.weight.item()
    own = received + 0.5
    x, y = split.inputs[:, 0], split.labels
    weight = 0.7
    merged = own + (received - own) * weight
    gradient = (2 * (bottom * merged * x - y) * bottom * x).mean().item()
    expected = weight - 0.2 * gradient * (received - own)
    assert expected != pytest.approx(weight, abs=1e-3)
    kept = trained(2, torch.tensor([[own]]), torch.tensor([[weight]]))
    bench = make(ala(lr=0.2), network, split, NO_TRAINING, kept)
    assert ala(lr=0.2).train(bench) == 8
    assert bench.kept[f"ala_weight/{TOP}"].item() == pytest.approx(expected, abs=1e-6)
    start = own + (received - own) * expected
    assert network.fc2.weight.item() == pytest.approx(start, abs=1e-6)
    assert network.fc1.weight.item() == bottom


def test_each_batch_of_the_drawn_samples_moves_the_merged_model() -> None:
    solver = ala(lr=0.2, share=0.5)
    split, network = values(8), linear(1, 1, 1)
    bottom, received = network.fc1.weight.item(), network.fc2.weight.item()
    own, weight = received + 0.5, 0.5
    kept = trained(2, torch.tensor([[own]]), torch.tensor([[weight]]))
    bench = make(solver, network, split, settings(epochs=0, batch_size=2), kept)
    rng = torch_rng(SEED, "train")
    for inputs, y in local.batches(sample_of(split, 0.5, rng), 2, rng):
        x = inputs[:, 0]
        merged = own + (received - own) * weight
        gradient = (2 * (bottom * merged * x - y) * bottom * x).mean().item()
        weight = min(max(weight - 0.2 * gradient * (received - own), 0), 1)
    assert solver.train(bench) == 4
    assert bench.kept[f"ala_weight/{TOP}"].item() == pytest.approx(weight, abs=1e-6)
    assert 0 < weight < 1
    assert weight != pytest.approx(0.5, abs=1e-3)


def test_training_goes_on_from_the_merged_model_and_the_result_is_kept() -> None:
    split, network = classes(8, 4), linear(4, 5, 3)
    kept = trained(2, torch.randn(3, 5, generator=torch_rng(4, "own")), torch.full((3, 5), 0.5))
    training = settings(epochs=2, momentum=0.9)
    plain = copy.deepcopy(network)
    with torch.no_grad():
        plain.fc2.weight.copy_((plain.fc2.weight + kept[f"ala/{TOP}"]) / 2)
    bench = make(ala(lr=0.0), network, split, training, kept)
    assert ala(lr=0.0).train(bench) == 8 + 16
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(plain(split.inputs), split.labels).backward()
        optimizer.step()
    torch.testing.assert_close(network.fc2.weight, plain.fc2.weight)
    torch.testing.assert_close(network.fc1.weight, plain.fc1.weight)
    assert torch.equal(bench.kept[f"ala/{TOP}"], network.fc2.weight)
    assert bench.kept["ala/trainings"].item() == 3


def test_the_first_training_is_plain_sgd_to_the_bit() -> None:
    training = settings(epochs=2, batch_size=3, momentum=0.9)
    split, network = classes(8, 4), linear(4, 5, 3)
    plain = copy.deepcopy(network)
    bench = make(ala(), network, split, training, {f"ala/{TOP}": torch.full((3, 5), 9.0)})
    other = make(ala(), plain, split, training)
    other.fit(split, training.phases, frozenset(), other.rng)
    assert ala().train(bench) == 16
    for name, tensor in tensors_of(plain).items():
        assert torch.equal(bench.tensors[name], tensor)
    assert torch.equal(bench.kept[f"ala_weight/{TOP}"], torch.ones(3, 5))
    assert bench.kept["ala/trainings"].item() == 1


@pytest.mark.parametrize("serves", [True, False])
def test_a_weight_of_1_takes_all_and_one_of_0_nothing(serves: bool) -> None:
    own = torch.randn(3, 5, generator=torch_rng(4, "own"))
    for weight in (1.0, 0.0):
        network = linear(4, 5, 3)
        kept = trained(1, own, torch.full((3, 5), weight))
        bench = make(ala(lr=0.0), network, classes(8, 4), NO_TRAINING, kept)
        if serves:
            ala(lr=0.0).serve(bench)
        else:
            ala(lr=0.0).train(bench)
        assert torch.equal(network.fc2.weight, bench.received[TOP] if weight else own)
        assert torch.equal(network.fc1.weight, bench.received["fc1.weight"])


def test_serving_learns_nothing() -> None:
    kept = trained(3, torch.randn(3, 5), torch.rand(3, 5))
    bench = make(ala(), linear(4, 5, 3), classes(8, 4), settings(), kept)
    before = copies(bench.kept)
    ala().serve(bench)
    assert all(torch.equal(before[name], tensor) for name, tensor in bench.kept.items())


@given(
    lr=st.floats(0, 1e4),
    seed=st.integers(0, 99),
    top=st.integers(1, 3),
    patience=st.integers(1, 4),
    trainings=st.integers(1, 3),
)
@given_settings(max_examples=30, deadline=None)
def test_weights_stay_in_0_to_1_and_the_start_between_the_two_models(
    lr: float, seed: int, top: int, patience: int, trainings: int
) -> None:
    solver = ala(lr=lr, top_layers=top, patience=patience, share=0.7)
    network = linear(4, 5, 3)
    bench = make(solver, network, classes(9, 4), settings(epochs=0, batch_size=4))
    rng = torch_rng(seed, "own")
    bench.kept["ala/trainings"].fill_(trainings)
    own = {}
    for name in bench.kept:
        if name.startswith("ala/fc"):
            own[name] = bench.kept[name].normal_(generator=rng).clone()
        if name.startswith("ala_weight/"):
            bench.kept[name].uniform_(generator=rng)
    solver.train(bench)
    assert len(own) == min(top, 2)
    for name, mine in own.items():
        tensor = name.removeprefix("ala/")
        weight, received = bench.kept[f"ala_weight/{tensor}"], bench.received[tensor]
        assert weight.min() >= 0
        assert weight.max() <= 1
        found = bench.tensors[tensor].detach()
        assert (found >= torch.minimum(mine, received) - 1e-5).all()
        assert (found <= torch.maximum(mine, received) + 1e-5).all()


def test_a_client_whose_own_head_fits_better_keeps_it() -> None:
    split, good = classes(30, 4), linear(4, 5, 3)
    fitted = make(ala(), good, split, settings(epochs=300, lr=0.2))
    ala().train(fitted)
    kept = copies(fitted.kept)
    network = copy.deepcopy(good)
    with torch.no_grad():
        network.fc2.weight.neg_()
    bench = make(ala(patience=20), network, split, NO_TRAINING, kept)
    before = local.mean_loss(network, split)
    ala(patience=20).train(bench)
    assert local.mean_loss(network, split) < 0.6 * before
    assert bench.kept[f"ala_weight/{TOP}"].mean() < 0.7


@pytest.mark.parametrize(
    ("trainings", "patience", "passes"),
    [(0, 50, 0), (1, 50, 11), (1, 4, 4), (2, 50, 1), (7, 4, 1)],
)
def test_passes_end_when_the_loss_is_steady(trainings: int, patience: int, passes: int) -> None:
    """A loss that does not move is known to be steady once it is told from the first one."""
    solver = ala(lr=0.0, patience=patience, share=0.5)
    kept = trained(trainings, torch.zeros(3, 5))
    bench = make(solver, linear(4, 5, 3), classes(8, 4), NO_TRAINING, kept)
    assert solver.train(bench) == passes * 4


def test_steady_is_a_small_deviation_of_the_last_ten() -> None:
    assert not steady([1.0] * 10)
    assert steady([5.0] + [1.0] * 10)
    assert not steady([1.0] * 10 + [1.4])  # deviation 0.12
    assert steady([1.0] * 10 + [1.3])  # 0.09
    assert not steady([])


def test_layers_are_counted_from_the_end_by_the_names_of_tensors() -> None:
    model = tensors_of(ResNet8(4, 2, "batch").build((1, 8, 8), 3))
    kept = ala(top_layers=2).private(model)
    layers = {name.split(".")[0] for name in kept}
    assert layers == {"ala/block3", "ala/fc", "ala_weight/block3", "ala_weight/fc", "ala/trainings"}
    everything = ala(top_layers=99).private(model)
    assert len(everything) == 2 * sum("running" not in name for name in model) + 1
    assert all((t == 1).all() for n, t in everything.items() if n.startswith("ala_weight/"))


def test_running_statistics_are_those_received() -> None:
    network = drawn(ResNet8(4, 2, "batch").build((1, 8, 8), 3))
    bench = make(ala(top_layers=3, lr=5.0), network, classes(9, 1, 8, 8), NO_TRAINING)
    bench.kept["ala/trainings"].fill_(2)
    bench.kept["ala/block3.conv1.weight"].add_(0.5)
    ala(top_layers=3, lr=5.0).train(bench)
    for name, tensor in bench.received.items():
        if "running" in name:
            assert torch.equal(bench.tensors[name], tensor)
    assert (bench.kept["ala_weight/block3.conv1.weight"] < 1).any()


def test_dropout_fits_the_batches_on_which_weights_are_learned() -> None:
    network = drawn(Mlp((6,), 0.5).build((5,), 3))
    bench = make(ala(share=0.6), network, classes(11, 5), settings(batch_size=4))
    bench.kept["ala/trainings"].fill_(2)
    bench.kept[f"ala/{TOP}"].add_(0.5)
    assert ala(share=0.6).train(bench) == 7 + 11
    assert (bench.kept[f"ala_weight/{TOP}"] != 1).any()


def test_a_share_of_the_samples_is_drawn_and_never_none() -> None:
    split = classes(10, 2)
    part = sample_of(split, 0.3, torch_rng(0, "a"))
    places = [int((split.inputs == row).all(dim=1).nonzero()) for row in part.inputs]
    assert len(set(places)) == len(part) == 3
    assert torch.equal(part.labels, split.labels[places])
    again = sample_of(split, 0.3, torch_rng(1, "a"))
    assert not torch.equal(part.inputs, again.inputs)
    assert len(sample_of(split, 0.001, torch_rng(0, "a"))) == 1
    assert len(sample_of(split, 1.0, torch_rng(0, "a"))) == 10


def test_private_tensors_survive_a_resume(config, toy, tmp_path) -> None:
    assert_resumes(config, toy(4, flipped=(1, 2)), tmp_path, "method=fedala", "cohort.size=2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_layers": 0}, "top_layers: must be at least 1, got 0"),
        ({"share": 0.0}, r"share: must be in \(0, 1\], got 0.0"),
        ({"share": 1.1}, r"share: must be in \(0, 1\], got 1.1"),
        ({"lr": -1.0}, "lr: must be at least 0, got -1.0"),
        ({"patience": 0}, "patience: must be at least 1, got 0"),
    ],
)
def test_wrong_values_are_refused(changes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ala(**changes)


def test_personal_layers_are_refused() -> None:
    ala().check(settings(), 0)
    with pytest.raises(ValueError, match="shares the whole model; set personalization=none"):
        ala().check(settings(), 1)
