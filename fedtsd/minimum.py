"""The fewest members whose models may become a centre: below it, nobody's update is let through.

The centre of a cluster is sent to all its members. Where one of them alone shared a tensor, the new
centre is that client's model; where two did, each can take its own out and has the other's. With
`min_aggregated`, a tensor of a cluster that fewer clients shared in a round stays as it is.

Shapes: K clusters.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from fedtsd.messages import Reply, Request, Withheld
from fedtsd.server import ServerState
from fedtsd.sums import Sums

_T = TypeVar("_T")

MINIMUM = "minimum"  # int64 [1] in the server's memory; absent where there is none


def with_minimum(server: ServerState, minimum: int | None) -> ServerState:
    """Return the state that knows how many members an aggregate needs; None: one is enough."""
    if minimum is None:
        return server
    return dataclasses.replace(server, memory={**server.memory, MINIMUM: np.array([minimum])})


def minimum_of(server: ServerState) -> int:
    """Return how many members an aggregate needs: policies that split clusters keep to it."""
    return int(server.memory.get(MINIMUM, np.ones(1, dtype=np.int64))[0])


def released(server: ServerState, request: Request, reply: Reply) -> Reply:
    """Return a training reply without what too few clients of a cluster share.

    Clusters are those of now, not those that the models were sent to. A member that is left without
    a tensor is to an aggregation as one that keeps it to itself.
    """
    minimum = minimum_of(server)
    counts = _sharing(server, request, reply)
    held = [
        {name: found[name] for name in centre if 0 < found[name] < minimum}
        for centre, found in zip(server.centres, counts, strict=True)
    ]
    if not any(held):
        return reply
    rows = tuple(
        dataclasses.replace(row, tensors=_without(row.tensors, held[cluster]))
        for row, cluster in zip(reply.rows, _clusters(server, reply), strict=True)
    )
    sums = None
    if reply.sums is not None:
        sums = tuple(
            Sums(_without(found.tensors, names), _without(found.weights, names))
            for found, names in zip(reply.sums, held, strict=True)
        )
    withheld = tuple(
        Withheld(cluster, name, n)
        for cluster, names in enumerate(held)
        for name, n in names.items()
    )
    return dataclasses.replace(reply, rows=rows, sums=sums, withheld=withheld)


def in_words(withheld: Sequence[Withheld]) -> str:
    """Return which clusters did not move, and how many of their members shared what did not."""
    parts = []
    for cluster in sorted({one.cluster for one in withheld}):
        rows = [one for one in withheld if one.cluster == cluster]
        counts = sorted({one.num_clients for one in rows})
        shared = " or ".join(map(str, counts))
        parts.append(f"{len(rows)} tensors of cluster {cluster}, shared by {shared}")
    return "; ".join(parts)


def _sharing(server: ServerState, request: Request, reply: Reply) -> list[Counter[str]]:
    """Return by cluster how many of those who answered share each tensor; the channel has checked
    that they sent just these.
    """
    personal = {row.client: row.personal for row in request.rows}
    counts = [Counter[str]() for _ in server.centres]
    for row, cluster in zip(reply.rows, _clusters(server, reply), strict=True):
        counts[cluster].update(server.centres[cluster].keys() - personal[row.client])
    return counts


def _clusters(server: ServerState, reply: Reply) -> list[int]:
    return [int(server.assignment[row.client]) for row in reply.rows]


def _without(tensors: Mapping[str, _T], names: Mapping[str, int]) -> dict[str, _T]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}
