"""Clusters that know the same classes by other names.

Sites may code one thing by different numbers. Their clients are far apart by their outputs, so they
form clusters, and yet they could learn as one: all that differs is the order of the rows of the
last layer. The server finds that order in the outputs on public samples that it is sent anyway, and
averages such clusters as one. They stay clusters: each is sent the last layer in its own names.

Two clusters are told to be such by parts of J, the Jensen-Shannon divergence of their mean outputs:
what is left of it once the classes of one are matched with those of the other so that least is
left, and the divergence of how often they name each class on average. Under label skew the latter
is nearly all of J, and other inputs leave much of it however classes are matched.

This is the project's own rule; docs/methods.md has the measurements behind its numbers. A coding
is a way to number classes; a family, clusters that differ in their coding.

Shapes: N clients, K clusters, B public samples of a round, Y classes.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from fedtsd.clustering.similarity import js_divergence
from fedtsd.messages import Reply
from fedtsd.models import Layer
from fedtsd.server import ABSENT, ServerState, Tensors
from fedtsd.sums import Sums

FAMILY = "coding.family"
"""int64 [N]: clients with the same number are averaged as one; ABSENT for those that are not."""

NAMES = "coding.names"
"""int64 [N, Y]: what a client calls each class of its family."""

SINCE = "coding.since"
"""int64 [N]: the round in which that was noted; who has changed clusters since has no family."""

Family = dict[int, np.ndarray]
"""Its clusters, and what each calls the classes, int64 [Y]."""

Rule = Callable[[ServerState, Reply], Sequence[Sums]]
"""Returns one sum per cluster of the models of its members."""


@dataclass(frozen=True)
class Relative:
    """A cluster of a family: its first one, and what it calls that one's classes, int64 [Y]."""

    first: int
    names: np.ndarray


class Coding(ABC):
    """Says which clusters are averaged as one, before any aggregation that takes means."""

    uses_outputs: ClassVar[bool]
    """Whether it reads the clients' outputs on public samples."""

    @abstractmethod
    def compare(self, server: ServerState, reply: Reply) -> ServerState:
        """Return the state that knows which clusters differ in their coding alone."""

    @abstractmethod
    def summed(self, server: ServerState, reply: Reply, last: Layer, rule: Rule) -> Reply:
        """Return the reply with the sum of each cluster; those of a family have one in common.

        last: the model's last layer, whose tensors have a row per class. rule: how clusters are
        summed; it meets a family as one cluster, in the names of its first.
        """


@dataclass(frozen=True)
class OwnCoding(Coding):
    """Each cluster by itself."""

    uses_outputs: ClassVar[bool] = False

    def compare(self, server: ServerState, reply: Reply) -> ServerState:
        return server

    def summed(self, server: ServerState, reply: Reply, last: Layer, rule: Rule) -> Reply:
        return dataclasses.replace(reply, sums=tuple(rule(server, reply)))


