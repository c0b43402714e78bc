"""Tables as they are printed: texts, marks and a caption; and the same as GitHub Markdown."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

Mark = Literal["best", "second", ""]
MISSING = "—"


def number(value: float, spec: str) -> str:
    """Print a number with a true minus sign; NaN as MISSING."""
    return MISSING if math.isnan(value) else format(value, spec).replace("-", "−")


def signed(value: float, decimals: int) -> str:
    """Print a difference with its sign, and none on a zero."""
    rounded = round(value, decimals) + 0.0
    return number(rounded, f"{'+' if rounded else ''}.{decimals}f")


@dataclass(frozen=True, eq=False)
class Printed:
    """A table ready for print.

    `texts` and `marks`: frames of strings of one shape, indexed by what stands before each row;
    a mark is `best` (bold), `second` (underlined) or empty. `groups`: the heading of each row's
    group, empty for none; equal neighbours share one heading. `name` is the file's and the label's.
    """

    name: str
    corner: str
    texts: pd.DataFrame
    marks: pd.DataFrame
    groups: tuple[str, ...]
    caption: str

    def turned(self) -> "Printed":
        """Rows and columns exchanged; the headings of the rows are lost."""
        groups = ("",) * len(self.texts.columns)
        return replace(self, corner="", texts=self.texts.T, marks=self.marks.T, groups=groups)

    def lines(self) -> list[tuple[str, list[str], list[str]]]:
        """Headings and rows from the top as (label, texts, marks); a heading has no texts."""
        rows: list[tuple[str, list[str], list[str]]] = []
        above = ""
        table = zip(self.texts.index, self.texts.to_numpy(), self.marks.to_numpy(), strict=True)
        for group, (label, texts, marks) in zip(self.groups, table, strict=True):
            if group and group != above:
                rows.append((group, [], []))
            above = group
            rows.append((str(label), list(texts), list(marks)))
        return rows


def rank_marks(values: Sequence[float], decimals: int, highest: bool = True) -> list[Mark]:
    """Mark the best and the second value; values equal as printed share, NaN has no mark.

    Nothing is marked where nobody competes: fewer than two values.
    """
    printed = pd.Series(values, dtype=float).round(decimals)
    order = sorted(printed.dropna().unique(), reverse=highest)
    if printed.count() < 2:
        return [""] * len(printed)
    marks: dict[float, Mark] = dict(zip(order[:2], ("best", "second"), strict=False))
    return [marks.get(value, "") for value in printed]


def markdown(table: Printed) -> str:
    """Write a table in GitHub's Markdown, its caption below."""
    columns = [_escaped(str(name)) for name in table.texts.columns]
    rows = [[_escaped(table.corner), *columns], ["---", *["---:"] * len(columns)]]
    for label, texts, marks in table.lines():
        if texts:
            cells = [_marked(text, mark) for text, mark in zip(texts, marks, strict=True)]
            rows.append([_escaped(label), *cells])
        else:
            rows.append([f"*{_escaped(label)}*", *[""] * len(columns)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", _escaped(table.caption), ""])


def _marked(text: str, mark: str) -> str:
    around = {"best": "**{}**", "second": "<ins>{}</ins>"}.get(mark, "{}")
    return around.format(_escaped(text))


def _escaped(text: str) -> str:
    for sign in ("\\", "|", "*", "_", "<"):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
