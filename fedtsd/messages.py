"""Everything that crosses between server and clients, and the one door it crosses through.

A `Request` holds the models to send and one row per client, a `Reply` one row per client that
answered; both are plain data, so that an engine may as well send each row over a network.
`Channel.exchange` checks every reply against its request and counts the bytes of every tensor in
both directions.

Shapes: N clients, C cohort, B public samples of a round, Y classes.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fedtsd.errors import PrivacyError, ProtocolError
from fedtsd.server import Tensors
from fedtsd.sums import Sums, weight_of
from fedtsd.training import Phase

STAGES = ("personalized", "tuned")
"""Which model of a client is evaluated: with its personal layers laid over what it received, or
that model after local epochs on the client's training data. The last one asked for is served."""


@dataclass(frozen=True)
class ClientRequest:
    """What one client is told.

    model: which of the request's models it receives; a `Probe` sends all of them to everybody.
    personal: the tensors that stay with the client: it is not sent them, and keeps its own.
    tells: whether it sends its outputs, where the task asks for outputs.
    """

    client: int
    model: int
    personal: frozenset[str]
    tells: bool = True


@dataclass(frozen=True)
class Train:
    """Train in these phases; then run these public samples (indices [B]) and send the outputs.

    sums: None, or the weighting (`fedtsd.sums`) by which the trained models are added up on their
    way, so that the server meets only one sum per model that it sent.
    """

    phases: tuple[Phase, ...]
    public: Tensor | None
    sums: str | None

    def public_for(self, row: ClientRequest) -> Tensor | None:
        """Return the public samples whose outputs a client is asked for, if any."""
        return self.public if row.tells else None


@dataclass(frozen=True)
class Evaluate:
    """Evaluate these stages on the splits `val` and `test`; `tuning` makes the tuned stage."""

    stages: tuple[str, ...]
    tuning: Phase


@dataclass(frozen=True)
class Probe:
    """Try all models of the request and send the loss of each on your own training samples.

    look: whether this is only the simulation's look, like an evaluation, and no traffic.
    """

    look: bool


Task = Train | Evaluate | Probe


@dataclass(frozen=True)
class Request:
    """One exchange with a cohort of C clients.

    models: what the server sends, one per cluster.
    """

    round: int
    task: Task
    models: tuple[Tensors, ...]
    rows: tuple[ClientRequest, ...]

    @property
    def clients(self) -> tuple[int, ...]:
        """The ids of the cohort."""
        return tuple(row.client for row in self.rows)

    def sent(self, row: ClientRequest) -> dict[str, Tensor]:
        """Return what a client is sent of its model: all that it does not keep to itself."""
        model = self.models[row.model]
        return {name: tensor for name, tensor in model.items() if name not in row.personal}

    def public_for(self, row: ClientRequest) -> Tensor | None:
        """Return the public samples (indices [B]) whose outputs a client is asked for, if any."""
        return self.task.public_for(row) if isinstance(self.task, Train) else None


@dataclass(frozen=True)
class Evaluation:
    """One model on one split of one client.

    scores: `accuracy` in 0..1, or in regression `mae` and `rmse` in the target's unit; and `loss`,
    mean cross-entropy in nats or mean squared error of standardised values.
    """

    stage: str
    split: str
    scores: Mapping[str, float]
    num_examples: int


@dataclass(frozen=True)
class ClientReply:
    """What one client sends back.

    tensors: its trained shared layers; empty after an evaluation, and where they were summed.
    num_examples: the size of its training data, its weight in the mean.
    num_samples: training samples processed, all epochs counted.
    seconds: how long the client worked.
    outputs: softmax outputs [B, Y] on the public samples, if they were asked for; in regression,
    probabilities [B, NUM_BINS] (`fedtsd.training`).
    losses: of each model of a probe.
    """

    client: int
    tensors: Tensors
    num_examples: int
    num_samples: int = 0
    seconds: float = 0.0
    outputs: Tensor | None = None
    evaluations: tuple[Evaluation, ...] = ()
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reply:
    """The answers to a request, in its order.

    sums: one per model of the request, of the clients that were sent it, if sums were asked for.
    """

    round: int
    rows: tuple[ClientReply, ...]
    sums: tuple[Sums, ...] | None = None


