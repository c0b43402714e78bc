"""The one door between server and clients: it checks every reply, and counts what crosses.

Shapes: N clients, C cohort, B public samples of a round, Y classes.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtsd.errors import PrivacyError, ProtocolError
from fedtsd.messages import (
    ClientReply,
    ClientRequest,
    Describe,
    Engine,
    Probe,
    Reply,
    Request,
    Train,
    check_finite,
    place_of,
)
from fedtsd.sums import Sums, weight_of


@dataclass(frozen=True)
class ClientTraffic:
    """What one client sent (up) and received (down) in a training round, and its work for it."""

    client: int
    bytes_up: int
    bytes_down: int
    samples: int
    seconds: float


@dataclass(frozen=True)
class ItemTraffic:
    """One thing that crossed the door in a round.

    item: the name of a tensor, SENT_OUTPUTS, SENT_PUBLIC, SENT_LOSSES, SENT_SUBSPACE, or SENT_SUMS.
    direction: `up` from clients to the server, or `down`.
    """

    direction: str
    item: str
    num_clients: int
    num_bytes: int


SENT_OUTPUTS = "outputs on public samples"
SENT_PUBLIC = "numbers of public samples"
SENT_LOSSES = "losses of the cluster models"
SENT_SUBSPACE = "directions of the data"
SENT_SUMS = "sums for standardisation"
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Traffic:
    """What crossed the door in training rounds; evaluation is a simulation's look, not traffic."""

    clients: tuple[ClientTraffic, ...] = ()
    items: tuple[ItemTraffic, ...] = ()

    @property
    def bytes_up(self) -> int:
        """Bytes that all clients sent."""
        return sum(row.bytes_up for row in self.clients)

    @property
    def bytes_down(self) -> int:
        """Bytes that all clients received."""
        return sum(row.bytes_down for row in self.clients)

    @property
    def samples(self) -> int:
        """Training samples processed by all clients."""
        return sum(row.samples for row in self.clients)


class Channel:
    """The only way from the server to the clients.

    shapes: the shape of every tensor of the model, by name.
    num_classes: Y, the width of outputs on public samples.
    """

    def __init__(self, engine: Engine, shapes: Mapping[str, torch.Size], num_classes: int) -> None:
        self._engine = engine
        self._shapes = dict(shapes)
        self._num_classes = num_classes
        self._traffic = Traffic()

    def exchange(self, request: Request) -> Reply:
        """Send a request, check the reply and count both.

        Raises PrivacyError if a client's answer holds personal layers, ProtocolError if it is
        anything else than what was asked for.
        """
        reply = self._engine.handle(request)
        self._check(request, reply)
        if isinstance(request.task, Train | Describe) or (
            isinstance(request.task, Probe) and not request.task.look
        ):
            self._count(request, reply)
        return reply

    def drain(self) -> Traffic:
        """Return what was counted since the last call."""
        traffic, self._traffic = self._traffic, Traffic()
        return Traffic(_per_client(traffic.clients), traffic.items)

    def _count(self, request: Request, reply: Reply) -> None:
        clients, sizes = [], defaultdict[tuple[str, str], list[int]](list)
        shared = _SharedSizes(request)
        for asked, row in zip(request.rows, reply.rows, strict=True):
            up, down = _sent(shared, asked, row), _received(shared, asked)
            for direction, crossed in (("up", up), ("down", down)):
                for item, num_bytes in crossed.items():
                    sizes[direction, item].append(num_bytes)
            sent, received = sum(up.values()), sum(down.values())
            clients.append(ClientTraffic(row.client, sent, received, row.num_samples, row.seconds))
        items = [ItemTraffic(*key, len(found), sum(found)) for key, found in sizes.items()]
        old = self._traffic
        self._traffic = Traffic((*old.clients, *clients), (*old.items, *items))

    def _check(self, request: Request, reply: Reply) -> None:
        if reply.round != request.round:
            raise ProtocolError(f"a reply of round {reply.round} came in round {request.round}")
        answered = tuple(row.client for row in reply.rows)
        if answered != request.clients:
            raise ProtocolError(f"clients {request.clients} were asked, {answered} answered")
        for asked, row in zip(request.rows, reply.rows, strict=True):
            where = place_of(request, row.client)
            if row.num_examples < 1:
                raise ProtocolError(f"{where}: num_examples is {row.num_examples}, must be >= 1")
            self._check_tensors(request, asked, row, where)
            task = request.task
            public = task.public_for(asked) if isinstance(task, Train) else None
            self._check_outputs(public, row, where)
            _check_losses(request, row, where)
            _check_subspace(request, row, where)
        asked_for = request.task.sums if isinstance(request.task, Train) else None
        if (reply.sums is None) != (asked_for is None):
            raise ProtocolError(f"round {request.round}: sums of models were not as asked for")
        if reply.sums is not None and asked_for is not None:
            self._check_sums(request, reply, reply.sums, asked_for)

    def _check_tensors(
        self, request: Request, asked: ClientRequest, row: ClientReply, where: str
    ) -> None:
        if leaked := sorted(asked.personal & row.tensors.keys()):
            raise PrivacyError(f"{where}: personal tensors in the reply: {', '.join(leaked)}")
        expected = set()
        if isinstance(request.task, Train) and request.task.sums is None:
            expected = self._shapes.keys() - asked.personal
        if row.tensors.keys() != expected:
            odd = sorted(row.tensors.keys() ^ expected)
            raise ProtocolError(f"{where}: not the tensors that were asked for: {', '.join(odd)}")
        for name, tensor in row.tensors.items():
            self._check_tensor(name, tensor, torch.float32, where)

    def _check_tensor(self, name: str, tensor: Tensor, dtype: torch.dtype, where: str) -> None:
        if tensor.shape != self._shapes[name] or tensor.dtype != dtype:
            raise ProtocolError(
                f"{where}: {name} is {tensor.dtype} {tuple(tensor.shape)}, "
                f"must be {dtype} {tuple(self._shapes[name])}"
            )
        check_finite({name: tensor}, where)

    def _check_sums(
        self, request: Request, reply: Reply, sums: tuple[Sums, ...], weighting: str
    ) -> None:
        """Check that just those who share a tensor are in its sum, each with its weight."""
        if len(sums) != len(request.models):
            raise ProtocolError(f"{len(request.models)} sums were asked for, got {len(sums)}")
        expected: list[dict[str, float]] = [defaultdict(float) for _ in sums]
        for asked, row in zip(request.rows, reply.rows, strict=True):
            for name in self._shapes.keys() - asked.personal:
                expected[asked.model][name] += weight_of(row.num_examples, weighting)
        for model, (found, weights) in enumerate(zip(sums, expected, strict=True)):
            where = f"round {request.round}, sum {model}"
            if leaked := sorted(found.weights.keys() - weights.keys()):
                raise PrivacyError(f"{where}: tensors that nobody shares: {', '.join(leaked)}")
            if found.weights != weights or found.tensors.keys() != weights.keys():
                raise ProtocolError(f"{where}: is not of the clients that were asked")
            for name, tensor in found.tensors.items():
                self._check_tensor(name, tensor, torch.float64, where)

    def _check_outputs(self, public: Tensor | None, row: ClientReply, where: str) -> None:
        if (row.outputs is None) != (public is None):
            raise ProtocolError(f"{where}: outputs on public samples were not as asked for")
        if row.outputs is None or public is None:
            return
        shape = (len(public), self._num_classes)
        if row.outputs.shape != shape or not torch.isfinite(row.outputs).all():
            raise ProtocolError(f"{where}: outputs must be finite and of shape {shape}")


