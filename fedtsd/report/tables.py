"""The tables of one run, read from its folder and checked; no figure reads a file itself.

Letters: `N` clients, `Y` classes.
"""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from fedtsd.errors import RunFolderError
from fedtsd.score import ACCURACY, Score, score_in

# Both load plain values alone; the one in C takes a tenth of the time.
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

FloatArray = npt.NDArray[np.float64]

# The columns that figures read and what they hold; a table may have more. In the files, `score` has
# the name of what the run is scored by: accuracy, mae.
COLUMNS: dict[str, dict[str, type]] = {
    "rounds.csv": {
        "round": int,
        "score_mean": float,
        "score_std": float,
        "score_worst10": float,
    },
    "clients.csv": {"round": int, "client": int, "stage": str, "split": str, "score": float},
    "partition.csv": {"client": int, "split": str, "label": int, "count": int},
    "drift.csv": {"client": int, "split": str, "label": int, "count": int},
    "assignments.csv": {"round": int, "client": int, "cluster": int},
    "clustering.csv": {
        "round": int,
        "stage": int,
        "cluster": int,
        "hopkins": float,
        "hopkins_p": float,
        "split": int,
    },
    "codings.csv": {"round": int, "cluster": int, "like": int, "class": int, "name": int},
    "traffic.csv": {
        "round": int,
        "client": int,
        "bytes_up": int,
        "bytes_down": int,
        "samples": int,
        "seconds": float,
    },
    "exchanged.csv": {
        "round": int,
        "direction": str,
        "item": str,
        "num_clients": int,
        "num_bytes": int,
    },
}


