"""Whole runs against methods written again from their papers, in float64 and plain loops.

Nothing of our training or aggregation is used but the order of a client's samples, which no paper
fixes, and the initial model. Networks, gradients, local SGD and the server are written out here.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import pytest
import torch
from torch import Tensor

from fedtsd.clients.local import batches
from fedtsd.data.federation import Federation, Split
from fedtsd.execution import build
from fedtsd.run_folder import RunFolder
from fedtsd.seeding import torch_rng
from tests.conftest import gaussian_federation
from tests.runs import run_toy, table

ROUNDS = 3
SIZES = (40, 7, 23, 31)
"""Training samples: several batches with a tail, fewer than a batch, two batches."""
LR, MOMENTUM, BATCH, EPOCHS = 0.05, 0.6, 8, 2
SETTINGS = (
    "partition.num_clients=4", "model.hidden=[6,5]", f"rounds={ROUNDS}", "eval_every=3",
    f"training.lr={LR}", f"training.momentum={MOMENTUM}", f"training.batch_size={BATCH}",
    f"training.epochs={EPOCHS}", "engine=sequential",
)  # fmt: skip

Model = dict[str, Tensor]
BODY = frozenset({"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"})
HEAD = frozenset({"fc3.weight", "fc3.bias"})


def unequal() -> Federation:
    """Four clients of unequal size; the labels of client 2 are exchanged."""
    clients = tuple(
        gaussian_federation(1, (0,) if i == 2 else (), size, seed=i).clients[0]
        for i, size in enumerate(SIZES)
    )
    return dataclasses.replace(gaussian_federation(1), clients=clients)


@dataclass
class World:
    """A federation and the model that all start from."""

    federation: Federation
    start: Model

    def split(self, client: int) -> Split:
        return self.federation.clients[client].train

    @property
    def clients(self) -> range:
        return range(len(self.federation.clients))

    def mean(self, models: dict[int, Model], names: frozenset[str]) -> Model:
        """Sum over clients of n_k / n times their tensors."""
        total = sum(len(self.split(k)) for k in models)
        found = {}
        for name in names:
            found[name] = torch.zeros_like(self.start[name])
            for k, model in models.items():
                found[name] += len(self.split(k)) / total * model[name]
        return found


def gradients(model: Model, x: Tensor, y: Tensor) -> Model:
    """Return the gradient of the mean cross-entropy of a ReLU network, by hand."""
    features, logits = forward(model, x)
    error = torch.exp(logits - logits.max(1, keepdim=True).values)
    error = error / error.sum(1, keepdim=True)
    for i, label in enumerate(y.tolist()):
        error[i, label] -= 1
    error = error / len(y)
    found = {}
    for layer in (3, 2, 1):
        found[f"fc{layer}.weight"] = error.T @ features[layer - 1]
        found[f"fc{layer}.bias"] = error.sum(0)
        error = (error @ model[f"fc{layer}.weight"]) * (features[layer - 1] > 0)
    return found


def forward(model: Model, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return what each layer is given, and the logits."""
    features = [x.double()]
    for layer in (1, 2):
        z = features[-1] @ model[f"fc{layer}.weight"].T + model[f"fc{layer}.bias"]
        features.append(torch.where(z > 0, z, torch.zeros_like(z)))
    return features, features[-1] @ model["fc3.weight"].T + model["fc3.bias"]


def sgd(
    model: Model,
    split: Split,
    rng: torch.Generator,
    moving: frozenset[str],
    epochs: int = EPOCHS,
    pull: float = 0.0,
    towards: Model | None = None,
) -> Model:
    """Return the model after SGD with momentum on some of its tensors."""
    model = dict(model)
    velocity = {name: torch.zeros_like(model[name]) for name in moving}
    for _ in range(epochs):
        for x, y in batches(split, BATCH, rng):
            found = gradients(model, x, y)
            for name in moving:
                g = found[name]
                if towards is not None:
                    g = g + pull * (model[name] - towards[name])
                velocity[name] = MOMENTUM * velocity[name] + g
                model[name] = model[name] - LR * velocity[name]
    return model


def order(round: int, client: int) -> torch.Generator:
    return torch_rng(0, "train", round, client)


def fedavg(world: World) -> tuple[Model, dict[int, Model]]:
    """McMahan et al. 2017, algorithm 1, with all clients in every round."""
    w = world.start
    for t in range(1, ROUNDS + 1):
        local = {k: sgd(w, world.split(k), order(t, k), BODY | HEAD) for k in world.clients}
        w = world.mean(local, BODY | HEAD)
    return w, dict.fromkeys(world.clients, w)


def fedprox(world: World) -> tuple[Model, dict[int, Model]]:
    """Li et al. 2020: each client minimises F_k(w) + mu / 2 ||w - w_t||^2."""
    w = world.start
    for t in range(1, ROUNDS + 1):
        local = {
            k: sgd(w, world.split(k), order(t, k), BODY | HEAD, pull=0.7, towards=w)
            for k in world.clients
        }
        w = world.mean(local, BODY | HEAD)
    return w, dict.fromkeys(world.clients, w)