def _per_client(rows: Iterable[ClientTraffic]) -> tuple[ClientTraffic, ...]:
    """Add up what one client exchanged, such as answers and then training; the order is kept."""
    total: dict[int, ClientTraffic] = {}
    for row in rows:
        old = total.get(row.client, ClientTraffic(row.client, 0, 0, 0, 0.0))
        total[row.client] = ClientTraffic(
            row.client,
            old.bytes_up + row.bytes_up,
            old.bytes_down + row.bytes_down,
            old.samples + row.samples,
            old.seconds + row.seconds,
        )
    return tuple(total.values())


class _SharedSizes:
    """The bytes of what clients are sent of their models, worked out once for equal rows."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._known: dict[tuple[int, frozenset[str]], dict[str, int]] = {}

    def of(self, asked: ClientRequest) -> dict[str, int]:
        """Return the bytes by name."""
        key = asked.model, asked.personal
        if key not in self._known:
            sent = self.request.sent(asked)
            self._known[key] = {name: _num_bytes(tensor) for name, tensor in sent.items()}
        return self._known[key]


def _sent(shared: _SharedSizes, asked: ClientRequest, row: ClientReply) -> dict[str, int]:
    """Return the bytes of everything that a client sends, by name."""
    # Where models are summed on their way, each client sent its own all the same.
    sizes = dict(shared.of(asked)) if isinstance(shared.request.task, Train) else {}
    if row.outputs is not None:
        sizes[SENT_OUTPUTS] = _num_bytes(row.outputs)
    if row.subspace is not None:
        sizes[SENT_SUBSPACE] = _num_bytes(row.subspace)
    if row.losses:
        sizes[SENT_LOSSES] = FLOAT_BYTES * len(row.losses)
    return sizes


def _received(shared: _SharedSizes, asked: ClientRequest) -> dict[str, int]:
    """Return the bytes of everything that one client is sent, by name."""
    request = shared.request
    if isinstance(request.task, Probe):
        sizes: dict[str, int] = {}
        for model in request.models:
            for name, tensor in model.items():
                if name in asked.personal:
                    continue
                sizes[name] = sizes.get(name, 0) + _num_bytes(tensor)
        return sizes
    if isinstance(request.task, Describe):
        return {}
    sizes = {} if asked.holds else dict(shared.of(asked))
    if isinstance(request.task, Train) and (public := request.task.public_for(asked)) is not None:
        sizes[SENT_PUBLIC] = _num_bytes(public)
    return sizes


def _check_losses(request: Request, row: ClientReply, where: str) -> None:
    expected = len(request.models) if isinstance(request.task, Probe) else 0
    if len(row.losses) != expected or not all(map(math.isfinite, row.losses)):
        raise ProtocolError(f"{where}: {expected} finite losses were asked for, got {row.losses}")


def _check_subspace(request: Request, row: ClientReply, where: str) -> None:
    if (row.subspace is None) != (not isinstance(request.task, Describe)):
        raise ProtocolError(f"{where}: directions of the data were not as asked for")
    if row.subspace is not None and (
        row.subspace.ndim != 2
        or row.subspace.dtype != torch.float32
        or not torch.isfinite(row.subspace).all()
    ):
        raise ProtocolError(f"{where}: directions of the data must be a finite float32 matrix")


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
