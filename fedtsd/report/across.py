"""What figures across runs share: curves over seeds, titles, legends, and why one is not drawn."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedtsd.errors import RunFolderError
from fedtsd.report.layout import GLYPH_WIDTH, POINTS_PER_INCH, axes_points, spread, text_width
from fedtsd.report.results import Results
from fedtsd.report.style import MethodMark, darker, dataset_label, method_marks
from fedtsd.score import Score

LABEL_SIZE = 6.0  # points
LINE_STEP = LABEL_SIZE + 2.5  # points from one line of small text to the next
SAMPLE = 24.0  # points: the piece of line beside a method's name, long enough to show its dashes
GAP = 10.0  # points between a sample, its name and the next column
MOST_BESIDE = 90.0  # points that names beside a panel may take
MOST_MARKERS = 30  # more points than this make a plain line


class NotApplicableError(RunFolderError):
    """These results hold nothing that the figure could show; the message says what it needs."""


def curve(results: Results, method: str, setting: str) -> pd.DataFrame:
    """Printed score of a method over its evaluated rounds: round, mean, std over seeds.

    Where seeds were evaluated at different rounds, each is interpolated linearly between its own,
    over the rounds that all of them cover. std is the sample's; NaN for one seed. No rows if no
    round was evaluated.
    """
    rows = results.rounds
    rows = rows[(rows["method"] == method) & (rows["setting"] == setting)]
    rows = rows.dropna(subset=["score_mean"]).sort_values("round")
    seeds = [frame for _, frame in rows.groupby("seed")]
    if not seeds:
        return pd.DataFrame(columns=["round", "mean", "std"], dtype=float)
    first = max(frame["round"].min() for frame in seeds)
    last = min(frame["round"].max() for frame in seeds)
    at = np.unique(rows.loc[rows["round"].between(first, last), "round"].to_numpy(int))
    values = [np.interp(at, frame["round"], frame["score_mean"]) for frame in seeds]
    stacked = pd.DataFrame(np.array(values)) * results.score.scale
    return pd.DataFrame({"round": at, "mean": stacked.mean(), "std": stacked.std()})


def marks_of(results: Results) -> dict[str, MethodMark]:
    """Method -> its mark, the same in every figure of these results."""
    return method_marks(results.methods)


def num_seeds(results: Results) -> str:
    """How many seeds a method has in a setting: "one seed", "3 seeds", "1 to 3 seeds"."""
    counts = results.table.groupby(["method", "setting"])["seed"].nunique()
    least, most = int(counts.min()), int(counts.max())
    if most == 1:
        return "one seed"
    return f"{most} seeds" if least == most else f"{least} to {most} seeds"


def seed_words(results: Results, how: str = "") -> str:
    """What stands for the seeds: their mean and std (drawn as `how`), or "one seed"."""
    seeds = num_seeds(results)
    return seeds if seeds == "one seed" else f"mean ± 1 std{how} of {seeds}"


def data_words(results: Results) -> list[str]:
    """The data set, if all runs have the same; otherwise the settings name it."""
    names = {dataset_label(run.config) for run in results.runs}
    return [name for name in names if name] if len(names) == 1 else []


def setting_words(results: Results, shown: Sequence[str]) -> list[str]:
    """The setting with its measured skew, if only one is shown; otherwise the panels name them."""
    return [results.titles[name] for name in shown] if len(shown) == 1 else []


def pick(names: Sequence[str], most: int) -> list[str]:
    """At most `most` names, evenly spaced in their order; the first and the last are kept."""
    if len(names) <= most:
        return list(names)
    return [names[i] for i in np.linspace(0, len(names) - 1, most).round().astype(int)]


def sample(label: str, mark: MethodMark, **more: float) -> Line2D:
    """A piece of a method's line for a legend."""
    return Line2D([], [], label=label, **{**mark.keywords, **more})


def method_samples(
    results: Results, marks: Mapping[str, MethodMark], methods: Iterable[str]
) -> list[Line2D]:
    """Legend entries of some methods, in the order of every table."""
    shown = set(methods)
    return [sample(results.labels[m], marks[m]) for m in results.methods if m in shown]


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend under everything else; the figure grows by its height."""
    width, height = figure.get_size_inches()
    room = width * POINTS_PER_INCH - 6
    labels = [fill(str(handle.get_label()), _glyphs(room - SAMPLE - GAP)) for handle in handles]
    for handle, label in zip(handles, labels, strict=True):
        handle.set_label(label)
    columns = _columns(labels, room)
    lines = max(sum(label.count("\n") + 1 for label in column) for column in columns)
    figure.set_size_inches(width, height + (lines * LINE_STEP + 4) / POINTS_PER_INCH)
    figure.legend(
        handles=list(handles),
        loc="outside lower center",
        ncols=len(columns),
        handlelength=SAMPLE / LABEL_SIZE,
    )


def _glyphs(points: float) -> int:
    """How many glyphs of a label are sure to fit."""
    return int(points / (GLYPH_WIDTH * LABEL_SIZE))


def _columns(labels: Sequence[str], room: float) -> list[list[str]]:
    """The labels by column, in as few rows as `room` points allow."""
    for rows in range(1, len(labels)):
        parts = np.array_split(np.array(labels, dtype=object), ceil(len(labels) / rows))
        columns = [[str(label) for label in part] for part in parts]
        lines = [[line for label in column for line in label.split("\n")] for column in columns]
        if sum(_widest(column) + SAMPLE + GAP for column in lines) <= room:
            return columns
    return [list(labels)]


def _widest(labels: Iterable[str]) -> float:
    return max(text_width(label, LABEL_SIZE) for label in labels)


def fits_beside(labels: Sequence[str], height: float) -> bool:
    """Whether labels have room to the right of a panel of `height` points, one below another."""
    return _widest(labels) <= MOST_BESIDE and len(labels) * LINE_STEP <= height


def name_ends(ax: Axes, ends: Sequence[tuple[float, str, MethodMark]]) -> None:
    """Name lines that end at the given heights: a piece of line and a label, none over another."""
    low, high = ax.get_ylim()
    width, height = axes_points(ax)
    gap = LINE_STEP * (high - low) / height
    places = spread([value for value, _, _ in ends], gap, low, high)
    left, right = 1 + 7 / width, 1 + (7 + SAMPLE) / width
    for (_, label, mark), place in zip(ends, places, strict=True):
        ax.plot(
            [left, (left + right) / 2, right],
            [place] * 3,
            transform=ax.get_yaxis_transform(),
            clip_on=False,
            scalex=False,
            scaley=False,
            markevery=[1],
            gid="sample",
            **mark.keywords,
        )
        ax.annotate(
            label,
            (right, place),
            xycoords=ax.get_yaxis_transform(),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=LABEL_SIZE,
            color=darker(mark.colour),
            va="center_baseline",
            annotation_clip=False,
        )


def score_limits(ax: Axes, score: Score) -> tuple[float, float]:
    """Limits for printed scores that show all data and leave a little air."""
    low, high = ax.dataLim.intervaly
    if not np.isfinite([low, high]).all():
        return 0.0, score.most if np.isfinite(score.most) else 1.0
    least = score.scale * score.hundredth(high / score.scale)
    pad = max(0.05 * (high - low), least)
    return max(low - pad, -least), min(high + pad, score.most + least)
