"""What the methods cost in data and time, measured and for a line and machine of one's choice."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedtsd.report.cost import Site, megabytes, simulated_seconds
from fedtsd.report.results import Results, Run
from fedtsd.report.tables import FloatArray, RunTables


@dataclass(frozen=True)
class CostRow:
    """A method in a setting, mean over seeds. Bytes and seconds; None where not recorded."""

    method: str
    setting: str
    bytes_total: float
    bytes_per_site_round: float
    samples: float
    train_seconds: float | None
    ratio: float | None
    round_seconds: float | None


def cost_rows(results: Results, common: str | None, site: Site) -> list[CostRow]:
    """Return a row per setting and method; `ratio` is the bytes against the common model's."""
    rows = []
    for setting in results.settings:
        reference = _mean_bytes(results.find(common, setting)) if common else None
        for method in results.methods:
            if runs := results.find(method, setting):
                rows.append(_cost_row(runs, reference, site))
    return rows


def _cost_row(runs: list[Run], reference: float | None, site: Site) -> CostRow:
    total = _mean_bytes(runs)
    turns = float(np.mean([_site_rounds(run.tables) for run in runs]))
    timed = [run.tables for run in runs if len(run.tables.traffic)]
    seconds = [float(t.traffic["seconds"].sum()) for t in timed]
    per_round = [float(simulated_seconds(t, site).mean()) for t in timed]
    return CostRow(
        method=runs[0].method,
        setting=runs[0].setting,
        bytes_total=total,
        bytes_per_site_round=total / turns if turns else 0.0,
        samples=float(np.mean([run.summary.get("samples") or 0 for run in runs])),
        train_seconds=float(np.mean(seconds)) if seconds else None,
        ratio=total / reference if reference else None,
        round_seconds=float(np.mean(per_round)) if per_round else None,
    )


def _mean_bytes(runs: list[Run]) -> float:
    totals = [run.summary.get("bytes_up", 0) + run.summary.get("bytes_down", 0) for run in runs]
    return float(np.mean(totals)) if totals else 0.0


def _site_rounds(tables: RunTables) -> int:
    """How many times a site took part in a round; all sites in all rounds where not recorded."""
    return len(tables.traffic) or len(tables.rounds) * len(tables.order)


@dataclass(frozen=True)
class Forecast:
    """A run of `rounds` rounds on an assumed line and machine: seconds and bytes."""

    round_seconds: float
    total_seconds: float
    site_round_bytes: float
    total_bytes: float


def forecast(tables: RunTables, site: Site, rounds: int) -> Forecast | None:
    """Carry a run on to `rounds` rounds, those beyond the measured ones being like the last one.

    None without traffic.csv. The formula of a round is that of `fedtsd.report.cost`.
    """
    if tables.traffic.empty:
        return None
    seconds = _carried(simulated_seconds(tables, site), rounds)
    sent = 1e6 * _carried(megabytes(tables), rounds)
    turns = _carried(tables.traffic.groupby("round")["client"].count().astype(float), rounds)
    return Forecast(seconds / rounds, seconds, sent / turns, sent)


def _carried(by_round: "pd.Series[float]", rounds: int) -> float:
    values = by_round.sort_index().to_numpy(float)
    return float(values[:rounds].sum() + max(rounds - len(values), 0) * values[-1])


def calculator_rounds(tables: RunTables) -> list[dict[str, Any]]:
    """Return what the page's calculator needs of each round.

    sites: [bytes up, bytes down, seconds] of the sites that may be the slowest on some line and
    machine; all others are below one of them in all three. bytes: sent and received by all.
    """
    rounds = []
    for _, rows in tables.traffic.sort_values(["round", "client"]).groupby("round"):
        work = rows[["bytes_up", "bytes_down", "seconds"]].to_numpy(float)
        rounds.append(
            {
                "sites": [[int(u), int(d), s] for u, d, s in _frontier(work).tolist()],
                "bytes": int(work[:, :2].sum()),
                "count": len(work),
            }
        )
    return rounds


def _frontier(work: FloatArray) -> FloatArray:
    """The rows [N, 3] that no other row exceeds or equals in every column."""
    rows = np.unique(work, axis=0)
    covers = (rows[None] >= rows[:, None]).all(axis=2)
    return np.asarray(rows[covers.sum(axis=1) == 1], dtype=np.float64)
