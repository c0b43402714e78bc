"""How figures look: the style file, colours, titles, and the words for methods and data sets.

Colours are Okabe and Ito's (2008), told apart with every common colour vision. Clusters need more;
the additions were picked for their distance to the others, also as seen without red or green cones.
Nothing is told by colour alone.
"""

import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fedtsd.report.dealing import DATASET_LABELS, partition_label
from fedtsd.report.skew import run_skew, with_skew
from fedtsd.report.tables import RunTables

STYLE_FILE = Path(__file__).with_name("fedtsd.mplstyle")
COLUMN = 3.3  # inches: one column of a paper
PAGE = 7.0  # inches: both columns
TITLE_LINE = 0.13  # inches

LineStyle = str | tuple[int, tuple[float, ...]]  # a name, or (offset, line widths on and off)

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILLION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#7F7F7F"
WINE, INDIGO, OLIVE, TEAL = "#882255", "#332288", "#999933", "#44AA99"
NAVY, SILVER = "#004488", "#A6A6A6"
PALE, BROWN, SAND, MINT = "#D0D0D0", "#661100", "#DDCC77", "#AAFFC3"
# The cluster of the start, then twelve; neighbours differ in lightness too, for prints in grey.
CLUSTER_COLOURS = (
    PALE, BLUE, ORANGE, GREEN, YELLOW, INDIGO, PURPLE, VERMILLION, SKY, BROWN, SAND, BLACK, MINT,
)  # fmt: skip


@dataclass(frozen=True)
class MethodMark:
    """How a method looks in every figure, also in grey: colour, marker, and line style."""

    colour: str
    marker: str
    line: LineStyle

    @property
    def keywords(self) -> dict[str, Any]:
        """What `Axes.plot` takes to draw it."""
        rim = {"markeredgecolor": "white", "markeredgewidth": 0.3}
        line = {"color": self.colour, "linestyle": self.line, "linewidth": 1.0}
        return {**line, "marker": self.marker, **rim}


