"""Charts that compare methods, as inline SVG: scores over the rounds, and by setting."""

from collections.abc import Callable
from math import isfinite

import numpy as np
import pandas as pd
from markupsafe import Markup

from fedtsd.report.layout import spread
from fedtsd.report.page import svg
from fedtsd.report.page.names import Names
from fedtsd.report.page.scale import ScoreScale, score_scale
from fedtsd.report.rounds import drift_rounds

LABEL_GAP = 14.0
TOP, LEFT = 12.0, 40.0
Scale = Callable[[float], float]  # a round or a score -> a place


def over_rounds(names: Names, setting: str, name: str) -> Markup | None:
    """Mean score over sites and seeds by round and method; None if nothing was evaluated."""
    rows = names.results.rounds
    rows = rows[rows["setting"] == setting].dropna(subset=["score_mean"])
    if rows.empty:
        return None
    means = rows.pivot_table(index="round", columns="method", values="score_mean")
    curves = {m: means[m].dropna() for m in names.results.methods if m in means}
    say = names.words
    labels = {m: f"{names.method(m)} {say.write('bare', c.iloc[-1])}" for m, c in curves.items()}
    right = svg.WIDTH - 10 - max(svg.room(label) for label in labels.values())
    height = max(216.0, LABEL_GAP * len(curves) + 52)
    bottom = height - 36
    low, high = (float(end(means.to_numpy(float))) for end in (np.nanmin, np.nanmax))
    scale = score_scale(names.results.score, low, high, 6)

    def y(value: float) -> float:
        return bottom - scale.place(value) * (bottom - TOP)

    first, last = float(means.index.min()), float(means.index.max())

    def x(turn: float) -> float:
        return LEFT + (turn - first) / max(last - first, 1) * (right - LEFT)

    parts = [*_grid(scale, y, right), *_round_ticks(names, x, first, last, bottom)]
    parts += _drift(names, setting, x, (first, last), bottom)
    for method, curve in curves.items():
        points = [(x(float(str(turn))), y(float(value))) for turn, value in curve.items()]
        kind = names.kind(method)
        parts += [svg.path(points, f"curve {kind}"), svg.dot(*points[-1], 2.6, kind)]
    heights = [y(float(curve.iloc[-1])) for curve in curves.values()]
    places = spread([-h for h in heights], LABEL_GAP, -bottom, -TOP)  # it counts upwards
    for (method, label), place in zip(labels.items(), places, strict=True):
        words = svg.fit(label, svg.WIDTH - right - 8)
        parts.append(svg.text(right + 8, -place, words, f"label {names.kind(method)}"))
    told = [f"{names.method(m)} {say.write('score', c.iloc[-1])}" for m, c in curves.items()]
    title = say("chart.rounds.title", setting=names.setting(setting))
    return svg.figure(height, title, say("chart.rounds.desc", ends=told), parts, name)


def _grid(scale: ScoreScale, y: Scale, right: float) -> list[Markup]:
    parts = []
    for tick in scale.ticks:
        parts.append(svg.line(LEFT, y(tick), right, y(tick), "grid"))
        parts.append(svg.text(LEFT - 5, y(tick), scale.label(tick), "tick", "end"))
    return parts


def _drift(
    names: Names, setting: str, x: Scale, ends: tuple[float, float], bottom: float
) -> list[Markup]:
    """Lines before the rounds from which the data are others."""
    parts = []
    for at in drift_rounds(names.results, setting):
        if ends[0] < at <= ends[1]:
            place, late = x(at - 0.5), at > sum(ends) / 2
            away, anchor = (-3, "end") if late else (3, "start")
            word = names.words("chart.rounds.drift")
            parts.append(svg.line(place, TOP, place, bottom, "drift"))
            parts.append(svg.text(place + away, TOP + 4, word, "tick", anchor))
    return parts


def _round_ticks(names: Names, x: Scale, first: float, last: float, bottom: float) -> list[Markup]:
    turns = sorted({first, (first + last) // 2, last})
    ticks = [svg.text(x(turn), bottom + 12, f"{turn:g}", "tick", "middle") for turn in turns]
    axis = names.words("chart.rounds.axis")
    return [*ticks, svg.text((x(first) + x(last)) / 2, bottom + 27, axis, "tick", "middle")]


def by_setting(names: Names, name: str) -> Markup:
    """Mean score of every method in every setting as bars, with the spread over seeds."""
    table = names.results.table
    parts: list[Markup] = []
    at = 10.0
    limit = names.results.score.limit
    full = limit if isfinite(limit) else 1.1 * float(table["score"].max())
    several = len(names.results.settings) > 1
    for setting in names.results.settings:
        if several:
            title = names.setting(setting)
            if svg.fit(title, svg.WIDTH) != title:  # the table has the skew that has no room here
                title = svg.fit(names.plain(setting), svg.WIDTH)
            parts.append(svg.text(0, at, title, "heading"))
            at += 18
        for method in names.results.methods:
            values = table[(table["method"] == method) & (table["setting"] == setting)]["score"]
            if len(values):
                parts += _bar(names, method, values, full, at)
                at += 18
        at += 10
    say = names.words
    title = say("chart.settings.title", seeds=names.results.seeds)
    return svg.figure(at - 8, title, say("chart.settings.desc"), parts, name)


def _bar(
    names: Names, method: str, values: "pd.Series[float]", full: float, at: float
) -> list[Markup]:
    """A bar on a track that stands for `full`, a whisker, and the numbers."""
    mean, std = float(values.mean()), float(values.std()) if len(values) > 1 else 0.0
    begin, width = 112.0, 178.0
    low, high = (min(max(v / full, 0.0), 1.0) * width + begin for v in (mean - std, mean + std))
    write = names.words.write
    spread_text = f" ± {write('bare', std)}" if len(values) > 1 else ""
    kind = names.kind(method)
    parts = [
        svg.text(begin - 6, at, svg.fit(names.method(method), begin - 6), f"label {kind}", "end"),
        svg.box(begin, at - 5.5, width, 11, "track"),
        svg.box(begin, at - 5.5, width * mean / full, 11, f"bar {kind}"),
        svg.text(begin + width + 6, at, f"{write('score', mean)}{spread_text}", "label"),
    ]
    if high > low:
        parts += [*_whisker(low, high, at, "rim"), *_whisker(low, high, at, "spread")]
    return parts


def _whisker(low: float, high: float, at: float, kind: str) -> list[Markup]:
    caps = [svg.line(x, at - 3, x, at + 3, kind) for x in (low, high)]
    return [svg.line(low, at, high, at, kind), *caps]
