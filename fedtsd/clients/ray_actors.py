"""The actor that runs a shard: a fixed part of the clients, with their data and private tensors.

An actor may die after its clients have trained but before its reply has arrived. So every call
says which change of what clients keep was the last to be accepted; an actor that is elsewhere, for
it is new or has gone on alone, goes back to it first. A call that is sent again gives the same
reply, bit for bit.
"""

import dataclasses
import shutil
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedtsd.clients.engine import ClientSide, EngineSpec
from fedtsd.clients.ray_log import ShardLog, State
from fedtsd.data.federation import ClientData, Federation, Split
from fedtsd.errors import EngineError
from fedtsd.messages import Engine, Reply, Request, Train
from fedtsd.server import Tensors


@dataclass(frozen=True)
class Shard:
    """Which part of the clients an actor runs.

    clients: sorted. num_holders: of the whole federation. engine: what runs the clients. folder:
    where their log is kept; a relative one is in the temporary folder of whatever machine the actor
    is on. cores: that are the actor's to use.
    """

    number: int
    clients: tuple[int, ...]
    num_holders: int
    engine: EngineSpec
    folder: str
    cores: int


@dataclass(frozen=True)
class Answer:
    """What an actor returns: the number of the last change of what clients keep, and a reply."""

    change: int
    reply: Reply


class ShardActor:
    """Runs one shard. It knows nothing of Ray, which makes an actor of it."""

    def __init__(self, shard: Shard, side: ClientSide, held: Mapping[int, ClientData]) -> None:
        self._shard = shard
        self._folder = Path(tempfile.gettempdir(), shard.folder)
        self._log = ShardLog(self._folder)
        self._keeps = side.keeps
        clients = _everyone(held, shard.num_holders, side.federation)
        federation = dataclasses.replace(side.federation, clients=clients)
        self._engine: Engine = shard.engine.build(dataclasses.replace(side, federation=federation))
        self._initial = self._engine.state_dict()
        self._change = 0

    def ready(self) -> None:
        """Answer that the actor is there."""

    def handle(self, accepted: int, request: Request, models: tuple[Tensors, ...]) -> Answer:
        """Let this shard's clients of a request do their task, from the accepted state on."""
        self._go_back(accepted)
        if isinstance(request.task, Train) and self._keeps:
            self._change = accepted + 1  # from here on the state is not the accepted one
        reply = self._engine.handle(dataclasses.replace(request, models=models))
        if self._change > accepted:
            clients = torch.tensor(request.clients, dtype=torch.int64)
            self._log.write(self._change, self._engine.state_dict(), clients)
        return Answer(self._change, reply)

    def state(self, accepted: int) -> State:
        """Return what this shard's clients keep in the accepted state."""
        self._go_back(accepted)
        return self._engine.state_dict()

    def load(self, accepted: int, state: dict[str, Tensor]) -> Answer:
        """Let this shard's clients keep what `state` says."""
        self._change = accepted + 1
        self._engine.load_state_dict(state)
        self._log.write(self._change, state, None)
        return Answer(self._change, Reply(0, ()))

    def close(self) -> None:
        """End the shard's engine and remove its log."""
        self._engine.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _go_back(self, accepted: int) -> None:
        """Return to the state after the last accepted change, if this is not it."""
        if self._change == accepted:
            return
        state = self._initial if accepted == 0 else self._log.read(accepted)
        if state is None:
            raise EngineError(
                f"what the clients of actor {self._shard.number} keep is lost: {self._folder} is "
                f"not on {socket.gethostname()}; set engine.checkpoint_dir to a folder that all "
                "machines share"
            )
        self._engine.load_state_dict(state)
        self._change = accepted


def _everyone(
    held: Mapping[int, ClientData], num_holders: int, federation: Federation
) -> tuple[ClientData, ...]:
    """Return the data of all holders, where those that other shards run have none."""
    labels = torch.zeros(0, dtype=torch.float32 if federation.regression else torch.int64)
    empty = Split(federation.public[:0], labels)
    nobody = ClientData(empty, empty, empty)
    return tuple(held.get(holder, nobody) for holder in range(num_holders))
