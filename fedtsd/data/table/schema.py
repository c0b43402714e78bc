"""The schema of a table: what each column is taken for, and what is odd about it.

The guess. Numbers are numeric. Text, and true or false, is categorical, one-hot over what occurs in
all files. A column with one value only carries nothing and is left out, as is one without a name.
A person overrules it with `dataset.categorical` and `dataset.ignore`.

Shapes: n rows, F features.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fedtsd.data.table.columns import Numbers, Texts, Values, distinct, is_written_with
from fedtsd.data.table.rows import Rows
from fedtsd.data.targets import alike, few, is_whole
from fedtsd.errors import DataError

if TYPE_CHECKING:
    from fedtsd.data.table.dataset import Table

MISSING = "(missing)"
"""The category of cells that are missing."""
LIKE_A_KEY = 20
"""Different whole numbers from which a column without repetitions looks like a row's key."""


@dataclass(frozen=True)
class Column:
    """One column.

    kind: `numeric`, `categorical`, `target`, `site` or `ignored`, the last with a reason.
    distinct: different values. missing: cells without one.
    values: the categories, where it is text that is used. low, high: the range of numbers.
    """

    name: str
    kind: str
    distinct: int
    missing: int
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Schema:
    """A table as it is understood.

    features: the names of the F inputs, in order: numeric columns; for those with missing cells
    whether it is (`age missing`); one-hot columns (`colour=red`).
    sites: names, empty where there are none; site_sizes: rows of each.
    notes: what a person should know, one line each.
    """

    columns: tuple[Column, ...]
    task: str
    num_samples: int
    classes: tuple[str, ...]
    sites: tuple[str, ...]
    site_sizes: tuple[int, ...]
    notes: tuple[str, ...]
    features: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(_feature_names(self)))

    def of_kind(self, kind: str) -> tuple[Column, ...]:
        """Return the columns of a kind, in the order of the files."""
        return tuple(column for column in self.columns if column.kind == kind)


def categories(column: Column) -> tuple[str, ...]:
    """Return what a categorical column is one-hot over; missing cells are the last category."""
    return (*column.values, MISSING) if column.missing else column.values


def _feature_names(schema: Schema) -> Iterator[str]:
    numeric = schema.of_kind("numeric")
    yield from (column.name for column in numeric)
    yield from (f"{column.name} missing" for column in numeric if column.missing)
    for column in schema.of_kind("categorical"):
        yield from (f"{column.name}={value}" for value in categories(column))


def schema_rows(schema: Schema) -> list[dict[str, Any]]:
    """Return one plain dict per column, ready for JSON."""
    return [{**asdict(column), "values": list(column.values)} for column in schema.columns]


def describe(name: str, column: Values, kind: str, reason: str = "") -> Column:
    """Return what there is to say of a column."""
    missing = int(np.count_nonzero(column.is_missing))
    if isinstance(column, Texts):
        values = () if kind == "ignored" else column.values
        return Column(name, kind, len(column.values), missing, values, reason=reason)
    found = np.unique(column.values[~column.is_missing])
    low, high = (float(found[0]), float(found[-1])) if len(found) else (None, None)
    return Column(name, kind, len(found), missing, (), low, high, reason)


def guess(rows: Rows, table: "Table") -> tuple[Column, ...]:
    """Return the columns of a table, each with the kind that it is taken for.

    Raises DataError naming a column that cannot be used as it is.
    """
    columns = tuple(_guessed(name, rows, table) for name in rows.columns)
    if all(column.kind not in ("numeric", "categorical") for column in columns):
        raise DataError(f"{table.path}: no column is left to learn from; {_listed(columns)}")
    return columns


def _guessed(name: str, rows: Rows, table: "Table") -> Column:
    column = rows.columns[name]
    if name == table.target:
        return describe(name, column, "target")
    if name == table.site:
        return describe(name, column, "site")
    if name in table.ignore:
        return describe(name, column, "ignored", "dataset.ignore")
    if name in rows.unnamed:
        return describe(name, column, "ignored", "no name")
    kind = "numeric" if isinstance(column, Numbers) else "categorical"
    found = describe(name, column, kind)
    if not found.distinct:
        raise DataError(
            f"{table.path}: column {name!r} is missing in every row; list it in dataset.ignore"
        )
    if found.distinct == 1 and not found.missing:
        return describe(name, column, "ignored", "one value")
    if isinstance(column, Texts):
        check_categories(f"column {name!r}", column, table)
    return found


def check_categories(what: str, column: Texts, table: "Table") -> None:
    """Raise DataError if a column has too many categories."""
    if len(column.values) <= table.max_categories:
        return
    other = "," if table.decimal == "." else "."
    cure = "list it in dataset.ignore, or raise the limit"
    if what.startswith("target"):
        cure = "raise the limit if these are classes"
    if is_written_with(column, other):
        cure = f"are these numbers, with dataset.decimal {other!r}?"
    raise DataError(
        f"{table.path}: {what} has {len(column.values):,} different texts "
        f"({few(column.values, 3)}), above dataset.max_categories ({table.max_categories}); {cure}"
    )


def _listed(columns: tuple[Column, ...]) -> str:
    return few((f"{c.name} ({c.reason or c.kind})" for c in columns), 10)


def notes_of(columns: tuple[Column, ...], rows: Rows) -> Iterator[str]:
    """Yield what is odd about columns, one line each."""
    for reason, what in (("one value", "one value only"), ("no name", "no name")):
        names = [column.name for column in columns if column.reason == reason]
        if names:
            yield f"{_columns(len(names))} left out, with {what}: {few(names, 10)}"
    for column in columns:
        if column.kind in ("categorical", "target") and (pair := alike(column.values)):
            yield f"column {column.name} holds {pair[0]!r} and {pair[1]!r}: the same?"
        if column.kind == "numeric" and _like_a_key(rows.columns[column.name]):
            yield (
                f"column {column.name} has another whole number in every row; if it only names "
                "the row, list it in dataset.ignore"
            )


def _columns(count: int) -> str:
    return "1 column is" if count == 1 else f"{count} columns are"


def _like_a_key(column: Values) -> bool:
    if not isinstance(column, Numbers) or not is_whole(column.values):
        return False
    return LIKE_A_KEY <= distinct(column) == len(column.values)


def site_notes(columns: tuple[Column, ...], rows: Rows, sites: Texts) -> Iterator[str]:
    """Yield the numeric columns in which a site has no value at all."""
    for code, site in enumerate(sites.values):
        here = sites.codes == code
        empty = [
            column.name
            for column in columns
            if column.kind == "numeric" and column.missing
            if rows.columns[column.name].is_missing[here].all()
        ]
        if empty:
            yield f"site {site} has no value in: {few(empty, 10)}"
