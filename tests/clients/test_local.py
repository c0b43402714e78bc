import numpy as np
import pytest
import torch
from torch import nn

from fedtsd.clients import local
from fedtsd.clients.dropout import Masks
from fedtsd.clustering.similarity import js_divergence
from fedtsd.data.federation import ClientData, Federation, Split
from fedtsd.execution import build
from fedtsd.messages import Train
from fedtsd.models import Mlp, ResNet8, initialise, tensors_of
from fedtsd.modules import Dropout
from fedtsd.precision import Precision
from fedtsd.seeding import torch_rng
from fedtsd.training import NUM_BINS, Phase, Training


def settings(**changes) -> Training:
    values = {
        "epochs": 1,
        "head_epochs": 1,
        "batch_size": 2,
        "lr": 0.5,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "proximal": 0.0,
        "max_grad_norm": None,
        "phases": (Phase("all", 1, 0.0),),
    }
    return Training(**{**values, **changes})


def model() -> nn.Sequential:
    """Logits (w x, 0): one weight, everything by hand."""
    net = nn.Sequential()
    net.add_module("body", nn.Linear(1, 1, bias=False))
    net.add_module("head", nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        net.get_submodule("body").weight.fill_(1.0)
        net.get_submodule("head").weight.copy_(torch.tensor([[0.0], [0.0]]))
    return net


SPLIT = Split(torch.tensor([[1.0], [2.0]]), torch.tensor([0, 0]))


def weights(net) -> dict[str, list]:
    return {name: p.detach().flatten().tolist() for name, p in net.named_parameters()}


def run(net, phases, personal=frozenset(), training=None) -> int:
    rng = torch_rng(0, "train", 1, 0)
    return local.train(net, SPLIT, phases, personal, training or settings(), rng, Precision("fp32"))


def test_one_step_by_hand() -> None:
    net = model()
    assert run(net, (Phase("all", 1, 0.0),)) == 2
    # Both logits are 0, so softmax is (.5, .5), d loss / d logits = (-.5, .5) per sample.
    # d loss / d head = mean over samples of that times the feature: (-.5, .5) * (1 + 2) / 2
    # head = 0 - .5 * (-.75, .75) = (.375, -.375); the body sees zero heads: no gradient.
    assert weights(net) == {"body.weight": [1.0], "head.weight": [0.375, -0.375]}


def test_only_the_layers_of_a_phase_move() -> None:
    personal = frozenset({"head.weight"})
    net = model()
    run(net, (Phase("shared", 3, 0.0),), personal)
    assert weights(net)["head.weight"] == [0.0, 0.0]
    run(net, (Phase("personal", 3, 0.0),), personal)
    assert weights(net)["body.weight"] == [1.0]
    assert weights(net)["head.weight"][0] > 0


def test_proximal_term_pulls_back_to_what_was_received() -> None:
    training = settings(batch_size=1)
    free, held = model(), model()
    run(free, (Phase("all", 5, 0.0),), training=training)
    run(held, (Phase("all", 5, 1.0),), training=training)
    assert 0 < weights(held)["head.weight"][0] < weights(free)["head.weight"][0]


def test_the_first_proximal_step_is_plain() -> None:
    # The term's gradient mu (w - w_received) is zero at the start.
    free, held = model(), model()
    run(free, (Phase("all", 1, 0.0),))
    run(held, (Phase("all", 1, 9.0),))
    assert weights(free) == weights(held)


def test_each_epoch_sees_every_sample_once() -> None:
    split = Split(torch.arange(7.0)[:, None], torch.arange(7))
    seen = [labels.tolist() for _, labels in local.batches(split, 3, torch_rng(0, "x"))]
    assert [len(batch) for batch in seen] == [3, 3, 1]
    assert sorted(label for batch in seen for label in batch) == list(range(7))


def test_evaluation_by_hand() -> None:
    net = model()
    with torch.no_grad():
        net.get_submodule("head").weight.copy_(torch.tensor([[1.0], [0.0]]))
    test = Split(torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]), torch.tensor([0, 1, 1, 1]))
    empty = Split(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64))
    (found,) = local.evaluate(net, ClientData(SPLIT, empty, test), "personalized")
    assert (found.split, found.scores["accuracy"], found.num_examples) == ("test", 0.75, 4)
    # log(1 + e^-1) = .3133 three times, and 1.3133 once
    assert abs(found.scores["loss"] - (3 * 0.313262 + 1.313262) / 4) < 1e-5


