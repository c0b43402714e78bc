"""Many runs side by side: what each one is (method, setting, seed) and its numbers.

A *setting* is what methods compete in: data set, partition, model, cohort, rounds. A *method* is
everything else that differs between runs, so ablations of one method count as methods of their own.
A *hole* is a run that was planned or begun and has no result.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedtsd.errors import RunFolderError
from fedtsd.report.folders import run_folders
from fedtsd.report.naming import setting_names, variant_words
from fedtsd.report.order import least_skewed_first
from fedtsd.report.skew import run_skew, summary_skew, with_skew
from fedtsd.report.style import method_label
from fedtsd.report.tables import RunTables, read_mapping
from fedtsd.score import ACCURACY, Score, score_of
from fedtsd.skew import Skew, mean_skew

RULES = {
    "last": "last round",
    "best_by_validation": "best round by validation",
}
FAMILIES = ("alone", "global", "personalised", "clustered")

Facts = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run. `method` and `setting` are unique names, `label` is for people."""

    folder: Path
    config: Facts
    summary: Facts
    method: str
    label: str
    family: str
    setting: str
    seed: int

    @cached_property
    def tables(self) -> RunTables:
        """All tables of the run, read when first asked for."""
        return RunTables.read(self.folder)

    @property
    def score(self) -> Score:
        """What the run is scored by; raises RunFolderError for something unheard of."""
        try:
            return score_of(self.summary)
        except ValueError as error:
            raise RunFolderError(f"{self.folder}: summary.json is broken: {error}") from error

    @property
    def newcomers(self) -> Facts:
        """What the summary says of clients that joined late or never trained; empty without any."""
        return self.summary.get("newcomers") or {}

    @property
    def alpha(self) -> float:
        """Dirichlet's alpha; infinite for IID data, NaN where the partition has none."""
        partition = self.config.get("partition") or {}
        if str(partition.get("_target_", "")).endswith(".Iid"):
            return float("inf")
        alpha = partition.get("alpha")
        return float(alpha) if isinstance(alpha, int | float) else float("nan")

    @cached_property
    def skew(self) -> float:
        """Measured skew: mean JS divergence of the clients' label laws to the pooled law, 0..1."""
        return self.brief_skew.label_js

    @cached_property
    def brief_skew(self) -> Skew:
        """What the summary tells of the skew; of older versions the skew of the labels alone."""
        told = summary_skew(self.summary)
        known = self.summary.get("label_skew")
        if told is None and known is not None:
            return Skew(label_js=float(known))
        return told or self.full_skew

    @cached_property
    def full_skew(self) -> Skew:
        """All that is known of the skew, from who holds what where the summary is silent."""
        return summary_skew(self.summary) or run_skew(self.tables)


@dataclass(frozen=True)
class Hole:
    """A run without a result: where, which, its state (missing, failed, running, ...) and why."""

    folder: Path
    state: str
    overrides: tuple[str, ...]
    error: str | None


