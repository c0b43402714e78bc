"""Who gains and who loses: one method against training alone and against one common model.

Whether a site's difference is more than chance is judged by the noise of its test score, two
standard errors of the difference of two means over test samples. As Agresti and Caffo (2000) do for
binomial shares, two samples are added to each that leave nothing sure: one right and one wrong, or
in regression one without an error and one with twice the mean error. Without them a site that gets
everything right would have no noise at all. Both models see the same test samples, so the margin
errs on the careful side.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from fedtsd.errors import InputError
from fedtsd.report.results import Results, Run
from fedtsd.report.statistics import recommended
from fedtsd.report.tables import FloatArray


@dataclass(frozen=True)
class Roles:
    """Which methods the page compares.

    focus: the method that the page judges. alone: training alone. common: one model for all.
    """

    focus: str
    alone: str | None
    common: str | None


def choose_roles(results: Results, focus: str | None = None) -> Roles:
    """Return the roles; without `focus` the recommended method is judged.

    Training alone is judged only where nothing else ran. Raises InputError if no run is finished,
    or `focus` is no method that can be judged.
    """
    if not results.runs:
        raise InputError("report: no finished run; run `fedtsd train` first or again")
    together = [m for m in results.methods if results.families[m] != "alone"]
    legal = together or results.methods
    if focus is not None and focus not in legal:
        raise InputError(f"focus: must be one of {', '.join(legal)}, got {focus!r}")
    judged = focus or recommended(results)
    if judged not in legal:
        means = results.score.merit(results.table.groupby("method")["score"].mean())
        judged = str(means[legal].idxmax())
    alone = [m for m in results.methods if results.families[m] == "alone" and m != judged]
    common = [m for m in results.methods if results.families[m] == "global" and m != judged]
    common.sort(key=lambda method: method != "fedavg")
    return Roles(judged, next(iter(alone), None), next(iter(common), None))


def margin(first: FloatArray, second: FloatArray) -> FloatArray:
    """Two standard errors of the difference of two scores [N], from the `noise` of each."""
    return np.asarray(2 * np.sqrt(first + second), dtype=np.float64)


def share_noise(shares: FloatArray, _: FloatArray, num_test: FloatArray) -> FloatArray:
    """The squared standard errors of accuracies [N] on `num_test` samples each."""
    moved = (shares * num_test + 1) / (num_test + 2)
    return np.asarray(moved * (1 - moved) / (num_test + 2), dtype=np.float64)


def error_noise(errors: FloatArray, rmse: FloatArray, num_test: FloatArray) -> FloatArray:
    """Those of mean absolute errors [N]; with the mean square they tell how errors spread."""
    squares = np.maximum(rmse**2 - errors**2, 0.0) * num_test + 2 * errors**2
    return np.asarray(squares / (num_test + 2) ** 2, dtype=np.float64)


NOISES = {"accuracy": share_noise, "mae": error_noise}


@dataclass(frozen=True, eq=False)
class Versus:
    """One method against another, site by site, over every seed that both have.

    rows: seed, client, num_test, theirs, ours, gain, margin; scores as stored.
    """

    rows: pd.DataFrame

    @cached_property
    def mean(self) -> float:
        """Mean gain over sites and seeds."""
        return float(self.rows["gain"].mean())

    @cached_property
    def margin(self) -> float:
        """Two standard errors of the mean gain, from the noise of the sites' test scores."""
        return float(np.sqrt((self.rows["margin"] ** 2).sum()) / len(self.rows))

    @property
    def gaining(self) -> int:
        """How many site results gain by more than their margin."""
        return int((self.rows["gain"] > self.rows["margin"]).sum())

    @property
    def losing(self) -> pd.DataFrame:
        """The site results that lose by more than their margin, the worst first."""
        rows = self.rows[self.rows["gain"] < -self.rows["margin"]]
        return rows.sort_values(["gain", "seed", "client"], kind="stable")

    @property
    def unclear(self) -> int:
        """How many site results lie within their margin."""
        return len(self.rows) - self.gaining - len(self.losing)

    @property
    def worst(self) -> Mapping[str, float]:
        """The row with the lowest gain."""
        row = self.rows.iloc[int(self.rows["gain"].to_numpy().argmin())]
        return {str(name): float(value) for name, value in row.items()}

    @property
    def by_seed(self) -> "pd.Series[float]":
        """Seed -> mean gain."""
        return self.rows.groupby("seed")["gain"].mean()

    @property
    def outcome(self) -> str:
        """better, worse, or tie where the mean gain is within its margin."""
        if abs(self.mean) <= self.margin:
            return "tie"
        return "better" if self.mean > 0 else "worse"


