"""The rows of all files together: typed columns, and where each row stands.

Shapes: n rows.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedtsd.data.table.bad_rows import BadRows
from fedtsd.data.table.columns import MOSTLY, Mixed, Numbers, Values, as_texts, sort_out
from fedtsd.data.table.sheet import Format, Sheet
from fedtsd.errors import DataError

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Places:
    """Where rows stand. file_of: int64 [n], the file of each; lines: int64 [n], the line in it."""

    files: tuple[Path, ...]
    units: tuple[str, ...]
    file_of: np.ndarray
    lines: np.ndarray

    def __len__(self) -> int:
        return len(self.lines)

    def name(self, row: int) -> str:
        """Return the place of a row as a person finds it."""
        file = self.file_of[row]
        return f"{self.files[file]}, {self.units[file]} {self.lines[row]}"

    def first(self, where: np.ndarray) -> str:
        """Return the place of the first row of a bool [n]."""
        return self.name(int(np.argmax(where)))


@dataclass(frozen=True)
class Rows:
    """columns: by name, each over all rows. unnamed: columns that have no name in the files."""

    columns: dict[str, Values]
    places: Places
    unnamed: frozenset[str]

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: np.ndarray) -> "Rows":
        """Return some of the rows, int64 [m]."""
        old = self.places
        places = Places(old.files, old.units, old.file_of[rows], old.lines[rows])
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        return Rows(columns, places, self.unnamed)


def check_same_columns(sheets: list[Sheet]) -> None:
    """Raise DataError if a file has not the columns of the first one, in whatever order."""
    first = sheets[0]
    for sheet in sheets[1:]:
        lacks = [name for name in first.cells if name not in sheet.cells]
        more = [name for name in sheet.cells if name not in first.cells]
        if lacks or more:
            parts = [f"lacks {', '.join(lacks)}"] * bool(lacks)
            parts += [f"has {', '.join(more)} in addition"] * bool(more)
            raise DataError(
                f"{sheet.path}: {' and '.join(parts)}; all files must have the columns of "
                f"{first.path.name}"
            )


@dataclass(frozen=True)
class Roles:
    """How columns are read.

    texts: are text whatever they hold. exact: of these, the blanks around a cell are kept.
    unused: nothing in them is wrong.
    """

    texts: frozenset[str]
    exact: frozenset[str]
    unused: frozenset[str]


def join(sheets: list[Sheet], form: Format, roles: Roles, bad: BadRows) -> Rows:
    """Put the rows of all files below each other; sort out what is numbers and what is text.

    The cells are taken out of the sheets, column by column, so that none is held twice for long.
    """
    check_same_columns(sheets)
    places = Places(
        tuple(sheet.path for sheet in sheets),
        tuple(sheet.unit for sheet in sheets),
        np.repeat(np.arange(len(sheets)), [len(sheet.lines) for sheet in sheets]),
        np.concatenate([sheet.lines for sheet in sheets]),
    )
    columns = {}
    for name in list(sheets[0].cells):
        cells = np.concatenate([sheet.cells.pop(name) for sheet in sheets])
        columns[name] = _typed(name, cells, form, roles, places, bad)
    return Rows(columns, places, frozenset(sheets[0].unnamed))


def _typed(
    name: str, cells: np.ndarray, form: Format, roles: Roles, places: Places, bad: BadRows
) -> Values:
    if name in roles.texts:
        return as_texts(cells, form, strip=name not in roles.exact)
    column = Numbers(cells) if cells.dtype == np.float64 else sort_out(cells, form)
    if name in roles.unused:
        return column.as_text if isinstance(column, Mixed) else column
    if isinstance(column, Mixed):
        column = _settled(name, column, places, bad)
    if isinstance(column, Numbers):
        _check_finite(name, column, places, bad)
    return column


def _settled(name: str, column: Mixed, places: Places, bad: BadRows) -> Values:
    """Decide between numbers with mistakes among them, and text."""
    if column.share < MOSTLY:
        if column.parsed:
            _refuse_split(name, column, places)
        return column.as_text
    for row in np.flatnonzero(column.texts).tolist():
        text = column.as_text.text(row)
        bad.add(
            places.name(row),
            f"column {name!r} has {text!r} among numbers (a sign of dataset.missing? "
            "a column for dataset.categorical?)",
            row,
        )
    return column.numbers


def _refuse_split(name: str, column: Mixed, places: Places) -> None:
    row = int(np.argmax(column.texts))
    numbers = np.setdiff1d(places.file_of[~column.numbers.is_missing], places.file_of[column.texts])
    raise DataError(
        f"{places.name(row)}: column {name!r} has {column.as_text.text(row)!r}, but numbers "
        f"only in {places.files[numbers[0]].name}; list it in dataset.categorical or dataset.ignore"
    )


def _check_finite(name: str, column: Numbers, places: Places, bad: BadRows) -> None:
    for row in np.flatnonzero(np.abs(column.values) > LARGEST).tolist():
        bad.add(
            places.name(row),
            f"column {name!r} has {column.values[row]:g}, which is infinite or beyond float32",
            row,
        )
