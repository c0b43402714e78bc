"""`fedtsd figures`: the paper's figures and tables from recipes, running what is missing."""

import importlib.util
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from fedtsd.catalogue import conf_dir
from fedtsd.errors import ConfigError, RunFolderError
from fedtsd.report.comparison import write_tables
from fedtsd.report.figures import (
    FIGURES,
    RESULT_FIGURES,
    NotApplicableError,
    figures_about,
    save,
)
from fedtsd.report.results import Results
from fedtsd.report.statistics import recommended
from fedtsd.schema import unknown

ROOT = Path("outputs/figures")
USAGE = """\
usage: fedtsd figures FOLDER...                        draw the figures of runs and sweeps again
       fedtsd figures [profile=quick|full] [figure=NAME,...] [OVERRIDES]

The second form draws the paper's figures into outputs/figures/PROFILE and runs what is missing for
them. OVERRIDES, such as hydra/launcher=basic, are those of fedtsd train and go to every run.
"""


def figures_command(args: Sequence[str]) -> int:
    """Redraw folders, or draw the paper's figures; print the files."""
    if {"-h", "--help"} & set(args):
        sys.stdout.write(USAGE)
        return 0
    chosen = [arg for arg in args if arg.startswith("figure=")]
    others = [arg for arg in args if arg not in chosen]
    if folders := [arg for arg in others if "=" not in arg and not arg.startswith("~")]:
        # Lazily: the page and the tables are not needed here.
        from fedtsd.report.command import redraw

        if wrong := [arg for arg in others if arg not in folders]:
            raise ConfigError(f"{wrong[0]}: figures of folders take no override but figure=NAME")
        paths = redraw(folders, _names(chosen))
    else:
        profile = [arg.partition("=")[2] for arg in others if arg.startswith("profile=")]
        overrides = [arg for arg in others if not arg.startswith("profile=")]
        paths = draw_paper(profile[-1] if profile else "quick", _names(chosen), overrides)
    for path in paths:
        sys.stdout.write(f"{path}\n")
    return 0


def draw_paper(
    profile: str, names: Sequence[str] | None = None, overrides: Sequence[str] = ()
) -> list[Path]:
    """Run the recipes behind the named figures (all without `names`), draw them, write the tables.

    Raises ConfigError for an unknown profile or figure, RunFolderError if a cell has failed.
    """
    plan = read_plan()
    if profile not in plan["profiles"]:
        raise ConfigError(unknown(profile, plan["profiles"], "profile"))
    sources = {**plan["across"], **plan["single"]}
    for name in names or ():
        if name not in sources:
            raise ConfigError(unknown(name, sources, "figure"))
    chosen = list(sources if names is None else names)
    recipes = dict.fromkeys(recipe for name in chosen for recipe in sources[name])
    folders = {recipe: _run(recipe, plan, profile, overrides) for recipe in recipes}
    target = ROOT / profile
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in chosen:
        results = Results.read([folders[recipe] for recipe in sources[name]])
        paths += _draw(name, results, _judged(results, plan["about"]), target)
    if names is None:
        results = Results.read([folders[recipe] for recipe in plan["tables"]])
        paths += write_tables(results, target / "tables", _judged(results, plan["about"]))
    return paths


def read_plan() -> dict[str, Any]:
    """Return conf/figures.yaml."""
    plan: dict[str, Any] = yaml.safe_load((conf_dir() / "figures.yaml").read_text())
    return plan


def recipe_overrides(recipe: str, plan: dict[str, Any], profile: str) -> list[str]:
    """Return the overrides with which a profile runs a recipe."""
    changes = plan["profiles"][profile]
    return [f"experiment={recipe}", *changes.get("every", []), *changes.get(recipe, [])]


def _run(recipe: str, plan: dict[str, Any], profile: str, overrides: Iterable[str]) -> Path:
    # Lazily: drawing alone needs no torch.
    from fedtsd.sweep import run_sweep

    given = list(overrides)
    args = [*recipe_overrides(recipe, plan, profile), *given]
    if not any(arg.startswith("hydra/launcher") for arg in given) and _has_joblib():
        args.append("hydra/launcher=joblib")
    sys.stderr.write(f"{recipe}\n")
    folder, complete = run_sweep(args)
    if not complete:
        raise RunFolderError(f"{folder}: not every cell is done, see summary.csv there")
    return folder


def _has_joblib() -> bool:
    return importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is not None


def _judged(results: Results, about: str) -> str:
    """Return the method that figures and tests are about, another one where it did not run."""
    return about if about in results.methods else recommended(results)


def _draw(name: str, results: Results, method: str, target: Path) -> list[Path]:
    """Draw one figure; one that too few runs allow in this profile is left out with a word."""
    try:
        if name in RESULT_FIGURES:
            return save(figures_about(method)[name](results), target, name)
        run = results.find(method=method, setting=results.settings[-1])[0]
        return save(FIGURES[name](run.tables), target, name)
    except NotApplicableError as reason:
        sys.stderr.write(f"not drawn: {reason}\n")
        return []


def _names(chosen: Sequence[str]) -> list[str] | None:
    """Return the names in `figure=A,B` arguments, None if there are none."""
    names = [name for arg in chosen for name in arg.partition("=")[2].split(",")]
    return names or None
