"""Figure `gain`: what each client wins or loses by not training alone."""

from collections.abc import Mapping, Sequence
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
    legend_below,
    marks_of,
    method_samples,
    pick,
    setting_words,
)
from fedtsd.report.layout import POINTS_PER_INCH, text_width
from fedtsd.report.printed import signed
from fedtsd.report.results import RULES, Results, Run
from fedtsd.report.spread import (
    MOST_SETTINGS,
    Panels,
    panel_columns,
    panel_rows,
    pooled,
    stacked_panels,
)
from fedtsd.report.style import (
    COLUMN,
    PAGE,
    MethodMark,
    fold,
    paper_style,
    settle,
    titled_figure,
)
from fedtsd.report.tables import FloatArray
from fedtsd.score import Score

CURVES = 1.5  # inches: height of the panel of curves
MOST_MARKERS = 30  # of more clients, not every one has a marker
# Right ends of the columns of numbers, and where the method's mark and name begin, in axes.
MEAN, WORST, LOSE = 0.62, 0.81, 1.0
MARK, NAME = (0.0, 0.04, 0.08), 0.1

GAIN_COLUMNS = ["method", "setting", "seed", "client", "alone", "score", "gain"]


def gain(results: Results) -> Figure:
    """Gain over local training of each client, as printed, ascending, one panel per setting.

    Below it the mean gain, the worst client's, and the share of clients that lose. The clients of
    all seeds are pooled; more than six settings are thinned evenly. Raises NotApplicableError where
    no run of local training stands beside another one.
    """
    table = gain_table(results)
    shown = pick(
        [name for name in results.settings if name in set(table["setting"])], MOST_SETTINGS
    )
    methods = [method for method in results.methods if method in set(table["method"])]
    marks = marks_of(results)
    width = COLUMN if len(shown) == 1 else PAGE
    with paper_style():
        lower = (len(methods) + 1) * LINE_STEP / POINTS_PER_INCH
        words = [*data_words(results), *setting_words(results, shown), RULES[results.rule]]
        title = ", ".join(["gain over local training", *words, pooled(results)])
        height = (CURVES + lower + 0.6) * panel_rows(len(shown)) + 0.15
        figure = titled_figure(fold(title, width), width, height)
        pairs = stacked_panels(figure, len(shown), (CURVES, lower))
        names = {method: results.labels[method] for method in methods}
        named = _fit(list(names.values()), width / panel_columns(len(shown)))
        for (top, bottom), setting in zip(pairs, shown, strict=True):
            gains = _gains(table[table["setting"] == setting], results.score.scale)
            _curves(top, gains, marks)
            shown_names = names if named else dict.fromkeys(methods, "")
            _numbers(bottom, gains, marks, shown_names, results.decimals)
            if len(shown) > 1:
                room = 0.85 * width / panel_columns(len(shown))
                top.set_title(fold(results.titles[setting], room))
        _frame(pairs, table, results.score)
        if not named:
            legend_below(figure, method_samples(results, marks, methods))
        return settle(figure)


def gain_table(results: Results) -> pd.DataFrame:
    """One row per client of every run that has a twin of family `alone`: setting, seed, clients.

    Columns: method, setting, seed, client, alone (score of the twin), score, and gain, positive
    where the score is better; as stored, at the round of the rule. Of several twins, the first one
    that trains as the run does counts, else the first. Raises NotApplicableError where no run has a
    twin.
    """
    rows = results.clients
    parts = []
    for run in results.runs:
        if run.family != "alone" and (twin := _twin(results, run)) is not None:
            alone = _scores(rows, twin).rename("alone")
            both = pd.concat([alone, _scores(rows, run)], axis=1, join="inner")
            parts.append(
                both.reset_index().assign(method=run.method, setting=run.setting, seed=run.seed)
            )
    if not parts:
        raise NotApplicableError(
            "gain: no run of local training beside another method in the same setting and seed; "
            "`fedtsd train ... method=local` makes one"
        )
    table = pd.concat(parts, ignore_index=True)
    gains = results.score.gain(table["score"], table["alone"])
    # Rounding: equal scores must not differ by the last bit.
    return table.assign(gain=gains.round(12))[GAIN_COLUMNS]


