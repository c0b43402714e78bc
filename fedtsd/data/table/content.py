"""A table as read from its files: the schema and the arrays.

Shapes: n rows, S sites.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedtsd.data.dataset import Arrays
from fedtsd.data.table.bad_rows import BadRows
from fedtsd.data.table.columns import Numbers, Texts, distinct
from fedtsd.data.table.features import encode, scaled
from fedtsd.data.table.paths import table_files
from fedtsd.data.table.rows import Roles, Rows, join
from fedtsd.data.table.schema import (
    Schema,
    check_categories,
    guess,
    notes_of,
    site_notes,
)
from fedtsd.data.table.sheet import Sheet, read_sheet, stem
from fedtsd.data.targets import (
    Target,
    alike,
    few,
    guessed_task,
    in_order,
    is_whole,
    named_numbers,
    number_text,
    one_class_notes,
    regression,
)
from fedtsd.errors import DataError
from fedtsd.schema import unknown

if TYPE_CHECKING:
    from fedtsd.data.table.dataset import Table


@dataclass(frozen=True)
class Content:
    """What a table's files hold."""

    schema: Schema
    arrays: Arrays


def read_content(table: "Table") -> Content:
    """Read all files of a table. Raises DataError with one line on what is wrong with them."""
    bad = BadRows(table.on_bad == "skip")
    place = Path(table.path or "").expanduser()
    files, others = table_files(place)
    sheets = [read_sheet(file, table.format, table.texts, bad) for file in files]
    name = _checked_target(table, sheets[0])
    roles = Roles(table.texts, frozenset({table.site or ""}), frozenset(table.ignore))
    rows = join(sheets, table.format, roles, bad)
    task = _task(table, rows, name)
    _mark(table, rows, name, bad)
    kept = bad.kept(len(rows))
    rows = rows if len(kept) == len(rows) else rows.take(kept)
    if not len(rows):
        raise DataError(f"{table.path}: no row is left; {bad.notes[0]}")
    target = _target(table, rows, name, task)
    sites = _sites(table, rows, by_file=table.site is None and place.is_dir())
    schema = _schema(table, rows, name, target, sites, (*bad.notes, *others))
    arrays = Arrays(
        encode(rows, schema),
        target.labels,
        target.classes,
        target.values,
        None if sites is None else sites.codes.astype(np.int64),
        scaled(schema),
    )
    return Content(schema, arrays)


def _schema(
    table: "Table",
    rows: Rows,
    name: str,
    target: Target,
    sites: Texts | None,
    notes: tuple[str, ...],
) -> Schema:
    columns = guess(rows, table)
    found = [*notes, *_task_notes(table, rows, name, target), *notes_of(columns, rows)]
    if sites is not None:
        found += site_notes(columns, rows, sites)
        found += one_class_notes(sites.codes, sites.values, target)
    return Schema(
        columns,
        "classification" if target.values is None else "regression",
        len(rows),
        target.classes,
        () if sites is None else sites.values,
        () if sites is None else tuple(np.bincount(sites.codes).tolist()),
        tuple(found),
    )


def _checked_target(table: "Table", sheet: Sheet) -> str:
    """Return the target's name.

    Raises DataError if it, or another column that the settings name, does not occur.
    """
    if len(sheet.cells) == 1:
        raise DataError(
            f"{sheet.path}: has one column only ({next(iter(sheet.cells))!r}); dataset.separator "
            "says what parts cells"
        )
    named: Iterable[tuple[str, str]] = [
        *(("target", name) for name in [table.target] if name is not None),
        *(("site", name) for name in [table.site] if name is not None),
        *(("categorical", name) for name in table.categorical),
        *(("ignore", name) for name in table.ignore),
    ]
    for key, name in named:
        if name not in sheet.cells:
            raise DataError(f"dataset.{key}: {unknown(name, sheet.cells, 'column')}")
    if table.target is None:
        raise DataError(
            f"dataset.target: must name the column to predict; {sheet.path} has "
            f"{', '.join(sheet.cells)}"
        )
    return table.target


