"""Everything that crosses between server and clients.

A `Request` holds the models to send and one row per client, a `Reply` one row per client that
answered; both are plain data, so that an engine may as well send each row over a network. They
cross through one door, `fedtsd.channel`.

Shapes: N clients, C cohort, B public samples of a round, Y classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from fedtsd.server import Tensors
from fedtsd.sums import Sums
from fedtsd.training import Head, Phase

STAGES = ("personalized", "tuned", "headed", "ensembled")
"""Which model of a client is evaluated. `personalized`: its personal layers laid over what it
received, or whatever else the solver serves. `tuned`: that model after local epochs on the client's
training data. `headed`: `personalized` with a residual head fitted to that data. `ensembled`: the
mean of the probabilities of `personalized` and `tuned`, each with a head of its own. The last one
asked for is served."""


HEADED = ("headed", "ensembled")
"""The stages that have a head."""


@dataclass(frozen=True)
class ClientRequest:
    """What one client is told.

    model: which of the request's models it receives; a `Probe` sends all of them to everybody.
    personal: the tensors that stay with the client: it is not sent them, and keeps its own.
    tells: whether it sends its outputs, where the task asks for outputs.
    prior: whether its network adds the log prior of its own labels to the logits.
    holds: whether it has its model already, from a question in the same round: nothing is sent
    again.
    """

    client: int
    model: int
    personal: frozenset[str]
    tells: bool = True
    prior: bool = False
    holds: bool = False


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
    """Evaluate these stages on the splits `val` and `test`.

    tuning: makes the tuned stage. head: how residual heads are fitted, if a stage has one.
    """

    stages: tuple[str, ...]
    tuning: Phase
    head: Head | None = None


@dataclass(frozen=True)
class Probe:
    """Try all models of the request and send the loss of each on your own training samples.

    look: whether this is only the simulation's look, like an evaluation, and no traffic.
    """

    look: bool


@dataclass(frozen=True)
class Describe:
    """Send the leading left singular vectors of your training samples (PACFL), before training.

    vectors: how many, at most. No model is sent.
    """

    vectors: int


@dataclass(frozen=True)
class Halve:
    """Train in these phases on either half of your samples; send how unlike both models answer.

    That is the mean Jensen-Shannon divergence of their outputs on these public samples (indices
    [B]). Neither model is kept.
    """

    phases: tuple[Phase, ...]
    public: Tensor

    def public_for(self, row: ClientRequest) -> Tensor:
        """Return the public samples that a client is told: everybody is."""
        return self.public


Task = Train | Evaluate | Probe | Describe | Halve


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

    @property
    def is_look(self) -> bool:
        """Whether this is only the simulation's look, which does not count as traffic."""
        task = self.task
        return isinstance(task, Evaluate) or (isinstance(task, Probe) and task.look)

    def sent(self, row: ClientRequest) -> dict[str, Tensor]:
        """Return what a client is sent of its model: all that it does not keep to itself."""
        model = self.models[row.model]
        return {name: tensor for name, tensor in model.items() if name not in row.personal}


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
    subspace: float32 [D, v], orthonormal columns, the answer to `Describe`; D features.
    noise: in 0..1, the answer to `Halve`.
    flaw: why its model is not in the sum, said by whoever adds up (`fedtsd.refusal`).
    """

    client: int
    tensors: Tensors
    num_examples: int
    num_samples: int = 0
    seconds: float = 0.0
    outputs: Tensor | None = None
    evaluations: tuple[Evaluation, ...] = ()
    losses: tuple[float, ...] = ()
    subspace: Tensor | None = None
    noise: float | None = None
    flaw: str | None = None


INCIDENTS = ("crashed", "lost", "late", "refused", "duplicated")
"""What can happen to a reply. One that came twice is taken once; all others are not taken."""


@dataclass(frozen=True)
class Incident:
    """What happened to the reply of one client that was asked.

    outcome: one of INCIDENTS. reason: in words.
    """

    client: int
    outcome: str
    reason: str


@dataclass(frozen=True)
class Withheld:
    """A tensor that was not aggregated: `num_clients` of the cluster shared it, too few."""

    cluster: int
    item: str
    num_clients: int


@dataclass(frozen=True)
class Reply:
    """The answers to a request, in its order: of all clients that were asked, but for incidents.

    sums: one per model of the request, of the clients that were sent it, if sums were asked for.
    incidents: who was asked and has no row, or more than one. simulated_seconds: how long the
    exchange took on the virtual clock (`fedtsd.faults`); None without one. withheld: what has been
    taken out again (`fedtsd.minimum`).
    """

    round: int
    rows: tuple[ClientReply, ...]
    sums: tuple[Sums, ...] | None = None
    incidents: tuple[Incident, ...] = ()
    simulated_seconds: float | None = None
    withheld: tuple[Withheld, ...] = ()


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


def place_of(request: Request, client: int) -> str:
    """Return the words by which errors say where they happened."""
    return f"round {request.round}, client {client}"
