"""The planted groups, known from the start: what no method can know, as an upper bound."""

from dataclasses import dataclass

import numpy as np

from fedtsd.clustering.policy import Origin, Quiet
from fedtsd.server import ABSENT, ServerState, reassigned


@dataclass(frozen=True)
class Oracle(Quiet):
    """One cluster for each planted group of the data, before round 1."""

    def check(self, num_clients: int, has_groups: bool) -> None:
        if not has_groups:
            raise ValueError(
                "_target_: oracle needs data with planted groups, such as "
                "partition=label_groups or shift=rotation"
            )

    def start(self, server: ServerState, origin: Origin) -> ServerState:
        if origin.groups is None:
            raise ValueError("the data has no planted groups")
        assignment = np.full_like(server.assignment, ABSENT)
        here = server.present
        assignment[here] = np.unique(origin.groups[here], return_inverse=True)[1]
        return reassigned(server, assignment, 0)
