"""What a method promises, held against what crossed the door in a run."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from fedtsd.catalogue import options
from fedtsd.cli import main
from fedtsd.contract import ALL_MODELS, Contract, contract_of
from fedtsd.execution import build
from fedtsd.models import Layer, layers_of
from tests.needs import fit, small
from tests.runs import run_toy, table

METHODS = sorted(options("method"))


def ran(method: str, config, toy, folder: Path) -> tuple[Contract, list[Layer], pd.DataFrame]:
    """Return what a method promises, the layers of a small run of it, and what crossed in that."""
    overrides = (*small(method, 8), "rounds=3", "engine=sequential", "training.lr=0.02")
    cfg = config(*overrides)
    run_toy(cfg, fit(toy(8, flipped=(0, 2, 4, 6)), method), folder)
    layers = [Layer(**{k: row[k] for k in ("name", "tensors")}) for row in read_layers(folder)]
    return contract_of(cfg), layers, table(folder, "exchanged")


def read_layers(folder: Path) -> list[dict]:
    return json.loads((folder / "model.json").read_text())


def tensors_in(layers: list[Layer], names: tuple[str, ...]) -> set[str]:
    return {tensor for layer in layers if layer.name in names for tensor in layer.tensors}


@pytest.mark.parametrize("method", METHODS)
def test_what_crosses_the_door_is_what_was_promised(method: str, config, toy, tmp_path) -> None:
    contract, layers, exchanged = ran(method, config, toy, tmp_path)
    promised = tensors_in(layers, (*contract.shared, *contract.adaptive))
    for direction, beside in (("up", contract.up), ("down", contract.down)):
        crossed = set(exchanged[exchanged["direction"] == direction]["item"])
        assert crossed == promised | set(beside) - {ALL_MODELS}
    assert not tensors_in(layers, contract.private) & set(exchanged["item"])


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_has_one_place(method: str, config) -> None:
    cfg = config(*small(method, 8))
    contract = contract_of(cfg)
    model = cfg.model.build(cfg.dataset.facts.shape, cfg.dataset.facts.num_outputs)
    names = [layer.name for layer in layers_of(model, cfg.personalization.separates)]
    assert sorted([*contract.shared, *contract.adaptive, *contract.private]) == sorted(names)


@pytest.mark.parametrize("method", METHODS)
def test_what_no_phase_trains_stays_as_it_was(method: str, config, toy) -> None:
    cfg = config(*small(method, 4), "engine=sequential", "training.lr=0.02")
    experiment = build(cfg, fit(toy(4), method))
    still = tensors_in(list(experiment.layers), contract_of(cfg).still)
    start = experiment.start.server
    server, holders = experiment.consult(start, experiment.cohort(start, 1), 1)
    request = experiment.train_request(server, 1, holders)
    reply = experiment.channel.exchange(request)
    trained = cfg.aggregation.update(server, reply, experiment.layers).centres
    kept = experiment.engine.state_dict()
    own = {name for row in request.rows for name in row.personal}
    moved = {
        name
        for old, new in zip(server.centres, trained, strict=True)
        for name in new
        if not torch.equal(old[name], new[name])
    }
    moved |= {n for n in own if not torch.equal(kept[n][0], server.centres[0][n])}
    model = {name for layer in experiment.layers for name in layer.tensors}
    assert not moved & still
    # A bias before batch normalisation has no gradient: the mean is taken off.
    assert {name for name in model - still if name.endswith("weight")} <= moved


@pytest.mark.parametrize("method", METHODS)
def test_the_last_stage_is_the_headline(method: str, config, toy, tmp_path) -> None:
    cfg = config(*small(method, 8), "rounds=2", "engine=sequential", "training.lr=0.02")
    run_toy(cfg, fit(toy(8), method), tmp_path)
    served = table(tmp_path, "clients").query("stage == @cfg.evaluation.stages[-1]")
    last = served.query("round == 2 and split == 'test'")["accuracy"]
    assert table(tmp_path, "rounds")["accuracy_mean"].iloc[-1] == pytest.approx(last.mean())
    assert contract_of(cfg).served == cfg.evaluation.stages[-1]


def test_a_method_is_described(capsys) -> None:
    assert main(["methods", "fedper", "personalization.layers=2"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[2:]]
    assert ["shared", "fc1"] in lines
    assert ["private", "fc2, fc3"] in lines


def test_private_training_is_told_phase_by_phase(capsys) -> None:
    pytest.importorskip("opacus")
    assert main(["methods", "fedbabu", "solver=dp_sgd"]) == 0
    told = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["trains", "shared layers by DpSgd, 2 epochs"] in told
    assert ["never", "fc3"] in told


def test_sums_for_standardisation_are_said_to_cross(capsys) -> None:
    def told(how: str) -> list[str]:
        assert main(["methods", "local", f"dataset.standardise={how}"]) == 0
        return [line for line in capsys.readouterr().out.splitlines() if "sums for" in line]

    assert [line.split()[:2] for line in told("moments")] == [["sent", "up"], ["sent", "down"]]
    assert not told("public")


def test_who_measures_the_noise_floor_says_so(capsys) -> None:
    def sent_up(*args: str) -> list[str]:
        assert main(["methods", "fedtsdp_prior", *args]) == 0
        told = capsys.readouterr().out.splitlines()
        return [line for line in told if "divergence between its halves" in line]

    for part in ("personalization", "prior"):
        (line,) = sent_up(f"{part}.noise_floor=null")
        assert line.split()[:2] == ["sent", "up"]
    assert not sent_up()


def test_who_tries_all_models_says_so(capsys) -> None:
    def told(*args: str) -> str:
        assert main(["methods", "fedtsdp", *args]) == 0
        return capsys.readouterr().out

    every, some = told("clustering.everybody_tries=true"), told()
    assert (
        "sent up    shared layers, outputs on public samples, losses of the cluster models" in every
    )
    assert "at times" not in every
    assert (
        "at times   losses of the cluster models, the models of all clusters, of a client" in some
    )
    assert "losses" not in some.replace("at times   losses", "")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fedprr"], "method 'fedprr' is unknown; did you mean fedper?"),
        (["fedper", "personalization.layers=9"], "personalization.layers: must be 0 to 2"),
    ],
)
def test_a_wrong_method_is_one_line(args: list[str], message: str, capsys) -> None:
    assert main(["methods", *args]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
