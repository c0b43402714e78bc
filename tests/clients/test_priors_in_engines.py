"""Priors and heads are the client's own, whichever engine lets it work."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from fedtsd.clients.head import fit_head
from fedtsd.clients.log_prior import log_prior
from fedtsd.clients.parallel import Parallel
from fedtsd.clients.sequential import Sequential
from fedtsd.execution import build
from fedtsd.messages import Evaluate, Probe, Train
from fedtsd.models import Mlp, ResNet8, initialise
from fedtsd.modules import LogPrior
from fedtsd.run_folder import RunFolder
from fedtsd.seeding import torch_rng
from fedtsd.training import Head, Phase
from tests.clients.stacks import (
    ALL,
    CLOSE,
    HEAD,
    ask,
    assert_close,
    engines,
    federation,
    initial_of,
    settings,
    side,
)
from tests.runs import run_toy, table, tables_of
from tests.skewed import skewed_federation

SOME = (True, False, True, True, False)
STAGES = ("personalized", "tuned", "headed", "ensembled")
ANYBODY = Head(0.1, 0.0, None)
FAST = (
    "model.hidden=[8]", "similarity.public_batch=20", "partition.num_clients=6", "rounds=3",
    "training.lr=0.02", "checkpoint_every=3", "eval_every=3",
    f"evaluation.stages=[{','.join(STAGES)}]",
)  # fmt: skip
METHODS = {
    "fedavg_prior": (),
    "fedtsdp_prior": (
        "prior.start_round=2", "prior.noise_floor=0.0", "prior.above=0.009",
        "personalization.start_round=2", "personalization.noise_floor=0.0",
        "personalization.power=0.3",
    ),
}  # fmt: skip
"""With overrides by which priors and personal layers are chosen within the few rounds."""


class WithPrior:
    """A model with a place for the log prior, as `experiment.build` makes it."""

    def __init__(self, spec) -> None:
        self._spec = spec

    def build(self, input_shape, num_classes) -> nn.Sequential:
        model = self._spec.build(input_shape, num_classes)
        model.add_module("prior", LogPrior(num_classes))
        return model


def with_prior(data=None, spec=None, training=None, **changes):
    return side(data or federation(), WithPrior(spec or Mlp((6,), 0.0)), training, **changes)


def ask_some(*args, priors=SOME, **kwargs):
    """Ask clients, some of whom have a prior."""
    request = ask(*args, **kwargs)
    rows = tuple(dataclasses.replace(row, prior=priors[row.client]) for row in request.rows)
    return dataclasses.replace(request, rows=rows)


@pytest.mark.parametrize("method", METHODS)
def test_whole_runs_agree_and_processes_change_no_bit(method, config, tmp_path) -> None:
    data = skewed_federation(6)
    common = (f"method={method}", *FAST, *METHODS[method])
    runs = {"sequential": ("engine=sequential",), "stacked": ("engine=stacked",)}
    runs |= {str(n): ("engine=parallel", f"engine.workers={n}") for n in (1, 2, 3)}
    for name, overrides in runs.items():
        run_toy(config(*common, *overrides), data, tmp_path / name)
    one, reference = tables_of(tmp_path / "1"), tables_of(tmp_path / "sequential")
    for workers in ("2", "3"):
        for name, found in tables_of(tmp_path / workers).items():
            pd.testing.assert_frame_equal(found, one[name], check_exact=True)
    for engine in ("1", "stacked"):
        for name, found in tables_of(tmp_path / engine).items():
            pd.testing.assert_frame_equal(found, reference[name], rtol=1e-3, atol=1e-5)
    state = RunFolder(tmp_path / "sequential").load_checkpoint()["server"]
    assert state["prior"].any()
    if method == "fedtsdp_prior":
        assert state["personal"].any()  # priors and personal layers together
        assert not state["prior"].all()


CASES = {
    "plain": {},
    "momentum and clipping": {"training": settings(momentum=0.9, max_grad_norm=0.2)},
    "dropout": {"spec": Mlp((6,), 0.4)},
    "batch norm": {
        "data": federation((1, 8, 8), sizes=(9, 18, 2)), "spec": ResNet8(4, 2, "batch"),
        "keeps": ("fc.weight", "fc.bias"),
    },
    "bfloat16": {"precision": "bf16"},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunk", [2, None])
def test_side_by_side_the_same_is_trained(case, chunk) -> None:
    ours = with_prior(**CASES[case])
    reference, stacked = engines(ours, chunk)
    public = torch.tensor([4, 1], dtype=torch.int32)
    keeps = frozenset(ours.keeps)
    personal = [frozenset(), keeps, keeps, frozenset(), keeps]
    request = ask_some(ours, Train(ALL, public, None), personal=personal)
    close = {"rtol": 1e-2, "atol": 1e-2} if case == "bfloat16" else {"rtol": 1e-4, "atol": 1e-5}
    expected, found = reference.handle(request), stacked.handle(request)
    assert stacked._reference is None  # nobody worked one by one
    for mine, yours in zip(found.rows, expected.rows, strict=True):
        assert_close(mine.tensors, yours.tensors, **close)
        torch.testing.assert_close(mine.outputs, yours.outputs, **close)
    assert_close(stacked.state_dict(), reference.state_dict(), **close)
    fresh = engines(ours)[0]
    without = fresh.handle(ask(ours, Train(ALL, public, None), personal=personal))
    for row, plain, asked in zip(expected.rows, without.rows, request.rows, strict=True):
        assert torch.equal(row.outputs, plain.outputs) != asked.prior


@pytest.mark.parametrize("chunk", [2, None])
def test_side_by_side_the_same_is_evaluated_and_probed(chunk) -> None:
    """With two models, and with and without personal layers."""
    ours = with_prior()
    reference, stacked = engines(ours, chunk)
    first = initial_of(ours)
    models = (first, {name: tensor + 0.1 for name, tensor in first.items()})
    personal = (HEAD, frozenset(), HEAD, frozenset(), frozenset())
    for engine in (reference, stacked):
        engine.handle(ask_some(ours, Train(ALL, None, None), personal=personal, models=models))
    for priors in (SOME, SOME[::-1], (False,) * 5):  # nothing is left of the request before
        for task in (
            Evaluate(("personalized", "tuned"), Phase("all", 2, 0.1)),
            Evaluate(("personalized",), ALL[0]),
            Probe(look=True),
        ):
            request = ask_some(ours, task, 2, personal, models, priors=priors)
            expected, found = reference.handle(request), stacked.handle(request)
            for mine, yours in zip(found.rows, expected.rows, strict=True):
                assert mine.losses == pytest.approx(yours.losses, rel=1e-5)
                scores = ([e.scores for e in row.evaluations] for row in (mine, yours))
                for one, other in zip(*scores, strict=True):
                    assert one == pytest.approx(other, rel=1e-4)
    assert stacked._reference is None


@pytest.mark.parametrize("kind", ["sequential", "parallel", "stacked"])
def test_outputs_and_losses_are_of_adjusted_logits(kind) -> None:
    """What is told and probed, computed here from the tensors that the client has sent."""
    ours = with_prior()
    engine = engine_of(kind, ours)
    public = torch.arange(7, dtype=torch.int32)
    trained = engine.handle(ask_some(ours, Train(ALL, public, None)))
    probed = engine.handle(ask_some(ours, Probe(look=True)))
    engine.close()
    for client, has_prior in enumerate(SOME):
        train = ours.federation.clients[client].train
        counts = np.bincount(train.labels, minlength=3) + 0.5
        offset = torch.tensor(np.log(3 * counts / counts.sum()) * has_prior)
        sent = trained.rows[client].tensors
        expected = torch.softmax(logits(sent, ours.federation.public) + offset, dim=1)
        torch.testing.assert_close(trained.rows[client].outputs.double(), expected, **CLOSE)
        before = logits(initial_of(ours), train.inputs) + offset
        loss = nn.functional.cross_entropy(before, train.labels).item()
        assert probed.rows[client].losses == pytest.approx([loss], rel=1e-5)


def engine_of(kind, ours):
    if kind == "parallel":
        return Parallel(1).build(ours)
    return dict(zip(("sequential", "stacked"), engines(ours), strict=True))[kind]


def logits(tensors, inputs) -> torch.Tensor:
    weights = [tensors[f"fc{i}.{kind}"].double() for i in (1, 2) for kind in ("weight", "bias")]
    hidden = (inputs.double() @ weights[0].T + weights[1]).relu()
    return hidden @ weights[2].T + weights[3]


@pytest.mark.parametrize("kind", ["sequential", "parallel", "stacked"])
def test_neither_prior_nor_head_leaves_the_client(kind) -> None:
    ours, plain = with_prior(), side(federation())
    engine = engine_of(kind, ours)
    for task in (Train(ALL, None, None), Evaluate(STAGES, ALL[0], ANYBODY), Probe(look=True)):
        reply = engine.handle(ask_some(ours, task))
        for row in reply.rows:
            trained = isinstance(task, Train)
            shapes = {n: t.shape for n, t in initial_of(plain).items()} if trained else {}
            assert {name: tensor.shape for name, tensor in row.tensors.items()} == shapes
            assert row.outputs is None
            assert row.subspace is None
    summed = engine.handle(ask_some(ours, Train(ALL, None, "samples")))
    assert summed.sums[0].tensors.keys() == initial_of(plain).keys()
    assert engine.state_dict().keys() == {"client", *HEAD}
    engine.close()


def test_the_same_bytes_cross_with_and_without_priors(config, tmp_path) -> None:
    for prior in ("none", "everybody"):
        cfg = config("method=fedavg", f"prior={prior}", "engine=sequential", *FAST)
        run_toy(cfg, skewed_federation(6), tmp_path / prior)
    found = [table(tmp_path / p, "exchanged") for p in ("none", "everybody")]
    pd.testing.assert_frame_equal(*found)
    losses = [table(tmp_path / p, "clients")["loss"] for p in ("none", "everybody")]
    assert not np.allclose(*losses)


def test_questions_before_training_know_who_has_a_prior(config) -> None:
    cfg = config("method=fedavg", "prior=everybody", "model.hidden=[4]", "engine=sequential")
    experiment = build(cfg, skewed_federation(3))
    request = experiment.train_request(experiment.start.server, 1)
    assert [row.prior for row in request.rows] == [True] * 3


def test_stages_by_hand() -> None:
    """Each stage from its own parts: the network, one epoch of SGD, a head for either."""
    ours = with_prior()
    engine = Sequential(1).build(ours)
    task = Evaluate(STAGES, Phase("all", 1, 0.0), ANYBODY)
    reply = engine.handle(ask_some(ours, task))
    for client, has_prior in enumerate(SOME):
        data = ours.federation.clients[client]
        model = WithPrior(Mlp((6,), 0.0)).build((5,), 3)
        initialise(model, torch_rng(0, "model"))
        if has_prior:
            model.prior.offset.copy_(log_prior(data.train.labels, 3))
        shares = {"personalized": served(model, data.test), "headed": headed(model, data)}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        order = torch.randperm(len(data.train), generator=torch_rng(0, "tune", 1, client))
        for batch in torch.split(order, 8):
            optimizer.zero_grad()
            outputs = model.train()(data.train.inputs[batch])
            nn.functional.cross_entropy(outputs, data.train.labels[batch]).backward()
            optimizer.step()
        shares["tuned"] = served(model, data.test)
        shares["ensembled"] = (shares["headed"] + headed(model, data)) / 2
        losses = {e.stage: e.scores["loss"] for e in reply.rows[client].evaluations
                  if e.split == "test"}  # fmt: skip
        truth = data.test.labels[:, None]
        for stage, share in shares.items():
            expected = -share.gather(1, truth).log().mean().item()
            assert losses[stage] == pytest.approx(expected, rel=1e-4), stage


def served(model, split) -> torch.Tensor:
    with torch.no_grad():
        return torch.softmax(model.eval()(split.inputs), dim=1)


def headed(model, data) -> torch.Tensor:
    """Probabilities with a head that is fitted to features taken here."""
    head = fit_head(model, data.train, ANYBODY)
    with torch.no_grad():
        features = model.eval()[:3](data.test.inputs)
        plain = model(data.test.inputs)
        return torch.softmax(plain if head is None else head.correct(features, plain), dim=1)


def test_a_head_that_nobody_described_is_an_error() -> None:
    ours = with_prior()
    with pytest.raises(ValueError, match="without saying how to fit it"):
        Sequential(1).build(ours).handle(ask(ours, Evaluate(("headed",), ALL[0])))
