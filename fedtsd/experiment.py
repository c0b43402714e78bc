"""One experiment: build the parts, run THE LOOP, write what it leaves behind.

Shapes: N clients, L layers.
"""

import dataclasses
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from torch import Tensor

from fedtsd.channel import Channel
from fedtsd.clients.engine import ClientSide, choose_device
from fedtsd.config import Config
from fedtsd.data.dataset import Arrays, Dataset, default_root
from fedtsd.data.federation import Federation, build_federation
from fedtsd.data.skew import skew_of
from fedtsd.messages import ClientRequest, Engine, Evaluate, Probe, Reply, Request, Task, Train
from fedtsd.models import Layer, initialise, layers_of, tensors_of
from fedtsd.observer import Observer
from fedtsd.precision import Precision
from fedtsd.records import (
    Evaluated,
    assignment_rows,
    model_rows,
    sums_rows,
    write_partition,
    write_round,
    write_schema,
    write_similarity,
)
from fedtsd.run_folder import RunFolder
from fedtsd.score import score_of_task
from fedtsd.seeding import numpy_rng, torch_rng
from fedtsd.server import ABSENT, ServerState, joined, start_state
from fedtsd.summary import summarise
from fedtsd.training import NUM_BINS, Phase

log = logging.getLogger(__name__)


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
    """The parts of a run. The server side holds no data: it reaches clients through the channel."""

    config: Config
    layers: tuple[Layer, ...]
    num_public: int
    engine: Engine
    channel: Channel
    start: RunState

    def run(
        self, folder: RunFolder, state: RunState, observers: Iterable[Observer] = ()
    ) -> ServerState:
        """Run all rounds after `state` and return the server's last state. This is the loop."""
        cfg, server = self.config, state.server
        for r in range(state.round + 1, cfg.rounds + 1):
            started = time.perf_counter()
            before = server
            server = self.admit(server, r)
            request = self.train_request(server, r)
            reply = self.channel.exchange(request)  # clients work here
            server = self.measure(server, request, reply)
            server = cfg.clustering.assign(server, r, numpy_rng(cfg.seed, "clustering", r))
            server = cfg.personalization.adapt(server, r)
            server = cfg.aggregation.update(server, reply)
            traffic = self.channel.drain()
            evaluation = None
            if r % cfg.eval_every == 0 or r == cfg.rounds:
                evaluation = self.evaluate(server, r)
            log_changes(before, server, r)
            seconds = time.perf_counter() - started
            row = write_round(folder, cfg, r, server, evaluation, traffic, seconds)
            if r % cfg.checkpoint_every == 0 or r == cfg.rounds:
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
        rows = tuple(ClientRequest(c, 0, frozenset()) for c in newcomers.tolist())
        reply = self.channel.exchange(Request(round, Probe(look), server.centres, rows))
        return {row.client: int(np.argmin(row.losses)) for row in reply.rows}

    def evaluate(self, server: ServerState, round: int) -> Evaluated:
        """Ask clients how the model does that they would receive next, newcomers apart."""
        newcomers = np.flatnonzero(self.start.server.assignment == ABSENT)
        others = self.config.evaluation.choose(self.start.server.present, self.config.seed)
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

    def train_request(self, server: ServerState, round: int) -> Request:
        """Choose the cohort and the public samples of a round."""
        cfg = self.config
        rng = numpy_rng(cfg.seed, "cohort", round)
        size = cfg.cohort.size or len(server.present)
        cohort = np.sort(rng.choice(server.present, size=size, replace=False))
        public, tellers = None, np.ones(server.num_clients, dtype=bool)
        if cfg.reads_outputs:
            if round < cfg.rounds:  # after the last round reports show how all clients ended
                tellers = cfg.similarity.tellers(server, round)
            rng = numpy_rng(cfg.seed, "public samples", round)
            public = cfg.similarity.choose_public(server, self.num_public, rng)
        # Sums lose who sent what: they do where no policy asks for that.
        blind = not cfg.reads_outputs and not cfg.clustering.uses_updates
        sums = cfg.aggregation.sums if blind else None
        task = Train(cfg.training.phases, public, sums)
        return self.request(server, round, task, cohort, tellers)

    def evaluate_request(self, server: ServerState, round: int, clients: np.ndarray) -> Request:
        """Ask clients how the model does that they would receive next."""
        tuning = Phase("all", self.config.evaluation.tuning_epochs, 0.0)
        task = Evaluate(self.config.evaluation.stages, tuning)
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
                tellers is None or bool(tellers[client]),
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
        return server


