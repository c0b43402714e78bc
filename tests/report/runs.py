"""Run folders as a run would leave them, small and made up."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from fedtsd.score import ACCURACY, MAE, Score

FASHION = [
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
]  # fmt: skip


METHODS = {
    "local": {"label": "Local only", "family": "alone"},
    "fedavg": {"label": "FedAvg", "family": "global"},
    "fedper": {"label": "FedPer", "family": "personalised"},
    "fedtsdp": {"label": "FedTSDP", "family": "clustered"},
}


@dataclass
class RunBuilder:
    """Writes a run folder; groups of clients hold different classes and are found at round 4, 5.

    In regression the errors are what an accuracy lacks to 1.05, times 50. The last `newcomers`
    clients take no part before `join_round`.
    """

    clients: int = 20
    rounds: int = 20
    classes: int = 10
    groups: int = 4
    method: str = "fedtsdp"
    dataset: str = "fashion_mnist"
    evaluate_every: int = 1
    tests: bool = True
    outputs: bool = True
    unmeasured: int = 0
    alpha: float | None = 0.1
    seed: int = 0
    lead: float = 0.0
    personal: int = 1
    regression: bool = False
    newcomers: int = 0
    join_round: int | None = None
    drift_round: int | None = None
    changes: dict[str, dict[str, object]] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        self.rng = np.random.default_rng(self.seed)
        self.group = self.rng.permutation(np.arange(self.clients) % self.groups)
        self._config(folder)
        counts = self._partition(folder)
        self._assignments(folder)
        self._clients_and_rounds(folder)
        self._clustering(folder)
        self._similarity(folder, counts)
        self._traffic(folder)
        self._end(folder)
        return folder

    @property
    def score(self) -> Score:
        return MAE if self.regression else ACCURACY

    def stored(self, accuracy: Any) -> Any:
        """Turn an accuracy into what the tables hold."""
        kept = np.minimum(accuracy, 1.0)
        return 50 * (1.05 - kept) if self.regression else kept

    def present(self, at: int) -> np.ndarray:
        """The clients that take part in a round."""
        joined = self.join_round is not None and at >= self.join_round
        return np.arange(self.clients - (0 if joined else self.newcomers))

    def names(self) -> list[str]:
        return FASHION if self.classes == 10 else [f"object kind {y}" for y in range(self.classes)]

    def _config(self, folder: Path) -> None:
        partition = {"_target_": "fedtsd.data.partition.Iid", "num_clients": self.clients}
        if self.alpha is not None:
            partition |= {"_target_": "fedtsd.data.partition.Dirichlet", "alpha": self.alpha}
        config = {
            "method": {"name": self.method, **METHODS.get(self.method, {})},
            "dataset": {"name": self.dataset},
            "partition": partition,
            "rounds": self.rounds,
            "seed": self.seed,
        }
        if self.newcomers:
            share = self.newcomers / self.clients
            config["cohort"] = {"newcomers": share, "join_round": self.join_round}
        for group, values in self.changes.items():
            config[group] = {**config.get(group, {}), **values}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "classes.json").write_text(json.dumps(self.names()))

    def _partition(self, folder: Path) -> np.ndarray:
        laws = self.rng.dirichlet(np.full(self.classes, 0.3), size=self.groups)
        laws = 0.9 * laws + 0.1 / self.classes
        sizes = self.rng.lognormal(np.log(300), 0.4, size=self.clients)
        counts = np.stack(
            [self.rng.multinomial(int(sizes[i]), laws[self.group[i]]) for i in range(self.clients)]
        )
        rows = [
            (i, split, y, int(counts[i, y] * share))
            for i in range(self.clients)
            for split, share in (("train", 1.0), ("val", 0.1), ("test", 0.2))
            for y in range(self.classes)
            if counts[i, y] * share >= 1
        ]
        frame = pd.DataFrame(rows, columns=["client", "split", "label", "count"])
        frame.to_csv(folder / "partition.csv", index=False)
        return counts

    def cluster_at(self, at: int) -> np.ndarray:
        if at < 4 or self.groups == 1:
            return np.zeros(self.clients, dtype=int)
        if at == 4:
            return 1 + self.group // max(self.groups // 2, 1)
        return 3 + self.group

    def personal_at(self, at: int) -> int:
        return self.personal if at >= 4 else 0

    def _assignments(self, folder: Path) -> None:
        frames = [
            pd.DataFrame(
                {
                    "round": at,
                    "client": self.present(at),
                    "cluster": self.cluster_at(at)[self.present(at)],
                    "personal_layers": self.personal_at(at),
                }
            )
            for at in range(self.rounds + 1)
        ]
        pd.concat(frames).to_csv(folder / "assignments.csv", index=False)

    def _clients_and_rounds(self, folder: Path) -> None:
        clients, newcomers, rounds = [], [], []
        known = np.arange(self.clients - self.newcomers)
        skill = self.rng.normal(0, 0.08, size=self.clients)
        for at in range(1, self.rounds + 1):
            row = {"round": at, "num_clusters": len(set(self.cluster_at(at)))}
            if self.evaluate_every and at % self.evaluate_every == 0:
                level = 0.9 - 0.7 * np.exp(-at / 6) + (0.05 if at > 4 else 0) + self.lead
                score = np.clip(level + skill + self.rng.normal(0, 0.01, self.clients), 0, 1)
                row |= self.spread(score[known]) | {"loss_mean": -np.log(level)}
                rows = self._client_rows(at, score)
                clients += [line for line in rows if line[1] in known]
                newcomers += [line for line in rows if line[1] not in known]
            row |= {"personal_layers_mean": self.personal_at(at), "seconds": 1.5}
            row |= {name: self.clients * value for name, value in self.work(at).items()}
            rounds.append(row)
        columns = [
            "round", *self.score.columns, "loss_mean",
            "num_clusters", "personal_layers_mean", "hopkins", "hopkins_p",
            "bytes_up", "bytes_down", "samples", "seconds",
        ]  # fmt: skip
        pd.DataFrame(rounds, columns=columns).to_csv(folder / "rounds.csv", index=False)
        columns = [
            "round", "client", "cluster", "personal_layers", "stage", "split",
            self.score.name, *(["rmse"] if self.regression else []), "loss", "num_examples",
        ]  # fmt: skip
        pd.DataFrame(clients, columns=columns).to_csv(folder / "clients.csv", index=False)
        if self.newcomers:
            pd.DataFrame(newcomers, columns=columns).to_csv(folder / "newcomers.csv", index=False)

    def spread(self, accuracies: np.ndarray) -> dict[str, float]:
        """Mean, std and worst tenth under the names of the score."""
        found = self.stored(accuracies)
        ordered = np.sort(found)[:: self.score.sign]
        worst = ordered[: max(1, len(found) // 10)].mean()
        return dict(zip(self.score.columns, (found.mean(), found.std(), worst), strict=True))

    def _client_rows(self, at: int, score: np.ndarray) -> list[tuple[object, ...]]:
        cluster = self.cluster_at(at)
        return [
            (at, i, cluster[i], self.personal_at(at), stage, split, *self.scores(value), 0.5, 30)
            for i in range(self.clients)
            for stage, split, value in (
                ("personalized", "test", score[i]),
                ("personalized", "val", score[i] + 0.01),
                ("tuned", "test", score[i] * 0.8),
                ("tuned", "val", score[i] * 0.7),
            )
        ]

    def scores(self, accuracy: float) -> tuple[float, ...]:
        """The columns of a client's row: accuracy, or mae and rmse."""
        value = float(self.stored(accuracy))
        return (value, 1.25 * value) if self.regression else (value,)

    def _clustering(self, folder: Path) -> None:
        columns = [
            "round", "stage", "cluster", "size", "num_clusters_proposed", "silhouette",
            "hopkins", "hopkins_p", "passed", "split",
        ]  # fmt: skip
        rows = []
        if self.tests:
            n = self.clients
            rows = [
                (1, 1, 0, n, 2, 0.1, 0.55, 0.4, 0, 0),
                (2, 1, 0, n, 2, 0.2, 0.66, 0.04, 0, 0),
                (3, 1, 0, n, 2, 0.4, 0.81, 0.01, 1, 0),
                (4, 1, 0, n, 2, 0.5, 0.86, 0.01, 1, 1),
                (5, 2, 1, n // 2, 2, 0.4, 0.84, 0.01, 1, 1),
                (5, 2, 2, n // 2, 2, 0.4, 0.79, 0.02, 1, 1),
            ]
            for at in range(6, self.rounds + 1):
                value = 0.5 + 0.1 * self.rng.random()
                rows.append((at, 2, 3, n // 4, 2, 0.1, value, 0.3, 0, 0))
            rows = [row for row in rows if row[0] <= self.rounds]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "clustering.csv", index=False)

    def _similarity(self, folder: Path, counts: np.ndarray) -> None:
        laws = counts / counts.sum(axis=1, keepdims=True)
        matrices = {"labels": divergence(laws)}
        if self.outputs:
            noise = self.rng.normal(0, 0.02, size=(self.clients, self.clients))
            outputs = np.clip(0.08 + 0.6 * matrices["labels"] + (noise + noise.T) / 2, 0, 1)
            np.fill_diagonal(outputs, 0)
            for i, j in self.rng.integers(self.clients, size=(self.unmeasured, 2)):
                outputs[i, j] = outputs[j, i] = np.nan
            matrices |= {"outputs": outputs, "outputs_before": outputs, "outputs_after": outputs}
        np.savez(folder / "similarity.npz", **matrices)

    def layers(self) -> list[dict[str, object]]:
        sizes = {"conv1": 156, "conv2": 2416, "fc1": 48120, "fc2": 10164, "fc3": 850}
        return [
            {"name": k, "tensors": [f"{k}.weight", f"{k}.bias"], "num_parameters": n}
            for k, n in sizes.items()
        ]

    def shared(self, at: int) -> list[dict[str, object]]:
        if self.method == "local":
            return []
        return self.layers()[: 5 - (0 if self.method == "fedavg" else self.personal_at(at - 1))]

    def work(self, at: int) -> dict[str, int]:
        """Bytes and samples of one client in one round."""
        parameters = sum(int(str(layer["num_parameters"])) for layer in self.shared(at))
        outputs = 4 * 200 * self.classes if self.outputs else 0
        index = 4 * 200 if self.outputs else 0
        return {
            "bytes_up": 4 * parameters + outputs,
            "bytes_down": 4 * parameters + index,
            "samples": 600,
        }

    def _traffic(self, folder: Path) -> None:
        rows, items = [], []
        for at in range(1, self.rounds + 1):
            for i in self.present(at):
                rows.append({"round": at, "client": i, **self.work(at), "seconds": 0.1 + 0.01 * i})
            for direction in ("up", "down"):
                for layer in self.shared(at):
                    size = 4 * int(str(layer["num_parameters"])) * self.clients
                    for name, share in (("weight", 0.99), ("bias", 0.01)):
                        item = f"{layer['name']}.{name}"
                        items.append((at, direction, item, self.clients, int(size * share)))
                if self.outputs:
                    up = direction == "up"
                    item = f"{'outputs on' if up else 'numbers of'} public samples"
                    size = 4 * 200 * (self.classes if up else 1) * self.clients
                    items.append((at, direction, item, self.clients, size))
        columns = ["round", "client", "bytes_up", "bytes_down", "samples", "seconds"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "traffic.csv", index=False)
        columns = ["round", "direction", "item", "num_clients", "num_bytes"]
        pd.DataFrame(items, columns=columns).to_csv(folder / "exchanged.csv", index=False)

    def _end(self, folder: Path) -> None:
        write_json(folder / "model.json", self.layers())
        write_json(folder / "groups.json", self.group.tolist() if self.groups > 1 else None)
        now = "2026-01-31T09:00:00+00:00"
        write_json(folder / "status.json", {"state": "done", "started": now, "updated": now})
        versions = {"fedtsd": "0.1.0", "python": "3.11.7", "packages": {"torch": "2.15.0"}}
        write_json(folder / "environment.json", {**versions, "command": ["fedtsd", "train"]})
        rounds = pd.read_csv(folder / "rounds.csv")
        clients = pd.read_csv(folder / "clients.csv")
        if clients.empty:
            return
        last = int(clients["round"].max())
        row = rounds.set_index("round").loc[last]
        facts = {"round": last} | {name: float(row[name]) for name in self.score.columns}
        present = self.present(self.rounds)
        cluster = self.cluster_at(self.rounds)[present]
        write_json(
            folder / "summary.json",
            {
                "method": self.method,
                "dataset": self.dataset,
                "seed": self.seed,
                "stage": "personalized",
                "last": facts,
                "best_by_validation": facts,
                "clusters": [np.flatnonzero(cluster == k).tolist() for k in np.unique(cluster)],
                "layers": [layer["name"] for layer in self.layers()],
                "personal_layers": [self.personal_at(self.rounds)] * len(present),
                **{name: int(rounds[name].sum()) for name in ("bytes_up", "bytes_down", "samples")},
                "seconds": float(rounds["seconds"].sum()),
                **({"metric": "mae"} if self.regression else {}),
                "newcomers": self._newcomers(folder) if self.newcomers else None,
                "drift": self.drift_round and {"round": self.drift_round, "clients": [0]},
            },
        )

    def _newcomers(self, folder: Path) -> dict[str, object]:
        rows = pd.read_csv(folder / "newcomers.csv")
        last = rows[rows["round"] == rows["round"].max()]
        last = last[(last["stage"] == "personalized") & (last["split"] == "test")]
        found = last[self.score.name].to_numpy(float)
        values = found if not self.regression else 1.05 - found / 50
        return {
            "clients": list(range(self.clients - self.newcomers, self.clients)),
            "join_round": self.join_round,
            "last": {**self.spread(values), "num_clients": self.newcomers},
        }


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def write_sweep(
    folder: Path,
    methods: tuple[str, ...] = ("local", "fedavg", "fedtsdp"),
    alphas: tuple[float, ...] = (1.0, 0.1),
    seeds: tuple[int, ...] = (0, 1, 2),
    **options: object,
) -> Path:
    """A sweep of made-up runs; fedtsdp leads, the more so the smaller alpha is."""
    leads = {"local": 0.0, "fedavg": -0.05, "fedper": 0.01, "fedtsdp": 0.03}
    for method in methods:
        for alpha in alphas:
            for seed in seeds:
                lead = leads.get(method, 0.0) * (1 - np.log10(alpha))
                name = f"{method}-{alpha}-{seed}"
                clustered = method == "fedtsdp"
                settings = {
                    "method": method, "alpha": alpha, "seed": seed, "lead": lead, "rounds": 8,
                    "groups": 4 if clustered else 1, "tests": clustered, "outputs": clustered,
                    "personal": 5 if method == "local" else int(clustered),
                } | options  # fmt: skip
                RunBuilder(**settings).write(folder / name)
    return folder


def divergence(laws: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence (base 2) between rows."""
    middle = (laws[:, None] + laws[None]) / 2
    return entropy(middle) - (entropy(laws)[:, None] + entropy(laws)[None]) / 2


def entropy(p: np.ndarray) -> np.ndarray:
    return -np.sum(p * np.log2(np.where(p > 0, p, 1)), axis=-1)
