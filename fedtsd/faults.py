"""Clients that fail, on a virtual clock: who can be asked, whose reply comes, and when.

A simulation's own world, between the door and the engine. Chance follows from (seed, round, client)
and a client's speed from (seed, client), so a resumed run meets the same failures.

Shapes: N clients.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from fedtsd.clients.engine import ClientSide
from fedtsd.messages import ClientRequest, Engine, Incident, Reply, Request, Train
from fedtsd.seeding import numpy_rng
from fedtsd.sums import Sums
from fedtsd.training import epochs_of

CHANCES = ("crash_before", "crash_during", "crash_after", "lost", "duplicated")


@dataclass(frozen=True)
class Course:
    """How a training round goes for one client that was asked.

    arrives: simulated seconds until its reply is there; None if it never is. noticed: until the
    server knows; of a lost reply, when it would have come. trains: whether what it keeps changes.
    failed: `crashed` or `lost`, and how, if its reply never comes.
    """

    arrives: float | None
    noticed: float
    trains: bool
    twice: bool = False
    failed: tuple[str, str] = ("", "")


@dataclass(frozen=True)
class Faults:
    """What goes wrong with clients, and how patient the server is.

    availability: chance that a client can be asked in a round. crash_before, crash_during,
    crash_after: chance that one that was asked breaks down before, while or after it trains, which
    the server notices as its line breaks. lost, duplicated: chance that a reply never comes, which
    nobody notices, or comes twice. samples_per_second, bytes_per_second: of the median client's
    training and line; their logarithms are spread with speed_sigma and link_sigma over clients.
    deadline: simulated seconds after which no reply is taken; None: the server waits. quorum: share
    of a cohort whose replies a round needs; without one reply it has never enough. over_selection:
    how many more than a cohort are asked, as a share of it; the first replies to come are taken.
    """

    availability: float
    crash_before: float
    crash_during: float
    crash_after: float
    lost: float
    duplicated: float
    samples_per_second: float
    speed_sigma: float
    bytes_per_second: float
    link_sigma: float
    deadline: float | None
    quorum: float
    over_selection: float

    def __post_init__(self) -> None:
        if not 0 < self.availability <= 1:
            raise ValueError(f"availability: must be in (0, 1], got {self.availability}")
        for name in (*CHANCES, "quorum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: must be in [0, 1], got {getattr(self, name)}")
        if self.crash_before + self.crash_during + self.crash_after > 1:
            raise ValueError(
                "crash_before: with crash_during and crash_after must be at most 1, got "
                f"{self.crash_before} + {self.crash_during} + {self.crash_after}"
            )
        for name in ("samples_per_second", "bytes_per_second"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: must be above 0, got {getattr(self, name)}")
        for name in ("speed_sigma", "link_sigma", "over_selection"):
            if not 0 <= getattr(self, name) <= 10:
                raise ValueError(f"{name}: must be in [0, 10], got {getattr(self, name)}")
        if self.deadline is not None and not 0 < self.deadline < math.inf:
            raise ValueError(f"deadline: must be null or above 0, got {self.deadline}")

    def available(self, clients: np.ndarray, round: int, seed: int) -> np.ndarray:
        """Return those of these client ids that can be asked in a round."""
        chances = numpy_rng(seed, "availability", round).random(clients.max(initial=0) + 1)
        return np.asarray(clients[chances[clients] < self.availability])

    def asked(self, size: int) -> int:
        """Return how many clients are asked for a cohort of this size."""
        return math.ceil(size * (1 + self.over_selection) - 1e-9)

    def needed(self, size: int) -> int:
        """Return how many replies a round with a cohort of this size needs."""
        return max(1, math.ceil(self.quorum * size - 1e-9))

    def course(
        self, client: int, round: int, samples: int, bytes_down: int, bytes_up: int, seed: int
    ) -> Course:
        """Return how a round goes for a client that has so much to do, to receive and to send."""
        steady = numpy_rng(seed, "speed", client)
        speed = self.samples_per_second * math.exp(self.speed_sigma * steady.standard_normal())
        line = self.bytes_per_second * math.exp(self.link_sigma * steady.standard_normal())
        chance = numpy_rng(seed, "faults", round, client)
        crash, where, lost, twice = chance.random(4)
        received = bytes_down / line
        trained = received + samples / speed
        if crash < self.crash_before:
            return Course(None, 0.0, False, failed=("crashed", "before it trained"))
        if crash < self.crash_before + self.crash_during:
            noticed = received + where * samples / speed
            return Course(None, noticed, False, failed=("crashed", "while it trained"))
        if crash < self.crash_before + self.crash_during + self.crash_after:
            return Course(None, trained, True, failed=("crashed", "after it had trained"))
        arrives = trained + bytes_up / line
        if lost < self.lost:
            return Course(None, arrives, True, failed=("lost", "its reply never came"))
        return Course(arrives, arrives, True, twice < self.duplicated)

    def outcome(
        self, courses: Mapping[int, Course], wanted: int
    ) -> tuple[list[int], dict[int, str], float]:
        """Return whose replies are taken, why others came too late, and when the round ends.

        courses: by client. wanted: how many replies are enough.
        """
        limit = math.inf if self.deadline is None else self.deadline
        arrivals = [(c.arrives, client) for client, c in courses.items() if c.arrives is not None]
        in_time = sorted((when, client) for when, client in arrivals if when <= limit)
        taken = [client for _, client in in_time[:wanted]]
        late = {client: f"after {limit:g} simulated seconds" for when, client in arrivals}
        late |= {client: "when enough had replied" for _, client in in_time[wanted:]}
        late = {client: why for client, why in late.items() if client not in taken}
        if len(taken) == wanted:
            return taken, late, in_time[wanted - 1][0]
        waited = max((course.noticed for course in courses.values()), default=0.0)
        unnoticed = any(course.failed[0] == "lost" for course in courses.values())
        if not courses or (unnoticed and self.deadline is not None):
            waited = self.deadline or 0.0
        return taken, late, min(waited, limit)


class UnreliableEngine:
    """An engine whose clients fail while they train. Looks, and questions before, are spared."""

    def __init__(self, engine: Engine, faults: Faults, side: ClientSide) -> None:
        """side: what the engine was built from."""
        self._engine = engine
        self._faults = faults
        self._side = side

    def handle(self, request: Request) -> Reply:
        """Let the clients of a request work as far as they get."""
        if not isinstance(request.task, Train):
            return self._engine.handle(request)
        courses = {row.client: self._course(request, request.task, row) for row in request.rows}
        taken, late, seconds = self._faults.outcome(courses, self._side.cohort_size)
        missing = {client: c.failed for client, c in courses.items() if c.failed[0]}
        missing |= {client: ("late", why) for client, why in late.items()}
        incidents = tuple(Incident(c, *missing[c]) for c in request.clients if c in missing)
        reply = self._heard(request, request.task, set(taken))
        # What they keep has changed, although nobody hears of it.
        self._unheard(request, request.task, {c for c in missing if courses[c].trains})
        again = tuple(row for row in reply.rows if courses[row.client].twice)
        rows = (*reply.rows, *again)
        return dataclasses.replace(reply, rows=rows, incidents=incidents, simulated_seconds=seconds)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what clients keep."""
        return self._engine.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self._engine.load_state_dict(state)

    def close(self) -> None:
        """End the engine."""
        self._engine.close()

    def _course(self, request: Request, task: Train, row: ClientRequest) -> Course:
        samples = epochs_of(task.phases) * self._side.federation.num_training(
            row.client, request.round
        )
        size = sum(t.numel() * t.element_size() for t in request.sent(row).values())
        down = 0 if row.holds else size
        return self._faults.course(row.client, request.round, samples, down, size, self._side.seed)

    def _heard(self, request: Request, task: Train, clients: set[int]) -> Reply:
        rows = _of(request.rows, clients)
        if rows:
            return self._engine.handle(dataclasses.replace(request, rows=rows))
        sums = tuple(Sums({}, {}) for _ in request.models) if task.sums else None
        return Reply(request.round, (), sums)

    def _unheard(self, request: Request, task: Train, clients: set[int]) -> None:
        rows = _of(request.rows, clients)
        if rows and self._side.keeps:  # else nobody could tell that they have trained
            quiet = dataclasses.replace(task, public=None, sums=None)
            self._engine.handle(dataclasses.replace(request, task=quiet, rows=rows))


def _of(rows: Sequence[ClientRequest], clients: set[int]) -> tuple[ClientRequest, ...]:
    return tuple(row for row in rows if row.client in clients)
