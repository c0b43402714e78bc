"""One row per site: what it has, what it gets, what it sends."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fedtsd.report.page.answer import Roles, accuracies, margin, test_samples
from fedtsd.report.results import Results, Run


@dataclass(frozen=True)
class SiteRow:
    """A site in one run. Accuracies are fractions, times in seconds; None where not known."""

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
    frame = own[["num_train", "accuracy", "cluster", "personal_layers"]].copy()
    frame["num_test"] = test_samples(run)
    frame["alone"] = _of_twin(results, run, roles.alone)
    frame["common"] = _of_twin(results, run, roles.common)
    frame["gain"] = frame["accuracy"] - frame["alone"]
    ours, theirs, tests = (frame[c].to_numpy(float) for c in ("accuracy", "alone", "num_test"))
    frame["margin"] = margin(ours, theirs, tests)
    work = run.tables.traffic.groupby("client")[["bytes_up", "bytes_down", "seconds"]].sum()
    frame = frame.join(work).sort_index()
    return [_row(int(str(client)), values) for client, values in frame.iterrows()]


def _of_twin(results: Results, run: Run, method: str | None) -> "pd.Series[float]":
    twins = results.find(method, run.setting, run.seed) if method else []
    return accuracies(results, twins[0]) if twins else pd.Series(dtype=float)


def _row(client: int, values: "pd.Series[float]") -> SiteRow:
    known = {str(k): None if math.isnan(v) else float(v) for k, v in values.items()}
    whole = {k: None if known[k] is None else int(values[k]) for k in ("bytes_up", "bytes_down")}
    return SiteRow(
        client=client,
        num_train=int(np.nan_to_num(values["num_train"])),
        num_test=int(np.nan_to_num(values["num_test"])),
        alone=known["alone"],
        common=known["common"],
        focus=float(values["accuracy"]),
        gain=known["gain"],
        margin=known["margin"],
        cluster=int(values["cluster"]),
        personal_layers=int(values["personal_layers"]),
        bytes_up=whole["bytes_up"],
        bytes_down=whole["bytes_down"],
        seconds=known["seconds"],
    )