def build(config: Config, federation: Federation) -> Experiment:
    """Build all parts from the config; the same seed gives the same parts."""
    model = config.model.build(federation.input_shape, federation.num_outputs)
    initialise(model, torch_rng(config.seed, "model"))
    layers = layers_of(model)
    initial = {name: tensor.detach().clone() for name, tensor in tensors_of(model).items()}
    may_keep = config.personalization.may_keep(len(layers))
    keeps = frozenset(
        name for layer, kept in zip(layers, may_keep, strict=True) if kept for name in layer.tensors
    )
    side = ClientSide(
        federation,
        model,
        keeps,
        config.training,
        config.seed,
        choose_device(config.device),
        Precision(config.precision),
        config.cohort.size or federation.num_clients,
    )
    engine = config.engine.build(side)
    shapes = {name: tensor.shape for name, tensor in initial.items()}
    channel = Channel(engine, shapes, NUM_BINS if federation.regression else federation.num_outputs)
    personal = config.personalization.start(federation.num_clients, len(layers))
    server = start_state(initial, personal, federation.newcomers)
    start = RunState(0, server, engine.state_dict())
    return Experiment(config, layers, len(federation.public), engine, channel, start)


def load_federation(config: Config) -> Federation:
    """Load the data set and deal it to the clients."""
    arrays = load_arrays(config)
    return build_federation(arrays, config.deal, root_of(config), config.seed)


def root_of(config: Config) -> Path:
    """Return where data sets are kept."""
    return Path(config.data.root) if config.data.root else default_root()


def load_arrays(config: Config) -> Arrays:
    """Load a run's data set, once per process: the cells of a sweep share it."""
    return _load_arrays(config.dataset, root_of(config))


@lru_cache(maxsize=2)
def _load_arrays(dataset: Dataset, root: Path) -> Arrays:
    return dataset.load(root)


def execute(
    config: Config,
    federation: Federation,
    folder: RunFolder,
    observers: Sequence[Observer] = (),
) -> None:
    """Run an experiment in its folder from its last checkpoint on, or from the start.

    Observers are told of every round and see nothing else. An interruption leaves a checkpoint of
    the last whole round; tables never hold half a round.
    """
    experiment = build(config, federation)
    saved = folder.load_checkpoint()
    state = RunState.from_state_dict(saved) if saved else experiment.start
    experiment.engine.load_state_dict(state.clients)
    folder.rewind(state.round if saved else -1, score_of_task(federation.regression))
    if not saved:
        folder.append("assignments", assignment_rows(0, state.server))
        folder.append("exchanged", sums_rows(federation))
    write_partition(folder, federation)
    write_schema(folder, config.dataset)
    initial = experiment.start.server.centres[0]
    folder.write_json("model", list(model_rows(experiment.layers, initial)))
    for line in describe(config, federation, experiment.layers):
        log.info("%s", line)
    with ExitStack() as stack:
        stack.callback(experiment.engine.close)
        # A sum split over threads has other bits, so the server's algebra has one thread too.
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        for observer in observers:
            observer.start(state.round)
            stack.callback(observer.stop)
        server = experiment.run(folder, state, observers)
    write_similarity(folder, federation, server)
    folder.write_json("summary", summarise(folder.path, config, federation, experiment.layers))


def log_changes(before: ServerState, after: ServerState, round: int) -> None:
    """Say in the log when clusters or personal layers changed, and whose layers fell."""
    if (after.assignment_round == round).any():
        groups = [after.members(cluster).tolist() for cluster in range(len(after.centres))]
        log.info("round %d: clusters are now %s", round, groups)
    was, now = before.personal.sum(axis=1), after.personal.sum(axis=1)
    if not np.array_equal(was, now):
        log.info("round %d: personal layers per client are now %s", round, now.tolist())
    for client in np.flatnonzero(now < was):
        log.info(
            "round %d: client %d keeps %d layers instead of %d; the rest restart from its cluster",
            round, client, now[client], was[client],
        )  # fmt: skip


def describe(config: Config, federation: Federation, layers: tuple[Layer, ...]) -> list[str]:
    """Return lines about what is about to run: parts, skew, what to know of the data."""
    sizes = federation.label_counts("train").sum(axis=1)
    first = (
        f"{config.method.name} on {config.dataset.name}: {len(sizes)} clients with "
        f"{sizes.min()} to {sizes.max()} training samples, {len(layers)} layers, "
        f"{len(federation.public)} public samples"
    )
    notes = [f"data: {note}" for note in federation.notes]
    return [first, f"skew: {skew_of(federation).in_words(federation.regression)}", *notes]
