"""Run folders as a run would leave them, small and made up."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

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
    """Writes a run folder; groups of clients hold different classes and are found at round 4, 5."""

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
        return folder

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
            "seed": self.seed,
        }
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

    def _assignments(self, folder: Path) -> None:
        frames = [
            pd.DataFrame(
                {
                    "round": at,
                    "client": range(self.clients),
                    "cluster": self.cluster_at(at),
                    "personal_layers": 1 if at >= 4 else 0,
                }
            )
            for at in range(self.rounds + 1)
        ]
        pd.concat(frames).to_csv(folder / "assignments.csv", index=False)

    def _clients_and_rounds(self, folder: Path) -> None:
        clients, rounds = [], []
        skill = self.rng.normal(0, 0.08, size=self.clients)
        for at in range(1, self.rounds + 1):
            row = {"round": at, "num_clusters": len(set(self.cluster_at(at)))}
            if self.evaluate_every and at % self.evaluate_every == 0:
                level = 0.9 - 0.7 * np.exp(-at / 6) + (0.05 if at > 4 else 0)
                score = np.clip(level + skill + self.rng.normal(0, 0.01, self.clients), 0, 1)
                worst = np.sort(score)[: max(1, self.clients // 10)].mean()
                row |= {
                    "accuracy_mean": score.mean(),
                    "accuracy_std": score.std(),
                    "accuracy_worst10": worst,
                    "loss_mean": -np.log(level),
                }
                clients += self._client_rows(at, score)
            rounds.append(row)
        columns = [
            "round", "accuracy_mean", "accuracy_std", "accuracy_worst10", "loss_mean",
            "num_clusters", "personal_layers_mean", "hopkins", "hopkins_p",
            "bytes_up", "bytes_down", "samples", "seconds",
        ]  # fmt: skip
        pd.DataFrame(rounds, columns=columns).to_csv(folder / "rounds.csv", index=False)
        columns = [
            "round", "client", "cluster", "personal_layers", "stage", "split",
            "accuracy", "loss", "num_examples",
        ]  # fmt: skip
        pd.DataFrame(clients, columns=columns).to_csv(folder / "clients.csv", index=False)

    def _client_rows(self, at: int, score: np.ndarray) -> list[tuple[object, ...]]:
        cluster = self.cluster_at(at)
        return [
            (at, i, cluster[i], 0, stage, split, min(value, 1.0), 0.5, 30)
            for i in range(self.clients)
            for stage, split, value in (
                ("personalized", "test", score[i]),
                ("personalized", "val", score[i] + 0.01),
                ("tuned", "test", score[i] * 0.8),
                ("tuned", "val", score[i] * 0.7),
            )
        ]

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
            matrices["outputs"] = outputs
        np.savez(folder / "similarity.npz", **matrices)


def divergence(laws: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence (base 2) between rows."""
    middle = (laws[:, None] + laws[None]) / 2
    return entropy(middle) - (entropy(laws)[:, None] + entropy(laws)[None]) / 2


def entropy(p: np.ndarray) -> np.ndarray:
    return -np.sum(p * np.log2(np.where(p > 0, p, 1)), axis=-1)
