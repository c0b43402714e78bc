"""One experiment, as one value, and THE LOOP that runs it.

Shapes: N clients, L layers.
"""

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from fedtsd.aggregation import sums_in
from fedtsd.channel import Channel
from fedtsd.config import Config
from fedtsd.errors import ProtocolError
from fedtsd.messages import (
    ClientRequest,
    Engine,
    Evaluate,
    Halve,
    Probe,
    Reply,
    Request,
    Task,
    Train,
)
from fedtsd.minimum import released
from fedtsd.models import Layer
from fedtsd.noise_floor import told
from fedtsd.observer import Observer
from fedtsd.records import Evaluated, write_replies, write_round
from fedtsd.run_folder import RunFolder
from fedtsd.run_log import log_changes, log_incidents
from fedtsd.seeding import numpy_rng
from fedtsd.server import ABSENT, ServerState, joined
from fedtsd.sums import Sums
from fedtsd.training import Phase

if TYPE_CHECKING:
    from fedtsd.accountant import Account


@dataclass(frozen=True)
class RunState:
    """The whole state of a run after a round: the server's, and what clients keep."""

    round: int
    server: ServerState
    clients: dict[str, Tensor]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as one literal."""
        return {
            "round": self.round,
            "server": self.server.state_dict(),
            "clients": self.clients,
        }

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> "RunState":
        """Rebuild the state from its literal."""
        server = ServerState.from_state_dict(state["server"])
        return cls(state["round"], server, state["clients"])


@dataclass(frozen=True)
class Experiment:
    """The parts of a run. The server side holds no data: it reaches clients through the channel.

    crosses_more: whether the solver sends tensors beside the model. account: what a private run
    spends; None if nothing is private.
    """

    config: Config
    layers: tuple[Layer, ...]
    num_public: int
    crosses_more: bool
    engine: Engine
    channel: Channel
    start: RunState
    account: "Account | None"

    @property
    def rounds(self) -> int:
        """How many rounds are run: those asked for, or fewer if privacy has a budget."""
        return self.config.rounds if self.account is None else self.account.rounds

    def run(
        self, folder: RunFolder, state: RunState, observers: Iterable[Observer] = ()
    ) -> ServerState:
        """Run all rounds after `state` and return the server's last state. This is the loop."""
        cfg, server = self.config, state.server
        for r in range(state.round + 1, self.rounds + 1):
            started = time.perf_counter()
            before = server
            server = self.admit(server, r)
            cohort = self.cohort(server, r)
            server, halved = self.gauge(server, cohort, r)
            consulted, probed = self.consult(server, cohort, r)
            request = self.train_request(consulted, r, halved | probed)
            reply = self.channel.exchange(request)  # clients work here
            if enough := self.enough(server, reply):  # else the server learns nothing
                server = self.measure(consulted, request, reply)
                server = cfg.clustering.assign(server, r, numpy_rng(cfg.seed, "clustering", r))
                server = cfg.personalization.adapt(server, r)
                server = cfg.prior.adapt(server, r)
                reply = released(server, request, reply)
                server = self.aggregate(server, reply)
            traffic = self.channel.drain()
            evaluation = None
            if r % cfg.eval_every == 0 or r == self.rounds:
                evaluation = self.evaluate(server, r)
            log_changes(before, server, r)
            log_incidents(reply, enough)
            seconds = time.perf_counter() - started
            write_replies(folder, request, reply, enough)
            epsilon = None if self.account is None else self.account.epsilon(r)
            row = write_round(folder, cfg, r, server, evaluation, traffic, seconds, epsilon)
            if r % cfg.checkpoint_every == 0 or r == self.rounds:
                state = RunState(r, server, self.engine.state_dict())
                folder.save_checkpoint(r, state.state_dict())
            for observer in observers:
                observer.round(row)
        return server

    def admit(self, server: ServerState, round: int) -> ServerState:
        """Let newcomers in that are due, each to the cluster whose model fits its samples best."""
        if round != self.config.cohort.join_round:
            return server
        newcomers = np.flatnonzero(server.assignment == ABSENT)
        return joined(server, self.nearest_clusters(server, newcomers, round, look=False), round)

    def nearest_clusters(
        self, server: ServerState, newcomers: np.ndarray, round: int, look: bool
    ) -> dict[int, int]:
        """Return by client id the cluster whose model has the lowest loss on its training data."""
        if len(server.centres) == 1:  # nothing to choose, nothing to send
            return dict.fromkeys(newcomers.tolist(), 0)
        rows = tuple(
            ClientRequest(c, 0, frozenset(), prior=bool(server.prior[c]))
            for c in newcomers.tolist()
        )
        reply = self.channel.exchange(Request(round, Probe(look), server.centres, rows))
        return {row.client: int(np.argmin(row.losses)) for row in reply.rows}

    def evaluate(self, server: ServerState, round: int) -> Evaluated:
        """Ask clients how the model does that they would receive next, newcomers apart."""
        newcomers = np.flatnonzero(self.start.server.assignment == ABSENT)
        present = self.start.server.present
        honest = present[~self.config.attackers(server.num_clients)[present]]
        others = self.config.evaluation.choose(honest, self.config.seed)
        server, _ = self.consult(server, others, round, look=True)
        reply = self.channel.exchange(self.evaluate_request(server, round, others))
        if not len(newcomers):
            return Evaluated(reply, None, server)
        absent = np.flatnonzero(server.assignment == ABSENT)
        if len(absent):
            # As if they joined now: the model of the nearest cluster, with nothing private yet.
            clusters = self.nearest_clusters(server, absent, round, look=True)
            personal = np.where((server.assignment == ABSENT)[:, None], False, server.personal)
            server = dataclasses.replace(joined(server, clusters, round), personal=personal)
        request = self.evaluate_request(server, round, newcomers)
        return Evaluated(reply, self.channel.exchange(request), server)

    def cohort(self, server: ServerState, round: int) -> np.ndarray:
        """Choose who is asked to train in a round: client ids, sorted."""
        cfg, clients = self.config, server.present
        cohort = cfg.cohort
        if cfg.faults is not None:
            cohort = dataclasses.replace(cohort, size=cfg.faults.asked(cohort.size or len(clients)))
            clients = cfg.faults.available(clients, round, cfg.seed)
        return cohort.choose(clients, cfg.seed, round)

    def enough(self, server: ServerState, reply: Reply) -> bool:
        """Return whether a round has the replies that it needs; otherwise it is abandoned.

        Raises ProtocolError if there are none although nothing is simulated to fail.
        """
        faults = self.config.faults
        if faults is not None:
            return len(reply.rows) >= faults.needed(self.config.cohort.size or len(server.present))
        if not reply.rows:
            first = reply.incidents[0]
            raise ProtocolError(f"round {reply.round}, client {first.client}: {first.reason}")
        return True

    def gauge(
        self, server: ServerState, clients: np.ndarray, round: int
    ) -> tuple[ServerState, frozenset[int]]:
        """Let these clients measure the noise floor, if a policy needs it in this round.

        Return also who has been sent its model for that.
        """
        policies = self.config.personalization, self.config.prior
        if not any(policy.lacks_noise_floor(server, round) for policy in policies):
            return server, frozenset()
        task = Halve(self.config.training.phases, self.public_samples(server, round))
        reply = self.channel.exchange(self.request(server, round, task, clients))
        return told(server, reply), frozenset(clients.tolist())

    def consult(
        self, server: ServerState, clients: np.ndarray, round: int, look: bool = False
    ) -> tuple[ServerState, frozenset[int]]:
        """Let the clustering policy ask what it needs to know before these clients work.

        Return also who has been sent the models of all clusters for that.
        """
        clustering = self.config.clustering
        question = clustering.question(server, clients, round, look) if len(clients) else None
        if question is None:
            return server, frozenset()
        request = self.request(server, round, question.task, question.clients)
        probed = isinstance(question.task, Probe)
        if not probed:
            request = dataclasses.replace(request, models=())
        reply = self.channel.exchange(request)
        if reply.rows:
            server = clustering.answered(server, reply)
        return server, frozenset(question.clients.tolist() if probed else ())

    def train_request(
        self, server: ServerState, round: int, holders: frozenset[int] = frozenset()
    ) -> Request:
        """Choose the cohort and the public samples of a round.

        holders: the clients that have their model already.
        """
        cfg = self.config
        cohort = self.cohort(server, round)
        public, tellers = None, np.ones(server.num_clients, dtype=bool)
        if cfg.reads_outputs:
            if round < self.rounds:  # after the last round reports show how all clients ended
                tellers = cfg.similarity.tellers(server, round)
            public = self.public_samples(server, round)
        # Sums lose who sent what: they do where no policy asks for that.
        clustering = cfg.clustering
        sighted = cfg.reads_outputs or clustering.uses_updates or clustering.reads_models
        sighted = sighted or cfg.robust is not None
        sums = None if sighted or self.crosses_more else cfg.aggregation.sums
        task = Train(cfg.training.phases, public, sums)
        request = self.request(server, round, task, cohort, tellers)
        rows = tuple(dataclasses.replace(row, holds=row.client in holders) for row in request.rows)
        return dataclasses.replace(request, rows=rows)

    def public_samples(self, server: ServerState, round: int) -> Tensor:
        """Choose the public samples of a round, indices [B]."""
        rng = numpy_rng(self.config.seed, "public samples", round)
        return self.config.similarity.choose_public(server, self.num_public, rng)

    def evaluate_request(self, server: ServerState, round: int, clients: np.ndarray) -> Request:
        """Ask clients how the model does that they would receive next."""
        tuning = Phase("all", self.config.evaluation.tuning_epochs, 0.0)
        task = Evaluate(self.config.evaluation.stages, tuning, self.config.evaluation.head)
        return self.request(server, round, task, clients)

    def request(
        self,
        server: ServerState,
        round: int,
        task: Task,
        clients: np.ndarray,
        tellers: np.ndarray | None = None,
    ) -> Request:
        """Split each client's model into what is sent and what is personal: here and only here.

        tellers: bool [N], who sends outputs if the task asks for them; None means everybody. Raises
        ValueError for a newcomer that has not joined: it has no cluster to be sent.
        """
        if (server.assignment[clients] == ABSENT).any():
            raise ValueError(f"round {round}: clients that have not joined cannot be asked")
        sets, which = np.unique(server.personal[clients], axis=0, return_inverse=True)
        personal = [self.tensors_in(kept) for kept in sets]
        rows = tuple(
            ClientRequest(
                client,
                int(server.assignment[client]),
                personal[kept],
                tells=tellers is None or bool(tellers[client]),
                prior=bool(server.prior[client]),
            )
            for client, kept in zip(clients.tolist(), which.reshape(-1), strict=True)
        )
        return Request(round, task, server.centres, rows)

    def tensors_in(self, layers: np.ndarray) -> frozenset[str]:
        """Return the names of the tensors in some layers, bool [L]."""
        chosen = zip(self.layers, layers, strict=True)
        return frozenset(name for layer, kept in chosen if kept for name in layer.tensors)

    def measure(self, server: ServerState, request: Request, reply: Reply) -> ServerState:
        """Measure what the policies read of the clients' likeness, nothing more."""
        cfg = self.config
        if isinstance(request.task, Train) and request.task.public is not None:
            server = cfg.similarity.measure_outputs(
                server, request, reply, request.task.public, self.num_public
            )
        if cfg.clustering.uses_updates:
            server = cfg.similarity.measure_updates(server, request, reply)
        return cfg.clustering.measure(server, request, reply)

    def aggregate(self, server: ServerState, reply: Reply) -> ServerState:
        """Make new centres, from what a robust rule lets through, clusters of a family as one."""
        cfg, weighting = self.config, self.config.aggregation.sums
        if cfg.coding is None or weighting is None:  # a coding always comes with sums
            return cfg.aggregation.update(server, self.agreed(server, reply), self.layers)

        def rule(server: ServerState, reply: Reply) -> tuple[Sums, ...]:
            return sums_in(server, self.agreed(server, reply), weighting)

        server = cfg.coding.compare(server, reply)
        reply = cfg.coding.summed(server, reply, self.layers[-1], rule)
        return cfg.aggregation.update(server, reply, self.layers)

    def agreed(self, server: ServerState, reply: Reply) -> Reply:
        """Return what a robust rule lets through, if there is one."""
        robust = self.config.robust
        return reply if robust is None else robust.summed(server, reply)