# The line tells the family: dotted alone, dashed one global model, dash-dotted personalised, solid
# clustered; the marker is one's own within a family. Local, FedAvg, FedPer, FedTSDP differ in
# lightness as well: they stand together most.
_ALONE: LineStyle = (0, (1, 1.2))
_GLOBAL: LineStyle = (0, (3.5, 1.2))
_PERSONAL: LineStyle = (0, (4, 1.2, 1, 1.2))
_CLUSTERED: LineStyle = "-"
METHOD_MARKS = {
    "local": MethodMark(SILVER, "s", _ALONE),
    "fedavg": MethodMark(BLACK, "o", _GLOBAL),
    "fedprox": MethodMark(ORANGE, "^", _GLOBAL),
    "fedavgm": MethodMark(SKY, "v", _GLOBAL),
    "fedadam": MethodMark(PURPLE, "P", _GLOBAL),
    "scaffold": MethodMark(OLIVE, "D", _GLOBAL),
    "fedavg_ft": MethodMark(SKY, "o", _PERSONAL),
    "fedper": MethodMark(NAVY, "D", _PERSONAL),
    "lg_fedavg": MethodMark(PURPLE, "v", _PERSONAL),
    "fedrep": MethodMark(TEAL, "^", _PERSONAL),
    "fedbabu": MethodMark(ORANGE, "s", _PERSONAL),
    "fedbn": MethodMark(GREEN, "P", _PERSONAL),
    "ditto": MethodMark(WINE, "X", _PERSONAL),
    "pfedme": MethodMark(OLIVE, "<", _PERSONAL),
    "per_fedavg": MethodMark(BLUE, ">", _PERSONAL),
    "apfl": MethodMark(BROWN, "h", _PERSONAL),
    "fedala": MethodMark(INDIGO, "p", _PERSONAL),
    "fedtsdp": MethodMark(VERMILLION, "s", _CLUSTERED),
    "fedtsdp_prior": MethodMark(VERMILLION, "d", _CLUSTERED),
    "fedtsdp_full": MethodMark(WINE, "o", _CLUSTERED),
    "ifca": MethodMark(GREEN, "^", _CLUSTERED),
    "cfl": MethodMark(SKY, "v", _CLUSTERED),
    "fedgroup": MethodMark(BLUE, "D", _CLUSTERED),
    "pacfl": MethodMark(ORANGE, "P", _CLUSTERED),
    "fesem": MethodMark(PURPLE, "X", _CLUSTERED),
    "oracle": MethodMark(BLACK, "*", _CLUSTERED),
}
METHOD_COLOURS = {name: mark.colour for name, mark in METHOD_MARKS.items()}
# Variants and methods not listed take these in pairs; the lines are none of the families'.
OTHER_COLOURS = (BLUE, TEAL, WINE, OLIVE, INDIGO)
OTHER_MARKERS = ("o", "^", "D", "v", "P", "X", "s", "<", "p", ">", "h")
OTHER_LINES: tuple[LineStyle, ...] = (
    (0, (7, 1.2)), (0, (2, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (6, 1.2, 2, 1.2)),
)  # fmt: skip

# matplotlib's settings are one global; whoever draws holds this lock while they are ours.
_SETTINGS = threading.RLock()


@contextmanager
def paper_style() -> Iterator[None]:
    """Use the style file, and nothing of the user's own settings, until the block ends."""
    with _SETTINGS, matplotlib.rc_context(fname=STYLE_FILE):
        yield


def new_figure(tables: RunTables, width: float, height: float) -> Figure:
    """A figure of `width` x `height` inches, titled by its run; see `titled_figure`."""
    return titled_figure(run_title(tables, width), width, height)


def titled_figure(title: str, width: float, height: float) -> Figure:
    """A figure of `width` x `height` inches that no pyplot state knows of.

    `height` is for a title of one line; the figure grows by what more lines need.
    """
    size = (width, height + TITLE_LINE * title.count("\n"))
    # Hinting makes text a little wider or narrower at each resolution: lay out at that of the file.
    figure = Figure(figsize=size, dpi=matplotlib.rcParams["savefig.dpi"])
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure


def settle(figure: Figure) -> Figure:
    """Lay the figure out, then keep the layout, so that each file format shows the same."""
    figure.draw_without_rendering()
    figure.draw_without_rendering()  # labels placed beside the axes moved them once
    figure.set_layout_engine("none")
    return figure


def method_mark(name: str) -> MethodMark:
    """The mark of one method; `method_marks` keeps those of several apart."""
    return METHOD_MARKS.get(name) or next(_other_marks(name))


def method_marks(names: Iterable[str]) -> dict[str, MethodMark]:
    """Method -> mark, no two alike; the order of `names` makes no difference."""
    given = list(names)
    marks = {name: METHOD_MARKS[name] for name in given if name in METHOD_MARKS}
    for name in sorted(set(given) - set(marks)):
        free = [mark for mark in _other_marks(name) if mark not in marks.values()]
        seen = {(mark.colour, mark.marker) for mark in marks.values()}
        marks[name] = next((m for m in free if (m.colour, m.marker) not in seen), free[0])
    return {name: marks[name] for name in given}


def _other_marks(name: str) -> Iterator[MethodMark]:
    """Marks for a method that has none of its own; a variant `NAME key=value` has NAME's colour."""
    base = name.partition(" ")[0]
    colour = METHOD_COLOURS.get(base)
    start = zlib.crc32(name.encode())
    shades = OTHER_COLOURS[zlib.crc32(base.encode()) % len(OTHER_COLOURS) :] + OTHER_COLOURS
    for shade in [colour] if colour else shades[: len(OTHER_COLOURS)]:
        for i in range(start, start + len(OTHER_MARKERS) * len(OTHER_LINES)):
            # 11 and 4 share no factor: both change at every step, and no pair comes twice.
            marker = OTHER_MARKERS[i % len(OTHER_MARKERS)]
            yield MethodMark(shade, marker, OTHER_LINES[i % len(OTHER_LINES)])


def method_colour(name: str) -> str:
    """The colour of a method, the same in every figure and every process."""
    return method_mark(name).colour


def cluster_colours(tables: RunTables) -> dict[int, str]:
    """Cluster id -> colour, the same in every figure of the run.

    The lowest id (the start) is pale, then come the clusters of the end, then those in between;
    after thirteen the colours repeat.
    """
    ids = tables.cluster_ids
    final = set(tables.final_clusters)
    ranked = sorted(ids, key=lambda k: (k != ids[0], k not in final, k))
    return {k: CLUSTER_COLOURS[i % len(CLUSTER_COLOURS)] for i, k in enumerate(ranked)}


def darker(colour: str) -> tuple[float, float, float]:
    """The same hue, dark enough for small text on white."""
    red, green, blue = to_rgb(colour)
    return 0.7 * red, 0.7 * green, 0.7 * blue


def ink_on(colour: str) -> str:
    """Black or white, whichever has more contrast on `colour` (WCAG relative luminance)."""
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * channels[0] + 0.7152 * channels[1] + 0.0722 * channels[2]
    return "black" if luminance > 0.179 else "white"


def round_axis(ax: Axes) -> None:
    """Put whole rounds on the horizontal axis, at distances people count in."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))


def method_label(config: Mapping[str, Any]) -> str:
    """The name of a run's method as papers write it."""
    method = config.get("method") or {}
    return str(method.get("label") or method.get("name") or "")


def dataset_label(config: Mapping[str, Any]) -> str:
    """The name of a run's data set as papers write it."""
    name = str((config.get("dataset") or {}).get("name") or "")
    return DATASET_LABELS.get(name, name)


def run_title(tables: RunTables, width: float) -> str:
    """Method, data set, how it was dealt, measured skew; in lines that fit `width` inches."""
    config = tables.config
    words = [method_label(config), dataset_label(config), partition_label(config)]
    said = ", ".join(word for word in words if word)
    return fold(with_skew(said, config, run_skew(tables)), width)


def fold(text: str, width: float) -> str:
    """Break a title into as few lines as fit `width` inches, all about as long; not around =."""
    text = text.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")
    return _balanced(text, round(14 * width)).replace("\N{NO-BREAK SPACE}", " ")


def _balanced(text: str, most: int) -> str:
    lines = wrap(text, most)
    least = max(map(len, text.split()), default=1)
    for narrower in range(least, most):
        if len(wrap(text, narrower)) == len(lines):
            return "\n".join(wrap(text, narrower))
    return "\n".join(lines)
