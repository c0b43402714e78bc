"""Calls from the driver to the actors of a run, of which any may die.

Shapes: N clients, A actors.
"""

import importlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fedtsd.clients.ray_actors import Shard, ShardActor
from fedtsd.clients.ray_cluster import Cluster, Size, register_tensors
from fedtsd.errors import EngineError, FedtsdError

LOOK_EVERY = 0.2
"""Seconds between two looks whether an actor is back."""
CLOSING = 5
"""Seconds that actors have to end by themselves."""
NAMED = 10
"""At most so many clients are named in an error."""


class Actors:
    """A actors, one per shard.

    made_from: for each, references to its `ClientSide` and its clients' data. Holding them keeps
    the data in Ray's store, for actors that have to start again.
    """

    def __init__(
        self,
        cluster: Cluster,
        shards: Sequence[Shard],
        made_from: Sequence[list[Any]],
        size: Size,
        max_restarts: int,
        patience: float,
    ) -> None:
        self._ray = cluster.ray
        self._shards = shards
        self._made_from = made_from
        self._patience = patience
        self._actors = [
            cluster.start(_Process, place, size, max_restarts).remote(shard)
            for place, shard in enumerate(shards)
        ]
        for number in range(len(shards)):
            self._await(number, "the start")

    def ask(
        self, method: str, arguments: Mapping[int, tuple[Any, ...]], where: str
    ) -> dict[int, Any]:
        """Call a method of actors by number; return what each returned, in order.

        An actor that dies meanwhile is asked once more when it is back. Raises EngineError, which
        says `where`, if it does not come; and whatever an actor raised, the first one's error once
        all have answered.
        """
        answers: dict[int, Any] = {}
        errors: dict[int, BaseException] = {}
        asked = {self._call(number, method, given): number for number, given in arguments.items()}
        again: set[int] = set()
        while asked:
            (first, *_), _ = self._ray.wait(list(asked))
            number = asked.pop(first)
            try:
                answers[number] = self._ray.get(first)
            except self._ray.exceptions.RayTaskError as error:
                errors[number] = _as_raised(error)
            except self._ray.exceptions.RayError as death:
                if number in again:
                    raise self._lost(number, where, death) from death
                again.add(number)
                self._await(number, where)
                asked[self._call(number, method, arguments[number])] = number
        if errors:
            raise errors[min(errors)]
        return {number: answers[number] for number in sorted(answers)}

    def close(self) -> None:
        """Let actors end by themselves, if they are not busy."""
        ends = [self._call(number, "close", ()) for number in range(len(self._actors))]
        if ends:
            self._ray.wait(ends, num_returns=len(ends), timeout=CLOSING)
        self._actors, self._made_from = [], []

    def _call(self, number: int, method: str, arguments: tuple[Any, ...]) -> Any:
        return self._actors[number].do.remote(self._made_from[number], method, *arguments)

    def _await(self, number: int, where: str) -> None:
        """Wait until an actor is there; raise EngineError if it does not come."""
        until = time.monotonic() + self._patience
        while True:
            try:
                self._ray.get(self._call(number, "ready", ()), timeout=self._patience)
            except self._ray.exceptions.RayTaskError as error:
                raise _as_raised(error) from None
            except self._ray.exceptions.ActorUnavailableError as error:
                if time.monotonic() > until:
                    raise self._lost(number, where, error) from error
                time.sleep(LOOK_EVERY)
            except self._ray.exceptions.RayError as error:
                raise self._lost(number, where, error) from error
            else:
                return

    def _lost(self, number: int, where: str, error: Exception) -> EngineError:
        clients = self._shards[number].clients
        names = ", ".join(map(str, clients[:NAMED])) + (", ..." if len(clients) > NAMED else "")
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return EngineError(
            f"{where}: actor {number} of {len(self._shards)} died and did not come back, with "
            f"clients {names}: {reason}"
        )


class _Process:
    """A process of Ray that runs a shard; the first call makes the shard, whoever was here before.

    So calls bring references to what it is made from. They come in a list, which Ray does not open.
    """

    def __init__(self, shard: Shard) -> None:
        os.environ["FEDTSD_WORKERS"] = str(shard.cores)  # for an inner engine that counts them
        register_tensors()
        self._shard = shard
        self._actor: ShardActor | None = None

    def do(self, made_from: list[Any], method: str, *arguments: Any) -> Any:
        """Call a method of the shard."""
        if self._actor is None:
            side, held = importlib.import_module("ray").get(made_from)
            self._actor = ShardActor(self._shard, side, held)
        return getattr(self._actor, method)(*arguments)


def _as_raised(error: Any) -> BaseException:
    """Return the error as an actor raised it, with its traceback there if it is a defect."""
    cause: BaseException = error.cause
    if not isinstance(cause, FedtsdError):
        cause.__cause__ = error
    return cause
