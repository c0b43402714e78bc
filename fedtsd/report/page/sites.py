"""One row per site: what it has, what it gets, what it sends."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedtsd.report.page.answer import Roles, margin, site_scores
from fedtsd.report.page.words import Say, say
from fedtsd.report.results import Results, Run


@dataclass(frozen=True)
class SiteRow:
    """A site in one run. Scores as stored, times in seconds; None where not known."""

    client: int
    num_train: int
    num_test: int
    alone: float | None
    common: float | None
    focus: float
    gain: float | None
    margin: float | None
    cluster: int
    personal_layers: int
    bytes_up: int | None
    bytes_down: int | None
    seconds: float | None

    @property
    def clear(self) -> str:
        """better, worse or unclear: the gain against its margin."""
        if self.gain is None or self.margin is None or abs(self.gain) <= self.margin:
            return "unclear"
        return "better" if self.gain > 0 else "worse"


def site_rows(results: Results, roles: Roles, run: Run) -> list[SiteRow]:
    """Return the sites of a run of the focus method in the order of their numbers."""
    rows = results.clients
    own = rows[
        (rows["method"] == run.method)
        & (rows["setting"] == run.setting)
        & (rows["seed"] == run.seed)
    ].set_index("client")
    frame = own[["num_train", "cluster", "personal_layers"]].join(site_scores(results, run))
    alone = _of_twin(results, run, roles.alone)
    frame["alone"] = alone["score"]
    frame["common"] = _of_twin(results, run, roles.common)["score"]
    frame["gain"] = results.score.gain(frame["score"], frame["alone"])
    theirs = alone["noise"].reindex(frame.index)
    frame["margin"] = margin(frame["noise"].to_numpy(float), theirs.to_numpy(float))
    work = run.tables.traffic.groupby("client")[["bytes_up", "bytes_down", "seconds"]].sum()
    frame = frame.join(work).sort_index()
    return [_row(int(str(client)), values) for client, values in frame.iterrows()]


def newcomers(run: Run) -> Say | None:
    """Say how the clients of a run fare that joined late or never trained; None without any."""
    known, score = run.newcomers, run.score
    if not known:
        return None
    joined, last = known.get("join_round"), known["last"]
    return say(
        "sites.newcomers.never" if joined is None else "sites.newcomers.joined",
        n=len(known["clients"]), sites=list(known["clients"]), round=joined,
        mean=last[score.mean], worst=last[score.worst10],
    )  # fmt: skip


def _of_twin(results: Results, run: Run, method: str | None) -> pd.DataFrame:
    twins = results.find(method, run.setting, run.seed) if method else []
    if not twins:
        return pd.DataFrame(columns=["score", "noise"], dtype=float)
    return site_scores(results, twins[0])


def _row(client: int, values: "pd.Series[float]") -> SiteRow:
    known = {str(k): None if math.isnan(v) else float(v) for k, v in values.items()}
    whole = {k: None if known[k] is None else int(values[k]) for k in ("bytes_up", "bytes_down")}
    return SiteRow(
        client=client,
        num_train=int(np.nan_to_num(values["num_train"])),
        num_test=int(np.nan_to_num(values["num_test"])),
        alone=known["alone"],
        common=known["common"],
        focus=float(values["score"]),
        gain=known["gain"],
        margin=known["margin"],
        cluster=int(values["cluster"]),
        personal_layers=int(values["personal_layers"]),
        bytes_up=whole["bytes_up"],
        bytes_down=whole["bytes_down"],
        seconds=known["seconds"],
    )
