"""Charts that compare methods, as inline SVG: accuracy over the rounds, and by setting."""

from collections.abc import Callable

import pandas as pd
from markupsafe import Markup

from fedtsd.report.layout import spread
from fedtsd.report.page import svg
from fedtsd.report.page.names import Names

LABEL_GAP = 14.0
TOP, LEFT = 12.0, 40.0
Scale = Callable[[float], float]  # a round or an accuracy -> a place


def over_rounds(names: Names, setting: str, name: str) -> Markup | None:
    """Mean accuracy over sites and seeds by round and method; None if nothing was evaluated."""
    rows = names.results.rounds
    rows = rows[rows["setting"] == setting].dropna(subset=["accuracy_mean"])
    if rows.empty:
        return None
    means = rows.pivot_table(index="round", columns="method", values="accuracy_mean")
    curves = {m: means[m].dropna() for m in names.results.methods if m in means}
    labels = {m: f"{names.method(m)} {100 * c.iloc[-1]:.1f}" for m, c in curves.items()}
    right = svg.WIDTH - 10 - max(svg.room(label) for label in labels.values())
    height = max(216.0, LABEL_GAP * len(curves) + 52)
    bottom = height - 36
    low, high = _limits(rows["accuracy_mean"])

    def y(accuracy: float) -> float:
        return bottom - (accuracy - low) / (high - low) * (bottom - TOP)

    first, last = float(means.index.min()), float(means.index.max())

    def x(turn: float) -> float:
        return LEFT + (turn - first) / max(last - first, 1) * (right - LEFT)

    parts = [*_grid(low, high, y, right), *_round_ticks(names, x, first, last, bottom)]
    for method, curve in curves.items():
        points = [(x(float(str(turn))), y(float(value))) for turn, value in curve.items()]
        kind = names.kind(method)
        parts += [svg.path(points, f"curve {kind}"), svg.dot(*points[-1], 2.6, kind)]
    heights = [y(float(curve.iloc[-1])) for curve in curves.values()]
    places = spread([-h for h in heights], LABEL_GAP, -bottom, -TOP)  # it counts upwards
    for (method, label), place in zip(labels.items(), places, strict=True):
        words = svg.fit(label, svg.WIDTH - right - 8)
        parts.append(svg.text(right + 8, -place, words, f"label {names.kind(method)}"))
    ends = [
        f"{names.method(m)} {names.words.write('percent', c.iloc[-1])}" for m, c in curves.items()
    ]
    say = names.words
    title = say("chart.rounds.title", setting=names.setting(setting))
    return svg.figure(height, title, say("chart.rounds.desc", ends=ends), parts, name)


def _limits(values: "pd.Series[float]") -> tuple[float, float]:
    """The tenths around all values."""
    low = int(values.min() * 10) / 10
    high = -int(-values.max() * 10 // 1) / 10
    return low, max(high, low + 0.1)


def _grid(low: float, high: float, y: Scale, right: float) -> list[Markup]:
    step = 0.1 if high - low < 0.55 else 0.2
    parts = []
    for tick in range(round((high - low) / step) + 1):
        value = low + tick * step
        parts.append(svg.line(LEFT, y(value), right, y(value), "grid"))
        parts.append(svg.text(LEFT - 5, y(value), f"{100 * value:.0f}%", "tick", "end"))
    return parts


def _round_ticks(names: Names, x: Scale, first: float, last: float, bottom: float) -> list[Markup]:
    turns = sorted({first, (first + last) // 2, last})
    ticks = [svg.text(x(turn), bottom + 12, f"{turn:g}", "tick", "middle") for turn in turns]
    axis = names.words("chart.rounds.axis")
    return [*ticks, svg.text((x(first) + x(last)) / 2, bottom + 27, axis, "tick", "middle")]


def by_setting(names: Names, name: str) -> Markup:
    """Mean accuracy of every method in every setting as bars, with the spread over seeds."""
    table = names.results.table
    parts: list[Markup] = []
    at = 10.0
    several = len(names.results.settings) > 1
    for setting in names.results.settings:
        if several:
            parts.append(svg.text(0, at, names.setting(setting), "heading"))
            at += 18
        for method in names.results.methods:
            values = table[(table["method"] == method) & (table["setting"] == setting)]["accuracy"]
            if len(values):
                parts += _bar(names, method, values, at)
                at += 18
        at += 10
    say = names.words
    title = say("chart.settings.title", seeds=names.results.seeds)
    return svg.figure(at - 8, title, say("chart.settings.desc"), parts, name)


def _bar(names: Names, method: str, values: "pd.Series[float]", at: float) -> list[Markup]:
    mean, std = float(values.mean()), float(values.std()) if len(values) > 1 else 0.0
    begin, full = 112.0, 178.0
    end = begin + full * mean
    low, high = (begin + full * min(max(v, 0.0), 1.0) for v in (mean - std, mean + std))
    spread_text = f" ± {100 * std:.1f}" if len(values) > 1 else ""
    kind = names.kind(method)
    parts = [
        svg.text(begin - 6, at, svg.fit(names.method(method), begin - 6), f"label {kind}", "end"),
        svg.box(begin, at - 5.5, full, 11, "track"),
        svg.box(begin, at - 5.5, end - begin, 11, f"bar {kind}"),
        svg.text(begin + full + 6, at, f"{100 * mean:.1f}%{spread_text}", "label"),
    ]
    if high > low:
        parts += [*_whisker(low, high, at, "rim"), *_whisker(low, high, at, "spread")]
    return parts


def _whisker(low: float, high: float, at: float, kind: str) -> list[Markup]:
    caps = [svg.line(x, at - 3, x, at + 3, kind) for x in (low, high)]
    return [svg.line(low, at, high, at, kind), *caps]
