"""From typed columns to the inputs of a model.

Shapes: n rows, F features.
"""

import numpy as np

from fedtsd.data.table.columns import NUMBER, Numbers, Texts
from fedtsd.data.table.rows import Rows
from fedtsd.data.table.schema import Column, Schema, categories
from fedtsd.errors import DataError


def encode(rows: Rows, schema: Schema) -> np.ndarray:
    """Return float32 [n, F] in the order of `schema.features`.

    Numeric columns keep their unit, NaN where missing; whether they are missing, and one-hot
    columns, are 0 or 1. The schema may come from other rows.

    Raises DataError naming the row of a text among numbers, or of a category that is unknown.
    """
    inputs = np.zeros((len(rows), len(schema.features)), dtype=np.float32)
    numeric = schema.of_kind("numeric")
    for at, column in enumerate(numeric):
        inputs[:, at] = _numbers(rows, column).values
    at = len(numeric)
    for column in numeric:
        if column.missing:
            inputs[:, at] = rows.columns[column.name].is_missing
            at += 1
    for column in schema.of_kind("categorical"):
        inputs[np.arange(len(rows)), at + _codes(rows, column)] = 1
        at += len(categories(column))
    return inputs


def scaled(schema: Schema) -> np.ndarray:
    """Return which features are standardised, bool [F]: the numeric columns themselves."""
    return np.arange(len(schema.features)) < len(schema.of_kind("numeric"))


def _numbers(rows: Rows, column: Column) -> Numbers:
    values = rows.columns[column.name]
    if isinstance(values, Texts):
        wrong = [not NUMBER.fullmatch(text.replace(",", ".")) for text in values.values]
        row = int(np.argmax(np.array([*wrong, False])[values.codes]))
        raise DataError(
            f"{rows.places.name(row)}: column {column.name!r} has {values.text(row)!r}, "
            "must be a number"
        )
    return values


def _codes(rows: Rows, column: Column) -> np.ndarray:
    """Return the position of each row's category, int64 [n]."""
    values = rows.columns[column.name]
    known = {text: code for code, text in enumerate(column.values)}
    if isinstance(values, Numbers):
        raise TypeError(f"column {column.name!r} must be read as text")
    codes = np.array([known.get(text, -1) for text in values.values] + [len(known)])[values.codes]
    legal = len(categories(column))
    if np.any(unknown := (codes < 0) | (codes >= legal)):
        row = int(np.argmax(unknown))
        text = "no value" if values.codes[row] < 0 else repr(values.text(row))
        raise DataError(
            f"{rows.places.name(row)}: column {column.name!r} has {text}, must be one of "
            f"{', '.join(categories(column))}"
        )
    return np.asarray(codes)
