"""What a run writes into its folder: rows of the tables, and what is known once.

Shapes: N clients.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from fedtsd import metrics
from fedtsd.clustering.similarity import label_divergence
from fedtsd.config import Config
from fedtsd.data.federation import Federation
from fedtsd.messages import Reply, Traffic
from fedtsd.models import Layer
from fedtsd.run_folder import RunFolder
from fedtsd.server import ServerState, Tensors
from fedtsd.similarity import OUTPUTS, OUTPUTS_AFTER, OUTPUTS_BEFORE, UPDATES


def write_round(
    folder: RunFolder,
    config: Config,
    round: int,
    server: ServerState,
    evaluation: Reply | None,
    traffic: Traffic,
    seconds: float,
) -> dict[str, Any]:
    """Append one round to the tables; return its row of rounds.csv."""
    served = config.evaluation.stages[-1]
    rows = list(client_rows(round, server, evaluation)) if evaluation else []
    test = [row for row in rows if row["stage"] == served and row["split"] == "test"]
    row: dict[str, Any] = {"round": round}
    if test:
        spread = metrics.spread([row["accuracy"] for row in test])
        row |= {f"accuracy_{name}": value for name, value in dataclasses.asdict(spread).items()}
        row["loss_mean"] = float(np.mean([row["loss"] for row in test]))
    # Of several tests in one round, the table shows the most significant.
    decision = min(server.decisions, key=lambda d: (d.hopkins_p, -d.hopkins), default=None)
    row |= {
        "num_clusters": len(server.centres),
        "personal_layers_mean": float(server.personal.sum(axis=1).mean()),
        "hopkins": decision.hopkins if decision else None,
        "hopkins_p": decision.hopkins_p if decision else None,
        "bytes_up": traffic.bytes_up,
        "bytes_down": traffic.bytes_down,
        "samples": traffic.samples,
        "seconds": seconds,
    }
    folder.append("clients", rows)
    folder.append(
        "clustering", [{"round": round, **dataclasses.asdict(d)} for d in server.decisions]
    )
    folder.append("assignments", assignment_rows(round, server))
    for table, parts in (("traffic", traffic.clients), ("exchanged", traffic.items)):
        folder.append(table, [{"round": round, **dataclasses.asdict(part)} for part in parts])
    folder.append("rounds", [row])
    return row


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
                **dataclasses.asdict(evaluation),
            }


def assignment_rows(round: int, server: ServerState) -> Iterator[dict[str, Any]]:
    """One row of assignments.csv per client."""
    layers = server.personal.sum(axis=1)
    for client in range(server.num_clients):
        yield {
            "round": round,
            "client": client,
            "cluster": int(server.assignment[client]),
            "personal_layers": int(layers[client]),
        }


def model_rows(layers: Iterable[Layer], model: Tensors) -> Iterator[dict[str, Any]]:
    """One entry of model.json per layer, counted from the input."""
    for layer in layers:
        size = sum(model[name].numel() for name in layer.tensors)
        yield {**dataclasses.asdict(layer), "num_parameters": size}


def write_partition(folder: RunFolder, federation: Federation) -> None:
    """Write who holds which classes: partition.csv, classes.json and the similarity of laws."""
    lines = ["client,split,label,count"]
    for split in ("train", "val", "test"):
        counts = federation.label_counts(split)
        lines += [
            f"{client},{split},{label},{counts[client, label]}"
            for client, label in np.argwhere(counts)
        ]
    (folder.path / "partition.csv").write_text("\n".join(lines) + "\n")
    folder.write_json("classes", list(federation.classes))
    groups = federation.groups
    folder.write_json("groups", None if groups is None else groups.tolist())


def write_similarity(folder: RunFolder, federation: Federation, server: ServerState) -> None:
    """Write the pair matrices [N, N]: label laws (known to nobody but us) and what was measured."""
    measured = {
        "outputs": OUTPUTS,
        "outputs_before": OUTPUTS_BEFORE,
        "outputs_after": OUTPUTS_AFTER,
        "updates": UPDATES,
    }
    arrays = {name: server.memory[key] for name, key in measured.items() if key in server.memory}
    labels = label_divergence(federation.label_counts("train"))
    folder.write_arrays("similarity", labels=labels, **arrays)
