"""Two-stage clustering after FedTSDP (Zhu, Fan, Xie 2023, arXiv 2308.15821).

The paper fixes the parts: first by inference outputs on public unlabeled data, then by weights,
timed by a Hopkins test. The rules and constants below are this project's own (docs/methods.md).

Shapes: N clients.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtsd.clustering.hopkins import Hopkins
from fedtsd.clustering.pairs import Pairs
from fedtsd.clustering.policy import Quiet
from fedtsd.clustering.similarity import cosine_distance
from fedtsd.clustering.split import eject, propose
from fedtsd.server import ABSENT, Decision, ServerState, reassigned
from fedtsd.similarity import (
    LANDMARKS,
    OUTPUTS,
    OUTPUTS_ROUND,
    UPDATES,
    forget_updates,
    pairs_of,
)

STREAK = "two_stage.streak"
UNPLACED = "two_stage.unplaced"


@dataclass(frozen=True)
class TwoStage(Quiet):
    """Split by outputs while there is one cluster, then split each cluster by updates.

    A split needs `confirmations` passing rounds in a row. Stage 1 passes when the Hopkins test is
    significant and the silhouette reaches `stage1_silhouette`; stage 2 when the silhouette reaches
    `stage2_silhouette` or the test is significant with a value of at least `hopkins_threshold`.
    After stage 1, members farther than `eject_above` from their mates (mean divergence) go to one
    residual cluster. Clusters below `min_clients` are never split: the test has no power there.
    Where the server compared clients with landmarks only, these are tested and split; the others
    follow to the nearest of the new clusters.
    """

    stage1: bool
    stage2: bool
    stage1_round: int
    stage2_round: int
    min_clients: int
    confirmations: int
    significance: float
    stage1_silhouette: float
    stage2_silhouette: float
    hopkins_threshold: float
    eject_above: float
    hopkins: Hopkins

    uses_outputs: ClassVar[bool] = True
    uses_updates: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("stage1_round", "stage2_round", "confirmations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.min_clients < 4:
            raise ValueError(f"min_clients: must be at least 4, got {self.min_clients}")
        for name in ("significance", "hopkins_threshold", "eject_above"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: must be in (0, 1], got {getattr(self, name)}")
        for name in ("stage1_silhouette", "stage2_silhouette"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: must be in [-1, 1], got {getattr(self, name)}")

    def assign(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        server = dataclasses.replace(server, decisions=())
        server = self._place_newcomers(server, round)
        one_cluster = len(server.centres) == 1
        if self.stage1 and one_cluster and round >= self.stage1_round:
            server = self._stage_one(server, round, rng)
        split_now = one_cluster and len(server.centres) > 1
        if (
            self.stage2
            and not split_now
            and (len(server.centres) > 1 or round >= self.stage2_round)
        ):
            server = self._stage_two(server, round, rng)
        return forget_updates(server, round)

    def _stage_one(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        # The same numbers must not be tested until chance lets them pass.
        fresh = server.memory.get(OUTPUTS_ROUND, np.array([-1]))[0] == round
        outputs = pairs_of(server, OUTPUTS)
        measured = outputs.complete() if fresh else np.array([])
        if len(measured) < self.min_clients:
            return server
        divergence = outputs.block(measured)
        distance = np.sqrt(divergence)
        proposal = propose(distance)
        result = self.hopkins.test(distance, rng)
        passed = (
            result.p_value < self.significance and proposal.silhouette >= self.stage1_silhouette
        )
        server, confirmed = self._confirm(server, 0, passed)
        labels = eject(proposal.labels, divergence, self.eject_above)
        split = confirmed and labels.max() > 0
        decision = Decision(
            1, 0, len(measured), int(proposal.labels.max()) + 1, proposal.silhouette,
            result.value, result.p_value, passed, bool(split),
        )  # fmt: skip
        server = dataclasses.replace(server, decisions=(*server.decisions, decision))
        if not split:
            return server
        # Clients not yet measured wait in a cluster of their own.
        assignment = np.where(server.assignment == ABSENT, ABSENT, int(labels.max()) + 1)
        assignment[measured] = labels
        unplaced = assignment != ABSENT
        unplaced[measured] = False
        if LANDMARKS in server.memory:
            assignment, unplaced = self._placed(outputs, assignment, unplaced)
        server = _with_memory(server, UNPLACED, unplaced)
        return self._regroup(server, assignment, round)

    def _stage_two(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        updates = pairs_of(server, UPDATES)
        assignment = server.assignment.copy()
        next_cluster = len(server.centres)
        for cluster in range(len(server.centres)):
            members = server.members(cluster)
            tested = _tested(server, updates, members)
            if len(tested) < self.min_clients:
                continue
            distance = cosine_distance(updates.block(tested))
            proposal = propose(distance)
            result = self.hopkins.test(distance, rng)
            passed = proposal.silhouette >= self.stage2_silhouette or (
                result.value >= self.hopkins_threshold and result.p_value < self.significance
            )
            server, confirmed = self._confirm(server, cluster, passed)
            split = confirmed and proposal.labels.max() > 0
            decision = Decision(
                2, cluster, len(members), int(proposal.labels.max()) + 1, proposal.silhouette,
                result.value, result.p_value, passed, bool(split),
            )  # fmt: skip
            server = dataclasses.replace(server, decisions=(*server.decisions, decision))
            if split:
                labels = _followed(updates, members, tested, proposal.labels)
                assignment[members[labels > 0]] = next_cluster + labels[labels > 0] - 1
                next_cluster += int(labels.max())
        if np.array_equal(assignment, server.assignment):
            return server
        return self._regroup(server, assignment, round)

    def _confirm(self, server: ServerState, cluster: int, passed: bool) -> tuple[ServerState, bool]:
        """Count passing rounds in a row of one cluster, held at each of its members."""
        streak = server.memory.get(STREAK, np.zeros(server.num_clients, dtype=np.int64)).copy()
        members = server.members(cluster)
        streak[members] = streak[members].min() + 1 if passed else 0
        confirmed = passed and bool(streak[members[0]] >= self.confirmations)
        return _with_memory(server, STREAK, streak), confirmed

    def _regroup(self, server: ServerState, assignment: np.ndarray, round: int) -> ServerState:
        # Numbers stay with their clusters; only gaps are closed.
        closed = np.full_like(assignment, ABSENT)
        here = assignment != ABSENT
        closed[here] = np.unique(assignment[here], return_inverse=True)[1]
        server = reassigned(server, closed, round)
        streak = server.memory.get(STREAK, np.zeros(server.num_clients, dtype=np.int64))
        fresh = np.where(server.assignment_round == round, 0, streak)
        return _with_memory(server, STREAK, fresh)

    def _place_newcomers(self, server: ServerState, round: int) -> ServerState:
        """Move clients that were unknown at the split to the nearest cluster, if it is near."""
        unplaced = server.memory.get(UNPLACED, np.zeros(server.num_clients, dtype=bool))
        if not unplaced.any():
            return server
        outputs = pairs_of(server, OUTPUTS)
        assignment, waiting = self._placed(outputs, server.assignment, unplaced)
        if np.array_equal(waiting, unplaced):
            return server
        return self._regroup(_with_memory(server, UNPLACED, waiting), assignment, round)

    def _placed(
        self, outputs: Pairs, assignment: np.ndarray, unplaced: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the assignment with clients moved that are near a cluster, and who still waits."""
        means = outputs.means_to(np.where(unplaced, ABSENT, assignment))
        means = np.where(np.isnan(means), np.inf, means)
        near = unplaced & (means.min(axis=1) <= self.eject_above)
        return np.where(near, means.argmin(axis=1), assignment), unplaced & ~near


def _tested(server: ServerState, updates: Pairs, members: np.ndarray) -> np.ndarray:
    """The members of a cluster to be tested: all, or its landmarks; none while pairs are missing.

    A landmark was measured with every other member.
    """
    known = updates.degrees(members) == len(members) - 1
    return members[known] if known.all() or LANDMARKS in server.memory else members[:0]


def _followed(
    updates: Pairs, members: np.ndarray, tested: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Labels of all members: who was not tested goes where updates are most like its own."""
    groups = np.full(updates.num_clients, ABSENT)
    groups[tested] = labels
    others = np.setdiff1d(members, tested)
    if len(others):
        groups[others] = updates.means_to(groups)[others].argmax(axis=1)
    return np.asarray(groups[members])


def _with_memory(server: ServerState, key: str, value: np.ndarray) -> ServerState:
    return dataclasses.replace(server, memory={**server.memory, key: value})
