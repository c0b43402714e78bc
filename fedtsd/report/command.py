"""`fedtsd report` and `fedtsd figures FOLDER...`: from folders to tables, figures and the page."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedtsd.catalogue import conf_dir
from fedtsd.errors import ConfigError, InputError, RunFolderError
from fedtsd.report.budget import budget_table
from fedtsd.report.comparison import write_tables
from fedtsd.report.cost import Site
from fedtsd.report.figures import FIGURES, RESULT_FIGURES, draw, draw_results, figures_about
from fedtsd.report.page import LANGUAGES, write_page
from fedtsd.report.results import RULES, Results
from fedtsd.report.statistics import recommended, verdict
from fedtsd.schema import convert, unknown

USAGE = """\
usage: fedtsd report FOLDER... [report.KEY=VALUE ...]

Tables, statistics, figures and a page for one run, one sweep or several.

Keys
"""


@dataclass(frozen=True)
class ReportOptions:
    """What a report is made with; conf/report.yaml has the defaults."""

    lang: str
    rule: str
    folder: str | None
    reference: str | None
    target: float | None
    site: Site

    def __post_init__(self) -> None:
        if self.lang not in LANGUAGES:
            raise ValueError(f"lang: must be one of {', '.join(LANGUAGES)}, got {self.lang!r}")
        if self.rule not in RULES:
            raise ValueError(f"rule: must be one of {', '.join(RULES)}, got {self.rule!r}")
        if self.target is not None and not self.target > 0:
            raise ValueError(f"target: must be null or above 0, got {self.target}")


def report_command(args: Sequence[str]) -> int:
    """Write a report on the folders in `args`; print what it comes to and where it is."""
    folders = [Path(arg) for arg in args if "=" not in arg and not arg.startswith("-")]
    if not folders or {"-h", "--help"} & set(args):
        sys.stdout.write(USAGE + _keys())
        return 0 if args else 2
    options = read_options([arg for arg in args if "=" in arg or arg.startswith("-")])
    results = Results.read(folders, options.rule)
    _check(results, options)
    reference = options.reference or recommended(results)
    target = _target(folders, options)
    target.mkdir(parents=True, exist_ok=True)
    write_tables(results, target / "tables", reference)
    costs = budget_table(results, options.site, options.target)
    costs.to_csv(target / "tables/budget.csv", index=False, lineterminator="\n")
    figures = figures_about(reference, options.site, options.target)
    draw_results(results, target, figures=figures)
    if len(results.runs) == 1:
        draw(results.runs[0].folder, target=target)
    page = write_page(results, target, options.lang, options.site, options.reference)
    for sentence in verdict(results, reference):
        sys.stdout.write(f"{sentence}\n")
    sys.stdout.write(f"{page}\n")
    return 0


def redraw(folders: Sequence[str], names: Sequence[str] | None = None) -> list[Path]:
    """Draw the figures of runs and sweeps again, each into its own folder.

    Raises ConfigError for a name that is no figure's; one that a folder cannot have is left out.
    """
    for name in names or ():
        if name not in {**FIGURES, **RESULT_FIGURES}:
            raise ConfigError(unknown(name, {**FIGURES, **RESULT_FIGURES}, "figure"))
    paths = []
    for folder in map(Path, folders):
        if (folder / "sweep.json").is_file():
            paths += draw_results(Results.read([folder]), folder, _among(names, RESULT_FIGURES))
        else:
            paths += draw(folder, _among(names, FIGURES))
    return paths


def read_options(overrides: Sequence[str]) -> ReportOptions:
    """Return the options with these `report.KEY=VALUE` applied to the defaults.

    Raises ConfigError with one line for a key or a value that is not legal.
    """
    values: dict[str, Any] = yaml.safe_load((conf_dir() / "report.yaml").read_text())
    legal = [f"report.{key}" for key in _flat(values)]
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or name not in legal:
            raise ConfigError(unknown(name, legal, "key"))
        *groups, key = name.removeprefix("report.").split(".")
        node = values
        for group in groups:
            node = node[group]
        try:
            node[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{name}: {text!r} cannot be read as a YAML value") from error
    options: ReportOptions = convert(values, ReportOptions, "report")
    return options


def _check(results: Results, options: ReportOptions) -> None:
    if not results.runs:
        states = ", ".join(f"{hole.folder} is {hole.state}" for hole in results.holes[:3])
        raise RunFolderError(f"there is no finished run to report on: {states}")
    if options.reference is not None and options.reference not in results.methods:
        legal = ", ".join(results.methods)
        raise InputError(f"report.reference: must be one of {legal}, got {options.reference!r}")
    limit = results.score.limit
    if options.target is not None and options.target > limit:
        raise InputError(
            f"report.target: must be null or in (0, {limit:g}], got {options.target:g}: "
            f"the runs are scored by {results.score.name}"
        )


def _target(folders: Sequence[Path], options: ReportOptions) -> Path:
    if options.folder is not None:
        return Path(options.folder)
    if len(folders) == 1:
        return folders[0] / "report"
    names = "\n".join(sorted(str(folder.resolve()) for folder in folders))
    return Path("outputs") / f"report-{hashlib.blake2b(names.encode(), digest_size=4).hexdigest()}"


def _flat(node: dict[str, Any], path: str = "") -> list[str]:
    keys = []
    for key, value in node.items():
        inner = isinstance(value, dict)
        keys += _flat(value, f"{path}{key}.") if inner else [f"{path}{key}"]
    return keys


def _among(names: Sequence[str] | None, known: dict[str, Any]) -> list[str] | None:
    return None if names is None else [name for name in names if name in known]


def _keys() -> str:
    lines = (conf_dir() / "report.yaml").read_text(encoding="utf-8").splitlines()[1:]
    return "".join(f"  {line}\n" for line in lines)
