"""A staged introduction, filled with the measured numbers."""

from dataclasses import dataclass

import numpy as np

from fedtsd.report.cost import Site
from fedtsd.report.page.answer import Verdict, shown_run
from fedtsd.report.page.costs import forecast
from fedtsd.report.page.headline import WORTH_IT
from fedtsd.report.page.names import Names
from fedtsd.report.page.sites import SiteRow, site_rows
from fedtsd.report.page.words import Say, say
from fedtsd.report.results import Run

PILOT_SITES = 3


@dataclass(frozen=True)
class Stage:
    """pilot, automate, scale or first (what is to be done before any pilot), and its steps."""

    name: str
    steps: tuple[Say, ...]


def stages(names: Names, answer: Verdict, site: Site) -> list[Stage]:
    """Return the stages for one setting; only what comes before a pilot where nothing is gained."""
    if answer.kind not in WORTH_IT:
        return [Stage("first", tuple(_first(names, answer)))]
    run = shown_run(names.results, names.roles, answer.setting)
    rows = site_rows(names.results, names.roles, run)
    simpler = answer.kind == "either" and names.roles.common
    before = [say("rollout.pilot.simpler", common=names.method(simpler))] if simpler else []
    return [
        Stage("pilot", (*before, *_pilot(run, rows, site))),
        Stage("automate", tuple(_automate(run, answer))),
        Stage("scale", tuple(_scale(run, rows))),
    ]


def _first(names: Names, answer: Verdict) -> list[Say]:
    best = say("rollout.first.best", method=names.method(answer.best), score=answer.best_mean)
    return [say(f"rollout.first.{answer.kind}"), best, say("rollout.first.again")]


def pilot_sites(rows: list[SiteRow]) -> tuple[list[int], int | None]:
    """The sites that gain most, and the one with the lowest gain, as far as gains are known."""
    known = sorted(
        (r for r in rows if r.gain is not None), key=lambda r: (-(r.gain or 0), r.client)
    )
    if not known:
        return [row.client for row in rows[:PILOT_SITES]], None
    most = known[: min(PILOT_SITES, max(1, len(known) - 1))]
    last = known[-1].client if len(known) > len(most) else None
    return sorted(row.client for row in most), last


def _pilot(run: Run, rows: list[SiteRow], site: Site) -> list[Say]:
    most, least = pilot_sites(rows)
    steps = [say("rollout.pilot.most", sites=most)]
    if least is not None:
        steps.append(say("rollout.pilot.least", site=least))
    rounds = max(len(run.tables.rounds), 1)
    cost = forecast(run.tables, site, rounds)
    if cost is None:
        steps.append(say("rollout.pilot.unknown"))
    else:
        steps.append(
            say(
                "rollout.pilot.cost",
                bytes=cost.site_round_bytes, time=cost.round_seconds, rounds=rounds,
                total=cost.total_seconds, upload=site.upload, download=site.download,
            )
        )  # fmt: skip
    return [*steps, say("rollout.pilot.compare")]


def drop(run: Run) -> float:
    """How much worse the mean score may become before one stops.

    Twice the standard deviation of its change from one evaluated round to the next in the second
    half of the run, but at least one point or, of an error, one hundredth.
    """
    values = run.tables.rounds.sort_values("round")["score_mean"].dropna().to_numpy(float)
    steps = np.diff(values[len(values) // 2 :])
    least = run.score.hundredth(float(values[-1]) if len(values) else 0.0)
    return max(2 * float(steps.std()) if len(steps) > 1 else 0.0, least)


def _automate(run: Run, answer: Verdict) -> list[Say]:
    steps = [say("rollout.automate.monitor"), say("rollout.automate.stop_mean", drop=drop(run))]
    if answer.alone is not None:
        margins = answer.alone.rows["margin"]
        steps.append(say("rollout.automate.stop_site", margin=float(margins.median())))
    return [*steps, say("rollout.automate.fallback")]


def _scale(run: Run, rows: list[SiteRow]) -> list[Say]:
    pilots, least = pilot_sites(rows)
    others = len(rows) - len(pilots) - (least is not None)
    rounds = len(run.tables.rounds)
    steps = [say("rollout.scale.rest", others=others, rounds=rounds)]
    if sites := [row.client for row in rows if row.clear == "worse"]:
        steps.append(say("rollout.scale.exempt", sites=sites))
    return [*steps, say("rollout.scale.review")]
