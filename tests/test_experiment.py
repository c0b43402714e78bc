"""The invariants of the whole: what must hold whatever the policies are."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from fedtsd.catalogue import options
from fedtsd.execution import build
from fedtsd.loading import load_federation
from fedtsd.run_folder import TABLES, RunFolder
from tests.needs import fit, small
from tests.runs import TIME_COLUMNS, StopAfter, StoppedError, run_toy, table

METHODS = sorted(options("method"))
SMALL = ("partition.num_clients=4", "model.hidden=[8]", "similarity.public_batch=20")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns(method: str, config, toy, tmp_path) -> None:
    cfg = config(*small(method, 4), "rounds=3", "training.lr=0.02")
    run_toy(cfg, fit(toy(4), method), tmp_path)
    rounds = table(tmp_path, "rounds")
    assert rounds["accuracy_mean"].iloc[-1] > 0.9
    assert rounds["round"].tolist() == [1, 2, 3]


def test_one_cluster_and_no_personal_layers_is_fedavg_to_the_bit(config, tmp_path) -> None:
    """IID digits: FedTSDP finds nothing to split and keeps nothing private."""
    common = ("severity=iid", "rounds=6", "partition.num_clients=10")
    for method in ("fedavg", "fedtsdp"):
        cfg = config(f"method={method}", *common)
        run_toy(cfg, load_federation(cfg), tmp_path / method)
    fedavg, fedtsdp = (table(tmp_path / m, "clients") for m in ("fedavg", "fedtsdp"))
    pd.testing.assert_frame_equal(fedavg, fedtsdp, check_exact=True)
    assert table(tmp_path / "fedtsdp", "rounds")["hopkins"].notna().any()  # it did test


def test_fedavg_is_the_mean_by_hand(config, toy, tmp_path) -> None:
    cfg = config("method=fedavg", "rounds=1", *SMALL)
    federation = toy(4)
    experiment = build(cfg, federation)
    request = experiment.train_request(experiment.start.server, 1)
    each = dataclasses.replace(request, task=dataclasses.replace(request.task, sums=None))
    reply = experiment.channel.exchange(each)
    sizes = [len(c.train) for c in federation.clients]
    new = cfg.aggregation.update(experiment.start.server, reply, experiment.layers).centres[0]
    summed = experiment.channel.exchange(request)
    experiment.engine.close()
    for name, tensor in (
        cfg.aggregation.update(experiment.start.server, summed, experiment.layers)
        .centres[0]
        .items()
    ):
        assert torch.equal(tensor, new[name])
    for name, tensor in new.items():
        stacked = torch.stack([row.tensors[name] for row in reply.rows])
        mean = np.average(stacked.numpy(), axis=0, weights=sizes)
        assert tensor.numpy() == pytest.approx(mean, abs=1e-6)


def test_bytes_are_those_of_shared_layers_and_outputs(config, toy, tmp_path) -> None:
    # fc1: 2 x 8 + 8 = 24, fc2: 8 x 2 + 2 = 18 parameters; 4 clients, 20 public samples, 2 classes.
    expected = {
        "fedavg": (4 * 4 * 42, 4 * 4 * 42),
        "fedper": (4 * 4 * 24, 4 * 4 * 24),
        "lg_fedavg": (4 * 4 * 18, 4 * 4 * 18),
        "local": (0, 0),
        "fedtsdp": (4 * (4 * 42 + 4 * 20 * 2), 4 * (4 * 42 + 4 * 20)),
    }
    for method, (up, down) in expected.items():
        cfg = config(f"method={method}", "rounds=1", *SMALL)
        run_toy(cfg, toy(4), tmp_path / method)
        row = table(tmp_path / method, "rounds").iloc[0]
        assert (row["bytes_up"], row["bytes_down"]) == (up, down), method
    body = expected["fedper"][0] + expected["lg_fedavg"][0]
    assert body == expected["fedavg"][0]


def test_planted_groups_are_found(config, toy, tmp_path) -> None:
    """Ten clients, half of which call class a what the others call b."""
    cfg = config(
        "method=fedtsdp", "rounds=8", "partition.num_clients=10", "model.hidden=[8]",
        "similarity.public_batch=40", "training.lr=0.02",
    )  # fmt: skip
    run_toy(cfg, toy(10, flipped=(1, 3, 4, 7, 8)), tmp_path)
    final = table(tmp_path, "assignments").query("round == 8").set_index("client")["cluster"]
    groups = [sorted(final.index[final == k]) for k in sorted(final.unique())]
    assert groups == [[0, 2, 5, 6, 9], [1, 3, 4, 7, 8]]
    assert table(tmp_path, "rounds")["accuracy_mean"].iloc[-1] > 0.9


def test_cohorts_are_drawn_anew_each_round_and_clusters_are_by_client_id(config, toy) -> None:
    cfg = config("method=fedtsdp", "cohort.size=2", *SMALL)
    experiment = build(cfg, toy(4))
    cohorts = [experiment.train_request(experiment.start.server, r).clients for r in range(1, 12)]
    assert all(len(set(c)) == 2 and list(c) == sorted(c) for c in cohorts)
    assert set().union(*cohorts) == {0, 1, 2, 3}
    assert len(set(cohorts)) > 2


def test_partial_participation_runs(config, toy, tmp_path) -> None:
    cfg = config("method=fedtsdp", "cohort.size=2", "rounds=6", *SMALL)
    run_toy(cfg, toy(4), tmp_path)
    assert len(table(tmp_path, "rounds")) == 6


def test_resuming_changes_no_bit(config, toy, tmp_path) -> None:
    cfg = config(
        "method=fedtsdp", "rounds=8", "checkpoint_every=3", "partition.num_clients=10",
        "model.hidden=[8]", "similarity.public_batch=40", "training.lr=0.02",
    )  # fmt: skip
    federation = toy(10, flipped=(0, 1, 2, 3, 4))
    run_toy(cfg, federation, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run_toy(cfg, federation, tmp_path / "parts", StopAfter(5))  # two rounds past a checkpoint
    run_toy(cfg, federation, tmp_path / "parts")
    for name in TABLES:
        parts = [table(tmp_path / w, name) for w in ("whole", "parts")]
        kept = [p.drop(columns=TIME_COLUMNS, errors="ignore") for p in parts]
        pd.testing.assert_frame_equal(*kept, check_exact=True)
    ends = [RunFolder(tmp_path / w).load_checkpoint() for w in ("whole", "parts")]
    assert bits(ends[0]) == bits(ends[1])


def test_evaluation_can_be_rare(config, toy, tmp_path) -> None:
    cfg = config("method=fedavg", "rounds=5", "eval_every=2", *SMALL)
    run_toy(cfg, toy(4), tmp_path)
    rounds = table(tmp_path, "rounds")
    assert rounds["accuracy_mean"].notna().tolist() == [False, True, False, True, True]
    assert sorted(table(tmp_path, "clients")["round"].unique()) == [2, 4, 5]


def test_how_often_is_evaluated_does_not_change_training(config, toy, tmp_path) -> None:
    for every in (1, 3):
        cfg = config("method=fedavg_ft", "rounds=3", f"eval_every={every}", *SMALL)
        run_toy(cfg, toy(4), tmp_path / str(every))
    last = [table(tmp_path / e, "clients").query("round == 3") for e in ("1", "3")]
    pd.testing.assert_frame_equal(*(part.reset_index(drop=True) for part in last), check_exact=True)


def test_the_summary_follows_its_rule(config, toy, tmp_path) -> None:
    import json

    stages = "evaluation.stages=[personalized,tuned]"
    cfg = config("method=fedper", "rounds=4", stages, *SMALL)
    run_toy(cfg, toy(4), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    clients = table(tmp_path, "clients").query("stage == 'tuned'")
    test = clients[(clients["split"] == "test") & (clients["round"] == 4)]
    assert summary["last"]["accuracy_mean"] == pytest.approx(test["accuracy"].mean())
    best = summary["best_by_validation"]["round"]
    by_round = clients[clients["split"] == "val"].groupby("round")["accuracy"].mean()
    assert by_round[best] == by_round.max()
    assert summary["last"]["accuracy_validation"] == pytest.approx(by_round[4])
    assert summary["best_by_validation"]["accuracy_validation"] == pytest.approx(by_round[best])
    assert summary["personal_layers"] == [1, 1, 1, 1]
    assert summary["clusters"] == [[0, 1, 2, 3]]
    assert summary["bytes_up"] == table(tmp_path, "rounds")["bytes_up"].sum()


def test_gain_over_local_training(config, toy, tmp_path) -> None:
    import json

    alone = config("method=local", "rounds=3", *SMALL)
    run_toy(alone, toy(4), tmp_path / "local")
    cfg = config("method=fedavg", "rounds=3", *SMALL)
    evaluation = dataclasses.replace(cfg.evaluation, local_run=str(tmp_path / "local"))
    run_toy(dataclasses.replace(cfg, evaluation=evaluation), toy(4), tmp_path / "fedavg")
    found = [json.loads((tmp_path / w / "summary.json").read_text()) for w in ("fedavg", "local")]
    fed, loc = (s["accuracy_per_client"] for s in found)
    gain = found[0]["gain_over_local"]
    assert gain["per_client"] == {c: pytest.approx(fed[c] - loc[c]) for c in fed}
    assert gain["clients_that_lose"] == [int(c) for c in fed if fed[c] < loc[c]]


def test_divergence_is_an_error_that_names_the_client(config, toy, tmp_path) -> None:
    from fedtsd.errors import ProtocolError

    cfg = config("method=fedavg", "training.lr=1e30", "rounds=3", *SMALL)
    with pytest.raises(ProtocolError, match=r"round \d, client \d: .* try a smaller training.lr"):
        run_toy(cfg, toy(4), tmp_path)


def bits(state) -> bytes:
    buffer = io.BytesIO()
    torch.save(_plain(state), buffer)
    return buffer.getvalue()


def _plain(value):
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    return value.tobytes() if isinstance(value, np.ndarray) else value


def test_no_server_side_module_reaches_the_clients() -> None:
    """The import direction that keeps the one door: only execution.py may build engines."""
    import ast

    import fedtsd

    root = Path(fedtsd.__file__).parent
    server_side = [
        *root.glob("clustering/*.py"),
        *(root / f"{n}.py" for n in ("server", "messages", "similarity", "aggregation")),
        *(
            root / f"{n}.py"
            for n in ("personalization", "server_optimizer", "tree", "channel", "coding")
        ),
        *(root / f"{n}.py" for n in ("robust", "minimum", "refusal", "traffic", "privacy")),
        *root.glob("aggregation_*.py"),
    ]
    for path in server_side:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            assert not any(n.startswith(("fedtsd.clients", "fedtsd.data")) for n in names), path


@pytest.mark.parametrize("method", METHODS)
def test_every_method_resumes_over_several_checkpoints(method: str, config, toy, tmp_path) -> None:
    cfg, federation = (
        config(*small(method, 4), "rounds=4", "checkpoint_every=1"),
        fit(toy(4), method),
    )
    run_toy(cfg, federation, tmp_path / "whole")
    with pytest.raises(StoppedError):
        run_toy(cfg, federation, tmp_path / "parts", StopAfter(1))
    run_toy(cfg, federation, tmp_path / "parts")
    ends = [RunFolder(tmp_path / w).load_checkpoint() for w in ("whole", "parts")]
    assert bits(ends[0]) == bits(ends[1])


def test_a_sample_of_clients_can_be_evaluated(config, toy, tmp_path) -> None:
    for clients in ("null", "2"):
        cfg = config("method=fedper", "rounds=3", f"evaluation.clients={clients}", *SMALL)
        run_toy(cfg, toy(4), tmp_path / clients)
    everybody, some = (table(tmp_path / name, "clients") for name in ("null", "2"))
    chosen = sorted(some["client"].unique())
    assert len(chosen) == 2
    # The same ones in every round, and they do as they would have done among all.
    same = everybody[everybody["client"].isin(chosen)].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, same, check_exact=True)


def test_models_are_summed_on_their_way_where_no_policy_reads_them(config, toy) -> None:
    for method, sums in (("fedavg", "samples"), ("fedper", "samples"), ("fedtsdp", None)):
        experiment = build(config(f"method={method}", *SMALL), toy(4))
        request = experiment.train_request(experiment.start.server, 1)
        experiment.engine.close()
        assert request.task.sums == sums
