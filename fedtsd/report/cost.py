"""What a run would cost on other lines and machines than ours, from its traffic table.

A round lasts as long as its slowest client: receiving, working, sending. What this leaves out: the
server's own work, and clients that wait for a line.
"""

from dataclasses import dataclass

import pandas as pd

from fedtsd.report.tables import RunTables


@dataclass(frozen=True)
class Site:
    """The line and the machine that every client is assumed to have.

    upload, download: megabits per second. slowdown: how many times slower than the machine of the
    run a client's machine works.
    """

    upload: float
    download: float
    slowdown: float

    def __post_init__(self) -> None:
        for name in ("upload", "download", "slowdown"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0, got {getattr(self, name)}")

    def seconds(self, traffic: pd.DataFrame) -> "pd.Series[float]":
        """Seconds that each row of traffic.csv (a client in a round) would take."""
        line = traffic["bytes_up"] / self.upload + traffic["bytes_down"] / self.download
        return line * 8 / 1e6 + traffic["seconds"] * self.slowdown


def simulated_seconds(tables: RunTables, site: Site) -> "pd.Series[float]":
    """Round -> simulated seconds of that round: its slowest client; empty without traffic.csv."""
    seconds = site.seconds(tables.traffic)
    return seconds.groupby(tables.traffic["round"]).max()


def megabytes(tables: RunTables) -> "pd.Series[float]":
    """Round -> megabytes (1e6 bytes) that crossed the door in that round, both ways."""
    total = tables.traffic["bytes_up"] + tables.traffic["bytes_down"]
    return total.groupby(tables.traffic["round"]).sum() / 1e6
