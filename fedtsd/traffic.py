"""What crosses the door, in bytes, by client and by item."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from fedtsd.messages import (
    ClientReply,
    ClientRequest,
    Describe,
    Halve,
    Probe,
    Reply,
    Request,
    Train,
)


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

    item: the name of a tensor, or one of the SENT_... below.
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
SENT_NOISE = "divergence between its halves"
SENT_SUMS = "sums for standardisation"
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Traffic:
    """What crossed the door in training rounds; evaluation is a simulation's look, not traffic."""

    clients: tuple[ClientTraffic, ...] = ()
    items: tuple[ItemTraffic, ...] = ()

    def with_more(self, more: "Traffic") -> "Traffic":
        """Return this and what crossed later; what one client exchanged is one row."""
        clients = _per_client((*self.clients, *more.clients))
        return Traffic(clients, (*self.items, *more.items))

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


def traffic_of(request: Request, reply: Reply) -> Traffic:
    """Return what crossed in one exchange, whether it could be used or not."""
    clients, sizes = [], defaultdict[tuple[str, str], list[int]](list)
    shared = _SharedSizes(request)
    answers = defaultdict[int, list[ClientReply]](list)
    for row in reply.rows:
        answers[row.client].append(row)
    for asked in request.rows:
        rows = answers[asked.client]
        ups, down = [_sent(shared, asked, row) for row in rows], _received(shared, asked)
        for direction, crossed in (*(("up", up) for up in ups), ("down", down)):
            for item, num_bytes in crossed.items():
                sizes[direction, item].append(num_bytes)
        clients.append(
            ClientTraffic(
                asked.client,
                sum(sum(up.values()) for up in ups),
                sum(down.values()),
                rows[0].num_samples if rows else 0,
                rows[0].seconds if rows else 0.0,
            )
        )
    items = [ItemTraffic(*key, len(found), sum(found)) for key, found in sizes.items()]
    return Traffic(tuple(clients), tuple(items))


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
    if row.noise is not None:
        sizes[SENT_NOISE] = FLOAT_BYTES
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
    task = request.task
    if isinstance(task, Train | Halve) and (public := task.public_for(asked)) is not None:
        sizes[SENT_PUBLIC] = _num_bytes(public)
    return sizes


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
