"""The stacked engine must do what the reference does: the same numbers within rounding."""

import dataclasses
from collections import OrderedDict

import pytest
import torch
from torch import nn

from fedtsd.catalogue import options
from fedtsd.clients.stacked import Stacked
from fedtsd.clients.stacked_step import Step
from fedtsd.errors import EngineError
from fedtsd.messages import Evaluate, Probe, Train
from fedtsd.models import FedAvgCnn, LeNet, Mlp, ResNet8
from fedtsd.run_folder import RunFolder
from fedtsd.sums import Summing, summing_order
from fedtsd.training import Phase
from tests.clients.stacks import (
    ALL,
    CLOSE,
    HEAD,
    SIZES,
    ask,
    assert_close,
    engines,
    federation,
    initial_of,
    settings,
    side,
)
from tests.needs import fit, small
from tests.runs import StopAfter, StoppedError, run_toy, table


def assert_same_replies(first, second, **tolerance) -> None:
    for one, other in zip(first.rows, second.rows, strict=True):
        assert (one.client, one.num_examples, one.num_samples) == (
            other.client, other.num_examples, other.num_samples,
        )  # fmt: skip
        assert_close(one.tensors, other.tensors, **tolerance)
        if one.outputs is not None:
            torch.testing.assert_close(one.outputs, other.outputs, **(tolerance or CLOSE))
        assert one.losses == pytest.approx(other.losses, rel=1e-5)
        pairs = zip(one.evaluations, other.evaluations, strict=True)
        for mine, yours in pairs:
            assert (mine.stage, mine.split) == (yours.stage, yours.split)
            assert mine.num_examples == yours.num_examples
            assert mine.scores == pytest.approx(yours.scores, rel=1e-4)


def assert_trains_alike(side, personal=(), phases=None, chunk=None, **tolerance) -> None:
    """Two rounds, the second from what the first gave."""
    reference, stacked = engines(side, chunk)
    public = torch.tensor([4, 1], dtype=torch.int32)
    task = Train(phases or side.training.phases, public, None)
    models = (initial_of(side),)
    for round in (1, 2):
        request = ask(side, task, round, personal, models)
        expected, found = reference.handle(request), stacked.handle(request)
        assert_same_replies(expected, found, **tolerance)
        models = ({**models[0], **expected.rows[1].tensors},)
    assert_close(reference.state_dict(), stacked.state_dict(), **tolerance)
    moved = expected.rows[1].tensors
    assert not moved or any(not torch.equal(t, initial_of(side)[n]) for n, t in moved.items())


@pytest.mark.parametrize("method", sorted(options("method")))
def test_every_method_gives_the_reference_numbers(method, config, toy, tmp_path) -> None:
    for engine in ("sequential", "stacked"):
        cfg = config(
            *small(method, 4), f"engine={engine}", "rounds=2", "checkpoint_every=2",
            "similarity.first_round=1", "training.lr=0.02",
        )  # fmt: skip
        run_toy(cfg, fit(toy(4, flipped=(1, 2)), method), tmp_path / engine)
    states = [RunFolder(tmp_path / e).load_checkpoint() for e in ("sequential", "stacked")]
    for mine, yours in zip(*(state["server"]["centres"] for state in states), strict=True):
        assert_close(mine, yours)
    assert_close(*(state["clients"] for state in states))
    rows = [table(tmp_path / e, "clients") for e in ("sequential", "stacked")]
    assert rows[0]["accuracy"].tolist() == rows[1]["accuracy"].tolist()
    assert rows[0]["loss"].tolist() == pytest.approx(rows[1]["loss"].tolist(), rel=1e-4)


def test_a_stopped_run_continues_to_the_same_end(config, toy, tmp_path) -> None:
    cfg = config(
        "method=fedper", "engine=stacked", "rounds=4", "checkpoint_every=1",
        "partition.num_clients=4", "model.hidden=[8]",
    )  # fmt: skip
    run_toy(cfg, toy(4), tmp_path / "whole")
    with pytest.raises(StoppedError):
        run_toy(cfg, toy(4), tmp_path / "parts", StopAfter(2))
    run_toy(cfg, toy(4), tmp_path / "parts")
    whole, parts = (RunFolder(tmp_path / w).load_checkpoint() for w in ("whole", "parts"))
    assert_close(whole["clients"], parts["clients"], rtol=0, atol=0)
    assert_close(whole["server"]["centres"][0], parts["server"]["centres"][0], rtol=0, atol=0)


def image_models(config):
    """Every conf/model, and what its options can be."""
    named = {name: config("method=fedavg", f"model={name}").model for name in options("model")}
    named["resnet8 batch"] = ResNet8(8, 4, "batch")
    named["lenet batch"] = LeNet(0.0, "batch", 2)
    named["cnn group"] = FedAvgCnn(2, 0.0, "group", 4)
    named["mlp dropout"] = Mlp((6,), 0.5)
    named["lenet dropout"] = LeNet(0.3, "none", 2)
    named["cnn dropout"] = FedAvgCnn(2, 0.3, "none", 4)
    return named


