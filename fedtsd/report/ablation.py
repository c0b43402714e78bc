"""Figure `ablation`: what each variant of a method loses or gains against the method itself."""

from collections import Counter
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedtsd.report.across import (
    LABEL_SIZE,
    LINE_STEP,
    NotApplicableError,
    data_words,
    marks_of,
    setting_words,
)
from fedtsd.report.layout import POINTS_PER_INCH
from fedtsd.report.printed import signed
from fedtsd.report.results import Results
from fedtsd.report.style import COLUMN, fold, paper_style, settle, titled_figure

BASELINES = ("fedavg", "local")  # the first of them that was run stands below the variants
NAME_WIDTH = 24  # glyphs of a line of a variant's name


def ablation(results: Results, base: str | None = None) -> Figure:
    """Printed gain over a base method: mean, std, and every pair of runs.

    Pairs are runs of one setting and seed. Shown are the other variants of the base and one
    baseline, or all other methods if the base has no variants. Unless named, the base is the
    variant whose values are the most frequent ones among its variants. Raises NotApplicableError
    if there are no variants, the base was not run, or no pair has both.
    """
    base = base or _default_base(results)
    if base not in results.methods:
        raise NotApplicableError(f"ablation: no run of method {base!r}")
    points = differences(results, base, _compared(results, base))
    if points.empty:
        raise NotApplicableError(f"ablation: no run shares a setting and a seed with {base!r}")
    names = {str(m): fill(_name(results, str(m), base), NAME_WIDTH) for m in points.columns}
    lines = sum(max(1, name.count("\n") + 1) + 0.8 for name in names.values())
    with paper_style():
        height = 0.65 + lines * LINE_STEP / POINTS_PER_INCH
        figure = titled_figure(fold(_title(results, base, points), COLUMN), COLUMN, height)
        ax = figure.subplots()
        _bars(ax, results, points, list(names.values()))
        ax.set_xlabel(results.score.gain_label)
        return settle(figure)


def differences(results: Results, base: str, methods: Sequence[str]) -> pd.DataFrame:
    """Printed gain over `base`; a row per setting and seed, a column per method.

    Ordered from the best to the worst mean, a baseline last; methods without a pair are left out.
    """
    table = results.table.pivot(index=["setting", "seed"], columns="method", values="score")
    differences = table[list(methods)].sub(table[base], axis=0)
    points = results.score.merit(differences) * results.score.scale
    points = points.dropna(axis="columns", how="all").dropna(axis="index", how="all")
    means = points.mean()
    family = _family(base)
    order = sorted(points.columns, key=lambda m: (_family(m) != family, -means[m]))
    return points[order]


def _family(method: str) -> str:
    return method.partition(" ")[0]


def _variants(results: Results, family: str) -> list[str]:
    return [method for method in results.methods if _family(method) == family]


def _compared(results: Results, base: str) -> list[str]:
    variants = [method for method in _variants(results, _family(base)) if method != base]
    if not variants:
        return [method for method in results.methods if method != base]
    return variants + [method for method in BASELINES if method in results.methods][:1]


def _default_base(results: Results) -> str:
    """The most usual variant of the method with most variants; on a tie the one with most runs."""
    families = Counter(map(_family, results.methods))
    family, variants = families.most_common(1)[0] if families else ("", 0)
    if variants < 2:
        raise NotApplicableError("ablation: needs two variants of a method, or the base's name")
    methods = _variants(results, family)
    usual = Counter(word for method in methods for word in method.split(" ")[1:])

    def rank(method: str) -> tuple[int, int, int]:
        words = method.split(" ")[1:]
        # Whatever is switched on belongs to the method; an ablation switches it off.
        on = sum(word.endswith("=true") for word in words)
        return sum(usual[word] for word in words), len(results.find(method)), on

    return max(methods, key=rank)


def _name(results: Results, method: str, base: str) -> str:
    """A variant by what differs from the base; another method by its name."""
    label = results.labels[method]
    if _family(method) != _family(base):
        return label
    known = results.labels[base].split(", ")
    return ", ".join(word for word in label.split(", ") if word not in known) or label


def _title(results: Results, base: str, points: pd.DataFrame) -> str:
    pairs = points.count()
    least, most = int(pairs.min()), int(pairs.max())
    number = f"{most}" if least == most else f"{least} to {most}"
    spread = f"mean ± 1 std of {number} pairs" if most > 1 else "one pair"
    words = [*data_words(results), *setting_words(results, results.settings)]
    words += [f"difference to {results.labels[base]}", spread]
    return ", ".join(words)


def _bars(ax: Axes, results: Results, points: pd.DataFrame, names: list[str]) -> None:
    """A bar per method with its whisker, its pairs as dots, and its value beside the panel."""
    marks = marks_of(results)
    places = _places(names)
    for place, method in zip(places, points.columns, strict=True):
        values = points[method].dropna().to_numpy(float)
        colour, mean = marks[str(method)].colour, float(values.mean())
        ax.barh(place, mean, height=LINE_STEP, color=colour, alpha=0.45, lw=0, gid=f"bar {method}")
        if len(values) > 1:
            std = float(values.std(ddof=1))
            ax.hlines(place, mean - std, mean + std, color="black", lw=0.9, gid=f"std {method}")
        aside = np.linspace(-0.25, 0.25, len(values)) * LINE_STEP if len(values) > 1 else 0
        dots: dict[str, Any] = {"ms": 1.8, "mfc": "white", "mec": "0.2", "mew": 0.4}
        ax.plot(values, place + aside, "o", gid=f"pairs {method}", **dots)
        ax.annotate(
            signed(mean, results.decimals),
            (1.0, place),
            xycoords=ax.get_yaxis_transform(),
            xytext=(22, 0),
            textcoords="offset points",
            fontsize=LABEL_SIZE,
            ha="right",
            va="center_baseline",
            annotation_clip=False,
        )
    ax.axvline(0, color="black", lw=0.6)
    ax.grid(True, axis="x")
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.set_yticks(places, names)
    ax.set_ylim(max(places) + LINE_STEP, min(places) - LINE_STEP)


def _places(names: list[str]) -> list[float]:
    """Heights in points, each name as far from the next as its lines need."""
    heights = [(name.count("\n") + 1.8) * LINE_STEP for name in names]
    return [sum(heights[:i]) + height / 2 for i, height in enumerate(heights)]