class Engine(Protocol):
    """Whatever runs the clients: in this process, in others, or on other machines."""

    def handle(self, request: Request) -> Reply:
        """Let every client of the request do its task."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Return what clients keep between rounds: `client`, the ids int64 [n] of those that keep
        anything, sorted, and by name each tensor that may be personal, of all of them [n, ...].
        """
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        ...

    def close(self) -> None:
        """End whatever the engine has started; it cannot be used afterwards."""
        ...


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

    item: the name of a tensor, SENT_OUTPUTS, SENT_PUBLIC, SENT_LOSSES, or SENT_SUMS.
    direction: `up` from clients to the server, or `down`.
    """

    direction: str
    item: str
    num_clients: int
    num_bytes: int


SENT_OUTPUTS = "outputs on public samples"
SENT_PUBLIC = "numbers of public samples"
SENT_LOSSES = "losses of the cluster models"
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
        if isinstance(request.task, Train) or (
            isinstance(request.task, Probe) and not request.task.look
        ):
            self._count(request, reply)
        return reply

    def drain(self) -> Traffic:
        """Return what was counted since the last call."""
        traffic, self._traffic = self._traffic, Traffic()
        return traffic

    def _count(self, request: Request, reply: Reply) -> None:
        clients, sizes = [], defaultdict[tuple[str, str], list[int]](list)
        for asked, row in zip(request.rows, reply.rows, strict=True):
            up, down = _sent(request, asked, row), _received(request, asked)
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
            self._check_outputs(request.public_for(asked), row, where)
            _check_losses(request, row, where)
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


def place_of(request: Request, client: int) -> str:
    """Return the words by which errors say where they happened."""
    return f"round {request.round}, client {client}"


def all_finite(tensor: Tensor) -> bool:
    """Return whether no element is NaN or infinite."""
    # A sum is finite only if all its terms are, and ten times faster than looking at each. It may
    # overflow where they are finite: then each is looked at.
    return math.isfinite(tensor.sum().item()) or bool(torch.isfinite(tensor).all())


def check_finite(tensors: Tensors, where: str) -> None:
    """Raise ProtocolError if training has diverged."""
    for name, tensor in tensors.items():
        if not all_finite(tensor):
            raise ProtocolError(
                f"{where}: {name} has NaN or infinite values; training diverged, "
                "try a smaller training.lr"
            )


def _sent(request: Request, asked: ClientRequest, row: ClientReply) -> dict[str, int]:
    """Return the bytes of everything that a client sends, by name."""
    # Where models are summed on their way, each client sent its own all the same.
    trained = request.sent(asked) if isinstance(request.task, Train) else row.tensors
    sizes = {name: _num_bytes(tensor) for name, tensor in trained.items()}
    if row.outputs is not None:
        sizes[SENT_OUTPUTS] = _num_bytes(row.outputs)
    if row.losses:
        sizes[SENT_LOSSES] = FLOAT_BYTES * len(row.losses)
    return sizes


def _received(request: Request, asked: ClientRequest) -> dict[str, int]:
    """Return the bytes of everything that one client is sent, by name."""
    models = request.models if isinstance(request.task, Probe) else (request.sent(asked),)
    sizes: dict[str, int] = {}
    for model in models:
        for name, tensor in model.items():
            sizes[name] = sizes.get(name, 0) + _num_bytes(tensor)
    public = request.public_for(asked)
    if public is not None:
        sizes[SENT_PUBLIC] = _num_bytes(public)
    return sizes


def _check_losses(request: Request, row: ClientReply, where: str) -> None:
    expected = len(request.models) if isinstance(request.task, Probe) else 0
    if len(row.losses) != expected or not all(map(math.isfinite, row.losses)):
        raise ProtocolError(f"{where}: {expected} finite losses were asked for, got {row.losses}")


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
