"""The benchmark's page and its CSV: what the folder of the runs tells, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import yaml

from fedtsd.disk import write_atomically
from fedtsd.errors import ConfigError
from fedtsd.report.comparison import FAMILY_HEADINGS, compare
from fedtsd.report.measures import alone, measures_of
from fedtsd.report.pairs import paired_tests, printed_tests
from fedtsd.report.printed import Printed, markdown, number, rank_marks
from fedtsd.report.results import Results
from fedtsd.schema import unknown
from fedtsd.study import choice
from fedtsd.study.standing import (
    CHANCE,
    LEAD,
    LOSS,
    NOISE,
    against_best,
    against_each,
    environments,
    losers,
    merits,
    missing_pairs,
    read_results,
    roles_of,
    runs_table,
    verdict,
)

TABLES = (  # heading, rule, measure
    ("Last round", "last", "accuracy"),
    ("Best round by validation", "best_by_validation", "accuracy"),
    ("Worst tenth of the clients", "last", "worst_decile"),
    ("Planted groups found", "last", "adjusted_rand_index"),
)

REFERENCE = "fedtsdp_full"
"""What the others are compared with, unless another one is named."""


def write_page(
    folder: Path, target: Path, part: str, reference: str, contestants: Sequence[str] = ()
) -> list[Path]:
    """Write benchmark_PART.md, .csv and, if values were chosen, _choice.yaml; return the files.

    folder: of the runs. contestants: all that the part has, so that the command names those that
    are there if they are fewer. Raises RunFolderError if no run has finished, ConfigError if the
    reference has none.
    """
    results = read_results(folder)
    best = read_results(folder, "best_by_validation")
    if reference not in results.methods:
        raise ConfigError(unknown(reference, results.methods, "reference"))
    lost = losers(results)
    text = "\n".join(_page(results, best, lost, folder, part, reference, contestants))
    name = f"benchmark_{part}"
    files = {
        f"{name}.md": text,
        f"{name}.csv": runs_table(results, best, lost).to_csv(index=False, lineterminator="\n"),
    }
    if (folder / choice.FILE).is_file():
        files[f"{name}_choice.yaml"] = (folder / choice.FILE).read_text()
    target.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        write_atomically(target / file, content.encode())
    return [target / file for file in files]


def _page(
    results: Results,
    best: Results,
    lost: pd.DataFrame,
    folder: Path,
    part: str,
    reference: str,
    contestants: Sequence[str],
) -> list[str]:
    """The blocks of the page from the top."""
    roles = roles_of(folder)
    baselines = [m for m in results.methods if roles[m] == "baseline" and m != reference]
    said = [f"# Benchmark: {part}", "", *_head(results, folder, part, reference, contestants)]
    if baselines:
        said += ["## Verdict", "", *_verdict(results, lost, reference, baselines)]
    for heading, rule, name in TABLES:
        source = {results.rule: results, best.rule: best}[rule]
        for measure in (one for one in measures_of(source) if one.name == name):
            said += [f"## {heading}", "", markdown(compare(source, measure).printed())]
    if len(lost):
        said += [
            "## Who loses against training alone",
            "",
            markdown(_printed_losers(results, lost)),
        ]
    if len(results.methods) > 1:
        said += ["## Pairs", "", markdown(_printed_pairs(results, reference))]
    return said


def _head(
    results: Results, folder: Path, part: str, reference: str, contestants: Sequence[str]
) -> list[str]:
    """How to make the page again, with what it was made, and the values that were chosen."""
    seeds = ", ".join(map(str, results.seeds))
    there = list(roles_of(folder))
    some = f" --methods {','.join(there)}" if set(there) < set(contestants) else ""
    other = f" --reference {reference}" if reference != REFERENCE else ""
    lines = [
        "```",
        f"python scripts/benchmark.py --part {part}{some} --seeds {seeds.replace(', ', ',')}"
        f"{other}",
        "```",
        "",
        f"{len(results.runs)} runs, {len(results.holes)} without a result. Seeds {seeds}. "
        f"Reference: {results.labels[reference]}.",
        "",
        *(f"- {key}: {', '.join(values)}" for key, values in environments(results).items()),
        "",
    ]
    path = folder / choice.FILE
    if not path.is_file():
        return lines
    told = yaml.safe_load(path.read_text())
    rows = [
        f"| {results.labels[name]} | {_words(facts['chosen'])} | "
        f"{'; '.join(_tried(point) for point in facts['points'])} |"
        for name, facts in told["methods"].items()
        if name in results.methods
    ]
    return [
        *lines,
        f"Values tuned on {', '.join(told['settings'])} with seed {told['seed']}: {told['rule']}.",
        "",
        "| Method | chosen | tried: validation score |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]


def _tried(point: Mapping[str, object]) -> str:
    score = point["validation_accuracy"]
    return f"{_words(point['overrides'])}: {'failed' if score is None else f'{score:.4f}'}"


def _words(overrides: object) -> str:
    return ", ".join(f"`{text}`" for text in overrides) if isinstance(overrides, list) else "none"


def _verdict(
    results: Results, lost: pd.DataFrame, reference: str, baselines: Sequence[str]
) -> list[str]:
    cells = merits(results)
    name = results.labels[reference]
    gaps = missing_pairs(cells, reference, baselines)
    said, missed = [], False
    for what, column in (("Mean over clients", "score"), ("Worst tenth", "worst10")):
        behind, close = verdict(merits(results, column), reference, baselines)
        missed = missed or bool(behind or close)
        said.append(
            f"- {what}: by more than one standard error behind the best baseline in "
            f"{_listed(behind)}; less than {LEAD:g} points ahead, averaged over settings, of "
            f"{_listed([results.labels[m] for m in close])}."
        )
    mine = lost[lost["method"] == reference]
    if clients := int(mine["clients"].sum()):
        beyond = int(mine["beyond_noise"].sum())
        missed = missed or beyond > CHANCE * clients
        said.append(
            f"- Clients that lose more than noise ({NOISE:g} standard errors) against training "
            f"alone: {beyond} of {clients} ({beyond / clients:.1%}; {CHANCE:.1%} by chance if "
            "none did)."
        )
    said += [
        f"- Goal {'missed' if missed else 'met'}"
        + (f", as far as known: {gaps} cells (setting, seed) are incomplete." if gaps else "."),
        "",
    ]
    best = _printed_best(results, against_best(cells, reference, baselines), name)
    others = [m for m in results.methods if m != reference]
    each = _printed_each(results, against_each(cells, reference, others), name, baselines)
    return [*said, markdown(best), markdown(each)]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _printed_best(results: Results, table: pd.DataFrame, name: str) -> Printed:
    digits = results.decimals
    texts = pd.DataFrame(
        {
            "best baseline": [results.labels[m] for m in table["best"]],
            "its mean": [number(v, f".{digits}f") for v in table["baseline"]],
            name: [number(v, f".{digits}f") for v in table["reference"]],
            "difference": _differences(table, digits),
        },
        index=[results.titles[str(setting)] for setting in table.index],
    )
    caption = (
        f"{name} minus the best baseline of each setting, points, ± one standard error of the "
        "mean of pairs (same seed). The best one is picked by its mean on these very runs."
    )
    return _plain("verdict_settings", "Setting", texts, caption)


def _printed_each(
    results: Results, table: pd.DataFrame, name: str, baselines: Sequence[str]
) -> Printed:
    table = table.sort_values("difference", kind="stable")
    texts = pd.DataFrame(
        {
            "baseline": ["yes" if m in baselines else "no" for m in table.index],
            "settings": table["settings"].astype(int).map(str).to_list(),
            "difference": _differences(table, results.decimals),
        },
        index=[results.labels[str(m)] for m in table.index],
    )
    caption = (
        f"{name} minus each other method, points, mean over the settings that both have, ± one "
        "standard error from the spread of pairs over seeds. The nearest first."
    )
    return _plain("verdict_methods", "Method", texts, caption)


def _printed_losers(results: Results, lost: pd.DataFrame) -> Printed:
    """Share of losers and their mean loss; settings and their average."""
    share = _by_setting(results, lost, "share")
    some = lost[lost["share"] > 0]
    loss = _by_setting(results, some, "loss").reindex(index=share.index, columns=share.columns)
    share["average"], loss["average"] = share.mean(axis=1, skipna=False), loss.mean(axis=1)
    texts = pd.DataFrame(
        {
            column: [_loser(s, w) for s, w in zip(share[column], loss[column], strict=True)]
            for column in share
        },
        index=[results.labels[m] for m in share.index],
    )
    marks = pd.DataFrame(
        {column: rank_marks(list(100 * share[column]), 0, highest=False) for column in share},
        index=texts.index,
    )
    titles = {str(name): results.titles.get(str(name), str(name)) for name in share}
    families = [results.families[m] for m in share.index]
    return Printed(
        name="losers",
        corner="Method",
        texts=texts.rename(columns=titles),
        marks=marks.rename(columns=titles),
        groups=tuple(FAMILY_HEADINGS.get(family, family) for family in families),
        caption=(
            f"Share of clients that lose more than {LOSS:g} point against "
            f"{results.labels[alone(results) or '']} with the same seed, last round, and in "
            "brackets their mean loss in points; mean over seeds."
        ),
    )


def _by_setting(results: Results, lost: pd.DataFrame, column: str) -> pd.DataFrame:
    """Methods x settings, mean over seeds."""
    table = lost.pivot_table(index="method", columns="setting", values=column, sort=False)
    methods = [method for method in results.methods if method in table.index]
    return table.reindex(index=methods, columns=results.settings)


def _loser(share: float, loss: float) -> str:
    text = number(100 * share, ".0f")
    return f"{text} % ({number(loss, '.1f')})" if share > 0 else text + " %" * (share == 0)


def _printed_pairs(results: Results, reference: str) -> Printed:
    """The paired tests over cells, with the standard error of the mean difference."""
    tests = paired_tests(results, reference)
    printed = printed_tests(results, tests)
    cells = merits(results)
    errors = cells[tests["method"]].rsub(cells[reference], axis=0).sem()
    texts, marks = printed.texts.copy(), printed.marks.copy()
    texts.insert(2, "std. error", [number(v, f".{results.decimals}f") for v in errors])
    marks.insert(2, "std. error", "")
    return replace(printed, texts=texts, marks=marks)


def _differences(table: pd.DataFrame, digits: int) -> list[str]:
    pairs = zip(table["difference"], table["error"], strict=True)
    return [
        number(mean, f"+.{digits}f") + (f" ± {error:.{digits}f}" if error >= 0 else "")
        for mean, error in pairs
    ]


def _plain(name: str, corner: str, texts: pd.DataFrame, caption: str) -> Printed:
    marks = texts.map(lambda _: "")
    return Printed(name, corner, texts, marks, ("",) * len(texts), caption)
