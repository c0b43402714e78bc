"""Two-stage clustering after FedTSDP (Zhu, Fan, Xie 2023, arXiv 2308.15821).

The paper fixes the parts: first by inference outputs on public unlabeled data, then by weights,
timed by a Hopkins test. The rules and constants below are this project's own (docs/methods.md).

Shapes: N clients.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedtsd.clustering.artefacts import follows_visits, may_be_structure, share_of
from fedtsd.clustering.hopkins import Hopkins, HopkinsResult
from fedtsd.clustering.pairs import Pairs
from fedtsd.clustering.policy import Question, Quiet
from fedtsd.clustering.similarity import cosine_distance
from fedtsd.clustering.split import (
    Proposal,
    eject,
    join_small,
    propose,
    renumber,
    silhouette_of_each,
)
from fedtsd.messages import Probe, Reply
from fedtsd.minimum import minimum_of
from fedtsd.server import ABSENT, Decision, ServerState, joined, reassigned, without_empty
from fedtsd.similarity import (
    FREQUENCIES,
    LANDMARKS,
    OUTPUTS,
    OUTPUTS_ROUND,
    UPDATES,
    forget_updates,
    pairs_of,
    signatures_of,
    work_of,
)

STREAKS = {1: "two_stage.streak_1", 2: "two_stage.streak_2"}
"""By stage: a round in which the one fails says nothing against the other."""

STANDING = "two_stage.standing"
SETTLED, PLACED, WAITING = 0, 1, 2
"""PLACED: by its loss; it tries all models once more."""

PROPOSED = "two_stage.proposed"
AGREEMENT = 0.8
"""Adjusted Rand index of two proposals in a row that count as the same."""


@dataclass(frozen=True)
class _Seen:
    """What is known of a cluster's updates.

    clients: int64 [C], those of whom it is known. cosines: float64 [C, C]. visits: int64 [C], the
    rounds in which they last came, if not all of them have met; None if they have.
    """

    clients: np.ndarray
    cosines: np.ndarray
    visits: np.ndarray | None


@dataclass(frozen=True)
class TwoStage(Quiet):
    """Split by outputs while there is one cluster, then split each cluster by updates.

    A split needs `confirmations` passing rounds in a row of its stage. Stage 1 passes when the
    Hopkins test is significant and the silhouette reaches `stage1_silhouette`; stage 2 when the
    silhouette reaches `stage2_silhouette` or the test is significant with a value of at least
    `hopkins_threshold`. Neither passes where groups tell who trains much from who trains little, or
    where there are none, but one client or several alone beside the others.
    After stage 1, members farther than `eject_above` from their mates (mean divergence) go to one
    residual cluster. Clusters below `min_clients` are never split: the test has no power there.
    Stage 1 passes over groups whose divergence is one of class frequencies by more than the share
    `stage1_frequencies`: a prior, if clients have one, explains that without taking clients apart.
    Where the server compared clients with landmarks only, these are tested and split; the others
    follow to the nearest of the new clusters.

    Where not all clients train in every round, signatures stand in for pairs that never met. A
    cluster is tested once `coverage` of its members have one (stage 1: once as many have met each
    other). Stage 2 then passes when the test is significant, the silhouette reaches
    `signature_silhouette`, the last proposal was the same, and none of it follows the rounds of the
    last visits. Clients without a signature, or with one nearer to that of another group than of
    their own, wait in a cluster of their own. Before they train next, they try all models, and go
    where the loss is below `moves_below` of that with their own; they try once more after that.
    With `everybody_tries`, all clients do so in every round: who drifts moves, for K downloads
    instead of one.
    """

    stage1: bool
    stage2: bool
    stage1_round: int
    stage2_round: int
    min_clients: int
    confirmations: int
    significance: float
    stage1_silhouette: float
    stage1_frequencies: float
    stage2_silhouette: float
    signature_silhouette: float
    hopkins_threshold: float
    eject_above: float
    max_clusters: int
    coverage: float
    everybody_tries: bool
    moves_below: float
    hopkins: Hopkins

    uses_outputs: ClassVar[bool] = True
    uses_updates: ClassVar[bool] = True
    asks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("stage1_round", "stage2_round", "confirmations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.min_clients < 4:
            raise ValueError(f"min_clients: must be at least 4, got {self.min_clients}")
        if self.max_clusters < 2:
            raise ValueError(f"max_clusters: must be at least 2, got {self.max_clusters}")
        for name in (
            "significance", "hopkins_threshold", "stage1_frequencies",
            "eject_above", "coverage", "moves_below",
        ):  # fmt: skip
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name}: must be in (0, 1], got {getattr(self, name)}")
        for name in ("stage1_silhouette", "stage2_silhouette", "signature_silhouette"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: must be in [-1, 1], got {getattr(self, name)}")

    def question(
        self, server: ServerState, clients: np.ndarray, round: int, look: bool
    ) -> Question | None:
        if len(server.centres) == 1:  # nothing to choose, nothing to send
            return None
        asked = clients if self.everybody_tries else clients[_standing(server)[clients] > SETTLED]
        return Question(Probe(look), asked) if len(asked) else None

    def answered(self, server: ServerState, reply: Reply) -> ServerState:
        standing, clusters = _standing(server).copy(), {}
        for row in reply.rows:
            best = int(np.argmin(row.losses))
            if row.losses[best] < self.moves_below * row.losses[server.assignment[row.client]]:
                clusters[row.client] = best
                standing[row.client] = PLACED
            elif standing[row.client] == PLACED:
                standing[row.client] = SETTLED
        server = joined(_with_memory(server, STANDING, standing), clusters, reply.round)
        return without_empty(server)

    def assign(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        server = dataclasses.replace(server, decisions=())
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

    def examine(
        self, distance: np.ndarray, rng: np.random.Generator
    ) -> tuple[Proposal, HopkinsResult]:
        """Return how to cut clients at these distances [C, C], and whether that is called for."""
        return propose(distance, self.max_clusters), self.hopkins.test(distance, rng)

    def cleaned(self, labels: np.ndarray, divergence: np.ndarray) -> np.ndarray:
        """Return labels [C] without misfits, by divergences [C, C] of outputs."""
        return eject(labels, divergence, self.eject_above)

    def _stage_one(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        # The same numbers must not be tested until chance lets them pass.
        fresh = server.memory.get(OUTPUTS_ROUND, np.array([-1]))[0] == round
        outputs = pairs_of(server, OUTPUTS)
        measured = outputs.complete() if fresh else np.array([])
        enough = 0.0 if LANDMARKS in server.memory else self.coverage * len(server.present)
        if len(measured) < max(self.min_clients, enough):
            return server
        divergence = outputs.block(measured)
        distance = np.sqrt(divergence)
        proposal, result = self.examine(distance, rng)
        frequencies = pairs_of(server, FREQUENCIES).block(measured)
        told = proposal.labels, divergence, frequencies
        passed = (
            result.p_value < self.significance
            and proposal.silhouette >= self.stage1_silhouette
            and share_of(*told) <= self.stage1_frequencies
            and may_be_structure(proposal.labels, work_of(server)[measured], rng)
        )
        server, confirmed = self._confirm(server, 1, server.members(0), passed)
        labels = self.cleaned(proposal.labels, divergence)
        labels = join_small(labels, divergence, minimum_of(server))
        split = confirmed and labels.max() > 0
        decision = Decision(
            1, 0, len(measured), int(proposal.labels.max()) + 1, proposal.silhouette,
            result.value, result.p_value, passed, bool(split),
        )  # fmt: skip
        server = dataclasses.replace(server, decisions=(*server.decisions, decision))
        if not split:
            return server
        # Clients not yet measured wait in a cluster of their own, and try the models of the others.
        assignment = np.where(server.assignment == ABSENT, ABSENT, int(labels.max()) + 1)
        assignment[measured] = labels
        waits = assignment != ABSENT
        waits[measured] = False
        if LANDMARKS in server.memory:
            assignment, waits = self._placed(outputs, assignment, waits)
        if waits.any():
            server = _with_memory(server, STANDING, np.where(waits, WAITING, SETTLED))
        return self._regroup(server, assignment, round)

    def _stage_two(self, server: ServerState, round: int, rng: np.random.Generator) -> ServerState:
        assignment, standing = server.assignment.copy(), _standing(server).copy()
        next_cluster = len(server.centres)
        for cluster in range(len(server.centres)):
            members = server.members(cluster)
            seen = self._seen(server, members, round)
            if len(seen.clients) < self.min_clients:
                continue
            distance = cosine_distance(seen.cosines)
            proposal, result = self.examine(distance, rng)
            server, passed = self._passes(server, seen, proposal, result, rng)
            server, confirmed = self._confirm(server, 2, seen.clients, passed)
            labels = join_small(proposal.labels, distance, minimum_of(server))
            split = confirmed and labels.max() > 0
            decision = Decision(
                2, cluster, len(members), int(proposal.labels.max()) + 1, proposal.silhouette,
                result.value, result.p_value, passed, bool(split),
            )  # fmt: skip
            server = dataclasses.replace(server, decisions=(*server.decisions, decision))
            if not split:
                continue
            if seen.visits is None:
                labels = _followed(server, members, seen.clients, labels)
            else:
                sure = silhouette_of_each(distance, labels) > 0
                known = renumber(labels[sure])
                labels = np.full(len(members), ABSENT)
                labels[np.isin(members, seen.clients[sure])] = known
                waits = labels == ABSENT
                standing[members] = np.where(waits, WAITING, SETTLED)
                labels[waits] = labels.max() + 1
            assignment[members[labels > 0]] = next_cluster + labels[labels > 0] - 1
            next_cluster += int(labels.max())
        if np.array_equal(assignment, server.assignment):
            return server
        if standing.any():
            server = _with_memory(server, STANDING, standing)
        return self._regroup(server, assignment, round)

    def _seen(self, server: ServerState, members: np.ndarray, round: int) -> _Seen:
        """What is known of the members of a cluster: of all of them, or the landmarks among them,
        if these met all others; else of those with a signature, if they are enough and one of them
        is new; else of nobody.
        """
        updates = pairs_of(server, UPDATES)
        known = updates.degrees(members) == len(members) - 1
        if known.all() or LANDMARKS in server.memory:
            return _Seen(members[known], updates.block(members[known]), None)
        signatures = signatures_of(server)
        visits = signatures.visits[members]
        enough = (visits > 0).sum() >= self.coverage * len(members)
        signed = members[visits > 0] if enough and visits.max() == round else members[:0]
        return _Seen(signed, signatures.cosines(signed), signatures.visits[signed])

    def _passes(
        self,
        server: ServerState,
        seen: _Seen,
        proposal: Proposal,
        result: HopkinsResult,
        rng: np.random.Generator,
    ) -> tuple[ServerState, bool]:
        """Return whether a proposal is good enough for this round, and the state that knows it."""
        significant = result.p_value < self.significance
        labels = proposal.labels
        possible = may_be_structure(labels, work_of(server)[seen.clients], rng)
        if seen.visits is None:
            sharp = significant and result.value >= self.hopkins_threshold
            clear = sharp or proposal.silhouette >= self.stage2_silhouette
            return server, bool(clear and possible)
        server, again = _proposed_again(server, seen.clients, labels)
        passed = (
            again
            and significant
            and proposal.silhouette >= self.signature_silhouette
            and possible
            and not follows_visits(labels, seen.visits, rng)
        )
        return server, bool(passed)

    def _confirm(
        self, server: ServerState, stage: int, clients: np.ndarray, passed: bool
    ) -> tuple[ServerState, bool]:
        """Count a stage's passing rounds in a row of one cluster, held at each tested member."""
        streak = _streak(server, stage).copy()
        streak[clients] = streak[clients].max() + 1 if passed else 0
        confirmed = passed and bool(streak[clients[0]] >= self.confirmations)
        return _with_memory(server, STREAKS[stage], streak), confirmed

    def _regroup(self, server: ServerState, assignment: np.ndarray, round: int) -> ServerState:
        # Numbers stay with their clusters; only gaps are closed.
        closed = np.full_like(assignment, ABSENT)
        here = assignment != ABSENT
        closed[here] = np.unique(assignment[here], return_inverse=True)[1]
        server = reassigned(server, closed, round)
        for stage, key in STREAKS.items():
            fresh = np.where(server.assignment_round == round, 0, _streak(server, stage))
            server = _with_memory(server, key, fresh)
        return server

    def _placed(
        self, outputs: Pairs, assignment: np.ndarray, waits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the assignment with clients moved that are near a cluster, and who still waits."""
        means = outputs.means_to(np.where(waits, ABSENT, assignment))
        means = np.where(np.isnan(means), np.inf, means)
        near = waits & (means.min(axis=1) <= self.eject_above)
        return np.where(near, means.argmin(axis=1), assignment), waits & ~near


def _followed(
    server: ServerState, members: np.ndarray, tested: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """Labels of all members: who was not tested goes where updates are most like its own."""
    groups = np.full(server.num_clients, ABSENT)
    groups[tested] = labels
    others = np.setdiff1d(members, tested)
    if len(others):
        updates = pairs_of(server, UPDATES)
        groups[others] = updates.means_to(groups)[others].argmax(axis=1)
    return np.asarray(groups[members])


def _proposed_again(
    server: ServerState, tested: np.ndarray, labels: np.ndarray
) -> tuple[ServerState, bool]:
    """Keep a proposal, and return whether it agrees with the last one of these clients."""
    # Lazily: scikit-learn takes a second to import.
    from sklearn.metrics import adjusted_rand_score

    old = server.memory.get(PROPOSED, np.full(server.num_clients, ABSENT))
    both = old[tested] != ABSENT
    agreement = adjusted_rand_score(old[tested][both], labels[both]) if both.any() else 0.0
    new = old.copy()
    new[tested] = labels
    return _with_memory(server, PROPOSED, new), bool(agreement >= AGREEMENT)


def _streak(server: ServerState, stage: int) -> np.ndarray:
    return server.memory.get(STREAKS[stage], np.zeros(server.num_clients, dtype=np.int64))


def _standing(server: ServerState) -> np.ndarray:
    return server.memory.get(STANDING, np.zeros(server.num_clients, dtype=np.int64))


def _with_memory(server: ServerState, key: str, value: np.ndarray) -> ServerState:
    return dataclasses.replace(server, memory={**server.memory, key: value})
