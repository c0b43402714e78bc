"""Tables of methods by settings: means and spread over seeds, best and second, as files.

A missing cell stays missing: it is marked, counted and left out of every mean.
"""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from fedtsd.errors import RunFolderError
from fedtsd.report.latex import latex
from fedtsd.report.measures import Measure, alone, measures_of, num_clients
from fedtsd.report.pairs import paired_tests, printed_tests
from fedtsd.report.printed import MISSING, Printed, markdown, rank_marks
from fedtsd.report.ranks import complete, mean_ranks
from fedtsd.report.results import RULES, Hole, Results
from fedtsd.report.setting_table import printed_settings, setting_table
from fedtsd.report.statistics import recommended, verdict
from fedtsd.report.style import dataset_label

FAMILY_HEADINGS = {
    "alone": "Training alone",
    "global": "One global model",
    "personalised": "Personalised",
    "clustered": "Clustered",
}
FEWER = "†"
MOST_SEEDS = 10  # more are counted, not listed


@dataclass(frozen=True, eq=False)
class Comparison:
    """One measure of all methods in all settings.

    `mean`, `std` (sample, ddof 1; NaN below two seeds) and `n` (seeds) are methods x settings in
    the unit of the measure. `rank`: method -> mean rank over the `blocks` cells (setting, seed) in
    which every method has a run; empty where nothing is compared or fewer than two cells are.
    """

    measure: Measure
    title: str
    mean: pd.DataFrame
    std: pd.DataFrame
    n: pd.DataFrame
    rank: "pd.Series[float]"
    blocks: int
    rule: str
    labels: dict[str, str]
    titles: dict[str, str]
    families: dict[str, str]
    holes: tuple[Hole, ...]
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    clients: tuple[int, ...]

    @property
    def average(self) -> "pd.Series[float]":
        """Method -> mean over all settings with equal weight; NaN where one is missing."""
        return self.mean.mean(axis=1, skipna=False)

    def tidy(self) -> pd.DataFrame:
        """One row per method and setting, unrounded: method, setting, mean, std, n."""
        columns = {"mean": self.mean, "std": self.std, "n": self.n}
        parts = {name: frame.stack(future_stack=True) for name, frame in columns.items()}
        return pd.DataFrame(parts).rename_axis(["method", "setting"]).reset_index()

    def printed(self) -> Printed:
        """The table as people read it, rows grouped by family."""
        columns = {self.titles[str(name)]: self._texts(name) for name in self.mean}
        marks = {self.titles[str(name)]: self._marks(self.mean[name]) for name in self.mean}
        if len(self.mean.columns) > 1:
            columns["average"] = [self._text(value) for value in self.average]
            marks["average"] = self._marks(self.average)
        if len(self.rank):
            columns["rank"] = [f"{value:.2f}" for value in self.rank]
            marks["rank"] = list(rank_marks(list(self.rank), 2, highest=False))
        index = [self.labels[method] for method in self.mean.index]
        families = [self.families[method] for method in self.mean.index]
        several = len(set(families)) > 1
        return Printed(
            name=self.measure.name,
            corner="Method",
            texts=pd.DataFrame(columns, index=index),
            marks=pd.DataFrame(marks, index=index),
            groups=tuple(FAMILY_HEADINGS.get(f, f) if several else "" for f in families),
            caption=self.caption,
        )

    @property
    def caption(self) -> str:
        """What the numbers are, by which rule, over which seeds and data, and what is missing."""
        said = [f"{self.title}.", self._spread(), self._data()]
        if self.measure.compared and len(self.mean) > 1:
            said.append("Best per setting bold, second underlined.")
        if len(self.mean.columns) > 1:
            said.append("Average: over settings, where a method has all.")
        if len(self.rank):
            said.append(f"Rank: mean over {self.blocks} cells (setting, seed), 1 is best.")
        said += self._gaps()
        if "{rule}" in self.measure.title:
            said.append("The best test round is never reported.")
        return " ".join(said)

    @property
    def _spreads(self) -> bool:
        """Whether any spread is seen with the decimals of the measure."""
        return bool((self.std.round(self.measure.decimals) > 0).to_numpy().any())

    def _spread(self) -> str:
        few = len(self.seeds) <= MOST_SEEDS
        listed = f" ({', '.join(map(str, self.seeds))})" if few else ""
        if self.n.to_numpy().max() < 2:
            return f"One seed per cell{listed}: no spread."
        if not self._spreads:
            return (
                f"Mean over {len(self.seeds)} seeds{listed}, which differ by less than is printed."
            )
        return f"Mean ± sample standard deviation over {len(self.seeds)} seeds{listed}."

    def _data(self) -> str:
        low, high = self.clients[0], self.clients[-1]
        clients = f"{low} client{'s' * (low != 1)}" if low == high else f"{low} to {high} clients"
        return f"Data: {', '.join(self.datasets)}, {clients}."

    def _gaps(self) -> list[str]:
        said = []
        missing, most = int((self.n == 0).to_numpy().sum()), int(self.n.to_numpy().max())
        fewer = int(((self.n > 0) & (self.n < most)).to_numpy().sum())
        if missing:
            said.append(f"{MISSING}: no value ({missing} cell{'s' * (missing != 1)}).")
        if fewer:
            said.append(f"{FEWER}: fewer than {most} seeds.")
        if self.holes:
            states = Counter(hole.state for hole in self.holes)
            words = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
            said.append(f"Runs without a result: {words}.")
        return said

    def _texts(self, setting: object) -> list[str]:
        most = self.n.to_numpy().max()
        columns = (self.mean[setting], self.std[setting], self.n[setting])
        return [
            self._text(mean, std) + FEWER * bool(0 < n < most)
            for mean, std, n in zip(*columns, strict=True)
        ]

    def _text(self, mean: float, std: float = float("nan")) -> str:
        spread = f" ± {std:.{self.measure.decimals}f}" if self._spreads and std >= 0 else ""
        return self.measure.text(mean) + spread

    def _marks(self, values: "pd.Series[float]") -> list[str]:
        if not self.measure.compared:
            return [""] * len(values)
        return list(rank_marks(list(values), self.measure.decimals, self.measure.highest))