def fedper(world: World) -> tuple[Model, dict[int, Model]]:
    """Arivazhagan et al. 2019: base and head are trained together, the base is averaged."""
    base = {name: world.start[name] for name in BODY}
    heads = {k: {name: world.start[name] for name in HEAD} for k in world.clients}
    for t in range(1, ROUNDS + 1):
        local = {}
        for k in world.clients:
            local[k] = sgd({**base, **heads[k]}, world.split(k), order(t, k), BODY | HEAD)
            heads[k] = {name: local[k][name] for name in HEAD}
        base = world.mean(local, BODY)
    served = {k: {**base, **heads[k]} for k in world.clients}
    return {**world.start, **base}, served


def fedrep(world: World) -> tuple[Model, dict[int, Model]]:
    """Collins et al. 2021, algorithm 1: first the head alone, then the representation alone."""
    phi = {name: world.start[name] for name in BODY}
    heads = {k: {name: world.start[name] for name in HEAD} for k in world.clients}
    for t in range(1, ROUNDS + 1):
        local = {}
        for k in world.clients:
            rng = order(t, k)
            model = sgd({**phi, **heads[k]}, world.split(k), rng, HEAD, epochs=3)
            heads[k] = {name: model[name] for name in HEAD}
            local[k] = sgd(model, world.split(k), rng, BODY)
        phi = world.mean(local, BODY)
    return {**world.start, **phi}, {k: {**phi, **heads[k]} for k in world.clients}


def fedbabu(world: World) -> tuple[Model, dict[int, Model]]:
    """Oh et al. 2022, algorithm 1: the head stays as it was drawn, for everybody."""
    w = world.start
    for t in range(1, ROUNDS + 1):
        local = {k: sgd(w, world.split(k), order(t, k), BODY) for k in world.clients}
        w = {**w, **world.mean(local, BODY)}
    return w, dict.fromkeys(world.clients, w)


def fedavgm(world: World) -> tuple[Model, dict[int, Model]]:
    """Hsu et al. 2019: v <- beta v + dw, w <- w - eta v, dw = sum n_k / n (w - w_k)."""
    w = world.start
    v = {name: torch.zeros_like(tensor) for name, tensor in w.items()}
    for t in range(1, ROUNDS + 1):
        local = {k: sgd(w, world.split(k), order(t, k), BODY | HEAD) for k in world.clients}
        total = sum(SIZES)
        for name in w:
            delta = sum(SIZES[k] / total * (w[name] - local[k][name]) for k in world.clients)
            v[name] = 0.8 * v[name] + delta
        w = {name: w[name] - 0.7 * v[name] for name in w}
    return w, dict.fromkeys(world.clients, w)


def fedadam(world: World) -> tuple[Model, dict[int, Model]]:
    """Reddi et al. 2021, algorithm 2, clients weighted by their samples; v starts at tau^2."""
    x, beta1, beta2, eta, tau = world.start, 0.9, 0.99, 0.1, 0.01
    m = {name: torch.zeros_like(tensor) for name, tensor in x.items()}
    v = {name: torch.full_like(tensor, tau**2) for name, tensor in x.items()}
    for t in range(1, ROUNDS + 1):
        deltas = {}
        for i in world.clients:
            y = sgd(x, world.split(i), order(t, i), BODY | HEAD)
            deltas[i] = {name: y[name] - x[name] for name in x}
        delta = world.mean(deltas, BODY | HEAD)
        for name in x:
            m[name] = beta1 * m[name] + (1 - beta1) * delta[name]
            v[name] = beta2 * v[name] + (1 - beta2) * delta[name] ** 2
        x = {name: x[name] + eta * m[name] / (v[name] ** 0.5 + tau) for name in x}
    return x, dict.fromkeys(world.clients, x)


REFERENCES: list[tuple[Callable[[World], tuple[Model, dict[int, Model]]], tuple[str, ...]]] = [
    (fedavg, ()),
    (fedprox, ("training.proximal=0.7",)),
    (fedper, ()),
    (fedrep, ("training.head_epochs=3",)),
    (fedbabu, ()),
    (fedavgm, ("aggregation.momentum=0.8", "aggregation.lr=0.7")),
    (fedadam, ("aggregation.lr=0.1", "aggregation.tau=0.01", "aggregation.beta2=0.99",
               "aggregation.beta1=0.9")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "overrides"), REFERENCES, ids=[found.__name__ for found, _ in REFERENCES]
)
def test_a_run_is_that_of_the_paper(reference, overrides, config, tmp_path) -> None:
    cfg = config(f"method={reference.__name__}", *SETTINGS, *overrides)
    world = World(unequal(), initial_of(cfg))
    run_toy(cfg, world.federation, tmp_path)
    centre, served = reference(world)
    (found,) = centres_of(tmp_path)
    assert found.keys() == centre.keys()
    for name, tensor in centre.items():
        torch.testing.assert_close(found[name].double(), tensor, rtol=0, atol=1e-5)
    # One that stood still would agree as well: it must have gone somewhere.
    assert any((centre[name] - world.start[name]).abs().max() > 0.05 for name in BODY)
    assert_serves(served, world.federation, table(tmp_path, "clients"))


