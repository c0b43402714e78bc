"""The report page: one HTML file that needs nothing else, a function of the results alone."""

from functools import cache, partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from fedtsd.report.cost import Site
from fedtsd.report.page import charts, origin, rollout, site_charts
from fedtsd.report.page.answer import Roles, Verdict, choose_roles, shown_run, verdicts
from fedtsd.report.page.costs import calculator_rounds, cost_rows, forecast
from fedtsd.report.page.exchange import exchange
from fedtsd.report.page.grouping import grouping
from fedtsd.report.page.headline import WORTH_IT, advice, finding, headline
from fedtsd.report.page.names import Names
from fedtsd.report.page.numbers import unit_for
from fedtsd.report.page.risks import FEW_SEEDS, KINDS, risks
from fedtsd.report.page.sites import newcomers, site_rows
from fedtsd.report.page.unlike import unlike, unlike_rows
from fedtsd.report.page.words import Words, say
from fedtsd.report.results import Results

HERE = Path(__file__).parent


def build_page(results: Results, lang: str, site: Site, focus: str | None = None) -> str:
    """Return the page as HTML.

    lang: en or ja. site: the line and machine that costs are computed for. focus: the method that
    is judged, by default the recommended one. Raises InputError for another language or method, or
    where no run is finished; RunFolderError where a table is broken.
    """
    words = Words(lang, results.score, results.decimals, _site_names(results))
    roles = choose_roles(results, focus)
    answers = verdicts(results, roles)
    names = Names(words, results, roles)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            lang=lang,
            words=words,
            t=words.prose,
            plain=words,
            paragraph=words.paragraph,
            say=say,
            names=names,
            unit_for=unit_for,
            style=Markup((HERE / "style.css").read_text(encoding="utf-8")),
            script=Markup((HERE / "script.js").read_text(encoding="utf-8")),
            results=results,
            roles=roles,
            site=site,
            answers=answers,
            **_sections(results, roles, answers, site, names),
        )
    )


def write_page(
    results: Results, target: Path, lang: str, site: Site, focus: str | None = None
) -> Path:
    """Write `target/report.LANG.html` and return its path; `target` is made if it is not there."""
    text = build_page(results, lang, site, focus)
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"report.{lang}.html"
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


@cache
def _environment() -> Environment:
    """The templates; kept, for compiling them takes longer than filling them."""
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _sections(
    results: Results, roles: Roles, answers: list[Verdict], site: Site, names: Names
) -> dict[str, Any]:
    """What the template shows, section by section."""
    main = main_answer(answers)
    run = shown_run(results, roles, main.setting)
    shown = [shown_run(results, roles, answer.setting) for answer in answers]
    return {
        "main": main,
        "main_run": run,
        "headline": headline(answers, names),
        "advice": list(advice(answers, names, FEW_SEEDS)),
        "finding": lambda answer: finding(answer, names),
        "ran": origin.ran(results, run),
        "shown": shown,
        "site_rows": {r.setting: site_rows(results, roles, r) for r in shown},
        "newcomers": newcomers,
        "unlike": unlike,
        "unlike_rows": unlike_rows(results),
        "exchanges": {r.setting: exchange(r.tables) for r in shown},
        "groupings": {r.setting: grouping(r.tables) for r in shown},
        "costs": cost_rows(results, roles.common, site),
        "calculator": _calculator(results, run, site, names),
        "risks": risks(names, answers),
        "checked": KINDS,
        "stages": rollout.stages(names, main, site),
        "reproduction": origin.reproduction(results),
        "rule": origin.rule(results),
        "differences": origin.differences(results),
        "over_rounds": partial(charts.over_rounds, names),
        "by_setting": partial(charts.by_setting, names),
        "dumbbell": partial(site_charts.dumbbell, names),
        "cluster_timeline": partial(site_charts.cluster_timeline, names),
    }


def _site_names(results: Results) -> tuple[str, ...]:
    """The names of the sites, where all runs are about the same ones."""
    found = {run.tables.sites or () for run in results.runs}
    return found.pop() if len(found) == 1 else ()


def main_answer(answers: list[Verdict]) -> Verdict:
    """The setting whose numbers fill the roll-out and the calculator: the first that gains."""
    return next((answer for answer in answers if answer.kind in WORTH_IT), answers[0])


def _calculator(results: Results, run: Any, site: Site, names: Names) -> dict[str, Any]:
    """The calculator's rows: every method in the setting and seed of the shown run."""
    twins = [r for r in results.find(setting=run.setting, seed=run.seed) if len(r.tables.traffic)]
    rounds = len(run.tables.rounds)
    rows = [
        {
            "name": names.method(twin.method),
            "rounds": calculator_rounds(twin.tables),
            "forecast": forecast(twin.tables, site, rounds),
        }
        for twin in twins
    ]
    return {"rows": rows, "rounds": rounds}
