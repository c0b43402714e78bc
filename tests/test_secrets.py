"""Data, labels, personal layers, heads and priors stay with their clients, in every method."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedtsd.catalogue import options
from fedtsd.clients import workplace
from fedtsd.clients.log_prior import log_prior
from fedtsd.config import Config
from fedtsd.contract import contract_of
from fedtsd.data.federation import Federation
from fedtsd.loading import load_federation
from fedtsd.messages import Engine, Reply, Request, Train
from tests.canaries import (
    COUNTS,
    HEAD,
    LABELS,
    PERSONAL,
    PRIOR,
    SAMPLE,
    Watch,
    Watched,
    WatchedSpec,
    planted,
    stream_of,
    stream_of_file,
)
from tests.needs import NORMALISED
from tests.runs import run_toy

METHODS = sorted(options("method"))
ALWAYS = {SAMPLE, LABELS, COUNTS, PRIOR}
NEEDS = {
    "fedbn": NORMALISED,
    "oracle": ("model.hidden=[8]", "partition=label_groups", "partition.num_groups=2"),
}
EVERYTHING = (
    "method=fedper", "prior=everybody", "evaluation.stages=[personalized,headed]",
    "evaluation.head.skew_above=0",
)  # fmt: skip


def settings(method: str) -> tuple[str, ...]:
    """A short run on digits, in which adaptive layers and priors are given out after round 1."""
    early = ["rounds=3", "engine=sequential", "training.epochs=1", "eval_every=1"]
    if method.startswith("fedtsdp"):
        early += ["similarity.first_round=1"]
        if method != "fedtsdp_clusters":
            early += ["personalization.start_round=2", "personalization.noise_floor=0"]
            early += ["personalization.power=0.01"]  # whoever differs at all keeps a layer
        if method in ("fedtsdp_prior", "fedtsdp_full"):
            early += ["prior.start_round=2", "prior.noise_floor=0", "prior.above=0"]
    return (f"method={method}", *early, *NEEDS.get(method, ("model.hidden=[8]",)))


def people(config: Callable[..., Config], *overrides: str) -> tuple[Config, Federation, Watch]:
    """Six clients with few classes each, and canaries among their samples and labels."""
    few = "partition.num_clients=6", "partition.samples_per_client=120"
    cfg = config(*overrides, *few)
    watch = Watch()
    return cfg, planted(load_federation(cfg), watch), watch


def watched(
    cfg: Config, federation: Federation, watch: Watch, folder: Path, patch: pytest.MonkeyPatch,
    leak: Callable[[Engine], Engine] | None = None,
) -> None:  # fmt: skip
    """Run with everything noted that crosses, and everything that is kept."""
    fit_head = workplace.fit_head

    def noted(*args):
        head = fit_head(*args)
        if head is not None:
            watch.note(HEAD, -1, head.weights)
            watch.note(HEAD, -1, head.bias)
        return head

    patch.setattr(workplace, "fit_head", noted)
    spec = WatchedSpec(cfg.engine, watch, leak)
    run_toy(dataclasses.replace(cfg, engine=spec), federation, folder)


@pytest.mark.parametrize("method", METHODS)
def test_nothing_that_must_stay_crosses(method: str, config, tmp_path, monkeypatch) -> None:
    cfg, federation, watch = people(config, *settings(method))
    watched(cfg, federation, watch, tmp_path, monkeypatch)
    assert watch.escaped() == set()
    contract, kinds = contract_of(cfg), watch.kept().kinds()
    open_ = {"scaffold", *contract.still}  # kept, but sent before, or as all know it
    keeps = {*contract.private, *contract.adaptive, *contract.kept} - open_
    layers = keeps - {"log prior of its labels", "residual head"}
    assert kinds >= ALWAYS
    assert (PERSONAL in kinds) == bool(layers), layers
    assert (HEAD in kinds) == ("residual head" in keeps)


@pytest.mark.parametrize("engine", ["parallel", "stacked"])
def test_nothing_crosses_with_other_engines(engine: str, config, tmp_path, monkeypatch) -> None:
    cfg, federation, watch = people(config, *EVERYTHING, "rounds=2", "model.hidden=[8]",
                                    f"engine={engine}")  # fmt: skip
    watched(cfg, federation, watch, tmp_path, monkeypatch)
    assert watch.escaped() == set()
    assert watch.kept().kinds() >= {*ALWAYS, PERSONAL}


class Leak:
    """An engine that hides a secret of its first client in a tensor that it may send.

    What it sends has the names, shapes and types that the channel asks for.
    """

    def __init__(self, inner: Engine, secret: Callable[["Leak", Request], Tensor]) -> None:
        self._inner, self._secret = inner, secret
        self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict
        self.close = inner.close

    def handle(self, request: Request) -> Reply:
        reply = self._inner.handle(request)
        if not isinstance(request.task, Train) or request.round < 2:
            return reply
        row = reply.rows[0]
        values = self._secret(self, request).detach().float().reshape(-1)
        name = max(row.tensors, key=lambda name: row.tensors[name].numel())
        carrier = row.tensors[name].clone()
        carrier.view(-1)[5 : 5 + len(values)] = values
        told = dataclasses.replace(row, tensors={**row.tensors, name: carrier})
        return dataclasses.replace(reply, rows=(told, *reply.rows[1:]))

    def personal(self, request: Request) -> Tensor:
        name = max(request.rows[0].personal)
        return self.state_dict()[name][0]


def leaks(federation: Federation, watch: Watch) -> dict[str, Callable[[Leak, Request], Tensor]]:
    train = federation.clients[0].train
    classes = len(federation.classes)
    return {
        SAMPLE: lambda *_: train.inputs[1],
        LABELS: lambda *_: train.labels[:30],
        COUNTS: lambda *_: torch.bincount(train.labels, minlength=classes),
        PRIOR: lambda *_: log_prior(train.labels, classes),
        PERSONAL: lambda leak, request: leak.personal(request),
        HEAD: lambda *_: torch.as_tensor(next(s for s in watch.secrets if s.kind == HEAD).values),
    }


@pytest.mark.parametrize("kind", sorted([*ALWAYS, PERSONAL, HEAD]))
def test_a_leak_of_every_kind_is_caught(kind: str, config, tmp_path, monkeypatch) -> None:
    # With the median models cross one by one; a sum would hide what is hidden in one of them.
    how = *EVERYTHING, "robust=median", "rounds=2", "model.hidden=[8]", "engine=sequential"
    cfg, federation, watch = people(config, *how)
    secret = leaks(federation, watch)[kind]
    watched(cfg, federation, watch, tmp_path, monkeypatch, lambda engine: Leak(engine, secret))
    assert {found for found, _ in watch.escaped()} == {kind}


@pytest.mark.parametrize(
    "message",
    [
        torch.tensor([[1.5, 2.5], [3.5, 4.5]]),
        torch.tensor([1.5, 2.5, 3.5, 4.5], dtype=torch.float64),
        np.array([1.5, 2.5, 3.5, 4.5]),
        torch.frombuffer(bytearray(np.float32([1.5, 2.5, 3.5, 4.5]).tobytes()), dtype=torch.uint8),
        np.float64([1.5, 2.5, 3.5, 4.5]).tobytes(),
        {"losses": (1.5, 2.5, 3.5, 4.5)},
        {"a": 1.5, "b": [2.5, {3.5: None}], "c": torch.tensor(4.5)},
        frozenset({"client says 1.5, 2.5, 3.5 and 4.5"}),
    ],
)
def test_a_secret_is_found_however_it_is_wrapped(message) -> None:
    watch = Watch()
    watch.note(SAMPLE, 3, np.array([1.5, 2.5, 3.5, 4.5]))
    watch.streams.append(stream_of(("what", 7, message)))
    assert watch.escaped() == {(SAMPLE, 3)}


def test_what_was_known_before_is_no_secret() -> None:
    values = np.array([1.5, 2.5, 3.5, 4.5, 5.5])
    watch = Watch(streams=[stream_of(values[:4])])
    watch.note(PERSONAL, 0, values)
    watch.streams.append(stream_of(values[:4]))
    assert watch.escaped() == set()
    watch.streams.append(stream_of(values[1:]))
    assert watch.escaped() == {(PERSONAL, 0)}


def test_what_cannot_be_searched_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot look into object"):
        stream_of({"a": object()})


def test_a_run_folder_holds_personal_layers_in_checkpoints_and_nothing_else(
    config, tmp_path, monkeypatch, caplog
) -> None:
    how = *EVERYTHING, "rounds=2", "model.hidden=[8]", "engine=sequential"
    cfg, federation, watch = people(config, *how)
    with caplog.at_level("DEBUG"):
        watched(cfg, federation, watch, tmp_path, monkeypatch)
    wanted = watch.kept()
    assert wanted.kinds() == {*ALWAYS, PERSONAL, HEAD}
    found = {"log": wanted.kinds_in(stream_of(caplog.text))}
    for path in sorted(path for path in tmp_path.rglob("*") if path.is_file()):
        found[str(path.relative_to(tmp_path))] = wanted.kinds_in(stream_of_file(path))
    assert len(found) > 12
    told = {name: kinds for name, kinds in found.items() if kinds}
    assert told == {f"checkpoints/round-{2:06d}.safetensors": {PERSONAL}}


def test_an_engine_is_watched_only_in_what_it_says() -> None:
    """The wrapper neither changes a reply nor asks for one."""
    reply, request = Reply(1, ()), Request(1, Train((), None, None), ({},), ())

    class Told:
        def __init__(self) -> None:
            self.asked = 0

        def handle(self, request: Request) -> Reply:
            self.asked += 1
            return reply

        def state_dict(self):
            return {"client": torch.zeros(0, dtype=torch.int64)}

        load_state_dict = close = state_dict

    inner = Told()
    assert Watched(inner, Watch()).handle(request) is reply
    assert inner.asked == 1
