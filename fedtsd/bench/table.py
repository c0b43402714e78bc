"""The results as people read them: on the terminal, and as a page's tables in Markdown."""

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fedtsd.errors import ConfigError

Cells = Sequence[str]

SPEED = (
    "workload", "engine", "method", "samples/s", "× central", "min–max", "rounds/s", "start s",
    "MB", "peak",
)  # fmt: skip
SPLIT = (
    "workload", "engine", "method", "round", "train", "cluster", "aggregate", "write", "rest",
    "evaluate", "checkpoint",
)  # fmt: skip
WIDTH = 100
NUM_NAMES = 3
"""Columns that hold names; the others hold numbers, to the right."""


def stdout() -> Console:
    """Return the terminal, as if it had WIDTH columns at least: numbers are not cut."""
    return Console(width=max(WIDTH, shutil.get_terminal_size().columns))


def speed_rows(results: Mapping[str, Any]) -> list[Cells]:
    """Return the cells of the table of speeds: per workload central, then what was measured."""
    cells: list[Cells] = []
    for central in results["central"]:
        share = f"{central['share_of_peak']:.0%}"
        rate = f"{central['samples_per_second']:,.0f}"
        cells.append([central["workload"], "central", "", rate, "1.00", "", "", "", "", share])
        for row in results["rows"]:
            if row["workload"] == central["workload"]:
                cells.append(_speed(row))
    return cells


def _speed(row: Mapping[str, Any]) -> Cells:
    names = [row["workload"], row["engine"], row["method"]]
    if "error" in row:
        return [*names, "failed", *[""] * (len(SPEED) - len(names) - 1)]
    ratio = row["ratio"]
    return [
        *names,
        f"{row['samples_per_second']:,.0f}",
        f"{ratio['median']:.2f}",
        f"{ratio['min']:.2f}–{ratio['max']:.2f}",
        f"{row['rounds_per_second']:.3g}",
        f"{row['start_up_seconds']:.1f}",
        f"{row['peak_rss_bytes'] / 1e6:,.0f}" if row["peak_rss_bytes"] else "",
        f"{row['share_of_peak']:.0%}",
    ]


def split_rows(results: Mapping[str, Any]) -> list[Cells]:
    """Return the cells of the table of stages, milliseconds of a round, and of what is apart."""
    return [
        [row["workload"], row["engine"], row["method"]]
        + [milliseconds(row["split"][name]) for name in SPLIT[NUM_NAMES:]]
        for row in results["rows"]
        if "error" not in row
    ]


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds, short ones with a decimal."""
    return f"{1000 * seconds:,.0f}" if seconds >= 0.0995 else f"{1000 * seconds:.1f}"


def print_table(
    console: Console, title: str, columns: Cells, rows: Iterable[Cells], names: int = NUM_NAMES
) -> None:
    """Print a table; a name that repeats the one above it is left out."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for i, column in enumerate(columns):
        wraps = column == "engine"
        table.add_column(
            column,
            justify="left" if i < names else "right",
            no_wrap=not wraps,
            min_width=len("sequential") if wraps else None,
            overflow="fold",
        )
    before = ""
    for first, *others in rows:
        # Each override of an engine stands on a line of its own.
        lines = [re.sub("[:;](engine[.])?", "\n", text) for text in others]
        table.add_row("" if first == before else first, *lines)
        before = first
    console.print(f"\n{title}", highlight=False)
    console.print(table)


def markdown(columns: Cells, rows: Iterable[Cells], names: int = NUM_NAMES) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---" if i < names else "--:" for i in range(len(columns))], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def marks(what: str) -> tuple[str, str]:
    """Return the marks of a page between which its tables stand; what: speed or growth."""
    return f"<!-- bench {what}: begin -->", f"<!-- bench {what}: end -->"


def check_page(page: Path, what: str) -> None:
    """Raise ConfigError unless the page has the marks, once each and in order."""
    if not page.is_file() or len(_marked(page.read_text(encoding="utf-8"), what)) != 1:
        begin, end = marks(what)
        raise ConfigError(f"--markdown: {page} must hold the lines {begin} and {end}")


def write_page(page: Path, what: str, tables: str) -> None:
    """Put the tables between the marks of a page."""
    text, (begin, end) = page.read_text(encoding="utf-8"), marks(what)
    (old,) = _marked(text, what)
    page.write_text(text.replace(old, f"{begin}\n{tables}{end}"), encoding="utf-8")


def _marked(text: str, what: str) -> list[str]:
    begin, end = map(re.escape, marks(what))
    return re.findall(f"{begin}.*?{end}", text, flags=re.DOTALL)
