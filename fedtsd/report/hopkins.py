"""Figure `hopkins`: each test of whether there are clusters, and what the run did about it."""

from collections.abc import Iterable, Iterator
from string import ascii_lowercase
from textwrap import wrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from fedtsd.report.events import Event, counted, events
from fedtsd.report.layout import axes_points, spread, text_width
from fedtsd.report.marks import note
from fedtsd.report.style import (
    BLUE,
    COLUMN,
    GREY,
    VERMILLION,
    cluster_colours,
    darker,
    new_figure,
    paper_style,
    round_axis,
    settle,
)
from fedtsd.report.tables import RunTables

TEXT_SIZE = 6.0  # points
LINE = 0.112  # inches: a line of the key to the events
LINE_LENGTH = 60  # letters that surely fit one
MOST_EVENTS = 6  # rounds with a letter
MOST_CLUSTERS = 10  # tested clusters with a name
STAGES = {1: ("o", BLUE, "stage 1: outputs"), 2: ("s", VERMILLION, "stage 2: updates")}
HOPKINS_THRESHOLD, SIGNIFICANCE = 0.75, 0.05  # where the config has none
Entry = tuple[Line2D, str]  # of a legend
P_TICKS = (0.001, 0.01, 0.05, 0.1, 0.5, 1.0)


def hopkins(tables: RunTables) -> Figure:
    """Value and p-value of every Hopkins test; below them, in words, what changed in which round.

    Filled marks are significant; a line joins the tests of one cluster where several were tested.
    """
    with paper_style():
        changed = _by_round(events(tables))
        key = _key(changed)
        below = max(len(key), 1) * LINE
        figure = new_figure(tables, COLUMN, 3.05 + below)
        upper, lower, words = figure.subplots(3, 1, height_ratios=(1.35, 0.8, below))
        lower.sharex(upper)
        upper.tick_params(labelbottom=False)
        upper.set_xlim(*_rounds(tables))
        _values(upper, tables)
        _p_values(lower, tables)
        lower.set_xlabel("round")
        round_axis(lower)
        hopkins_legend(figure, tables, _more_lines(tables, changed))
        _explain(words, key)
        _mark_events(upper, lower, tables, _lettered(changed))
        _name_clusters(upper, tables)
        return settle(figure)


def hopkins_panel(ax: Axes, tables: RunTables) -> None:
    """Hopkins values over the rounds by stage, the threshold, and where a split was accepted."""
    ax.set_ylabel("Hopkins value")
    for at in sorted(set(_splits(tables))):
        ax.axvline(at, color=GREY, lw=0.9, ls=":", gid="split")
    values = _tests(tables)["hopkins"]
    ax.set_ylim(min(0.4, values.min() - 0.05) if len(values) else 0.0, 1.03)
    if values.empty:
        note(ax, "no Hopkins test in this run")
        return
    ax.axhline(_threshold(tables), color="black", lw=0.8, ls="--", gid="threshold")
    _marks(ax, tables, "hopkins", "stage")


def hopkins_legend(figure: Figure, tables: RunTables, more: Iterable[Entry] = ()) -> None:
    """Explain every mark that the panel of tests has, then `more` of the figure's own."""
    tests = _tests(tables)
    entries: list[Entry] = []
    for stage, (marker, colour, name) in STAGES.items():
        if (tests["stage"] == stage).any():
            entries.append((Line2D([], [], ls="", marker=marker, color=colour), name))
    if len(tests):
        level = _significance(tables)
        for face, sign in (("0.3", "<"), ("white", "≥")):
            disc = Line2D([], [], ls="", marker="o", mec="0.3", mfc=face, mew=0.8)
            entries.append((disc, f"{'filled' if sign == '<' else 'hollow'}: p {sign} {level:g}"))
        line = Line2D([], [], color="black", lw=0.8, ls="--")
        entries.append((line, f"threshold {_threshold(tables):g} (stage 2)"))
    if len(_splits(tables)):
        entries.append((Line2D([], [], color=GREY, lw=0.9, ls=":"), "split accepted"))
    entries += more
    if entries:
        handles, names = zip(*entries, strict=True)
        figure.legend(handles, names, loc="outside lower center", ncols=2)


def _more_lines(tables: RunTables, changed: dict[int, list[Event]]) -> Iterator[Entry]:
    if len(_tests(tables)):
        line = Line2D([], [], color="black", lw=0.8, ls="-.")
        yield line, f"significance {_significance(tables):g}"
    if set(_lettered(changed)) - set(_splits(tables)):
        yield Line2D([], [], color=GREY, lw=0.5), "other change"


def _tests(tables: RunTables) -> pd.DataFrame:
    return tables.clustering.dropna(subset=["hopkins"])


def _splits(tables: RunTables) -> "pd.Series[int]":
    return tables.clustering.loc[tables.clustering["split"] == 1, "round"]


def _threshold(tables: RunTables) -> float:
    return float(tables.option("clustering.hopkins_threshold", HOPKINS_THRESHOLD))


def _significance(tables: RunTables) -> float:
    return float(tables.option("clustering.significance", SIGNIFICANCE))


def _marks(ax: Axes, tables: RunTables, column: str, gid: str) -> None:
    """One mark per test, by stage, filled where it is significant."""
    tests = _tests(tables).dropna(subset=[column])
    for stage, (marker, colour, _) in STAGES.items():
        rows = tests[tests["stage"] == stage]
        filled = rows["hopkins_p"] < _significance(tables)
        for chosen, face in ((rows[filled], colour), (rows[~filled], "white")):
            if len(chosen):  # the layout takes an empty line that is not clipped for a huge one
                style: dict[str, Any] = {"ls": "", "marker": marker, "mec": colour, "mfc": face}
                rounds, values = chosen["round"], chosen[column]
                ax.plot(rounds, values, mew=0.8, clip_on=False, gid=f"{gid}{stage}", **style)


