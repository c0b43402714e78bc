"""Two-stage clustering that clients who copy one another cannot use to set others apart.

Copies are at no distance from each other: C of N clients that pass for one lift the mean silhouette
of a cut between them and everybody else by about C / N, though the others do not stand apart from
them at all. So every cluster has to.
"""

from dataclasses import dataclass

import numpy as np

from fedtsd.clustering.split import Proposal, propose
from fedtsd.clustering.two_stage import TwoStage


@dataclass(frozen=True)
class WaryTwoStage(TwoStage):
    """Only cuts count in which each cluster of several clients stands apart from the others.

    each_silhouette: the least mean silhouette of a cluster, in both stages.
    """

    each_silhouette: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.each_silhouette <= 1:
            raise ValueError(f"each_silhouette: must be in [-1, 1], got {self.each_silhouette}")

    def propose(self, distance: np.ndarray) -> Proposal:
        return propose(distance, self.max_clusters, self.each_silhouette)
