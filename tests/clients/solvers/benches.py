"""Workbenches of tiny models, whose steps can be worked out by hand, and runs that are resumed."""

from collections import OrderedDict
from itertools import pairwise

import torch
from torch import Tensor, nn

from fedtsd.clients import local
from fedtsd.clients.solvers.solver import Workbench
from fedtsd.data.holdings import Split
from fedtsd.models import initialise, tensors_of
from fedtsd.precision import Precision
from fedtsd.run_folder import RunFolder
from fedtsd.seeding import torch_rng
from fedtsd.training import Phase, Training
from tests.runs import run_twice

EXACT = Precision("fp32")
SEED = 3


def settings(epochs: int = 1, **changes) -> Training:
    values = {
        "epochs": epochs,
        "head_epochs": 1,
        "batch_size": 100,
        "lr": 0.1,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "proximal": 0.0,
        "max_grad_norm": None,
        "phases": (Phase("all", epochs, 0.0),),
    }
    return Training(**{**values, **changes})


def linear(*widths: int) -> nn.Sequential:
    """Linear layers fc1, fc2, ... without biases or anything between them."""
    pairs = enumerate(pairwise(widths), start=1)
    layers = {f"fc{i}": nn.Linear(a, b, bias=False) for i, (a, b) in pairs}
    return drawn(nn.Sequential(OrderedDict(layers)))


def drawn(model: nn.Sequential) -> nn.Sequential:
    initialise(model, torch_rng(0, "model"))
    return model


def values(n: int, features: int = 1) -> Split:
    """Samples of a regression."""
    rng = torch_rng(1, "samples")
    return Split(torch.randn(n, features, generator=rng), torch.randn(n, generator=rng))


def classes(n: int, *shape: int) -> Split:
    """Samples of three classes."""
    rng = torch_rng(2, "samples")
    labels = torch.randint(0, 3, (n,), generator=rng)
    return Split(torch.randn(n, *shape, generator=rng), labels)


def line(split: Split) -> tuple[float, float]:
    """The gradient of mean (w x - y)^2 of one weight w is slope w - offset."""
    x, y = split.inputs[:, 0].double(), split.labels.double()
    return float(2 * (x * x).mean()), float(2 * (x * y).mean())


def copies(tensors) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def make(solver, network: nn.Sequential, split: Split, training: Training, kept=None) -> Workbench:
    """Lay out a client's place as an engine does: the network holds what was received."""
    rng = torch_rng(SEED, "train")

    def fit(split, phases, personal, rng) -> int:
        return local.train(network, split, phases, personal, training, rng, EXACT)

    return Workbench(
        network=network,
        tensors=tensors_of(network),
        received=copies(tensors_of(network)),
        kept=copies(solver.private(tensors_of(network))) | (kept or {}),
        split=split,
        phases=training.phases,
        personal=frozenset(),
        training=training,
        precision=EXACT,
        rng=rng,
        fit=fit,
    )


def batches_of(split: Split, training: Training, epochs: int) -> list[tuple[Tensor, Tensor]]:
    """The batches that a new bench will draw, in their order."""
    rng = torch_rng(SEED, "train")
    found = []
    for _ in range(epochs):
        found += list(local.batches(split, training.batch_size, rng))
    return found


def assert_resumes(config, federation, path, *overrides: str) -> None:
    """A run that is stopped and continued ends as the same run in one piece, to the bit."""
    cfg = config(
        *overrides, "engine=parallel", "engine.workers=2", "rounds=4", "checkpoint_every=1",
        "partition.num_clients=4", "model.hidden=[8]", "training.lr=0.02",
    )  # fmt: skip
    folders = run_twice(cfg, federation, path, stop=3)
    whole, parts = (RunFolder(folder).load_checkpoint() for folder in folders)
    pairs = [(whole["clients"], parts["clients"])]
    pairs += zip(whole["server"]["centres"], parts["server"]["centres"], strict=True)
    for first, second in pairs:
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), name
    tables = [(folder / "clients.csv").read_text() for folder in folders]
    assert tables[0] == tables[1]
