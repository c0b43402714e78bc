import os
import signal

import pandas as pd
import pytest

from fedtsd.catalogue import options
from fedtsd.errors import ConfigError, EngineError
from fedtsd.execution import build
from fedtsd.messages import ClientRequest, Evaluate, Request
from fedtsd.run_folder import TABLES
from fedtsd.training import Phase
from tests.needs import fit, painted, small
from tests.runs import run_toy, run_twice, table, tables_of

METHODS = sorted(options("method"))
SMALL = ("partition.num_clients=6", "model.hidden=[8]", "similarity.public_batch=20")
FAST = ("engine=parallel", "training.lr=0.02", "rounds=3", *SMALL)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_agrees_with_the_reference(method: str, config, toy, tmp_path) -> None:
    federation = fit(toy(6, flipped=(0, 2, 3)), method)
    for engine in ("sequential", "parallel"):
        cfg = config(f"engine={engine}", "training.lr=0.02", "rounds=3", *small(method, 6))
        run_toy(cfg, federation, tmp_path / engine)
    found, expected = tables_of(tmp_path / "parallel"), tables_of(tmp_path / "sequential")
    for name in TABLES:
        pd.testing.assert_frame_equal(found[name], expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [("model.hidden=[8]", "model.dropout=0.5"), ("model=lenet", "model.norm=batch")],
    ids=["dropout", "batch norm"],
)
def test_after_an_evaluation_training_is_training_again(model, config, toy, tmp_path) -> None:
    # Dropout and BatchNorm do otherwise while they are evaluated: they must not stay so.
    federation = painted(toy(4)) if "model=lenet" in model else toy(4)
    losses = []
    for engine in ("sequential", "parallel"):
        cfg = config(
            "method=fedavg", f"engine={engine}", "rounds=3", "partition.num_clients=4", *model
        )
        run_toy(cfg, federation, tmp_path / engine)
        losses.append(table(tmp_path / engine, "clients")["loss"].tolist())
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("method", ["fedavg", "fedper", "fedtsdp"])
def test_the_number_of_processes_changes_no_bit(method: str, config, toy, tmp_path) -> None:
    federation = toy(6, flipped=(0, 2, 3))
    for workers in (1, 2, 3):
        cfg = config(*FAST, f"method={method}", f"engine.workers={workers}")
        run_toy(cfg, federation, tmp_path / str(workers))
    one = tables_of(tmp_path / "1")
    for workers in ("2", "3"):
        for name, found in tables_of(tmp_path / workers).items():
            pd.testing.assert_frame_equal(found, one[name], check_exact=True)


def test_resuming_changes_no_bit(config, toy, tmp_path) -> None:
    cfg = config(*FAST, "method=fedper", "rounds=6", "checkpoint_every=2", "engine.workers=2")
    federation = toy(6)
    whole, parts = run_twice(cfg, federation, tmp_path, stop=3)
    found = tables_of(parts)
    for name, expected in tables_of(whole).items():
        pd.testing.assert_frame_equal(found[name], expected, check_exact=True)


def asked(experiment, models, clients) -> Request:
    rows = tuple(ClientRequest(c, c % len(models), frozenset()) for c in clients)
    look = Evaluate(("personalized",), Phase("all", 0, 0.0))
    return Request(1, look, models, rows)


def test_more_clusters_than_before_fit(config, toy) -> None:
    experiment = build(config(*FAST, "engine.workers=2"), toy(6))
    (initial,) = experiment.start.server.centres
    models = tuple({n: t + 0.01 * k for n, t in initial.items()} for k in range(40))
    engine = experiment.engine
    few = engine.handle(asked(experiment, models[:6], range(6))).rows
    many = engine.handle(asked(experiment, models, range(6))).rows
    engine.close()
    assert [row.evaluations for row in few] == [row.evaluations for row in many]
    assert len({row.evaluations[0].scores["loss"] for row in few}) == 6


def test_a_process_that_dies_is_an_error_that_names_the_client(config, toy) -> None:
    experiment = build(config(*FAST, "method=fedavg", "engine.workers=2"), toy(6))
    server = experiment.start.server
    experiment.channel.exchange(experiment.train_request(server, 1))
    for process in experiment.engine._crew._pool._processes:
        os.kill(process.pid, signal.SIGKILL)
    request = experiment.train_request(server, 2)
    with pytest.raises(EngineError, match=r"round 2, client \d: the process.*SIGKILL"):
        experiment.channel.exchange(request)
    experiment.engine.close()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine.workers=0", "engine.workers: must be null or at least 1, got 0"),
        (
            "device=cuda",
            "engine._target_: parallel runs on the CPU, not on cuda; "
            "take engine=stacked or device=cpu",
        ),
    ],
)
def test_wrong_settings_are_one_line(override: str, message: str, config) -> None:
    with pytest.raises(ConfigError) as caught:
        config("engine=parallel", override)
    assert str(caught.value) == message
