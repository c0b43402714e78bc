"""What the papers' loops need, in plain PyTorch: nothing of ours but the order of the batches."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from fedtsd.execution import build
from fedtsd.run_folder import RunFolder
from fedtsd.seeding import numpy_rng, torch_rng
from tests.runs import run_toy

BATCH = 15
MOMENTUM = 0.5
NUM_CLIENTS = 4
COHORT = 3
SMALL = (
    "engine=sequential", "rounds=3", f"partition.num_clients={NUM_CLIENTS}", "model.hidden=[8]",
    f"training.batch_size={BATCH}", f"cohort.size={COHORT}", "checkpoint_every=3",
)  # fmt: skip
Model = dict[str, Tensor]


def start_of(cfg, federation) -> Model:
    """The model that all clients know before round 1, without what crosses beside it."""
    experiment = build(cfg, federation)
    experiment.engine.close()
    (centre,) = experiment.start.server.centres
    return {name: tensor.clone() for name, tensor in centre.items() if "/" not in name}


def end_of(cfg, federation, path) -> tuple[Model, dict[str, Tensor]]:
    """The only centre after the last round, and what clients keep."""
    run_toy(cfg, federation, path)
    state = RunFolder(path).load_checkpoint()
    return state["server"]["centres"][0], state["clients"]


def cohort(round: int) -> list[int]:
    rng = numpy_rng(0, "cohort", round)
    return sorted(rng.choice(np.arange(NUM_CLIENTS), size=COHORT, replace=False).tolist())


def stream(round: int, client: int) -> torch.Generator:
    return torch_rng(0, "train", round, client)


def batches(federation, client: int, epochs: int, rng) -> Iterator[tuple[Tensor, Tensor]]:
    split = federation.clients[client].train
    for _ in range(epochs):
        order = torch.randperm(len(split), generator=rng)
        for at in range(0, len(split), BATCH):
            chosen = order[at : at + BATCH]
            yield split.inputs[chosen], split.labels[chosen]


def gradient(model: Model, inputs: Tensor, labels: Tensor) -> Model:
    """The gradient of the mean cross-entropy of a perceptron with one hidden layer."""
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in model.items()}
    hidden = torch.relu(inputs @ leaves["fc1.weight"].T + leaves["fc1.bias"])
    logits = hidden @ leaves["fc2.weight"].T + leaves["fc2.bias"]
    chosen = logits[torch.arange(len(labels)), labels]
    (torch.logsumexp(logits, dim=1) - chosen).mean().backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def plus(model: Model, direction: Model, scale: float) -> Model:
    return {name: tensor + scale * direction[name] for name, tensor in model.items()}


def mean(models: list[Model]) -> Model:
    return {name: sum(m[name] for m in models) / len(models) for name in models[0]}


def zeros(model: Model) -> Model:
    return {name: torch.zeros_like(tensor) for name, tensor in model.items()}


def assert_models(found, expected: Model) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=1e-5)


def kept(clients, prefix: str, client: int) -> Model:
    """What one client keeps, by the names of the model."""
    (row,) = torch.nonzero(clients["client"] == client).flatten().tolist()
    names = [name for name in clients if name.startswith(prefix) and "." in name]
    return {name.removeprefix(prefix): clients[name][row] for name in names}
