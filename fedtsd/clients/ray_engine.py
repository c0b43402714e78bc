"""Clients on a Ray cluster: each actor runs a fixed shard of them, with their data and what they
keep, and answers through the same door.

A model crosses the network once per machine and request, and where sums suffice each actor returns
one sum instead of its clients' models. The same number of actors gives the same bits; another
number adds the same float64 sums in another order.

Shapes: N clients, A actors.
"""

import dataclasses
import math
import shutil
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedtsd.clients.engine import ClientSide, EngineSpec
from fedtsd.clients.ray_actors import Answer, Shard
from fedtsd.clients.ray_calls import Actors
from fedtsd.clients.ray_cluster import Cluster, Size, check_ray
from fedtsd.clients.ray_log import merged, rows_of
from fedtsd.data.federation import Federation
from fedtsd.errors import ConfigError
from fedtsd.messages import ClientRequest, Reply, Request, Train
from fedtsd.sums import Sums


@dataclass(frozen=True)
class Ray:
    """Settings.

    address: of a running cluster, as `ray.init` takes it; None starts one on this machine. actors:
    None means as many as the cluster has room for. inner: the engine that runs a shard inside its
    actor. checkpoint_dir: where actors log what clients keep; None means the temporary folder of
    the actor's own machine. max_restarts: how often each actor may die and come back. patience:
    seconds to wait for room on the cluster, and for an actor to start.
    """

    address: str | None
    actors: int | None
    cpus_per_actor: float
    gpus_per_actor: float
    inner: EngineSpec
    checkpoint_dir: str | None
    max_restarts: int
    patience: float

    def __post_init__(self) -> None:
        if self.actors is not None and self.actors < 1:
            raise ValueError(f"actors: must be null or at least 1, got {self.actors}")
        if self.cpus_per_actor <= 0:
            raise ValueError(f"cpus_per_actor: must be above 0, got {self.cpus_per_actor}")
        if self.gpus_per_actor < 0:
            raise ValueError(f"gpus_per_actor: must be at least 0, got {self.gpus_per_actor}")
        if self.max_restarts < 0:
            raise ValueError(f"max_restarts: must be at least 0, got {self.max_restarts}")
        if self.patience <= 0:
            raise ValueError(f"patience: must be above 0, got {self.patience}")
        if isinstance(self.inner, Ray):
            raise ValueError("inner: must be an engine that runs in one process, got ray")

    def check(self, device: torch.device) -> None:
        """Raise ValueError if Ray is not installed, or actors could not use the device."""
        check_ray()
        if (device.type == "cuda") != (self.gpus_per_actor > 0):
            raise ValueError(
                f"gpus_per_actor: must be above 0 with device=cuda and 0 with device=cpu, got "
                f"{self.gpus_per_actor:g} with {device.type}"
            )
        try:
            self.inner.check(device)
        except ValueError as error:
            raise ValueError(f"inner.{error}") from error

    def build(self, side: ClientSide) -> "RayEngine":
        """Join or start the cluster and the actors on it.

        Raises ConfigError if no cluster answers, EngineError if it has no room for the actors.
        """
        cluster = Cluster(self.address, *self._local_size())
        try:
            return RayEngine(side, self, cluster)
        except BaseException:
            cluster.close()
            raise

    def _local_size(self) -> tuple[int | None, int | None]:
        """Return the processors of a Ray of our own; None leaves it to Ray to count them."""
        if self.actors is None:
            return None, None
        cpus, gpus = self.actors * self.cpus_per_actor, self.actors * self.gpus_per_actor
        return math.ceil(cpus), math.ceil(gpus)


