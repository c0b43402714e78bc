"""How the contestants stand, from the folders of their runs alone.

Frames of *cells* have a row per setting and seed and a column per contestant.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fedtsd.cell import Cell
from fedtsd.errors import RunFolderError
from fedtsd.report.measures import alone, printed_scores
from fedtsd.report.results import FAMILIES, Hole, Results, Run
from fedtsd.report.tables import read_mapping
from fedtsd.study.sitting import read_cells

LEAD = 2.0  # points, averaged over settings: what the reference is to be ahead of each baseline
LOSS = 1.0  # points: a client that loses more against training alone is a loser
NOISE = 2.0  # standard errors of a client's loss, above which it is beyond noise
CHANCE = 0.023  # share of losses beyond noise where nobody loses: the normal law's upper tail


def read_results(folder: Path, rule: str = "last") -> Results:
    """Read the runs of a plan under the plan's own names of contestants and settings.

    Runs without a result are holes. Raises RunFolderError if there is no plan, or no finished run.
    """
    cells = read_cells(folder)
    if not cells:
        raise RunFolderError(f"{folder}: no plan of a benchmark here, sweep.json is missing")
    order = {name: place for place, name in enumerate(roles_of(folder))}
    runs = sorted(
        (_run(cell) for cell in cells if cell.done),
        key=lambda run: (FAMILIES.index(run.family), order[run.method], run.setting, run.seed),
    )
    if not runs:
        raise RunFolderError(f"{folder}: no run has finished")
    return Results(tuple(runs), tuple(_hole(cell) for cell in cells if not cell.done), rule)


def roles_of(folder: Path) -> dict[str, str]:
    """Contestant -> ours, baseline, bound or variant, in the order of the plan."""
    values = [dict(cell.values) for cell in read_cells(folder)]
    return {told["method"]: told["role"] for told in values}


def losers(results: Results) -> pd.DataFrame:
    """One row per run: the clients that lose more than LOSS points against training alone.

    Columns: method, setting, seed, clients, share (of them, 0..1), loss (mean over the losers, in
    points, below 0; 0 without any), beyond_noise (clients that lose more than NOISE standard errors
    of the difference of two shares of their test samples, 0 but for chance if nobody loses).
    Clients are compared at the last round with the run of the same setting and seed. Empty where
    nobody trains alone.
    """
    base, name = alone(results), f"{results.score.name}_per_client"
    rows = []
    for run in results.runs:
        twins = results.find(base, run.setting, run.seed) if base else []
        if run.method != base and twins:
            both = pd.DataFrame({"ours": run.summary[name], "alone": twins[0].summary[name]})
            gains = results.score.gain(both["ours"], both["alone"]).to_numpy(float)
            points = (results.score.scale * gains).round(10)
            lost = points[points < -LOSS]
            samples = pd.Series(run.summary["test_samples_per_client"]).reindex(both.index)
            pooled = both.mean(axis=1).to_numpy(float)
            error = np.sqrt(2 * pooled * (1 - pooled) / samples.to_numpy(float))
            beyond = both["alone"] - both["ours"] > NOISE * error
            rows.append(
                {
                    "method": run.method,
                    "setting": run.setting,
                    "seed": run.seed,
                    "clients": len(points),
                    "share": len(lost) / len(points),
                    "loss": float(lost.mean()) if len(lost) else 0.0,
                    "beyond_noise": int(beyond.sum()),
                }
            )
    columns = ["method", "setting", "seed", "clients", "share", "loss", "beyond_noise"]
    return pd.DataFrame(rows, columns=columns)


def against_best(cells: pd.DataFrame, reference: str, baselines: Sequence[str]) -> pd.DataFrame:
    """One row per setting: the reference against the baseline with the highest mean there.

    cells: as printed, higher is better. Only seeds that the reference has count, and only baselines
    that have all of these. Columns: best, reference (mean), baseline (mean), difference, error (of
    the mean difference of pairs, over seeds; NaN below two). Settings without a pair have no row.
    """
    rows = {}
    for setting, part in cells.groupby("setting", sort=False):
        pairs = part.dropna(subset=[reference])
        rivals = pairs[list(baselines)].dropna(axis="columns")
        if rivals.empty:
            continue
        best = str(rivals.mean().idxmax())
        rows[setting] = {
            "best": best,
            "reference": pairs[reference].mean(),
            "baseline": pairs[best].mean(),
            "difference": (pairs[reference] - pairs[best]).mean(),
            "error": (pairs[reference] - pairs[best]).sem(),
        }
    columns = ["best", "reference", "baseline", "difference", "error"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def against_each(cells: pd.DataFrame, reference: str, others: Sequence[str]) -> pd.DataFrame:
    """One row per other contestant: the reference against it, settings with equal weight.

    Columns: settings (that both have), difference (mean over settings of the mean over pairs),
    error (of that mean, from the spread over seeds within settings; NaN if a setting has one).
    """
    rows = {}
    for other in others:
        pairs = (cells[reference] - cells[other]).dropna().groupby("setting", sort=False)
        number = pairs.ngroups
        errors = pairs.sem().to_numpy(float)
        rows[other] = {
            "settings": number,
            "difference": pairs.mean().mean(),
            "error": float(np.sqrt(np.sum(errors**2)) / number) if number else np.nan,
        }
    return pd.DataFrame.from_dict(rows, orient="index", columns=["settings", "difference", "error"])


def missing_pairs(cells: pd.DataFrame, reference: str, baselines: Sequence[str]) -> int:
    """Return how many cells (setting, seed) lack the reference or one of the baselines."""
    return int(cells[[reference, *baselines]].isna().any(axis=1).sum())


def verdict(
    cells: pd.DataFrame, reference: str, baselines: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the settings in which the reference is behind, and the baselines too close to it.

    Behind: by more than one standard error (or at all, with one seed) of the best baseline there.
    Too close: less than LEAD points ahead, averaged over settings.
    """
    best = against_best(cells, reference, baselines)
    each = against_each(cells, reference, baselines)
    behind = best["difference"] + best["error"].fillna(0.0) < 0
    close = ~(each["difference"].round(10) >= LEAD)
    return list(best.index[behind]), list(each.index[close])


