"""What a run writes into its folder: rows of the tables, and what is known once.

Shapes: N clients.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedtsd import metrics
from fedtsd.clustering.similarity import label_divergence
from fedtsd.coding import coding_rows
from fedtsd.config import Config
from fedtsd.data.dataset import Dataset
from fedtsd.data.federation import SPLITS, Federation
from fedtsd.data.table.dataset import Table, schema_of
from fedtsd.data.table.schema import schema_rows
from fedtsd.disk import write_atomically
from fedtsd.messages import INCIDENTS, Reply, Request
from fedtsd.models import Layer
from fedtsd.run_folder import RunFolder
from fedtsd.score import score_in
from fedtsd.server import ServerState, Tensors
from fedtsd.similarity import OUTPUTS, OUTPUTS_AFTER, OUTPUTS_BEFORE, UPDATES, pairs_of
from fedtsd.traffic import SENT_SUMS, Traffic

MOST_PAIRED = 2000
"""Clients up to which the divergence of each pair of label laws is kept: 32 MB of numbers."""


@dataclass(frozen=True)
class Evaluated:
    """What clients answered to an evaluation.

    newcomers: the answer of those that are reported apart; None without any. placed: the server's
    state with everybody in the cluster whose model was evaluated, absent newcomers as if they
    joined now.
    """

    reply: Reply
    newcomers: Reply | None
    placed: ServerState


def write_round(
    folder: RunFolder,
    config: Config,
    round: int,
    server: ServerState,
    evaluation: Evaluated | None,
    traffic: Traffic,
    seconds: float,
    epsilon: float | None,
) -> dict[str, Any]:
    """Append one round to the tables; return its row of rounds.csv.

    epsilon: what the run has spent so far; None if nothing in it is private.
    """
    row: dict[str, Any] = {"round": round}
    if evaluation is not None:
        rows = list(client_rows(round, evaluation.placed, evaluation.reply))
        folder.append("clients", rows)
        row |= _summary_of(rows, config.evaluation.stages[-1])
        if evaluation.newcomers is not None:
            rows = list(client_rows(round, evaluation.placed, evaluation.newcomers))
            folder.append("newcomers", rows)
    # Of several tests in one round, the table shows the most significant.
    decision = min(server.decisions, key=lambda d: (d.hopkins_p, -d.hopkins), default=None)
    row |= {
        "num_clusters": len(np.unique(server.assignment[server.present])),  # with members
        "personal_layers_mean": float(server.personal[server.present].sum(axis=1).mean()),
        "hopkins": decision.hopkins if decision else None,
        "hopkins_p": decision.hopkins_p if decision else None,
        "bytes_up": traffic.bytes_up,
        "bytes_down": traffic.bytes_down,
        "samples": traffic.samples,
        "seconds": seconds,
        "epsilon": epsilon,
    }
    folder.append(
        "clustering", [{"round": round, **dataclasses.asdict(d)} for d in server.decisions]
    )
    folder.append("assignments", assignment_rows(round, server))
    folder.append("codings", coding_rows(round, server))
    for table, parts in (("traffic", traffic.clients), ("exchanged", traffic.items)):
        folder.append(table, [{"round": round, **vars(part)} for part in parts])
    folder.append("rounds", [row])
    return row


def write_replies(folder: RunFolder, request: Request, reply: Reply, enough: bool) -> None:
    """Append to the tables how many were asked, what came of it, and what was not aggregated.

    enough: whether the round was used, or abandoned.
    """
    counts = Counter(incident.outcome for incident in reply.incidents)
    row = {
        "round": request.round,
        "asked": len(request.rows),
        "taken": len(reply.rows),
        **{outcome: counts[outcome] for outcome in INCIDENTS},
        "abandoned": not enough,
        "simulated_seconds": reply.simulated_seconds,
    }
    incidents = [{"round": request.round, **vars(incident)} for incident in reply.incidents]
    withheld = [{"round": request.round, **vars(one)} for one in reply.withheld]
    folder.append("replies", [row])
    folder.append("incidents", incidents)
    folder.append("withheld", withheld)


def _summary_of(rows: list[dict[str, Any]], served: str) -> dict[str, float]:
    """Return mean, spread and worst tenth over clients of the served model on test data."""
    test = [row for row in rows if row["stage"] == served and row["split"] == "test"]
    score = score_in(test[0])
    spread = metrics.spread([row[score.name] for row in test], score)
    loss = float(np.mean([row["loss"] for row in test]))
    return {**spread.named(score), "loss_mean": loss}


def client_rows(round: int, server: ServerState, reply: Reply) -> Iterator[dict[str, Any]]:
    """One row of clients.csv per client, stage and split."""
    layers = server.personal.sum(axis=1)
    for answer in reply.rows:
        for evaluation in answer.evaluations:
            yield {
                "round": round,
                "client": answer.client,
                "cluster": int(server.assignment[answer.client]),
                "personal_layers": int(layers[answer.client]),
                "stage": evaluation.stage,
                "split": evaluation.split,
                **evaluation.scores,
                "num_examples": evaluation.num_examples,
            }


def assignment_rows(round: int, server: ServerState) -> Iterator[dict[str, Any]]:
    """One row of assignments.csv per client that is there."""
    layers, assignment = server.personal.sum(axis=1).tolist(), server.assignment.tolist()
    for client in server.present.tolist():
        yield {
            "round": round,
            "client": client,
            "cluster": assignment[client],
            "personal_layers": layers[client],
        }


def sums_rows(federation: Federation) -> Iterator[dict[str, Any]]:
    """Rows of exchanged.csv, round 0: the sums from which everybody standardises, if any."""
    if federation.num_sums:
        clients = federation.num_clients - len(federation.newcomers)
        num_bytes = 8 * federation.num_sums * clients
        known = {"round": 0, "item": SENT_SUMS, "num_clients": clients}
        yield {"direction": "up", "num_bytes": num_bytes, **known}
        # Three sums a feature go up, a mean and a standard deviation come back.
        yield {"direction": "down", "num_bytes": num_bytes * 2 // 3, **known}


def model_rows(layers: Iterable[Layer], model: Tensors) -> Iterator[dict[str, Any]]:
    """One entry of model.json per layer, counted from the input."""
    for layer in layers:
        size = sum(model[name].numel() for name in layer.tensors)
        yield {**dataclasses.asdict(layer), "num_parameters": size}


def write_partition(folder: RunFolder, federation: Federation) -> None:
    """Write who holds which classes, and the names of classes, groups and sites.

    partition.csv is of the start, drift.csv of what drifting clients hold later.
    """
    counts = {split: federation.holder_counts(split) for split in SPLITS}
    clients = {client: client for client in range(federation.num_clients)}
    _write_counts(folder, "partition", clients, counts)
    if federation.moves:
        _write_counts(folder, "drift", federation.moves, counts)
    folder.write_json("classes", list(federation.classes))
    groups = federation.groups
    folder.write_json("groups", None if groups is None else groups.tolist())
    folder.write_json("sites", None if federation.names is None else list(federation.names))


def write_schema(folder: RunFolder, dataset: Dataset) -> None:
    """Write schema.json: how each column of a table was read. Other data sets have none."""
    if isinstance(dataset, Table):
        folder.write_json("schema", schema_rows(schema_of(dataset)))


def _write_counts(
    folder: RunFolder, name: str, holders: Mapping[int, int], counts: Mapping[str, np.ndarray]
) -> None:
    """Write a row per client, split and class; `holders` says by client whose samples it has."""
    lines = ["client,split,label,count"]
    for split, held in counts.items():
        for client, holder in holders.items():
            labels = np.flatnonzero(held[holder])
            lines += [f"{client},{split},{label},{held[holder, label]}" for label in labels]
    write_atomically(folder.path / f"{name}.csv", ("\n".join(lines) + "\n").encode())


def write_similarity(folder: RunFolder, federation: Federation, server: ServerState) -> None:
    """Write the pair matrices [N, N]: label laws (known to nobody but us) and what was measured.

    Of very many clients there is only what was measured, in pairs.npz: by name the clients of each
    pair, int32 [E, 2], and the values, float32 [E]. Matrices would be larger than all the rest.
    """
    measured = {
        "outputs": OUTPUTS,
        "outputs_before": OUTPUTS_BEFORE,
        "outputs_after": OUTPUTS_AFTER,
        "updates": UPDATES,
    }
    kept = {name: pairs_of(server, key) for name, key in measured.items() if key in server.memory}
    arrays: dict[str, np.ndarray] = {}
    if federation.num_clients > MOST_PAIRED:
        for name, pairs in kept.items():
            arrays[name] = pairs.values.astype(np.float32)
            arrays[f"{name}_clients"] = np.stack(pairs.ends, axis=1).astype(np.int32)
        if arrays:
            folder.write_arrays("pairs", **arrays)
        return
    everybody = np.arange(federation.num_clients)
    arrays = {name: pairs.block(everybody) for name, pairs in kept.items()}
    if "updates" in arrays:
        np.fill_diagonal(arrays["updates"], 1)
    arrays["labels"] = label_divergence(federation.label_counts("train"))
    folder.write_arrays("similarity", **arrays)