def initial_of(cfg) -> Model:
    """Return the initial model of a run, in float64."""
    experiment = build(cfg, unequal())
    experiment.engine.close()
    return {name: t.double().clone() for name, t in experiment.start.server.centres[0].items()}


def centres_of(path) -> list[Model]:
    return RunFolder(path).load_checkpoint()["server"]["centres"]


def assert_serves(served: dict[int, Model], federation: Federation, rows: pd.DataFrame) -> None:
    """Compare the evaluation after the last round with that of these models."""
    for k, model in served.items():
        for name in ("val", "test"):
            split = getattr(federation.clients[k], name)
            _, logits = forward(model, split.inputs)
            pairs = list(zip(logits, split.labels.tolist(), strict=True))
            right = [row.argmax().item() == y for row, y in pairs]
            losses = [(torch.logsumexp(row, 0) - row[y]).item() for row, y in pairs]
            chosen = (rows["client"] == k) & (rows["split"] == name)
            chosen &= (rows["round"] == ROUNDS) & (rows["stage"] == "personalized")
            (row,) = rows[chosen].to_dict("records")
            assert row["accuracy"] == pytest.approx(sum(right) / len(right), abs=1e-5)
            assert row["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_one_client_alone_in_fedavg_is_plain_sgd(config, toy, tmp_path) -> None:
    cfg = config(
        "method=fedavg", *SETTINGS, "partition.num_clients=1", "training.momentum=0.0",
    )  # fmt: skip
    run_toy(cfg, toy(1), tmp_path)
    model = initial_of(cfg)
    for t in range(1, ROUNDS + 1):
        rng = order(t, 0)
        for _ in range(EPOCHS):
            for x, y in batches(toy(1).clients[0].train, BATCH, rng):
                found = gradients(model, x, y)
                model = {name: tensor - LR * found[name] for name, tensor in model.items()}
    (centre,) = centres_of(tmp_path)
    for name, tensor in model.items():
        torch.testing.assert_close(centre[name].double(), tensor, rtol=0, atol=1e-5)


def test_the_gradient_by_hand_is_that_of_autograd() -> None:
    rng = torch_rng(0, "model")
    shapes = {"fc1": (6, 2), "fc2": (5, 6), "fc3": (2, 5)}
    model = {f"{n}.weight": torch.randn(s, generator=rng).double() for n, s in shapes.items()}
    model |= {f"{n}.bias": torch.randn(s[0], generator=rng).double() for n, s in shapes.items()}
    x, y = torch.randn(9, 2, generator=rng), torch.arange(9) % 2
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in model.items()}
    loss = torch.nn.functional.cross_entropy(forward(leaves, x)[1], y)
    expected = torch.autograd.grad(loss, list(leaves.values()))
    found = gradients(model, x, y)
    assert found.keys() == leaves.keys()
    for name, gradient in zip(leaves, expected, strict=True):
        torch.testing.assert_close(found[name], gradient)


def test_momentum_of_zero_with_whole_steps_is_fedavg_to_the_bit(config, tmp_path) -> None:
    whole = ("aggregation.momentum=0.0", "aggregation.lr=1.0")
    for method, overrides in (("fedavg", ()), ("fedavgm", whole)):
        cfg = config(f"method={method}", *SETTINGS, *overrides)
        run_toy(cfg, unequal(), tmp_path / method)
    one, other = (centres_of(tmp_path / name)[0] for name in ("fedavg", "fedavgm"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    rows = [table(tmp_path / name, "clients") for name in ("fedavg", "fedavgm")]
    pd.testing.assert_frame_equal(*rows, check_exact=True)


@pytest.mark.parametrize("layers", [1, 2])
def test_bytes_of_the_two_parts_of_a_model_add_up_to_the_whole(layers, config, tmp_path) -> None:
    traffic = {}
    for method, personal in (("fedavg", None), ("fedper", layers), ("lg_fedavg", 3 - layers)):
        kept = () if personal is None else (f"personalization.layers={personal}",)
        cfg = config(f"method={method}", *SETTINGS, *kept)
        run_toy(cfg, unequal(), tmp_path / method)
        rows = table(tmp_path / method, "traffic").set_index(["round", "client"])
        traffic[method] = rows[["bytes_up", "bytes_down"]]
    assert len(traffic["fedavg"]) == ROUNDS * len(SIZES)
    pd.testing.assert_frame_equal(traffic["fedper"] + traffic["lg_fedavg"], traffic["fedavg"])
    # 2 x 6 + 6, 6 x 5 + 5 and 5 x 2 + 2 parameters of 4 bytes
    sizes = {1: 4 * (18 + 35), 2: 4 * 18}
    assert traffic["fedavg"].eq(4 * (18 + 35 + 12)).all(axis=None)
    assert traffic["fedper"].eq(sizes[layers]).all(axis=None)
