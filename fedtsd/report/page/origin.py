"""Where the numbers come from: what ran, when, with which versions, and how to run it again."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from re import split
from typing import Any

from fedtsd.report.page.numbers import MISSING
from fedtsd.report.page.words import Say, say
from fedtsd.report.results import RULES, Results, Run
from fedtsd.report.style import dataset_label
from fedtsd.report.tables import read_mapping

Fact = tuple[str, Any]  # a key of the words, and what stands beside it
MOST_FOLDERS = 6  # more are counted by the folder they lie in
NOT_TOLD = ("seed", "resume", "method", "device", "evaluation.local_run")


def ran(results: Results, run: Run) -> list[Fact]:
    """Return what was run, as rows of a table: a key of `ran.label`, and a text."""
    runs, cohort = results.runs, run.tables.option("cohort.size")
    sites = sorted({len(r.tables.order) for r in runs})
    rounds = sorted({int(r.config.get("rounds", len(r.tables.rounds))) for r in runs})
    each = say("ran.value.everyone") if cohort is None else say("ran.value.cohort", n=int(cohort))
    return [
        ("dataset", ", ".join(sorted({dataset_label(r.config) for r in runs}))),
        ("classes", str(len(run.tables.class_names))),
        ("sites", say("ran.value.sites", counts=sites, each=each)),
        ("samples", _samples(runs)),
        ("model", _model(run)),
        ("rounds", say("ran.value.numbers", counts=rounds)),
        ("seeds", say("ran.value.numbers", counts=results.seeds)),
        ("rule", say("ran.value.rule", rule=rule(results))),
        ("versions", _main_versions(runs)),
        ("when", _when(runs)),
    ]


def _samples(runs: tuple[Run, ...]) -> Say:
    sizes = [int(run.tables.partition["count"].sum()) for run in runs]
    if min(sizes) == max(sizes):
        return say("ran.value.total", low=sizes[0])
    return say("ran.value.range", low=min(sizes), high=max(sizes))


def _model(run: Run) -> Say:
    name = str((run.config.get("model") or {}).get("_target_", "")).rpartition(".")[2] or MISSING
    layers = run.tables.model
    if not layers:
        return say("ran.value.model_name", name=name)
    total = sum(int(layer["num_parameters"]) for layer in layers)
    return say("ran.value.model", name=name, layers=len(layers), parameters=total)


def _main_versions(runs: tuple[Run, ...]) -> str:
    """The versions that matter most; the table at the end of the page has all."""
    found = [read_mapping(run.folder / "environment.json", optional=True) for run in runs]
    short = [
        {**e, "packages": {n: v for n, v in (e.get("packages") or {}).items() if n == "torch"}}
        for e in found
        if e
    ]
    return "; ".join(_distinct(_versions(e) for e in short)) or MISSING


def _when(runs: tuple[Run, ...]) -> Say:
    states = [read_mapping(run.folder / "status.json", optional=True) for run in runs]
    begun = [str(s.get("started", s.get("updated", "")))[:10] for s in states]
    ended = [str(s.get("updated", ""))[:10] for s in states]
    first, last = (
        min(filter(None, begun), default=MISSING),
        max(filter(None, ended), default=MISSING),
    )
    return (
        say("ran.value.day", day=last)
        if first == last
        else say("ran.value.days", first=first, last=last)
    )


def reproduction(results: Results) -> list[Fact]:
    """Return commands, versions and folders, as rows of a table; values are lists of codes."""
    found = [read_mapping(run.folder / "environment.json", optional=True) for run in results.runs]
    rows: list[Fact] = [
        (
            "commands",
            _distinct(shlex.join(map(str, e["command"])) for e in found if e.get("command")),
        ),
        ("versions", _distinct(_versions(e) for e in found if e)),
        ("commit", _distinct(str(e["git_commit"]) for e in found if e.get("git_commit"))),
        ("machine", _distinct(str(e["platform"]) for e in found if e.get("platform"))),
        ("seeds", [str(seed) for seed in results.seeds]),
        ("folders", _folders(results.runs)),
    ]
    return [(key, values) for key, values in rows if values]


def _folders(runs: tuple[Run, ...]) -> list[str]:
    """The runs' folders; of many, the folders that hold them and how many each."""
    if len(runs) <= MOST_FOLDERS:
        return sorted((run.folder.name for run in runs), key=_by_number)
    holders = Counter(run.folder.absolute().parent.name for run in runs)
    return [f"{holder}/ ({number})" for holder, number in sorted(holders.items())]


def _versions(environment: Mapping[str, Any]) -> str:
    packages = environment.get("packages") or {}
    own = {name: environment.get(name) for name in ("fedtsd", "python")}
    return ", ".join(
        f"{name} {version}" for name, version in {**own, **packages}.items() if version
    )


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sort `10-fedavg` after `9-fedavg`."""
    return [(int(part or 0), "") if part.isdigit() else (0, part) for part in split(r"(\d+)", name)]


def _distinct(texts: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(texts))


def rule(results: Results) -> Say:
    """The rule by which scores are reported."""
    return say(f"rule.{results.rule if results.rule in RULES else 'last'}")


def differences(results: Results) -> list[tuple[str, list[str]]]:
    """Return the config keys that differ between methods: key, one text per method.

    A key that differs between the runs of one method too shows all of its values.
    """
    flat = {m: [dict(_flat(run.config)) for run in results.find(m)] for m in results.methods}
    keys = sorted({key for configs in flat.values() for config in configs for key in config})
    rows = []
    for key in keys:
        texts = [", ".join(_distinct(c[key] for c in flat[m] if key in c)) for m in results.methods]
        if key.split(".")[0] not in NOT_TOLD and key not in NOT_TOLD and _differs(flat, key):
            rows.append((key, texts))
    return rows


def _differs(flat: Mapping[str, list[dict[str, str]]], key: str) -> bool:
    return len({config.get(key) for configs in flat.values() for config in configs}) > 1


def _flat(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", json.dumps(value, ensure_ascii=False)
