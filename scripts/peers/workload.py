"""What every peer is given: who holds which samples, the model, one core, a pipe to the parent.

Runs in the peer's own environment; of fedtsd it uses what needs nothing but torch and the standard
library.
"""

import json
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CORE = min(os.sched_getaffinity(0))
os.sched_setaffinity(0, {CORE})  # before any library counts the cores
sys.path.insert(0, str(Path(__file__).parents[2]))


@dataclass(frozen=True)
class Workload:
    """inputs: float32 [n, ...], labels: int64 [n], a client's samples one after the other.

    ends: where the samples of each client end. cohort: clients per round.
    """

    inputs: np.ndarray
    labels: np.ndarray
    ends: np.ndarray
    cohort: int
    batch_size: int
    lr: float
    model: str

    @classmethod
    def read(cls, folder: Path) -> "Workload":
        """Read what the parent wrote."""
        arrays = {name: np.load(folder / f"{name}.npy") for name in ("inputs", "labels", "ends")}
        return cls(**arrays, **json.loads((folder / "workload.json").read_text()))

    @property
    def num_clients(self) -> int:
        """How many clients there are."""
        return len(self.ends)

    def of(self, client: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a client's inputs and labels."""
        part = slice(self.ends[client - 1] if client else 0, self.ends[client])
        return self.inputs[part], self.labels[part]

    def choose(self) -> list[int]:
        """Draw the cohort of a round."""
        return sorted(random.sample(range(self.num_clients), self.cohort))

    def samples(self, clients: list[int]) -> int:
        """Return how many samples these clients hold."""
        return sum(len(self.of(client)[1]) for client in clients)

    def torch_model(self):
        """Build the model, and leave torch one thread."""
        import torch

        from fedtsd.models import FedAvgCnn, Mlp

        torch.set_num_threads(1)
        spec = {"cnn": FedAvgCnn(0, 0.0, "none", 4), "mlp": Mlp((200, 200), 0.0)}[self.model]
        return spec.build(self.inputs.shape[1:], 10)


def start():
    """Return the workload and the pacer of this process."""
    from fedtsd.bench.clock import Clock
    from fedtsd.bench.port import Pacer, Port

    port = Port()
    return Workload.read(Path(sys.argv[1])), Pacer(port, Clock(), {})


def serve(main) -> None:
    """Run a driver until the parent has had enough."""
    from fedtsd.bench.port import Closed

    try:
        main(*start())
    except Closed:
        os._exit(0)  # whatever else a peer has running
