"""Everything that crosses between server and clients, and the one door it crosses through.

A `Request` holds one row per client, a `Reply` one row per client that answered; both are plain
data, so that an engine may as well send each row over a network. `Channel.exchange` checks every
reply against its request and counts the bytes of every tensor in both directions.

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
from fedtsd.training import Phase

STAGES = ("personalized", "tuned")
"""Which model of a client is evaluated: with its personal layers laid over what it received, or
that model after local epochs on the client's training data. The last one asked for is served."""


@dataclass(frozen=True)
class ClientRequest:
    """What one client receives: the shared layers of its cluster, and what to keep to itself."""

    client: int
    tensors: Tensors
    personal: frozenset[str]


@dataclass(frozen=True)
class Train:
    """Train in these phases; then run these public samples (indices [B]) and send the outputs."""

    phases: tuple[Phase, ...]
    public: Tensor | None


@dataclass(frozen=True)
class Evaluate:
    """Evaluate these stages on the splits `val` and `test`; `tuning` makes the tuned stage."""

    stages: tuple[str, ...]
    tuning: Phase


@dataclass(frozen=True)
class Probe:
    """Try these models, one per cluster, and send the loss of each on your own training samples.

    look: whether this is only the simulation's look, like an evaluation, and no traffic.
    """

    models: tuple[Tensors, ...]
    look: bool


Task = Train | Evaluate | Probe


@dataclass(frozen=True)
class Request:
    """One exchange with a cohort of C clients."""

    round: int
    task: Task
    rows: tuple[ClientRequest, ...]

    @property
    def clients(self) -> tuple[int, ...]:
        """The ids of the cohort."""
        return tuple(row.client for row in self.rows)


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

    tensors: its trained shared layers; empty after an evaluation.
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
    """The answers to a request, in its order."""

    round: int
    rows: tuple[ClientReply, ...]


class Engine(Protocol):
    """Whatever runs the clients: in this process, in others, or on other machines."""

    def handle(self, request: Request) -> Reply:
        """Let every client of the request do its task."""
        ...

    def state_dict(self) -> dict[int, dict[str, Tensor]]:
        """Return what clients keep between rounds: personal layers by client id."""
        ...

    def load_state_dict(self, state: Mapping[int, Mapping[str, Tensor]]) -> None:
        """Take back what `state_dict` returned."""
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
            up, down = _sent(row), _received(request.task, asked)
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
            where = f"round {request.round}, client {row.client}"
            self._check_tensors(request.task, asked, row, where)
            self._check_outputs(request.task, row, where)
            _check_losses(request.task, row, where)
            if row.num_examples < 1:
                raise ProtocolError(f"{where}: num_examples is {row.num_examples}, must be >= 1")

    def _check_tensors(
        self, task: Task, asked: ClientRequest, row: ClientReply, where: str
    ) -> None:
        if leaked := sorted(asked.personal & row.tensors.keys()):
            raise PrivacyError(f"{where}: personal tensors in the reply: {', '.join(leaked)}")
        expected = asked.tensors.keys() if isinstance(task, Train) else set()
        if row.tensors.keys() != expected:
            odd = sorted(row.tensors.keys() ^ expected)
            raise ProtocolError(f"{where}: not the tensors that were asked for: {', '.join(odd)}")
        for name, tensor in row.tensors.items():
            if tensor.shape != self._shapes[name] or tensor.dtype != torch.float32:
                raise ProtocolError(
                    f"{where}: {name} is {tensor.dtype} {tuple(tensor.shape)}, "
                    f"must be torch.float32 {tuple(self._shapes[name])}"
                )
            if not torch.isfinite(tensor).all():
                raise ProtocolError(
                    f"{where}: {name} has NaN or infinite values; training diverged, "
                    "try a smaller training.lr"
                )

    def _check_outputs(self, task: Task, row: ClientReply, where: str) -> None:
        public = task.public if isinstance(task, Train) else None
        if (row.outputs is None) != (public is None):
            raise ProtocolError(f"{where}: outputs on public samples were not as asked for")
        if row.outputs is None or public is None:
            return
        shape = (len(public), self._num_classes)
        if row.outputs.shape != shape or not torch.isfinite(row.outputs).all():
            raise ProtocolError(f"{where}: outputs must be finite and of shape {shape}")


def _sent(row: ClientReply) -> dict[str, int]:
    """Return the bytes of everything in a reply, by name."""
    sizes = {name: _num_bytes(tensor) for name, tensor in row.tensors.items()}
    if row.outputs is not None:
        sizes[SENT_OUTPUTS] = _num_bytes(row.outputs)
    if row.losses:
        sizes[SENT_LOSSES] = FLOAT_BYTES * len(row.losses)
    return sizes


def _received(task: Task, asked: ClientRequest) -> dict[str, int]:
    """Return the bytes of everything that one client is sent, by name."""
    sizes = {name: _num_bytes(tensor) for name, tensor in asked.tensors.items()}
    if isinstance(task, Train) and task.public is not None:
        sizes[SENT_PUBLIC] = _num_bytes(task.public)
    if isinstance(task, Probe):
        for model in task.models:
            for name, tensor in model.items():
                sizes[name] = sizes.get(name, 0) + _num_bytes(tensor)
    return sizes


def _check_losses(task: Task, row: ClientReply, where: str) -> None:
    expected = len(task.models) if isinstance(task, Probe) else 0
    if len(row.losses) != expected or not all(map(math.isfinite, row.losses)):
        raise ProtocolError(f"{where}: {expected} finite losses were asked for, got {row.losses}")


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