@dataclass(frozen=True, eq=False)
class RunTables:
    """Everything the figures of one run are drawn from.

    `traffic` has what each client sent, received and worked in a round, `exchanged` what crossed
    the door by name. `codings` has what a cluster calls the classes of another. `model` lists the
    layers from the input: name, tensors, num_parameters. `groups` holds the group planted for each
    client, by id; None where none was planted. `sites` holds the clients' names, by id; None where
    they are just numbers. `later` is like `partition`: what clients hold that drift, from the round
    of the drift on.
    `similarity` maps `labels`, `outputs`, `outputs_before`, `outputs_after`, `updates` to `[N, N]`
    matrices and is empty when the run has none. `rounds` and `clients` hold what `score` measures
    in columns `score_mean`, `score_std`, `score_worst10` and `score`, as stored.
    """

    folder: Path
    rounds: pd.DataFrame
    clients: pd.DataFrame
    partition: pd.DataFrame
    clustering: pd.DataFrame
    assignments: pd.DataFrame
    traffic: pd.DataFrame
    exchanged: pd.DataFrame
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    classes: tuple[str, ...]
    model: tuple[Mapping[str, Any], ...]
    groups: tuple[int, ...] | None
    similarity: Mapping[str, FloatArray]
    sites: tuple[str, ...] | None = None
    later: pd.DataFrame | None = None
    codings: pd.DataFrame | None = None
    score: Score = ACCURACY

    @classmethod
    def read(cls, folder: Path) -> "RunTables":
        """Read a run folder; `RunFolderError` names the file that is missing or broken."""
        folder = Path(folder)
        if not folder.is_dir():
            raise RunFolderError(f"{folder}: no such run folder")
        score = _score(folder / "rounds.csv")
        tables = cls(
            folder=folder,
            rounds=_table(folder / "rounds.csv", score=score),
            clients=_table(folder / "clients.csv", score=score),
            partition=_table(folder / "partition.csv"),
            clustering=_table(folder / "clustering.csv", optional=True),
            assignments=_table(folder / "assignments.csv"),
            traffic=_table(folder / "traffic.csv", optional=True),
            exchanged=_table(folder / "exchanged.csv", optional=True),
            config=read_mapping(folder / "config.yaml"),
            summary=read_mapping(folder / "summary.json", optional=True),
            classes=tuple(str(name) for name in _list(folder / "classes.json") or ()),
            model=tuple(_list(folder / "model.json") or ()),
            groups=_groups(folder / "groups.json"),
            similarity=_matrices(folder / "similarity.npz"),
            sites=_sites(folder / "sites.json"),
            later=_table(folder / "drift.csv", optional=True),
            codings=_table(folder / "codings.csv", optional=True),
            score=score,
        )
        _check_clients(tables)
        return tables

    @cached_property
    def final_clusters(self) -> "pd.Series[int]":
        """Client -> its last cluster; by cluster, planted group, then id: the order of figures."""
        rows = self.assignments.sort_values("round", kind="stable")
        last = rows.drop_duplicates("client", keep="last")
        groups = dict(enumerate(self.groups or ()))
        ranked = last.assign(group=[groups.get(client, 0) for client in last["client"]])
        return ranked.sort_values(["cluster", "group", "client"]).set_index("client")["cluster"]

    @cached_property
    def order(self) -> list[int]:
        """The ids of all `N` clients, ordered by final cluster, planted group, then id."""
        return [int(client) for client in self.final_clusters.index]

    @cached_property
    def client_names(self) -> Mapping[int, str]:
        """Client -> what people call it: its site's name, or its number."""
        named = dict(enumerate(self.sites or ()))
        clients = sorted({*self.order, *(int(client) for client in self.partition["client"])})
        return {client: named.get(client, str(client)) for client in clients}

    @property
    def num_clients(self) -> int:
        """Clients that hold data; more than `N` where newcomers have not joined."""
        return 1 + max(
            *self.order, int(self.partition["client"].max() if len(self.partition) else 0)
        )

    @property
    def drift_round(self) -> int | None:
        """The round from which the data are others, if they change."""
        drift = self.summary.get("drift") or {}
        at = drift.get("round", self.option("drift.round"))
        return None if at is None else int(at)

    @cached_property
    def cluster_ids(self) -> list[int]:
        """Every cluster id of any round, ascending."""
        return sorted(int(cluster) for cluster in self.assignments["cluster"].unique())

    @cached_property
    def train_counts(self) -> FloatArray:
        """Training samples `[N, Y]`; rows follow `order`."""
        return self._counts(self.partition)

    @cached_property
    def later_counts(self) -> FloatArray:
        """The same of what drifting clients hold later; 0 for the others."""
        return self._counts(self.partition.iloc[:0] if self.later is None else self.later)

    def _counts(self, samples: pd.DataFrame) -> FloatArray:
        row_of = {client: row for row, client in enumerate(self.order)}
        rows = samples[(samples["split"] == "train") & samples["client"].isin(row_of)]
        counts = np.zeros((len(self.order), len(self.class_names)))
        np.add.at(
            counts,
            (rows["client"].map(row_of).to_numpy(int), rows["label"].to_numpy(int)),
            rows["count"].to_numpy(float),
        )
        return counts

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """One name per class; a class that `classes.json` lacks is named by its number."""
        labels = self.partition["label"]
        known = len(self.classes)
        total = max(known, int(labels.max()) + 1 if len(labels) else 0)
        return self.classes + tuple(str(label) for label in range(known, total))

    def option(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key of the config, or `default` where the config lacks it."""
        node: Any = self.config
        for part in key.split("."):
            if not isinstance(node, Mapping) or part not in node:
                return default
            node = node[part]
        return node


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _missing(path: Path) -> RunFolderError:
    return RunFolderError(f"{path.parent}: {path.name} is missing")


def _broken(path: Path, why: str) -> RunFolderError:
    return RunFolderError(f"{path.parent}: {path.name} is broken: {why}")


def _score(path: Path) -> Score:
    """What a run is scored by, from the head of its rounds.csv."""
    if not path.is_file():
        return ACCURACY
    with path.open(encoding="utf-8", errors="replace") as lines:
        return score_in(lines.readline().strip().split(","))


def _table(path: Path, optional: bool = False, score: Score = ACCURACY) -> pd.DataFrame:
    """Read one CSV file; an optional one that is absent gives a table without rows."""
    ours = {name: name.replace("score", score.name) for name in COLUMNS[path.name]}
    columns = {ours[name]: kind for name, kind in COLUMNS[path.name].items()}
    if not path.is_file():
        if not optional:
            raise _missing(path)
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in columns.items()})
    try:
        frame = pd.read_csv(path, dtype=columns)
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        raise _broken(path, _one_line(error)) from error
    absent = [name for name in columns if name not in frame.columns]
    if absent:
        raise _broken(path, f"no column {', '.join(absent)}")
    return frame.rename(columns={stored: name for name, stored in ours.items()})


def read_mapping(path: Path, optional: bool = False) -> Mapping[str, Any]:
    """Read a YAML or JSON mapping (JSON is YAML)."""
    if not path.is_file():
        if not optional:
            raise _missing(path)
        return {}
    content = _load(path)
    if not isinstance(content, dict):
        raise _broken(path, f"expected a mapping, found {type(content).__name__}")
    return content


def _load(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.load(text, YAML_LOADER)
    except (ValueError, OSError, yaml.YAMLError) as error:
        raise _broken(path, _one_line(error)) from error


def _list(path: Path) -> list[Any] | None:
    """Read a JSON list; None where the file is absent or holds null."""
    content = _load(path) if path.is_file() else None
    if content is not None and not isinstance(content, list):
        raise _broken(path, f"expected a list, found {type(content).__name__}")
    return content


def _groups(path: Path) -> tuple[int, ...] | None:
    content = _list(path)
    return None if content is None else tuple(int(group) for group in content)


def _sites(path: Path) -> tuple[str, ...] | None:
    content = _list(path)
    return None if content is None else tuple(str(name) for name in content)


def _matrices(path: Path) -> Mapping[str, FloatArray]:
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as archive:
            matrices = {name: archive[name].astype(np.float64) for name in archive.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise _broken(path, _one_line(error)) from error
    if "labels" not in matrices:
        raise _broken(path, "no matrix labels")
    return matrices


def _check_clients(tables: RunTables) -> None:
    """Every client that takes part has a cluster; every matrix has one row per client."""
    if not tables.order:
        raise _broken(tables.folder / "assignments.csv", "no rows")
    never = sorted(set(tables.partition["client"]) - set(tables.order))
    if never and not tables.option("cohort.newcomers"):
        raise _broken(tables.folder / "assignments.csv", f"no cluster for client {never[0]}")
    labels = tables.partition["label"]
    if len(labels) and labels.min() < 0:
        raise _broken(tables.folder / "partition.csv", f"label {labels.min()} is below 0")
    n = tables.num_clients
    if tables.groups is not None and len(tables.groups) != n:
        path = tables.folder / "groups.json"
        raise _broken(path, f"has {len(tables.groups)} entries for {n} clients")
    if tables.sites is not None and len(tables.sites) < n:
        path = tables.folder / "sites.json"
        raise _broken(path, f"has {len(tables.sites)} names for {n} clients")
    if tables.similarity and sorted({*tables.order, *never}) != list(range(n)):
        raise _broken(tables.folder / "assignments.csv", f"client ids must be 0..{n - 1}")
    for name, matrix in tables.similarity.items():
        if matrix.shape != (n, n):
            path = tables.folder / "similarity.npz"
            raise _broken(path, f"{name} has shape {matrix.shape}, expected ({n}, {n})")