def _rounds(tables: RunTables) -> tuple[float, float]:
    assigned, tested = tables.assignments["round"], tables.clustering["round"]
    last = max(int(assigned.max()), int(tested.max()) if len(tested) else 0)
    return float(assigned.min()) - 0.5, last + 0.5


def _values(ax: Axes, tables: RunTables) -> None:
    colours = cluster_colours(tables)
    tests = _tests(tables)
    if tests["cluster"].nunique() > 1:
        for _, rows in tests.groupby(["stage", "cluster"]):
            colour = darker(colours.get(int(rows["cluster"].iloc[0]), GREY))
            ax.plot(rows["round"], rows["hopkins"], color=colour, lw=0.7, gid="series")
    hopkins_panel(ax, tables)


def _p_values(ax: Axes, tables: RunTables) -> None:
    ax.set_ylabel("p-value")
    found = _tests(tables)["hopkins_p"].dropna()
    if found.empty:
        ax.set(yticks=[], ylim=(0, 1))
        note(ax, "no p-value")
        return
    lowest = min(float(found.min()), 0.01)
    ax.set_yscale("log")
    ax.set_ylim(max(lowest, 1e-4) / 1.4, 1.3)
    ax.yaxis.set_major_locator(FixedLocator(P_TICKS))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.grid(True, axis="y")
    ax.axhline(_significance(tables), color="black", lw=0.8, ls="-.", gid="significance")
    _marks(ax, tables, "hopkins_p", "p")


def _name_clusters(ax: Axes, tables: RunTables) -> None:
    """Write the cluster beside its last test, where several clusters were tested."""
    last = _tests(tables).drop_duplicates("cluster", keep="last").nlargest(MOST_CLUSTERS, "round")
    if len(last) < 2:
        return
    width, height = axes_points(ax)
    (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
    wide = (text_width("C00", TEXT_SIZE) + 4) * (right - left) / width
    gap = (TEXT_SIZE + 1.5) * (high - low) / height
    for rows in _near(last.sort_values("round"), wide):
        places = spread(rows["hopkins"].tolist(), gap, low, high)
        for row, place in zip(rows.to_dict("records"), places, strict=True):
            ax.annotate(
                f"C{row['cluster']}",
                (row["round"], place),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=TEXT_SIZE,
                va="center_baseline",
                path_effects=[Stroke(linewidth=1.5, foreground="white"), Normal()],
                annotation_clip=False,
                gid="cluster",
            )


def _near(rows: pd.DataFrame, wide: float) -> Iterator[pd.DataFrame]:
    """Part rows, sorted by round, where neighbours are more than `wide` rounds apart."""
    begins = (rows["round"].diff() > wide).cumsum()
    for _, part in rows.groupby(begins):
        yield part


def _by_round(found: list[Event]) -> dict[int, list[Event]]:
    by_round: dict[int, list[Event]] = {}
    for event in found:
        by_round.setdefault(event.round, []).append(event)
    return by_round


def _lettered(rounds: dict[int, list[Event]]) -> list[int]:
    """The rounds that get a letter: those with a major event first, else the earlier ones."""
    ranked = sorted(rounds, key=lambda r: (not any(e.major for e in rounds[r]), r))
    return sorted(ranked[:MOST_EVENTS])


def _key(rounds: dict[int, list[Event]]) -> list[str]:
    """Lines that say what happened in the lettered rounds."""
    lines = []
    for letter, at in zip(ascii_lowercase, _lettered(rounds), strict=False):
        told = "; ".join(event.words for event in rounds[at])
        lines += wrap(f"{letter}  round {at}: {told}", LINE_LENGTH, subsequent_indent="    ")
    left_out = len(rounds) - MOST_EVENTS
    if left_out > 0:
        lines.append(f"and changes in {counted(left_out, 'more round')}")
    return lines or ["no cluster and no personal layer changed"]


def _explain(ax: Axes, key: list[str]) -> None:
    ax.axis("off")
    ax.text(
        0.0, 1.0, "\n".join(key), fontsize=TEXT_SIZE, va="top", transform=ax.transAxes, gid="key",
        linespacing=1.15,
    )  # fmt: skip


def _mark_events(upper: Axes, lower: Axes, tables: RunTables, rounds: list[int]) -> None:
    """Draw a line through both panels at each round of the key, its letter on top."""
    accepted = set(_splits(tables))  # the upper panel has these
    for at in rounds:
        dotted = at in accepted
        style: dict[str, Any] = {"ls": ":", "lw": 0.9} if dotted else {"lw": 0.5}
        for ax in (lower,) if dotted else (upper, lower):
            ax.axvline(at, color=GREY, zorder=0.5, gid="event", **style)
    width, _ = axes_points(upper)
    left, right = upper.get_xlim()
    gap = (text_width("m", TEXT_SIZE) + 2) * (right - left) / width
    places = spread([float(at) for at in rounds], gap, left, right)
    for letter, place in zip(ascii_lowercase, places, strict=False):
        upper.annotate(
            letter,
            (place, 1.0),
            xycoords=upper.get_xaxis_transform(),
            xytext=(0, 1.5),
            textcoords="offset points",
            fontsize=TEXT_SIZE,
            ha="center",
            va="bottom",
            annotation_clip=False,
            gid="letter",
        )
