"""What the server measures of its clients' likeness, kept over the rounds.

Statistics of pairs in `ServerState.memory`, as `Pairs` stores them:
OUTPUTS: Jensen-Shannon divergence of the clients' outputs on public samples, in 0..1.
FREQUENCIES: of their mean outputs, how often each says which class; label skew shows there.
OUTPUTS_BEFORE: OUTPUTS as it stood while clients shared one whole model; only for reports.
OUTPUTS_AFTER: the last round's divergence, personal layers included; only for reports.
UPDATES: cosine of the directions of their updates, less the mean direction in their cluster.
SIGNATURES: the same for pairs that never met, where not all clients train in every round.
WORK: int64 [N], the samples that each client trained on in its last round, epochs counted.

Where too many clients are measured at once, each is compared with some of them only, the
landmarks (as in landmark MDS, de Silva and Tenenbaum 2004); policies then decide on the landmarks
and let the others follow. LANDMARKS, their number, is in the memory since that first happened.

Shapes: N clients, C cohort, P public samples, B public samples of a round, Y classes.
"""

import dataclasses
import logging
from dataclasses import dataclass

import numpy as np
import torch

from fedtsd.clustering.pairs import Pairs
from fedtsd.clustering.signatures import Signatures
from fedtsd.clustering.similarity import cosines_of, js_divergence
from fedtsd.messages import ClientReply, Reply, Request
from fedtsd.seeding import numpy_rng
from fedtsd.server import ServerState, Tensors

log = logging.getLogger(__name__)

OUTPUTS = "similarity.outputs"
OUTPUTS_ROUND = "similarity.outputs_round"
FREQUENCIES = "similarity.frequencies"
OUTPUTS_BEFORE = "similarity.outputs_before"
OUTPUTS_AFTER = "similarity.outputs_after"
UPDATES = "similarity.updates"
SIGNATURES = "similarity.signatures"
WORK = "similarity.work"
LANDMARKS = "similarity.landmarks"
PUBLIC_SUM = "similarity.public_sum"
PUBLIC_COUNT = "similarity.public_count"

SIGNATURE_MEMORY = 0.5
"""Weight of the past in a client's signature: visits are rarer than rounds, and the model moves."""

SAMPLINGS = ("uniform", "weighted")


