"""The axis of severity: where each partition stands, from IID to the most skewed.

Dirichlet's alpha has a log axis, skew grows to the right. IID (alpha infinite) has a place of its
own on the left, partitions without alpha on the right, each behind a break of the axis.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, log10
from textwrap import fill

from matplotlib.axes import Axes

from fedtsd.report.layout import axes_points, text_width
from fedtsd.report.results import Results, Run
from fedtsd.report.style import partition_label

TICK_SIZE = 6.0  # points
APART = 1.4  # steps between places without alpha; one step is the mean distance of two alphas
# What may differ between the partitions of one axis: everything else of a setting may not.
SIZES = ("num_clients", "min_size", "samples_per_client")


@dataclass(frozen=True)
class Place:
    """A setting on the axis: `x` in steps, its tick, its measured skew (mean over runs)."""

    setting: str
    x: float
    tick: str
    skew: float
    alpha: float

    @property
    def on_scale(self) -> bool:
        """Whether it stands on the log axis."""
        return isfinite(self.alpha)


def axes_of(results: Results) -> dict[str, list[Place]]:
    """What settings share apart from severity, in words -> their places, from left to right.

    Only axes with at least two places. Settings that differ in more than the partition (data set,
    model, cohort, rounds, number of clients) have different axes.
    """
    shared: dict[str, dict[str, Run]] = {}
    for run in results.runs:
        shared.setdefault(_shared(run), {}).setdefault(run.setting, run)
    axes = {}
    for runs in shared.values():
        name, ticks = _words(list(runs.values()))
        if len(runs) > 1:
            axes[name] = _places(results, runs, ticks)
    return axes


def _shared(run: Run) -> str:
    """Everything of a setting but the severity, as one text."""
    partition = run.config.get("partition") or {}
    dataset = run.config.get("dataset") or {}
    facts = {
        "dataset": {key: value for key, value in dataset.items() if key != "source"},
        "partition": {key: partition.get(key) for key in SIZES},
        **{key: run.config.get(key) for key in ("split", "model", "cohort", "rounds")},
    }
    return json.dumps(facts, sort_keys=True, default=str)


def _words(runs: Sequence[Run]) -> tuple[str, dict[str, str]]:
    """The words that all settings' names share, and what is left of each name."""
    parts = {run.setting: run.setting.split(", ") for run in runs}
    common = [w for w in parts[runs[0].setting] if all(w in words for words in parts.values())]
    if len(runs) == 1:
        common = [word for word in common if word != partition_label(runs[0].config)]
    rest = {name: [w for w in words if w not in common] for name, words in parts.items()}
    return ", ".join(common), {name: ", ".join(words) or name for name, words in rest.items()}


def _places(results: Results, runs: dict[str, Run], ticks: dict[str, str]) -> list[Place]:
    skew = results.table.groupby("setting")["skew"].mean()
    alphas = [run.alpha for run in runs.values()]
    # Two settings of one alpha differ in something else: neither stands for that alpha.
    scale = sorted((a for a in alphas if isfinite(a) and alphas.count(a) == 1), reverse=True)
    step = log10(scale[0] / scale[-1]) / (len(scale) - 1) if len(scale) > 1 else 1.0
    at = {alpha: log10(scale[0] / alpha) / step for alpha in scale}
    end = max(at.values(), default=-APART)
    places = []
    for setting in (name for name in results.settings if name in runs):
        alpha = runs[setting].alpha
        if alpha in at:
            x, tick = at[alpha], f"{alpha:g}"
        elif alpha == float("inf") and alphas.count(alpha) == 1:
            x, tick = -1.0, "IID"
        else:
            x = end = end + APART
            tick, alpha = fill(ticks[setting], 9, break_long_words=False), float("nan")
        places.append(Place(setting, x, tick, float(skew[setting]), alpha))
    return sorted(places, key=lambda place: place.x)


def pieces(places: Sequence[Place]) -> Iterator[list[int]]:
    """Numbers of the places that one line may join: those on the log axis; any other alone."""
    on_scale = [i for i, place in enumerate(places) if place.on_scale]
    if on_scale:
        yield on_scale
    yield from ([i] for i, place in enumerate(places) if not place.on_scale)


def frame(ax: Axes, places: Sequence[Place], bottom: bool, top: bool) -> None:
    """Set limits, ticks and breaks; alpha's ticks along the bottom, measured skew along the top."""
    xs = [place.x for place in places]
    ax.set_xlim(min(xs) - 0.5, max(xs) + 0.5)
    _breaks(ax, places)
    ax.set_xticks(xs, [""] * len(xs))
    point = steps_per_point(ax)
    if bottom:
        _bottom(ax, places, point)
    if top:
        second = ax.secondary_xaxis("top")
        words = [f"{place.skew:.2f}" for place in places]
        second.set_xticks(xs, _thinned(xs, words, point))
        second.set_xlabel("measured skew (mean JS divergence)")
        second.tick_params(length=1.5)


def _bottom(ax: Axes, places: Sequence[Place], point: float) -> None:
    """Write the ticks; those without alpha stand upright where they have no room to lie."""
    xs, words = [place.x for place in places], [place.tick for place in places]
    scale = [i for i, place in enumerate(places) if place.on_scale]
    names = [i for i, x in enumerate(xs) if i not in scale and x >= 0]
    kept = _thinned([xs[i] for i in scale], [words[i] for i in scale], point)
    for i, word in zip(scale, kept, strict=True):
        words[i] = word
    ax.set_xticks(xs, words)
    room = APART / point
    if any(text_width(line, TICK_SIZE) > room for i in names for line in words[i].split("\n")):
        for i in names:
            ax.get_xticklabels()[i].set_rotation(90)
    ax.set_xlabel("Dirichlet α (skew grows to the right)" if scale else "partition")


def steps_per_point(ax: Axes) -> float:
    """How many steps of the axis a point is."""
    low, high = ax.get_xlim()
    return (high - low) / axes_points(ax)[0]


def _thinned(xs: Sequence[float], words: Sequence[str], point: float) -> list[str]:
    """Blank the words that have no room beside the first, the last and those already written."""
    kept: list[int] = []
    for i in dict.fromkeys([0, len(xs) - 1, *range(len(xs))] if xs else []):
        need = [(text_width(words[i] + words[k], TICK_SIZE) / 2 + 2) * point for k in kept]
        if all(abs(xs[i] - xs[k]) >= gap for k, gap in zip(kept, need, strict=True)):
            kept.append(i)
    return [word if i in kept else "" for i, word in enumerate(words)]


def _breaks(ax: Axes, places: Sequence[Place]) -> None:
    """Cut the axis where the log scale begins and ends, in the middle between two places."""
    for left, right in pairwise(places):
        if left.on_scale == right.on_scale:
            continue
        ax.plot(
            [(left.x + right.x) / 2],
            [0],
            transform=ax.get_xaxis_transform(),
            marker=[(-0.6, -1), (0.6, 1)],
            ms=6,
            mec="black",
            ls="none",
            clip_on=False,
            scalex=False,
            scaley=False,
            gid="break",
        )
