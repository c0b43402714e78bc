"""Run a toy with a tracker and read back what it recorded: python -m tests.tracked NAME FOLDER.

In a process of its own, because these libraries leave threads, services and settings behind. Prints
JSON: per record its parameters, its status, and (round, value) of every metric.
"""

import json
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fedtsd.compose import check, composed, resolve
from tests.conftest import gaussian_federation
from tests.runs import Quiet, run_toy

OVERRIDES = [
    "method=fedtsdp", "rounds=4", "checkpoint_every=2", "eval_every=2", "model.hidden=[8]",
    "partition.num_clients=4", "similarity.public_batch=20",
]  # fmt: skip
BLOCK = 32768


class InterruptAt(Quiet):
    """Press Ctrl-C after a round."""

    def __init__(self, round: int) -> None:
        self._round = round

    def round(self, row: Mapping[str, Any]) -> None:
        if row["round"] == self._round:
            raise KeyboardInterrupt


def main(name: str, folder: Path) -> None:
    before = dict(os.environ)
    cfg = composed([f"tracker={name}", *OVERRIDES])
    config, federation = check(cfg), gaussian_federation(4)
    try:  # round 3 is after the checkpoint, so it is run twice
        run_toy(
            config, federation, folder, config.tracker.open(resolve(cfg), folder), InterruptAt(3)
        )
    except KeyboardInterrupt:
        stopped = READERS[name](folder)
    run_toy(config, federation, folder, config.tracker.open(resolve(cfg), folder))
    changed = {key for key in os.environ if os.environ[key] != before.get(key)}
    found = {"stopped": stopped, "done": READERS[name](folder), "environment": sorted(changed)}
    sys.stdout.write(json.dumps(found))


def read_tensorboard(folder: Path) -> list[dict[str, Any]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    metrics = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
    session = HParamsPluginData.FromString(
        events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    )
    params = {key: _plain(v) for key, v in session.session_start_info.hparams.items()}
    status = events.Tensors("status/text_summary")[-1].tensor_proto.string_val[0].decode()
    return [{"params": params, "metrics": metrics, "status": status}]


def read_mlflow(folder: Path) -> list[dict[str, Any]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow/mlflow.db")
    experiments = client.search_experiments(filter_string="name = 'fedtsd'")
    return [
        {
            "params": run.data.params,
            "metrics": {
                name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            },
            "status": run.info.status,
        }
        for run in client.search_runs([e.experiment_id for e in experiments])
    ]


def read_wandb(folder: Path) -> list[dict[str, Any]]:
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        records = [Record.FromString(block) for block in _wandb_records(path.read_bytes())]
        config = [item for record in records for item in record.run.config.update]
        summary = [item for record in records for item in record.summary.update]
        metrics: dict[str, list[tuple[int, float]]] = {}
        for record in records:
            row = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item}
            for name in row.keys() - {"_step", "_runtime", "_timestamp"}:
                metrics.setdefault(name, []).append((row["_step"], row[name]))
        told = {(i.key or i.nested_key[0]): json.loads(i.value_json) for i in summary}
        params = {item.key: json.loads(item.value_json) for item in config}
        found.append(
            {"params": params, "metrics": metrics, "status": told["status"], "id": path.stem}
        )
    return found


def _wandb_records(content: bytes) -> Iterator[bytes]:
    """Split a .wandb file, which has the format of LevelDB's log after seven bytes of its own."""
    place, record = 7, b""
    while place < len(content):
        if BLOCK - place % BLOCK < 7:  # what is left of a block is too short for a header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield record
            record = b""


def _plain(value: Any) -> Any:
    return getattr(value, value.WhichOneof("kind"))


READERS = {"tensorboard": read_tensorboard, "mlflow": read_mlflow, "wandb": read_wandb}

if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