def test_errors_of_a_regression_by_hand() -> None:
    # Predictions 1 and -1, values 0 and -3 in units of 10: errors 1 and 2.
    outputs = torch.tensor([[1.0], [-1.0]])
    split = Split(torch.zeros(2, 1), torch.tensor([0.0, -3.0]), unit=10.0)
    scores = local.scores_of(outputs, split)
    assert scores["mae"] == pytest.approx(15.0)
    assert scores["rmse"] == pytest.approx(10 * 2.5**0.5)
    assert local.loss_of(outputs, split.labels).item() == pytest.approx(2.5)


def test_predictions_are_told_as_probabilities_of_bins() -> None:
    values = torch.tensor([[0.0], [0.4], [9.0]])
    told = local.bin_probabilities(values)
    assert told.shape == (3, NUM_BINS)
    assert told.sum(dim=1).tolist() == pytest.approx([1, 1, 1])
    # Edges lie half a deviation apart, around 0: the two bins beside it hold one deviation each.
    assert told[0, 5:7].tolist() == pytest.approx([0.341345] * 2, abs=1e-5)
    assert told[2, -1].item() == pytest.approx(1.0)
    # Close predictions have close laws; the divergence grows with their distance up to 1.
    divergence, _ = js_divergence(told[:, None].numpy())
    assert 0 < divergence[0, 1] < 0.2 < 0.99 < divergence[0, 2] <= 1


def test_public_outputs_are_probabilities() -> None:
    inputs = torch.randn(5, 1, generator=torch_rng(0, "x"))
    outputs = local.public_outputs(model(), inputs, regression=False)
    assert outputs.tolist() == [[0.5, 0.5]] * 5


def test_a_long_gradient_is_scaled_back() -> None:
    net = model()
    run(net, (Phase("all", 1, 0.0),), training=settings(max_grad_norm=0.1))
    # As in the first test the gradient is (-.75, .75); scaled to length .1, times the rate .5.
    step = 0.5 * 0.1 / 2**0.5
    found = weights(net)["head.weight"]
    assert abs(found[0] - step) < 1e-5
    assert abs(found[1] + step) < 1e-5


def dropping(rate=0.5) -> nn.Sequential:
    net = Mlp((4,), rate).build((1,), 2)
    initialise(net, torch_rng(0, "model"))
    return net


def test_masks_are_a_function_of_the_clients_stream() -> None:
    def first(seed: int) -> torch.Tensor:
        return Masks(dropping(), torch_rng(seed, "train", 1, 0)).draw(3)["dropout.mask"]

    assert first(0).shape == (3, 4)
    assert set(first(0).unique().tolist()) <= {0.0, 2.0}
    assert torch.equal(first(0), first(0))
    assert not torch.equal(first(0), first(1))


def test_masks_keep_the_mean() -> None:
    net = nn.Sequential()
    net.add_module("dropout", Dropout(0.2, 1000))
    mask = Masks(net, torch_rng(0, "train", 1, 0)).draw(100)["dropout.mask"]
    assert mask.unique().tolist() == pytest.approx([0, 1.25])
    assert mask.mean().item() == pytest.approx(1, abs=0.01)


def test_dropout_takes_nothing_from_the_batches_stream() -> None:
    rng = torch_rng(0, "train", 1, 0)
    masks = Masks(dropping(), rng)
    masks.set(2)
    assert torch.equal(
        torch.rand(1, generator=rng), torch.rand(1, generator=torch_rng(0, "train", 1, 0))
    )


