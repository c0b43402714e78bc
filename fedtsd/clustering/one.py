"""One cluster of all clients, for ever."""

from dataclasses import dataclass

from fedtsd.clustering.policy import Quiet


@dataclass(frozen=True)
class OneCluster(Quiet):
    """Everybody belongs together."""
