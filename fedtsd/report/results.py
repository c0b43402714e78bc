"""Many runs side by side: what each one is (method, setting, seed) and its numbers.

A *setting* is what methods compete in: data set, partition, model, cohort, rounds. A *method* is
everything else that differs between runs, so ablations of one method count as methods of their own.
A *hole* is a run that was planned or begun and has no result.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedtsd.errors import RunFolderError
from fedtsd.metrics import accuracy_at, label_skew
from fedtsd.report.naming import setting_names, variant_words
from fedtsd.report.style import method_label
from fedtsd.report.tables import RunTables, read_mapping

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
        known = self.summary.get("label_skew")
        return float(known) if known is not None else label_skew(self.tables.train_counts)


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

        Raises RunFolderError if a folder is absent, holds no run, or a file in it is broken.
        """
        if rule not in RULES:
            raise RunFolderError(f"rule: must be one of {', '.join(RULES)}, got {rule!r}")
        found: dict[Path, tuple[Facts, Facts, Facts]] = {}
        holes: dict[Path, Hole] = {}
        for folder in map(Path, folders):
            if not folder.is_dir():
                raise RunFolderError(f"{folder}: no such folder")
            for place, overrides in _places(folder):
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
        return cls(runs, tuple(holes[place] for place in sorted(holes)), rule)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per run, by the rule of this report; accuracies in 0..1.

        Columns: method, label, family, setting, alpha, skew, seed, round, accuracy, std, worst10,
        bytes_up, bytes_down, samples, seconds, num_clusters, personal_layers, num_layers, folder.
        """
        return pd.DataFrame([self._row(run) for run in self.runs], columns=COLUMNS)

    @cached_property
    def clients(self) -> pd.DataFrame:
        """One row per run and client, at the round of the rule.

        Columns: method, label, family, setting, seed, client, accuracy, cluster, personal_layers,
        num_train.
        """
        parts = [self._client_rows(run) for run in self.runs]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["method"])

    @cached_property
    def rounds(self) -> pd.DataFrame:
        """rounds.csv of every run, with method, label, family, setting and seed in front."""
        parts = [_identified(run, run.tables.rounds) for run in self.runs]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["method"])

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
        if self.table.empty:
            return []
        keys = self.table.assign(alpha=-self.table["alpha"].fillna(0.0))
        order = keys.groupby("setting")[["skew", "alpha"]].mean().round(6)
        return [str(name) for name in order.sort_values(["skew", "alpha"]).index]

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

    def accuracy_rows(self, run: Run) -> Facts:
        """Return the accuracies of a run by the rule of this report.

        Raises RunFolderError if the rule asks for validation data and the run has none.
        """
        facts = run.summary.get(self.rule)
        if not isinstance(facts, Mapping):
            raise RunFolderError(f"{run.folder}: has no result by the rule {RULES[self.rule]}")
        return facts

    def _row(self, run: Run) -> dict[str, Any]:
        facts = self.accuracy_rows(run)
        return {
            **_identity(run),
            "alpha": run.alpha,
            "skew": run.skew,
            "round": facts["round"],
            "accuracy": facts["accuracy_mean"],
            "std": facts["accuracy_std"],
            "worst10": facts["accuracy_worst10"],
            **{key: run.summary.get(key) for key in TOTALS},
            "num_clusters": len(run.summary.get("clusters") or []),
            "personal_layers": float(np.mean(run.summary.get("personal_layers") or [0])),
            "num_layers": len(run.summary.get("layers") or []),
            "folder": str(run.folder),
        }

    def _client_rows(self, run: Run) -> pd.DataFrame:
        at = int(self.accuracy_rows(run)["round"])
        rows = run.tables.clients
        stage = str(run.summary.get("stage", rows["stage"].iloc[-1]))
        frame = accuracy_at(rows, stage, at).to_frame()
        where = run.tables.assignments.query("round == @at").set_index("client")
        frame["cluster"] = where["cluster"]
        frame["personal_layers"] = where.get("personal_layers", 0)
        sizes = run.tables.partition.query("split == 'train'").groupby("client")["count"].sum()
        frame["num_train"] = sizes
        return _identified(run, frame.reset_index())


IDENTITY = ("method", "label", "family", "setting", "seed")
TOTALS = ("bytes_up", "bytes_down", "samples", "seconds")
COLUMNS = [
    *IDENTITY, "alpha", "skew", "round", "accuracy", "std", "worst10", *TOTALS, "num_clusters",
    "personal_layers", "num_layers", "folder",
]  # fmt: skip


def _identity(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in IDENTITY}


def _identified(run: Run, frame: pd.DataFrame) -> pd.DataFrame:
    known = _identity(run)
    return frame.assign(**known)[[*known, *(c for c in frame.columns if c not in known)]]


def _places(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield run folders and their overrides, if a sweep knows them.

    A sweep yields the cells of its plan, begun or not; other runs in its folder belong to other
    plans. What lies inside a run is not searched.
    """
    if (folder / "config.yaml").is_file():
        yield folder, ()
    elif (folder / "sweep.json").is_file():
        for cell in read_mapping(folder / "sweep.json").get("cells", []):
            yield folder / cell["folder"], tuple(cell["overrides"])
    else:
        for place in sorted(folder.iterdir()):
            if place.is_dir() and not place.name.startswith("."):
                yield from _places(place)


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
    skews = pd.Series([run.skew for run in runs], dtype=float)
    by_setting = skews.groupby([run.setting for run in runs]).mean()
    return tuple(sorted(runs, key=lambda run: (*_place(run), by_setting[run.setting], *_cell(run))))


def _place(run: Run) -> tuple[int, str]:
    """Families in their order, then methods by name."""
    family = FAMILIES.index(run.family) if run.family in FAMILIES else len(FAMILIES)
    return family, run.method


def _cell(run: Run) -> tuple[str, int]:
    return run.setting, run.seed