def test_a_new_mask_of_the_same_size_is_written_in_place() -> None:
    net = dropping()
    masks = Masks(net, torch_rng(0, "train", 1, 0))
    masks.set(8)
    held = net.get_buffer("dropout.mask")
    before = held.clone()
    masks.set(8)
    assert net.get_buffer("dropout.mask") is held
    assert not torch.equal(held, before)
    masks.set(3)
    assert net.get_buffer("dropout.mask").shape == (3, 4)


def test_training_with_dropout_draws_nothing_from_the_global_generator() -> None:
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = dropping()
        before = torch.random.get_rng_state()
        run(net, (Phase("all", 3, 0.0),))
        assert torch.equal(torch.random.get_rng_state(), before)
        found.append(weights(net))
    assert found[0] == found[1]
    plain = dropping(rate=0.0)
    run(plain, (Phase("all", 3, 0.0),))
    assert weights(plain) != found[0]


def images(n: int, size: int = 8) -> Split:
    rng = torch_rng(0, "images")
    return Split(torch.randn(n, 1, size, size, generator=rng) + 1, torch.arange(n) % 2)


def normed(size: int = 8) -> nn.Sequential:
    net = ResNet8(4, 2, "batch").build((1, size, size), 2)
    initialise(net, torch_rng(0, "model"))
    return net


def train_normed(net, split, layers="all") -> int:
    rng = torch_rng(0, "train", 1, 0)
    phases = (Phase(layers, 1, 0.0),)
    return local.train(net, split, phases, frozenset(), settings(), rng, Precision("fp32"))


def test_training_moves_running_statistics_and_evaluation_uses_them() -> None:
    net, split = normed(), images(4)
    before = {name: tensor.detach().clone() for name, tensor in tensors_of(net).items()}
    train_normed(net, split)
    after = {name: tensor.detach().clone() for name, tensor in tensors_of(net).items()}
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"norm.running_mean", "block3.norm2.running_var"} <= moved
    # In evaluation a sample's output does not depend on the others of its batch.
    both = local.predict(net, split.inputs)
    alone = torch.cat([local.predict(net, split.inputs[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(both, alone)
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors_of(net).items())


def test_a_phase_in_which_nothing_moves_leaves_running_statistics() -> None:
    net = normed()
    assert train_normed(net, images(4), "personal") == 0
    assert net.get_buffer("norm.running_mean").tolist() == [0.0] * 4


def test_a_single_sample_can_be_trained_on_with_batch_norm() -> None:
    # The maps of the last block are 1 x 1: one value per channel, which has no variance.
    net = normed(size=4)
    assert train_normed(net, images(1, size=4)) == 1
    assert net.get_buffer("block3.norm1.running_mean").tolist() == [0.0] * 16
    assert net.get_buffer("norm.running_mean").abs().min() > 0  # maps of 4 x 4 do have one
    assert all(torch.isfinite(tensor).all() for tensor in tensors_of(net).values())


@pytest.mark.parametrize("method", ["fedavg", "fedper", "lg_fedavg"])
def test_running_statistics_are_averaged_or_stay_with_their_layer(method, config) -> None:
    cfg = config(f"method={method}", "model=resnet8", "model.norm=batch", "model.width=4",
                 "model.groups=2", "partition.num_clients=2", "engine=sequential")  # fmt: skip
    federation = Federation(
        tuple(ClientData(images(n), images(1), images(2)) for n in (2, 6)),
        images(3).inputs,
        ("a", "b"),
    )
    experiment = build(cfg, federation)
    task = Train(cfg.training.phases, None, None)
    request = experiment.request(experiment.start.server, 1, task, np.arange(2))
    reply = experiment.channel.exchange(request)
    new = cfg.aggregation.update(experiment.start.server, reply, experiment.layers).centres[0]
    shared = reply.rows[0].tensors
    # The first layer holds the stem's statistics, the last one has none.
    assert ("norm.running_mean" in shared) == (method != "lg_fedavg")
    assert ("norm.running_mean" in experiment.engine.state_dict()) == (method == "lg_fedavg")
    for name in shared:
        small, large = (row.tensors[name] for row in reply.rows)
        torch.testing.assert_close(new[name], small / 4 + large * 3 / 4)
    assert not torch.equal(new["block2.norm1.running_var"], torch.ones(8))