@dataclass(frozen=True, eq=False)
class Results:
    """The finished runs of some folders, ordered by family, method, severity and seed."""

    runs: tuple[Run, ...]
    holes: tuple[Hole, ...]
    rule: str

    @classmethod
    def read(cls, folders: Iterable[Path], rule: str = "last") -> "Results":
        """Read runs and sweeps; a run that two folders hold counts once, the newer one.

        Raises RunFolderError if a folder is absent, holds no run, or a file in it is broken, and if
        the runs are not all scored alike.
        """
        if rule not in RULES:
            raise RunFolderError(f"rule: must be one of {', '.join(RULES)}, got {rule!r}")
        found: dict[Path, tuple[Facts, Facts, Facts]] = {}
        holes: dict[Path, Hole] = {}
        for folder in map(Path, folders):
            if not folder.is_dir():
                raise RunFolderError(f"{folder}: no such folder")
            for place, overrides in run_folders(folder):
                status = read_mapping(place / "status.json", optional=True)
                summary = read_mapping(place / "summary.json", optional=True)
                if status.get("state") == "done" and summary:
                    found[place] = (read_mapping(place / "config.yaml"), summary, status)
                else:
                    state = str(status.get("state", "missing"))
                    holes[place] = Hole(place, state, overrides, status.get("error"))
        if not found and not holes:
            raise RunFolderError(f"{', '.join(map(str, folders))}: no run here")
        runs = _name_runs(found)
        _check_scores(runs)
        return cls(runs, tuple(holes[place] for place in sorted(holes)), rule)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per run, by the rule of this report; scores as stored.

        Columns: method, label, family, setting, alpha, skew, seed, round, score, std, worst10,
        newcomers and newcomers_worst10 (mean and worst tenth, last round), adjusted_rand_index and
        mutual_information (of clusters and planted groups, None without any), bytes_up, bytes_down,
        samples, seconds, num_clusters, personal_layers, num_layers, folder.
        """
        return pd.DataFrame([self._row(run) for run in self.runs], columns=COLUMNS)

    @cached_property
    def clients(self) -> pd.DataFrame:
        """One row per run and client, at the round of the rule.

        Columns: method, label, family, setting, seed, client, score, rmse (NaN but in regression),
        cluster, personal_layers, num_train.
        """
        parts = [self._client_rows(run) for run in self.runs]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["method"])

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """rounds.csv of every run, with method, label, family, setting and seed in front."""
        parts = [_identified(run, run.tables.rounds) for run in self.runs]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["method"])

    @property
    def score(self) -> Score:
        """What every run here is scored by."""
        return self.runs[0].score if self.runs else ACCURACY

    @cached_property
    def decimals(self) -> int:
        """Decimals of a printed score, the same wherever these results are printed."""
        return self.score.decimals_of(self.score.scale * self.table["score"].astype(float))

    @property
    def methods(self) -> list[str]:
        """Methods in the order of every table and figure."""
        return list(dict.fromkeys(run.method for run in self.runs))

    @property
    def labels(self) -> dict[str, str]:
        """Method -> the name that people read."""
        return {run.method: run.label for run in self.runs}

    @property
    def families(self) -> dict[str, str]:
        """Method -> alone, global, personalised or clustered."""
        return {run.method: run.family for run in self.runs}

    @cached_property
    def settings(self) -> list[str]:
        """Settings, the least skewed first."""
        return least_skewed_first(self.runs)

    @cached_property
    def titles(self) -> dict[str, str]:
        """Setting -> its name with the measured skew."""
        return {
            name: with_skew(name, self.find(setting=name)[0].config, skew)
            for name, skew in self.skews.items()
        }

    @cached_property
    def skews(self) -> dict[str, Skew]:
        """Setting -> what is known of its skew without a look at its tables, mean over its runs."""
        return {
            name: mean_skew([run.brief_skew for run in self.find(setting=name)])
            for name in self.settings
        }

    @property
    def seeds(self) -> list[int]:
        """Every seed of any run, ascending."""
        return sorted({run.seed for run in self.runs})

    def find(
        self, method: str | None = None, setting: str | None = None, seed: int | None = None
    ) -> list[Run]:
        """Return the runs that fit what is given."""
        return [
            run
            for run in self.runs
            if method in (None, run.method)
            and setting in (None, run.setting)
            and seed in (None, run.seed)
        ]

    def only(self, settings: Iterable[str]) -> "Results":
        """Return the results of some settings alone."""
        kept = set(settings)
        return Results(tuple(r for r in self.runs if r.setting in kept), self.holes, self.rule)

    def scores_of(self, run: Run) -> Facts:
        """Return round, mean, std and worst10 of a run by the rule of this report.

        Raises RunFolderError if the rule asks for validation data and the run has none.
        """
        facts = run.summary.get(self.rule)
        if not isinstance(facts, Mapping):
            raise RunFolderError(f"{run.folder}: has no result by the rule {RULES[self.rule]}")
        return {"round": facts["round"], **_spread(facts, run.score)}

    def _row(self, run: Run) -> dict[str, Any]:
        facts = self.scores_of(run)
        late = _spread(run.newcomers.get("last") or {}, run.score)
        found = run.summary.get("agreement_with_planted_groups") or {}
        return {
            **_identity(run),
            "alpha": run.alpha,
            "skew": run.skew,
            "round": facts["round"],
            "score": facts["mean"],
            "std": facts["std"],
            "worst10": facts["worst10"],
            "newcomers": late["mean"],
            "newcomers_worst10": late["worst10"],
            "adjusted_rand_index": found.get("adjusted_rand_index"),
            "mutual_information": found.get("normalised_mutual_information"),
            **{key: run.summary.get(key) for key in TOTALS},
            "num_clusters": len(run.summary.get("clusters") or []),
            "personal_layers": float(np.mean(run.summary.get("personal_layers") or [0])),
            "num_layers": len(run.summary.get("layers") or []),
            "folder": str(run.folder),
        }

    def _client_rows(self, run: Run) -> pd.DataFrame:
        at = int(self.scores_of(run)["round"])
        rows = run.tables.clients
        stage = str(run.summary.get("stage", rows["stage"].iloc[-1]))
        chosen = (rows["stage"] == stage) & (rows["split"] == "test") & (rows["round"] == at)
        frame = rows[chosen].set_index("client").sort_index().reindex(columns=["score", "rmse"])
        where = run.tables.assignments.query("round == @at").set_index("client")
        frame["cluster"] = where["cluster"]
        frame["personal_layers"] = where.get("personal_layers", 0)
        sizes = run.tables.partition.query("split == 'train'").groupby("client")["count"].sum()
        frame["num_train"] = sizes
        return _identified(run, frame.reset_index())


IDENTITY = ("method", "label", "family", "setting", "seed")
TOTALS = ("bytes_up", "bytes_down", "samples", "seconds")
COLUMNS = [
    *IDENTITY, "alpha", "skew", "round", "score", "std", "worst10", "newcomers",
    "newcomers_worst10", "adjusted_rand_index", "mutual_information", *TOTALS, "num_clusters",
    "personal_layers", "num_layers", "folder",
]  # fmt: skip


def _spread(facts: Facts, score: Score) -> dict[str, float]:
    """Mean, std and worst10 under names that are the same for every score; NaN where not known."""
    names = ("mean", "std", "worst10")
    return {
        name: float(facts.get(column, float("nan")))
        for name, column in zip(names, score.columns, strict=True)
    }


def _check_scores(runs: Iterable[Run]) -> None:
    """Raise RunFolderError unless all runs are scored alike: there is no mean of unlike scores."""
    first = {run.score.name: run.folder for run in reversed(list(runs))}
    if len(first) > 1:
        each = ", ".join(f"{folder} by {name}" for name, folder in sorted(first.items()))
        raise RunFolderError(f"the runs are not scored alike: {each}; make a report of each kind")


def _identity(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in IDENTITY}


def _identified(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    known = _identity(run)
    return frame.assign(**known)[[*known, *(c for c in frame.columns if c not in known)]]


def _name_runs(found: Mapping[Path, tuple[Facts, Facts, Facts]]) -> tuple[Run, ...]:
    """Name methods and settings by what differs among the runs, drop doubles, bring in order."""
    configs = {place: config for place, (config, _, _) in found.items()}
    settings, variants = setting_names(configs), variant_words(configs)
    newest: dict[tuple[str, str, int], tuple[str, Run]] = {}
    for place, (config, summary, status) in found.items():
        method = config.get("method") or {}
        name, extra = str(method.get("name", "")), variants[place]
        run = Run(
            folder=place,
            config=config,
            summary=summary,
            method=" ".join([name, *extra]),
            label=", ".join([method_label(config), *extra]),
            family=str(method.get("family", "global")),
            setting=settings[place],
            seed=int(config.get("seed", 0)),
        )
        key = (run.method, run.setting, run.seed)
        updated = str(status.get("updated", ""))
        if key not in newest or updated >= newest[key][0]:
            newest[key] = (updated, run)
    runs = [run for _, run in newest.values()]
    rank = {setting: i for i, setting in enumerate(least_skewed_first(runs))}
    return tuple(sorted(runs, key=lambda run: (*_place(run), rank[run.setting], run.seed)))


def _place(run: Run) -> tuple[int, str]:
    """Families in their order, then methods by name."""
    family = FAMILIES.index(run.family) if run.family in FAMILIES else len(FAMILIES)
    return family, run.method