def _twin(results: Results, run: Run) -> Run | None:
    """The run of the same clients, each training alone."""
    found = [r for r in results.find(setting=run.setting, seed=run.seed) if r.family == "alone"]
    found.sort(key=lambda r: r.config.get("training") != run.config.get("training"))
    return found[0] if found else None


def _scores(clients: pd.DataFrame, run: Run) -> "pd.Series[float]":
    chosen = (
        (clients["method"] == run.method)
        & (clients["setting"] == run.setting)
        & (clients["seed"] == run.seed)
    )
    return clients[chosen].set_index("client")["score"]


def _gains(rows: pd.DataFrame, scale: float) -> dict[str, FloatArray]:
    """Method -> printed gains of all clients and seeds, ascending."""
    return {
        str(method): np.sort(part["gain"].to_numpy(float)) * scale
        for method, part in rows.dropna(subset=["gain"]).groupby("method")
    }


def _curves(ax: Axes, gains: Mapping[str, FloatArray], marks: Mapping[str, MethodMark]) -> None:
    for method, found in gains.items():
        n = len(found)
        places = (np.arange(n) + 0.5) / n * 100
        every = 1 if n <= MOST_MARKERS else n // MOST_MARKERS + 1
        style = {**marks[method].keywords, "linewidth": 0.8, "markevery": every}
        ax.plot(places, found, clip_on=False, gid=f"gain {method}", **style)


def _fit(names: Sequence[str], width: float) -> bool:
    """Whether names have room in the table under a panel of `width` inches, its margin included."""
    room = (width - 0.4) * POINTS_PER_INCH * (MEAN - NAME) - text_width("+00.0", LABEL_SIZE)
    return max(text_width(name, LABEL_SIZE) for name in names) <= room


def _numbers(
    ax: Axes,
    gains: Mapping[str, FloatArray],
    marks: Mapping[str, MethodMark],
    names: Mapping[str, str],
    decimals: int,
) -> None:
    """A small table: mark and name of the method, mean and worst gain, share that loses."""
    ax.set(xlim=(0, 1), ylim=(len(names) + 1, 0))
    ax.axis("off")
    for x, head in ((MEAN, "mean"), (WORST, "worst"), (LOSE, "lose")):
        _write(ax, x, 0.5, head, color="0.35")
    for row, (method, name) in enumerate(names.items()):
        y = row + 1.5
        ax.plot(MARK, [y] * 3, markevery=[1], clip_on=False, **marks[method].keywords)
        _write(ax, NAME, y, name, ha="left")
        found = gains.get(method)
        if found is None:
            _write(ax, LOSE, y, "no such pair")
            continue
        _write(ax, MEAN, y, signed(float(found.mean()), decimals), gid="mean")
        _write(ax, WORST, y, signed(float(found.min()), decimals), gid="worst")
        _write(ax, LOSE, y, f"{100 * np.mean(found < 0):.0f} %", gid="lose")


def _write(ax: Axes, x: float, y: float, text: str, **style: Any) -> None:
    place: dict[str, Any] = {"ha": "right", "va": "center_baseline", "fontsize": LABEL_SIZE}
    ax.text(x, y, text, **(place | style))


def _frame(pairs: Sequence[Panels], table: pd.DataFrame, score: Score) -> None:
    """Put the same gains on every vertical axis; the ground of losses is grey."""
    low, high = table["gain"].min() * score.scale, table["gain"].max() * score.scale
    least = score.scale * score.hundredth(float(table["alone"].mean()))
    pad = max(0.05 * (high - low), 0.5 * least)
    low = min(low - pad, -0.14 * (high - low), -1.5 * least)  # room to write below zero
    for i, (top, _) in enumerate(pairs):
        top.axhspan(low, 0, color="0.93", lw=0, zorder=0, gid="losses")
        top.axhline(0, color="black", lw=0.8)
        top.set(xlim=(0, 100), ylim=(low, max(high + pad, least)))
        top.set_xlabel("clients, by gain (%)")
        top.annotate(
            "loses", (1.0, 0.0), xycoords="axes fraction", xytext=(-2, 2),
            textcoords="offset points", ha="right", va="bottom", fontsize=LABEL_SIZE,
        )  # fmt: skip
        if i % panel_columns(len(pairs)) == 0:
            top.set_ylabel(score.gain_noun)