def merits(results: Results, column: str = "score") -> pd.DataFrame:
    """Cells of one column of scores as printed, turned so that higher is better."""
    cells: pd.DataFrame = results.score.merit(printed_scores(results, column))
    return cells


def runs_table(results: Results, best: Results, lost: pd.DataFrame) -> pd.DataFrame:
    """One row per run, scores as stored; `best` holds the same runs by the other rule."""
    keys = ["method", "setting", "seed"]
    named = {"round": "best_by_validation_round", "score": "best_by_validation_score"}
    columns = [
        *keys, "round", "score", "std", "worst10", "adjusted_rand_index", "num_clusters",
        "personal_layers", "bytes_up", "bytes_down", "samples", "seconds",
    ]  # fmt: skip
    other = best.table[[*keys, *named]].rename(columns=named)
    told = lost.drop(columns="clients").rename(
        columns={
            "share": "losers_share",
            "loss": "losers_mean_loss",
            "beyond_noise": "losers_beyond_noise",
        }
    )
    table = results.table[columns].merge(other, on=keys, how="left")
    table = table.merge(told, on=keys, how="left")
    table.columns = [str(c).replace("score", results.score.name) for c in table]
    return table.assign(folder=[run.folder.name for run in results.runs])


def environments(results: Results) -> dict[str, list[str]]:
    """Return what the runs say of where they were made: fact -> its different values."""
    found: dict[str, set[str]] = {}
    for run in results.runs:
        for key, value in _facts(read_mapping(run.folder / "environment.json", optional=True)):
            found.setdefault(key, set()).add(value)
    return {key: sorted(values) for key, values in found.items()}


def _facts(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("fedtsd", "git_commit", "python", "platform"):
        if environment.get(key):
            yield key, str(environment[key])
    for key in ("torch", "numpy"):
        if version := (environment.get("packages") or {}).get(key):
            yield key, str(version)


def _run(cell: Cell) -> Run:
    values = dict(cell.values)
    config = read_mapping(cell.folder / "config.yaml")
    method = config.get("method") or {}
    return Run(
        folder=cell.folder,
        config=config,
        summary=cell.summary(),
        method=values["method"],
        label=_label(values["method"], method),
        family=str(method.get("family")),
        setting=values["setting"],
        seed=int(values["seed"]),
    )


def _label(contestant: str, method: Mapping[str, Any]) -> str:
    """The method's own label, with what the contestant's name adds to the method's; or its name."""
    name, label = str(method.get("name")), str(method.get("label"))
    if contestant == name:
        return label
    return contestant.replace(f"{name}_", f"{label} ", 1).replace("_", " ")


def _hole(cell: Cell) -> Hole:
    return Hole(cell.folder, cell.state, cell.overrides, cell.status.get("error"))