@pytest.mark.parametrize("name", [*sorted(options("model")), "resnet8 batch", "lenet batch",
                                  "cnn group", "mlp dropout", "lenet dropout",
                                  "cnn dropout"])  # fmt: skip
def test_every_model_gives_the_reference_numbers(name, config) -> None:
    data = federation((1, 8, 8), sizes=(9, 18, 2))
    spec = image_models(config)[name]
    # Deep models amplify rounding: some more units in the last place.
    assert_trains_alike(side(data, spec, settings(epochs=2), keeps=()), rtol=1e-4, atol=1e-5)


SETTINGS = [
    {"momentum": 0.9},
    {"weight_decay": 0.1},
    {"phases": (Phase("all", 3, 0.0),)},
    {"phases": (Phase("all", 2, 0.5),), "momentum": 0.5},
    # The proximal term pulls back to what was received, in every phase.
    {"phases": (Phase("all", 2, 0.0), Phase("all", 2, 2.0))},
    {"max_grad_norm": 0.2},
    {"max_grad_norm": 0.2, "momentum": 0.9, "weight_decay": 0.1, "phases": (Phase("all", 2, 1.0),)},
    {"batch_size": 64},
    {"batch_size": 1},
]


@pytest.mark.parametrize("changes", SETTINGS)
@pytest.mark.parametrize("chunk", [1, 2, None])
def test_every_setting_of_training_gives_the_reference_numbers(changes, chunk) -> None:
    assert_trains_alike(side(federation(), training=settings(**changes)), chunk=chunk)


@pytest.mark.parametrize("spec", [Mlp((6,), 0.0), Mlp((6,), 0.4)])
@pytest.mark.parametrize("kind", ["personal", "shared"])
def test_clients_with_different_personal_layers_move_their_own(spec, kind) -> None:
    body = frozenset({"fc1.weight", "fc1.bias"})
    personal = (HEAD, frozenset(), body | HEAD, HEAD, body)
    phases = (Phase(kind, 2, 0.3), Phase("all", 1, 0.0), Phase(kind, 1, 0.0))
    training = settings(momentum=0.9, weight_decay=0.1, max_grad_norm=0.5)
    assert_trains_alike(side(federation(), spec, training, keeps=body | HEAD), personal, phases)


def test_clients_that_sit_a_phase_out_stand_still_in_it() -> None:
    personal = (frozenset(), HEAD, frozenset(), HEAD, HEAD)
    phases = (Phase("personal", 2, 0.3), Phase("all", 1, 0.0))
    training = settings(momentum=0.9, weight_decay=0.1)
    assert_trains_alike(side(federation(), training=training), personal, phases)


def test_clients_with_different_personal_layers_and_batch_norm() -> None:
    data = federation((1, 8, 8), sizes=(9, 18, 2))
    head = frozenset({"fc.weight", "fc.bias"})
    stem = frozenset({"stem.weight", "norm.weight", "norm.bias", "norm.running_mean",
                      "norm.running_var"})  # fmt: skip
    phases = (Phase("personal", 2, 0.0), Phase("shared", 1, 0.1))
    ours = side(data, ResNet8(4, 2, "batch"), settings(momentum=0.5), keeps=head | stem)
    personal = (head, frozenset(), stem | head)
    assert_trains_alike(ours, personal, phases, rtol=1e-4, atol=1e-5)


def test_a_regression_gives_the_reference_numbers() -> None:
    ours = side(federation(regression=True), training=settings(momentum=0.9))
    assert_trains_alike(ours)
    reference, stacked = engines(ours)
    request = ask(ours, Evaluate(("personalized", "tuned"), Phase("all", 2, 0.0)))
    assert_same_replies(reference.handle(request), stacked.handle(request))


@pytest.mark.parametrize("chunk", [2, None])
def test_evaluations_and_probes_are_those_of_the_reference(chunk) -> None:
    ours = side(federation())
    reference, stacked = engines(ours, chunk)
    first = initial_of(ours)
    models = (first, {name: tensor + 0.1 for name, tensor in first.items()})
    personal = (HEAD, frozenset(), HEAD, frozenset(), frozenset())
    for engine in (reference, stacked):
        engine.handle(ask(ours, Train(ALL, None, None), 1, personal, models))
    for task in (
        Evaluate(("personalized",), ALL[0]),
        Evaluate(("tuned", "personalized"), Phase("all", 2, 0.1)),
        Probe(look=True),
    ):
        request = ask(ours, task, 2, personal, models)
        expected, found = reference.handle(request), stacked.handle(request)
        assert_same_replies(expected, found)
    assert len(found.rows[0].losses) == 2