def compare(results: Results, measure: Measure) -> Comparison:
    """Compare all methods by one measure; raises RunFolderError if no run has finished."""
    if not results.runs:
        raise RunFolderError("no finished run: there is nothing to compare")
    values = measure.values(results)
    seeds = values.groupby("setting", sort=False)
    ranked = measure.compared and len(values.columns) > 1 and len(complete(values)) > 1
    label = results.labels.get(alone(results) or "", "")
    return Comparison(
        measure=measure,
        title=measure.title.format(rule=RULES[results.rule], alone=label),
        mean=seeds.mean().T[results.settings],
        std=seeds.std(ddof=1).T[results.settings],
        n=seeds.count().T[results.settings],
        rank=mean_ranks(values, measure.highest) if ranked else pd.Series(dtype=float),
        blocks=len(complete(values)),
        rule=results.rule,
        labels=results.labels,
        titles=results.titles,
        families=results.families,
        holes=results.holes,
        seeds=tuple(results.seeds),
        datasets=tuple(dict.fromkeys(dataset_label(run.config) for run in results.runs)),
        clients=tuple(sorted({num_clients(run.summary) for run in results.runs})),
    )


def comparisons(results: Results) -> list[Comparison]:
    """Every table that the runs have numbers for."""
    return [compare(results, measure) for measure in measures_of(results)]


def write_tables(results: Results, target: Path, reference: str | None = None) -> list[Path]:
    """Write every table as NAME.csv (unrounded), NAME.md and NAME.tex, the statistics likewise.

    `reference` is the method that others are tested against, by default the recommended one; with
    one method there is nothing to test, and `statistics.md` alone says so. `runs.csv` has a row per
    run. Each file is complete or absent, and the same runs give the same bytes. Raises
    RunFolderError if no run has finished or the reference is unknown.
    """
    settings = setting_table(results)
    files = _files(printed_settings(settings), settings)
    for comparison in comparisons(results):
        files |= _files(comparison.printed(), comparison.tidy())
    files |= _statistics(results, reference or recommended(results))
    files["runs.csv"] = _runs(results).to_csv(index=False)
    target.mkdir(parents=True, exist_ok=True)
    return [_write(target / name, text) for name, text in files.items()]


def _files(printed: Printed, tidy: pd.DataFrame) -> dict[str, str]:
    return {
        f"{printed.name}.csv": tidy.to_csv(index=False),
        f"{printed.name}.md": markdown(printed),
        f"{printed.name}.tex": latex(printed),
    }


def _statistics(results: Results, reference: str) -> dict[str, str]:
    """The verdict and the paired tests, over cells and over settings."""
    tests = pd.concat(
        [paired_tests(results, reference), paired_tests(results, reference, over="settings")],
        ignore_index=True,
    )
    sentences = verdict(results, reference)
    if tests.empty:
        return {"statistics.md": _bullets(sentences)}
    printed = printed_tests(results, tests)
    files = _files(printed, tests)
    text = f"{_bullets(sentences)}\n{files['statistics.md']}"
    return files | {"statistics.md": text}


def _bullets(sentences: list[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)


def _runs(results: Results) -> pd.DataFrame:
    """The table of runs, folders relative to the deepest folder that holds them all.

    `score` has the name of what the runs are scored by.
    """
    top = os.path.commonpath([run.folder.resolve().parent for run in results.runs])
    folders = [run.folder.resolve().relative_to(top).as_posix() for run in results.runs]
    return results.table.assign(folder=folders).rename(columns={"score": results.score.name})


def _write(path: Path, text: str) -> Path:
    beside = path.with_name(f".{path.name}.writing")
    beside.write_text(text, encoding="utf-8", newline="\n")
    beside.replace(path)
    return path