@dataclass(frozen=True)
class Similarity:
    """How outputs and updates are measured; both are read from `first_round` on.

    public_batch: B, public samples a round, or all where there are fewer. public_sampling:
    `uniform`, or `weighted` towards samples on which clients disagreed (0.9 w^4 / sum w^4
    + 0.1 / P, w the sample's mean divergence so far). output_memory, update_memory: weight of the
    past in the running means. exact_up_to: clients compared pair by pair; of more, each is compared
    with this many `landmarks`.
    """

    public_batch: int
    public_sampling: str
    output_memory: float
    update_memory: float
    first_round: int
    exact_up_to: int
    landmarks: int

    def __post_init__(self) -> None:
        if self.public_batch < 1:
            raise ValueError(f"public_batch: must be at least 1, got {self.public_batch}")
        if self.public_sampling not in SAMPLINGS:
            raise ValueError(
                f"public_sampling: must be one of {', '.join(SAMPLINGS)}, "
                f"got {self.public_sampling!r}"
            )
        for name in ("output_memory", "update_memory"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: must be in [0, 1), got {getattr(self, name)}")
        if self.first_round < 1:
            raise ValueError(f"first_round: must be at least 1, got {self.first_round}")
        if not 2 <= self.landmarks <= self.exact_up_to:
            raise ValueError(
                f"landmarks: must be 2 to exact_up_to = {self.exact_up_to}, got {self.landmarks}"
            )

    def choose_public(
        self, server: ServerState, num_public: int, rng: np.random.Generator
    ) -> torch.Tensor:
        """Return the public samples of a round, int32 [B], sorted, without repetition."""
        probability = None
        if self.public_sampling == "weighted" and PUBLIC_COUNT in server.memory:
            probability = self._probability(server)
        size = min(self.public_batch, num_public)
        chosen = rng.choice(num_public, size=size, replace=False, p=probability)
        return torch.from_numpy(np.sort(chosen).astype(np.int32))

    def _probability(self, server: ServerState) -> np.ndarray | None:
        total, count = server.memory[PUBLIC_SUM], server.memory[PUBLIC_COUNT]
        seen = count > 0
        mean = np.where(seen, total / np.maximum(count, 1), total.sum() / count.sum())
        weight = mean**4
        if weight.sum() == 0:
            return None
        return np.asarray(0.9 * weight / weight.sum() + 0.1 / len(weight))

    def tellers(self, server: ServerState, round: int) -> np.ndarray:
        """Return of which clients outputs would be read, bool [N]: see `measure_outputs`.

        Those that share all layers, if there are two of them, and those that have not been compared
        with everybody yet.
        """
        here = np.zeros(server.num_clients, dtype=bool)
        if round < self.first_round:
            return here
        here[server.present] = True
        met = pairs_of(server, OUTPUTS).degrees(np.arange(server.num_clients))
        telling = here & (met < here.sum() - 1)
        sharing = here & ~server.personal.any(axis=1) & ~server.prior
        return np.asarray(telling | (sharing & (sharing.sum() > 1)))

    def measure_outputs(
        self, server: ServerState, request: Request, reply: Reply, public: torch.Tensor, pool: int
    ) -> ServerState:
        """Bring OUTPUTS and FREQUENCIES up to date with the outputs [C, B, Y] of this round.

        A pair counts while both clients share every layer and neither has a prior of its own:
        whatever is private makes outputs differ. A pair never measured before is taken anyway.
        """
        told = {row.client: row.outputs for row in reply.rows if row.outputs is not None}
        if request.round < self.first_round or len(told) < 2:
            return server
        clients, outputs = np.array(list(told)), torch.stack(list(told.values()))
        landmarks = self._landmarks(clients, server.num_clients)
        divergence, per_sample = js_divergence(outputs.numpy(), landmarks)
        of_means, _ = js_divergence(outputs.numpy().mean(axis=1, keepdims=True), landmarks)
        columns = clients if landmarks is None else clients[landmarks]
        now = Pairs.measured(server.num_clients, clients, columns, divergence)
        old = pairs_of(server, OUTPUTS)
        shares_all = np.zeros(server.num_clients, dtype=bool)
        alike = [row.client for row in request.rows if not row.personal and not row.prior]
        shares_all[alike] = True
        counts = now.among(shares_all) | ~now.known_to(old)
        new = now.only(counts)
        mixed = old.mixed(new, self.output_memory)
        means = Pairs.measured(server.num_clients, clients, columns, of_means).only(counts)
        frequencies = pairs_of(server, FREQUENCIES).mixed(means, self.output_memory)
        total = server.memory.get(PUBLIC_SUM, np.zeros(pool)).copy()
        count = server.memory.get(PUBLIC_COUNT, np.zeros(pool)).copy()
        total[public.numpy()] += per_sample
        count[public.numpy()] += 1
        memory = {
            **server.memory,
            **mixed.stored(OUTPUTS),
            **frequencies.stored(FREQUENCIES),
            **now.stored(OUTPUTS_AFTER),
            PUBLIC_SUM: total,
            PUBLIC_COUNT: count,
        }
        if len(new.keys):
            memory[OUTPUTS_ROUND] = np.array([request.round])
        if len(server.centres) == 1 and not server.personal.any() and not server.prior.any():
            memory |= mixed.stored(OUTPUTS_BEFORE)
        return self._noted(dataclasses.replace(server, memory=memory), clients, landmarks)

    def measure_updates(self, server: ServerState, request: Request, reply: Reply) -> ServerState:
        """Bring UPDATES up to date, cluster by cluster, over the layers all its members share.

        WORK as well, by which much of an update can be explained.
        """
        if request.round < self.first_round:
            return server
        updates, signatures = pairs_of(server, UPDATES), signatures_of(server)
        all_here = len(reply.rows) == len(server.present)
        for cluster in range(len(server.centres)):
            rows = [row for row in reply.rows if server.assignment[row.client] == cluster]
            if len(rows) < 2:
                continue
            sent = request.models[cluster]
            shared = [name for name in sent if all(name in row.tensors for row in rows)]
            if shared:
                server, new = self._cosines(server, rows, {name: sent[name] for name in shared})
                updates = updates.mixed(new, self.update_memory)
            if shared and not all_here:
                clients = np.array([row.client for row in rows])
                models = [{name: row.tensors[name].numpy() for name in shared} for row in rows]
                before = {name: sent[name].numpy() for name in shared}
                told = before, request.round, SIGNATURE_MEMORY
                signatures = signatures.visited(clients, models, *told)
        work = work_of(server).copy()
        work[[row.client for row in reply.rows]] = [row.num_samples for row in reply.rows]
        memory = {**server.memory, **updates.stored(UPDATES), WORK: work}
        if not all_here:
            memory |= signatures.stored(SIGNATURES)
        return dataclasses.replace(server, memory=memory)

    def _cosines(
        self, server: ServerState, rows: list[ClientReply], sent: Tensors
    ) -> tuple[ServerState, Pairs]:
        """Cosines of the updates of a cluster's members that answered, from what all were sent."""
        clients = np.array([row.client for row in rows])
        landmarks = self._landmarks(clients, server.num_clients)
        models = [[row.tensors[name].numpy() for name in sent] for row in rows]
        cosines = cosines_of(models, [tensor.numpy() for tensor in sent.values()], landmarks)
        columns = clients if landmarks is None else clients[landmarks]
        new = Pairs.measured(server.num_clients, clients, columns, cosines)
        return self._noted(server, clients, landmarks), new

    def _landmarks(self, clients: np.ndarray, num_clients: int) -> np.ndarray | None:
        """Positions of the landmarks among `clients` [C]; None where all pairs are measured.

        They are the first of these clients in one shuffle, the same in every round, so that the
        same pairs meet again.
        """
        if len(clients) <= self.exact_up_to:
            return None
        place = numpy_rng(0, "landmarks").permutation(num_clients)
        return np.sort(np.argsort(place[clients])[: self.landmarks])

    def _noted(
        self, server: ServerState, clients: np.ndarray, landmarks: np.ndarray | None
    ) -> ServerState:
        """Keep in mind that there are landmarks, and say so the first time."""
        if landmarks is None or LANDMARKS in server.memory:
            return server
        log.info(
            "%d clients are more than similarity.exact_up_to=%d: each is compared with %d of them",
            len(clients), self.exact_up_to, len(landmarks),
        )  # fmt: skip
        memory = {**server.memory, LANDMARKS: np.array([len(landmarks)])}
        return dataclasses.replace(server, memory=memory)


def pairs_of(server: ServerState, name: str) -> Pairs:
    """Return a statistic of pairs that the server keeps; none where it measured none yet."""
    return Pairs.read(server.memory, name, server.num_clients)


def work_of(server: ServerState) -> np.ndarray:
    """Return how many samples each client trained on in its last round, int64 [N]; 0: not known."""
    return server.memory.get(WORK, np.zeros(server.num_clients, dtype=np.int64))


def due(
    server: ServerState, round: int, start_round: int, coverage: float, chosen: np.ndarray
) -> np.ndarray:
    """Return for whom to choose by OUTPUTS after a round, bool [N]: once, and after each move.

    chosen: int64 [N], the round of the last choice, 0 for none. Nobody before `start_round`, nor
    before the share `coverage` of all clients has met a cluster mate: who trains otherwise than
    the others cannot be compared with them. Then everybody who has met one, or has none.
    """
    none = np.zeros(server.num_clients, dtype=bool)
    if round < start_round:
        return none
    here = none.copy()
    here[server.present] = True
    sizes = np.bincount(server.assignment[here])
    known = here & (pairs_of(server, OUTPUTS).met_mates(server.assignment) > 0)
    known |= here & (sizes[server.assignment] == 1)
    if not chosen.any() and known[here].mean() < coverage:
        return none
    return np.asarray(known & ((chosen == 0) | (server.assignment_round > chosen)))


def signatures_of(server: ServerState) -> Signatures:
    """Return the signatures that the server keeps; none where it has none yet."""
    return Signatures.read(server.memory, SIGNATURES, server.num_clients)


def forget_updates(server: ServerState, round: int) -> ServerState:
    """Restart UPDATES for clients whose cluster changed in this round.

    Signatures stay with the members of a new cluster, centred anew; who joined one starts again.
    """
    memory, moved = dict(server.memory), server.assignment_round == round
    if UPDATES in memory:
        updates = pairs_of(server, UPDATES)
        memory |= updates.only(updates.among(~moved)).stored(UPDATES)
    if SIGNATURES in memory:
        signatures = signatures_of(server)
        for cluster in range(len(server.centres)):
            members = server.members(cluster)
            if moved[members].all():
                signatures = signatures.centred(members)
            else:
                signatures = signatures.forgotten(members[moved[members]])
        memory |= signatures.stored(SIGNATURES)
    return dataclasses.replace(server, memory=memory)