def versus(results: Results, setting: str, method: str | None, other: str | None) -> Versus | None:
    """Compare two methods of a setting; None where they share no seed."""
    parts = []
    for run in results.find(method=method, setting=setting) if method and other else []:
        for twin in results.find(method=other, setting=setting, seed=run.seed):
            parts.append(_pair(results, run, twin))
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return Versus(rows) if len(rows) else None


def _pair(results: Results, run: Run, twin: Run) -> pd.DataFrame:
    ours, theirs = site_scores(results, run), site_scores(results, twin)
    both = ours.join(theirs.add_suffix("_theirs"), how="inner")
    noises = (both[name].to_numpy(float) for name in ("noise", "noise_theirs"))
    pair = pd.DataFrame(
        {
            "ours": both["score"],
            "theirs": both["score_theirs"],
            "num_test": both["num_test"],
            "gain": results.score.gain(both["score"], both["score_theirs"]),
            "margin": margin(*noises),
        }
    ).dropna()
    return pair.rename_axis("client").reset_index().assign(seed=run.seed)


def site_scores(results: Results, run: Run) -> pd.DataFrame:
    """Client -> score, num_test and noise (squared standard error) of one run, by the rule."""
    rows = results.clients
    chosen = (rows["method"] == run.method) & (rows["setting"] == run.setting)
    found = rows[chosen & (rows["seed"] == run.seed)].set_index("client")
    found = found[["score", "rmse"]].astype(float).assign(num_test=test_samples(run))
    known = [found[name].to_numpy(float) for name in ("score", "rmse", "num_test")]
    return found[["score", "num_test"]].assign(noise=NOISES[results.score.name](*known))


def test_samples(run: Run) -> "pd.Series[int]":
    """Client -> number of its test samples."""
    rows = run.tables.partition
    return rows[rows["split"] == "test"].groupby("client")["count"].sum()


@dataclass(frozen=True)
class Verdict:
    """The answer for one setting.

    kind: gain; either, where one common model gains as well; tie; alone_better; common_better;
    no_alone; only_alone. mean: the focus method's score over sites and seeds.
    """

    setting: str
    kind: str
    mean: float
    seeds: tuple[int, ...]
    num_sites: int
    alone: Versus | None
    common: Versus | None
    best: str
    best_mean: float


def verdicts(results: Results, roles: Roles) -> list[Verdict]:
    """Return the answer for every setting that the focus method ran in."""
    settings = [s for s in results.settings if results.find(roles.focus, s)]
    return [_verdict(results, roles, setting) for setting in settings]


def _verdict(results: Results, roles: Roles, setting: str) -> Verdict:
    table = results.table[results.table["setting"] == setting]
    own = table[table["method"] == roles.focus]
    means = table.groupby("method")["score"].mean()
    best = str(results.score.merit(means).idxmax())
    alone = versus(results, setting, roles.focus, roles.alone)
    common = versus(results, setting, roles.focus, roles.common)
    return Verdict(
        setting=setting,
        kind=_kind(
            results, roles, alone, common, versus(results, setting, roles.common, roles.alone)
        ),
        mean=float(own["score"].mean()),
        seeds=tuple(sorted(own["seed"])),
        num_sites=len(site_scores(results, results.find(roles.focus, setting)[0])),
        alone=alone,
        common=common,
        best=best,
        best_mean=float(means[best]),
    )


def _kind(
    results: Results, roles: Roles, alone: Versus | None, common: Versus | None, both: Versus | None
) -> str:
    if results.families[roles.focus] == "alone":
        return "only_alone"
    if alone is None:
        return "no_alone"
    # One common model is simpler: it is named wherever it gains too and is not clearly beaten.
    if common and common.outcome != "better" and both and both.outcome == "better":
        if common.outcome == "worse":
            return "common_better"
        if alone.outcome == "better":
            return "either"
    return {"better": "gain", "tie": "tie", "worse": "alone_better"}[alone.outcome]


def shown_run(results: Results, roles: Roles, setting: str) -> Run:
    """The run whose sites the page shows: the lowest seed, if possible one that ran alone too."""
    runs = results.find(roles.focus, setting)
    compared = (
        [r for r in runs if results.find(roles.alone, setting, r.seed)] if roles.alone else []
    )
    return min(compared or runs, key=lambda run: run.seed)
