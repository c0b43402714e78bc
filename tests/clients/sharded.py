"""Shared by the tests of shards and of Ray: a toy federation, requests to it, and equality."""

from dataclasses import replace

import torch

from fedtsd.clients.engine import ClientSide
from fedtsd.clients.solvers.sgd import Sgd
from fedtsd.messages import ClientRequest, Engine, Reply, Request, Train
from fedtsd.models import Mlp, initialise, tensors_of
from fedtsd.precision import Precision
from fedtsd.seeding import torch_rng
from fedtsd.training import Phase, Training
from tests.conftest import gaussian_federation

PHASE = Phase("all", 2, 0.0)
HEAD = frozenset({"fc2.weight", "fc2.bias"})


def side_of(num_clients: int = 5) -> ClientSide:
    model = Mlp((4,), 0.0).build((2,), 2)
    initialise(model, torch_rng(0, "model"))
    training = Training(1, 1, 10, 0.1, 0.9, 0.0, 0.0, None, (PHASE,))
    federation = gaussian_federation(num_clients)
    device, precision = torch.device("cpu"), Precision("fp32")
    return ClientSide(federation, model, HEAD, training, 0, device, precision, num_clients, Sgd())


def models() -> tuple[dict[str, torch.Tensor], ...]:
    """Two models, as of two clusters."""
    first = {name: t.detach().clone() for name, t in tensors_of(side_of().model).items()}
    return first, {name: tensor + 0.25 for name, tensor in first.items()}


def request_of(round: int, task, clients=range(5), personal=HEAD) -> Request:
    rows = tuple(ClientRequest(client, client % 2, personal) for client in clients)
    return Request(round, task, models(), rows)


def train(round: int, clients=range(5), sums=None, public=None) -> Request:
    return request_of(round, Train((PHASE,), public, sums), clients)


def assert_same(found: Reply, expected: Reply) -> None:
    """The same bits but for the time taken; sums within the rounding of float64."""
    assert found.round == expected.round
    for ours, theirs in zip(found.rows, expected.rows, strict=True):
        assert ours.tensors.keys() == theirs.tensors.keys()
        for name in theirs.tensors:
            assert torch.equal(ours.tensors[name], theirs.tensors[name])
        assert (ours.outputs is None) == (theirs.outputs is None)
        assert ours.outputs is None or torch.equal(ours.outputs, theirs.outputs)
        bare = {"tensors": {}, "outputs": None, "seconds": 0.0}
        assert replace(ours, **bare) == replace(theirs, **bare)
    assert (found.sums is None) == (expected.sums is None)
    for one, other in zip(found.sums or (), expected.sums or (), strict=True):
        assert one.weights == other.weights
        for name in other.tensors:
            torch.testing.assert_close(one.tensors[name], other.tensors[name], rtol=1e-13, atol=0)


def assert_same_state(found: Engine, expected: Engine) -> None:
    ours, theirs = found.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