def test_an_evaluation_changes_nothing_that_is_kept() -> None:
    ours = side(federation())
    _, stacked = engines(ours)
    stacked.handle(ask(ours, Train(ALL, None, None), personal=[HEAD] * 5))
    before = stacked.state_dict()
    look = ask(ours, Evaluate(("tuned",), Phase("all", 3, 0.0)), personal=[HEAD] * 5)
    assert stacked.handle(look) == stacked.handle(look)
    assert_close(before, stacked.state_dict(), rtol=0, atol=0)


def test_what_was_sent_is_not_changed_in_place() -> None:
    ours = side(federation())
    models = (initial_of(ours),)
    engines(ours)[1].handle(ask(ours, Train(ALL, None, "samples"), models=models))
    assert_close(models[0], initial_of(ours), rtol=0, atol=0)


def test_a_client_does_not_depend_on_its_cohort() -> None:
    ours = side(federation(), Mlp((6,), 0.5), settings(momentum=0.9))
    task = Train(ALL, None, None)
    together = engines(ours)[1].handle(ask(ours, task)).rows
    for client in range(5):
        (alone,) = engines(ours)[1].handle(ask(ours, task, clients=[client])).rows
        assert_close(alone.tensors, together[client].tensors)


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_sums_are_those_of_the_same_models_to_the_bit(weighting) -> None:
    ours = side(federation())
    first = initial_of(ours)
    models = (first, {name: tensor + 0.1 for name, tensor in first.items()})
    personal = (HEAD, frozenset(), frozenset(), HEAD, frozenset())
    request = ask(ours, Train(ALL, None, None), 1, personal, models)
    rows = engines(ours, 2)[1].handle(request).rows
    summed = dataclasses.replace(request, task=Train(ALL, None, weighting))
    reply = engines(ours, 2)[1].handle(summed)
    expected = [Summing(), Summing()]
    for i in summing_order([row.num_examples for row in rows]):
        weight = rows[i].num_examples if weighting == "samples" else 1
        expected[request.rows[i].model].add(rows[i].tensors, weight)
    for one, other in zip(expected, reply.sums, strict=True):
        assert_close(one.result().tensors, other.tensors, rtol=0, atol=0)
        assert one.result().weights == other.weights
    assert all(not row.tensors for row in reply.rows)


def test_models_are_added_up_in_the_order_that_all_engines_have(monkeypatch) -> None:
    ours, weights = side(federation()), []
    monkeypatch.setattr(Summing, "add", lambda self, model, weight: weights.append(weight))
    engines(ours, 2)[1].handle(ask(ours, Train(ALL, None, "samples")))
    assert weights == sorted(SIZES, reverse=True)


def test_too_little_memory_is_an_error_that_says_what_to_set(monkeypatch) -> None:
    def full(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    ours = side(federation())
    _, stacked = engines(ours, 3)
    monkeypatch.setattr(Step, "__call__", full)
    with pytest.raises(EngineError, match=r"no memory for 3 clients .* set engine.chunk to fewer"):
        stacked.handle(ask(ours, Train(ALL, None, None)))


def test_bfloat16_is_close_to_the_reference_in_bfloat16() -> None:
    data = federation((1, 8, 8), sizes=(9, 18, 2))
    exact, half = (
        engines(side(data, LeNet(0.0, "none", 2), keeps=(), precision=name))
        for name in ("fp32", "bf16")
    )
    request = ask(
        side(data, LeNet(0.0, "none", 2), keeps=()), Train((Phase("all", 3, 0.0),), None, None)
    )
    replies = [engine.handle(request).rows[1].tensors for engine in (exact[1], *half)]
    for name, tensor in replies[0].items():
        assert tensor.dtype == replies[2][name].dtype == torch.float32
        torch.testing.assert_close(replies[1][name], replies[2][name], rtol=0, atol=2e-3)
    assert any(not torch.equal(tensor, replies[2][name]) for name, tensor in replies[0].items())


class Filter:
    """A model of a single convolution."""

    def build(self, input_shape, num_classes) -> nn.Sequential:
        conv = nn.Conv2d(input_shape[0], num_classes, input_shape[1])
        return nn.Sequential(OrderedDict(conv=conv, flatten=nn.Flatten()))


def test_bfloat16_reaches_convolutions() -> None:
    data = federation((1, 8, 8), sizes=(9, 2))
    tensors = []
    for precision in ("fp32", "bf16"):
        ours = side(data, Filter(), keeps=(), precision=precision)
        reply = engines(ours)[1].handle(ask(ours, Train(ALL, None, None)))
        tensors.append(reply.rows[0].tensors["conv.weight"])
    assert not torch.equal(*tensors)
    torch.testing.assert_close(*tensors, rtol=0, atol=1e-3)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="chunk: must be null or at least 1, got 0"):
        Stacked(0, True, 1)
    with pytest.raises(ValueError, match="threads: must be at least 1, got 0"):
        Stacked(None, True, 0)


def test_places_are_worked_out_a_piece_at_a_time(monkeypatch) -> None:
    monkeypatch.setattr("fedtsd.clients.stacked_batches.AHEAD", 2)
    assert_trains_alike(side(federation(), training=settings(batch_size=2, momentum=0.9)))