@dataclass(frozen=True)
class MatchedCoding(Coding):
    """Average clusters as one that differ in their coding alone.

    unexplained: what either part may have of J, as a share of it. alike_below: clusters whose J is
    lower differ in something else. In a family names are matched again whenever outputs come, with
    the mean outputs of the others: by the first models some are wrong.
    """

    unexplained: float
    alike_below: float

    uses_outputs: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("unexplained", "alike_below"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: must be in (0, 1), got {getattr(self, name)}")

    def compare(self, server: ServerState, reply: Reply) -> ServerState:
        voices = mean_outputs(server, reply)
        if len(voices) < 2:
            return server
        families = families_of(server)
        num_classes = next(iter(voices.values())).shape[1]
        alone = voices.keys() - {cluster for family in families for cluster in family}
        families += [{cluster: np.arange(num_classes)} for cluster in sorted(alone)]
        for cluster in voices:
            families = self._placed(cluster, families, voices)
        return _noted(server, families, num_classes, reply.round)

    def _placed(
        self, cluster: int, families: list[Family], voices: Mapping[int, np.ndarray]
    ) -> list[Family]:
        """Match a cluster with the rest of its family; one that is alone, with any."""
        own = next(family for family in families if cluster in family)
        for family in [own] if len(own) > 1 else families:
            mates = [mate for mate in family if mate != cluster and mate in voices]
            if not mates:
                continue
            common = np.mean([voices[mate][:, family[mate]] for mate in mates], axis=0)
            if family is not own and not self.differ_in_coding(common, voices[cluster]):
                continue
            names = matched(common, voices[cluster])[0]
            rest = [one for one in families if one is not own]
            others = [other for mate, other in family.items() if mate != cluster]
            # Who shares its names with another cluster was set apart from that for another reason.
            if not any(np.array_equal(names, other) for other in others):
                family[cluster] = names
                return [own, *rest] if family is own else rest
            if family is own:
                del own[cluster]
                return [*families, {cluster: np.arange(len(names))}]
        return families

    def differ_in_coding(self, one: np.ndarray, other: np.ndarray) -> bool:
        """Return whether mean outputs [B, Y] of two clusters differ in their coding alone."""
        whole = _js(one, other)
        most = self.unexplained * whole
        return (
            whole >= self.alike_below
            and _js(one.mean(axis=0)[None], other.mean(axis=0)[None]) <= most
            and matched(one, other)[1] <= most
        )

    def summed(self, server: ServerState, reply: Reply, last: Layer, rule: Rule) -> Reply:
        relatives = relatives_of(server)
        rows, assignment = [], server.assignment.copy()
        for row in reply.rows:
            relative = relatives.get(int(server.assignment[row.client]))
            if relative is not None:
                order = torch.from_numpy(relative.names)
                row = dataclasses.replace(row, tensors=_renamed(row.tensors, last, order))
                assignment[row.client] = relative.first
            rows.append(row)
        as_one = dataclasses.replace(server, assignment=assignment)
        sums = list(rule(as_one, dataclasses.replace(reply, rows=tuple(rows))))
        for cluster, relative in relatives.items():
            found, order = sums[relative.first], torch.from_numpy(relative.names.argsort())
            sums[cluster] = Sums(_renamed(found.tensors, last, order), found.weights)
        return dataclasses.replace(reply, sums=tuple(sums))


def families_of(server: ServerState) -> list[Family]:
    """Return the families that are known, in the order of their first clusters."""
    if FAMILY not in server.memory:
        return []
    names = server.memory[NAMES]
    belongs = (server.memory[FAMILY] != ABSENT) & (server.assignment != ABSENT)
    stayed = belongs & (server.assignment_round <= server.memory[SINCE])
    found: dict[int, Family] = {}
    for cluster in range(len(server.centres)):
        members = np.flatnonzero(stayed & (server.assignment == cluster))
        if len(members):
            family = int(server.memory[FAMILY][members[0]])
            found.setdefault(family, {})[cluster] = names[members[0]]
    return [family for family in found.values() if len(family) > 1]


def relatives_of(server: ServerState) -> dict[int, Relative]:
    """Return by cluster how it relates to the first of its family; first ones are left out."""
    return {
        cluster: Relative(min(family), names[family[min(family)].argsort()])
        for family in families_of(server)
        for cluster, names in sorted(family.items())
        if cluster != min(family)
    }


def mean_outputs(server: ServerState, reply: Reply) -> dict[int, np.ndarray]:
    """Return the mean outputs, float64 [B, Y], of each cluster from whose members some came."""
    told: dict[int, list[np.ndarray]] = {}
    for row in sorted(reply.rows, key=lambda row: row.client):
        if row.outputs is not None:
            cluster = int(server.assignment[row.client])
            told.setdefault(cluster, []).append(row.outputs.double().numpy())
    return {cluster: np.mean(outputs, axis=0) for cluster, outputs in sorted(told.items())}


def matched(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, float]:
    """Return what the other calls each class of the one, int64 [Y], and what is left of J then."""
    from scipy.optimize import linear_sum_assignment  # lazily: no first round needs it

    divergence = class_divergences(one, other)
    classes, names = linear_sum_assignment(divergence)
    return names.astype(np.int64), float(divergence[classes, names].sum())


def class_divergences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return [Y, Y]: what class i of one and class j of the other, taken for the same, add to J.

    From probabilities [B, Y] of each. J is the trace.
    """
    own = _x_log_x(one)[:, None] + _x_log_x(other)
    middle = np.stack([_x_log_x((column[:, None] + other) / 2) for column in one.T])
    return np.asarray((own / 2 - middle) / np.log(2))


def _x_log_x(laws: np.ndarray) -> np.ndarray:
    """Mean over samples of x log x, [Y] of [B, Y]; 0 log 0 = 0."""
    return np.asarray((laws * np.log(np.maximum(laws, np.finfo(float).tiny))).mean(axis=0))


def coding_rows(round: int, server: ServerState) -> Iterator[dict[str, int]]:
    """Rows of codings.csv: what each cluster of a family calls the classes of its first cluster."""
    for cluster, relative in relatives_of(server).items():
        for number, name in enumerate(relative.names.tolist()):
            told = {"round": round, "cluster": cluster, "like": relative.first}
            yield {**told, "class": number, "name": name}


def _js(one: np.ndarray, other: np.ndarray) -> float:
    return float(js_divergence(np.stack([one, other]))[0][0, 1])


def _noted(
    server: ServerState, families: Sequence[Family], num_classes: int, round: int
) -> ServerState:
    family = np.full(server.num_clients, ABSENT)
    names = np.tile(np.arange(num_classes), (server.num_clients, 1))
    for number, clusters in enumerate(family for family in families if len(family) > 1):
        for cluster, own in clusters.items():
            members = server.members(cluster)
            family[members] = number
            names[members] = own
    since = np.full(server.num_clients, round)
    memory = {**server.memory, FAMILY: family, NAMES: names, SINCE: since}
    return dataclasses.replace(server, memory=memory)


def _renamed(tensors: Tensors, last: Layer, order: torch.Tensor) -> Tensors:
    """Return a model, or a part, whose class c is what was class `order[c]`."""
    return {name: t[order] if name in last.tensors else t for name, t in tensors.items()}
