"""Federations of unequal clients, and engines to compare on them."""

import torch

from fedtsd.clients.engine import ClientSide
from fedtsd.clients.sequential import Sequential
from fedtsd.clients.solvers.sgd import Sgd
from fedtsd.clients.stacked import Stacked
from fedtsd.data.federation import ClientData, Federation, Split
from fedtsd.messages import ClientRequest, Request
from fedtsd.models import Mlp, initialise, tensors_of
from fedtsd.precision import Precision
from fedtsd.seeding import torch_rng
from fedtsd.training import Phase, Training

CPU = torch.device("cpu")
SIZES = (9, 23, 4, 16, 1)
"""Fewer than a batch, several batches with a tail, just two batches, and a single sample."""
ALL = (Phase("all", 1, 0.0),)
HEAD = frozenset({"fc2.weight", "fc2.bias"})
CLOSE = {"rtol": 1e-5, "atol": 1e-6}
"""After two rounds: float32 sums in another order differ by some units in the last place."""


def federation(shape=(5,), sizes=SIZES, regression=False, classes=3) -> Federation:
    rng = torch_rng(0, "samples")

    def split(n: int) -> Split:
        inputs = torch.randn(n, *shape, generator=rng)
        if regression:
            return Split(inputs, torch.randn(n, generator=rng), unit=2.0)
        return Split(inputs, torch.randint(0, classes, (n,), generator=rng))

    clients = tuple(ClientData(split(n), split(n % 3), split(5 + n % 4)) for n in sizes)
    public = torch.randn(7, *shape, generator=rng)
    return Federation(clients, public, tuple("abc")[:classes], regression=regression)


def settings(**changes) -> Training:
    values = {
        "epochs": 1,
        "head_epochs": 1,
        "batch_size": 8,
        "lr": 0.05,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "proximal": 0.0,
        "max_grad_norm": None,
        "phases": ALL,
    }
    return Training(**{**values, **changes})


def side(data, spec=None, training=None, keeps=HEAD, precision="fp32") -> ClientSide:
    model = (spec or Mlp((6,), 0.0)).build(data.input_shape, data.num_outputs)
    initialise(model, torch_rng(0, "model"))
    return ClientSide(
        federation=data,
        model=model,
        keeps=frozenset(keeps),
        training=training or settings(),
        seed=0,
        device=CPU,
        precision=Precision(precision),
        cohort_size=data.num_clients,
        solver=Sgd(),
    )


def initial_of(side: ClientSide) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors_of(side.model).items()}


def ask(side, task, round=1, personal=(), models=None, clients=None) -> Request:
    """personal: of each client, by id; models: several models, dealt to the clients in turn."""
    models = models or (initial_of(side),)
    chosen = range(side.federation.num_clients) if clients is None else clients
    rows = tuple(
        ClientRequest(c, c % len(models), personal[c] if personal else frozenset()) for c in chosen
    )
    return Request(round, task, models, rows)


def engines(side, chunk=None):
    return Sequential(1).build(side), Stacked(chunk, True, 1).build(side)


def assert_close(first, second, **tolerance) -> None:
    """Compare tensors by name."""
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], **(tolerance or CLOSE))