class RayEngine:
    """Divides requests among actors and puts together what they answer."""

    def __init__(self, side: ClientSide, settings: Ray, cluster: Cluster) -> None:
        self._cluster = cluster
        size = Size(settings.cpus_per_actor, settings.gpus_per_actor)
        count = min(settings.actors or cluster.count(size), side.federation.num_clients)
        cluster.take_room(count, size, settings.patience)
        self._folder = _log_folder(settings.checkpoint_dir)
        self._owner = owners(side.federation, count)
        self._accepted = [0] * count
        limits = settings.max_restarts, settings.patience
        shards = self._shards(side.federation, settings)
        self._actors = Actors(cluster, shards, self._shipped(side), size, *limits)

    def handle(self, request: Request) -> Reply:
        """Let every client of the request do its task.

        Raises EngineError if an actor died and did not come back.
        """
        models = self._cluster.ray.put(request.models)
        arguments = {
            a: (self._accepted[a], part, models) for a, part in self._parts(request).items()
        }
        answers = self._actors.ask("handle", arguments, f"round {request.round}")
        self._accept(answers)
        return put_together(request, [answer.reply for answer in answers.values()])

    def state_dict(self) -> dict[str, Tensor]:
        """Return what clients keep, gathered from all actors."""
        arguments = {a: (accepted,) for a, accepted in enumerate(self._accepted)}
        states = self._actors.ask("state", arguments, "gathering what clients keep")
        return dict(merged(list(states.values())))

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned: to each actor the rows of its clients."""
        owner = torch.from_numpy(self._owner)[state["client"]]
        arguments = {
            a: (accepted, rows_of(state, owner == a)) for a, accepted in enumerate(self._accepted)
        }
        self._accept(self._actors.ask("load", arguments, "loading what clients keep"))

    def close(self) -> None:
        """End the actors, and Ray where we have started it."""
        self._actors.close()
        self._cluster.close()
        # Actors that were busy have left theirs; so have those that died, if it is shared.
        shutil.rmtree(Path(tempfile.gettempdir(), self._folder), ignore_errors=True)

    def _shards(self, federation: Federation, settings: Ray) -> list[Shard]:
        return [
            Shard(
                number=a,
                clients=tuple(np.flatnonzero(self._owner == a).tolist()),
                num_holders=len(federation.clients),
                engine=settings.inner,
                folder=f"{self._folder}/actor-{a:04d}",
                cores=math.ceil(settings.cpus_per_actor),
            )
            for a in range(len(self._accepted))
        ]

    def _shipped(self, side: ClientSide) -> list[list[Any]]:
        """Put what actors are made from into Ray's store, and return the references for each."""
        put, federation = self._cluster.ray.put, side.federation
        common = put(
            dataclasses.replace(side, federation=dataclasses.replace(federation, clients=()))
        )
        made_from = []
        for a in range(len(self._accepted)):
            clients = np.flatnonzero(self._owner == a).tolist()
            held = {holder: federation.clients[holder] for holder in holders_of(side, clients)}
            made_from.append([common, put(held)])
        return made_from

    def _parts(self, request: Request) -> dict[int, Request]:
        """Return the rows of a request by actor, in their order, without the models."""
        found: dict[int, list[ClientRequest]] = defaultdict(list)
        for row in request.rows:
            found[int(self._owner[row.client])].append(row)
        bare = dataclasses.replace(request, models=())
        return {a: dataclasses.replace(bare, rows=tuple(rows)) for a, rows in found.items()}

    def _accept(self, answers: Mapping[int, Answer]) -> None:
        """Note what actors have changed, now that all have answered."""
        for a, answer in answers.items():
            self._accepted[a] = answer.change


def holders_of(side: ClientSide, clients: Sequence[int]) -> list[int]:
    """Return the holders whose data these clients need: their own, and where attackers pass for
    another client, that client's.
    """
    victim = [] if side.victim is None or side.attackers.isdisjoint(clients) else [side.victim]
    needed, moves = [*clients, *victim], side.federation.moves
    # Those that drift have other data later.
    return [*needed, *(moves[client] for client in needed if client in moves)]


def put_together(request: Request, replies: Sequence[Reply]) -> Reply:
    """Return the reply to a request, of the replies to its parts in the order of the actors.

    Sums are added in that order: the bits must not depend on who was first.
    """
    found = {row.client: row for reply in replies for row in reply.rows}
    rows = tuple(found[client] for client in request.clients)
    sums = None
    if isinstance(request.task, Train) and request.task.sums is not None:
        columns = zip(*(reply.sums or () for reply in replies), strict=True)
        sums = tuple(added(column) for column in columns)
    return Reply(request.round, rows, sums)


def owners(federation: Federation, actors: int) -> np.ndarray:
    """Return the actor of each client, int64 [N], so that all have about as many samples.

    The client with most samples goes to the actor with fewest so far; ties go to the first.
    """
    sizes = [federation.num_training(client, 1) for client in range(federation.num_clients)]
    owner = np.zeros(len(sizes), dtype=np.int64)
    loads = np.zeros(actors)
    for client in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        owner[client] = loads.argmin()
        loads[owner[client]] += sizes[client]
    return owner


def added(parts: Sequence[Sums]) -> Sums:
    """Return the sum of sums, added in their order."""
    tensors: dict[str, Tensor] = {}
    weights: dict[str, float] = {}
    for part in parts:
        for name, tensor in part.tensors.items():
            tensors[name] = tensors[name] + tensor if name in tensors else tensor
            weights[name] = weights.get(name, 0.0) + part.weights[name]
    return Sums(tensors, weights)


def _log_folder(checkpoint_dir: str | None) -> str:
    """Return a folder that no other run uses."""
    name = f"fedtsd-ray-{uuid.uuid4().hex[:12]}"
    if checkpoint_dir is None:
        return name
    folder = Path(checkpoint_dir).resolve() / name
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"engine.checkpoint_dir: {checkpoint_dir} cannot be written to ({error.strerror})"
        ) from error
    return str(folder)