def _task(table: "Table", rows: Rows, name: str) -> str:
    target = rows.columns[name]
    if isinstance(target, Texts):
        if table.task == "regression" and target.values:
            row = int(np.argmax(~target.is_missing))
            raise DataError(
                f"{rows.places.name(row)}: target {name!r} has {target.text(row)!r}, "
                "dataset.task=regression needs numbers"
            )
        return "classification"
    if table.task != "auto":
        return table.task
    return guessed_task(target.values[~target.is_missing])


def _mark(table: "Table", rows: Rows, target_name: str, bad: BadRows) -> None:
    """Note the rows without target or site, and those whose class is not a legal one."""
    for what, name in (("target", target_name), ("site", table.site)):
        if name is not None:
            for row in np.flatnonzero(rows.columns[name].is_missing).tolist():
                bad.add(rows.places.name(row), f"{what} {name!r} is missing", row)
    target = rows.columns[target_name]
    if table.classes is not None and isinstance(target, Texts):
        legal = np.array([text in table.classes for text in target.values] + [True])
        for row in np.flatnonzero(~legal[target.codes]).tolist():
            bad.add(
                rows.places.name(row),
                f"target {target_name!r} has {target.text(row)!r}, "
                f"dataset.classes are {few(table.classes, 10)}",
                row,
            )


def _target(table: "Table", rows: Rows, name: str, task: str) -> Target:
    column = rows.columns[name]
    if distinct(column) == 1:
        value = column.values[0] if isinstance(column, Texts) else number_text(column.values[0])
        raise DataError(f"{table.path}: target {name!r} is {value} in every row; must differ")
    if isinstance(column, Numbers):
        if task == "regression":
            return regression(column.values, table.strata)
        return named_numbers(column.values)
    check_categories(f"target {name!r}", column, table)
    classes = table.classes or column.values
    position = np.array([classes.index(text) for text in column.values])
    return Target(position[column.codes], tuple(classes))


def _task_notes(table: "Table", rows: Rows, name: str, target: Target) -> Iterable[str]:
    """Say how a doubtful target was taken, and which classes nobody has."""
    column = rows.columns[name]
    guessed = table.task == "auto" and target.values is not None
    if guessed and isinstance(column, Numbers) and is_whole(column.values):
        yield (
            f"target {name} has {distinct(column):,} different whole numbers, so it is a value, "
            "not a class; dataset.task says otherwise"
        )
    held = np.bincount(target.labels, minlength=len(target.classes))
    absent = [name for name, count in zip(target.classes, held, strict=True) if not count]
    if absent:
        yield f"no row has the class: {few(absent, 10)}"


def _sites(table: "Table", rows: Rows, by_file: bool) -> Texts | None:
    if by_file:
        names = [stem(file) for file in rows.places.files]
        order = in_order(names)
        codes = np.array([order.index(name) for name in names])[rows.places.file_of]
        return Texts(codes, tuple(order)).take(np.arange(len(rows)))
    column = None if table.site is None else rows.columns[table.site]
    if not isinstance(column, Texts):
        return None
    pair = alike(column.values)
    if pair:
        first, second = (rows.places.first(column.codes == column.values.index(n)) for n in pair)
        raise DataError(
            f"{second}: site {pair[1]!r} differs only in case or blanks from {pair[0]!r} "
            f"({first}); write them alike"
        )
    return Texts(column.codes, tuple(name.strip() for name in column.values))


def read_unlabelled(table: "Table", schema: Schema, path: Path) -> np.ndarray:
    """Read rows of other files as inputs float32 [m, F] of this schema."""
    texts = frozenset(column.name for column in schema.of_kind("categorical"))
    wanted = [column.name for column in schema.of_kind("numeric")] + sorted(texts)
    bad = BadRows(skip=False, cure="mend it")
    sheets = []
    for file in table_files(path.expanduser())[0]:
        sheet = read_sheet(file, table.format, texts, bad)
        lacks = [name for name in wanted if name not in sheet.cells]
        if lacks:
            raise DataError(
                f"{file}: lacks {', '.join(lacks)}; must have the columns of {table.path}"
            )
        legal = [column.name for column in schema.columns]
        for name in sheet.cells:
            if name not in legal:
                raise DataError(f"{file}: {unknown(name, legal, 'column')}")
        sheets.append(replace(sheet, cells={name: sheet.cells[name] for name in wanted}))
    rows = join(sheets, table.format, Roles(texts, frozenset(), frozenset()), bad)
    return encode(rows, schema)
