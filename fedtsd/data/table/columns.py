"""A column over all rows: numbers, or texts.

Shapes: n rows, V different texts.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedtsd.data.table.sheet import Format
from fedtsd.data.targets import in_order

MOSTLY = 0.9
"""Share of numbers from which a text among them is taken for a mistake."""
NUMBER = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?)", re.IGNORECASE)


@dataclass(frozen=True)
class Numbers:
    """values: float64 [n], NaN where missing."""

    values: np.ndarray

    @property
    def is_missing(self) -> np.ndarray:
        """Where there is no value, bool [n]."""
        return np.asarray(np.isnan(self.values))

    def take(self, rows: np.ndarray) -> "Numbers":
        """Return the column of these rows."""
        return Numbers(self.values[rows])


@dataclass(frozen=True)
class Texts:
    """values: the V texts that occur, in order. codes: int64 [n], which one; -1 where missing."""

    codes: np.ndarray
    values: tuple[str, ...]

    @property
    def is_missing(self) -> np.ndarray:
        """Where there is no value, bool [n]."""
        return self.codes < 0

    def text(self, row: int) -> str:
        """Return the text of a row that has one."""
        return self.values[int(self.codes[row])]

    def take(self, rows: np.ndarray) -> "Texts":
        """Return the column of these rows, without the texts that they lack."""
        codes = self.codes[rows]
        used = np.unique(codes[codes >= 0])
        renamed = np.full(len(self.values) + 1, -1)
        renamed[used] = np.arange(len(used))
        return Texts(renamed[codes], tuple(self.values[code] for code in used))


Values = Numbers | Texts


@dataclass(frozen=True)
class Mixed:
    """Cells in which numbers and texts both occur.

    texts: where a cell is text, bool [n]. share: of numbers among the cells that are not missing.
    parsed: whether some cells had been read as numbers: in their files the column is all numbers.
    """

    numbers: Numbers
    as_text: Texts
    texts: np.ndarray
    share: float
    parsed: bool


def as_texts(cells: np.ndarray, form: Format, strip: bool = True) -> Texts:
    """Return object cells [n] as texts, without the blanks around them."""
    codes, found = _distinct(cells, form)
    return _texts(codes, [cell.strip() if strip and cell else cell for cell in found])


def sort_out(cells: np.ndarray, form: Format) -> Values | Mixed:
    """Return object cells [n] as numbers if they all are, as texts if none is."""
    codes, found = _distinct(cells, form)
    numbers = np.array([_number(cell, form.decimal) for cell in found] + [np.nan])
    is_text = np.array([cell is not None for cell in found] + [False]) & np.isnan(numbers)
    texts = is_text[codes]
    values = Numbers(numbers[codes])
    if not texts.any():
        return values
    as_text = _texts(codes, [str(cell).strip() if cell is not None else None for cell in found])
    share = 1 - texts.sum() / (texts.sum() + np.count_nonzero(~values.is_missing))
    if share == 0:
        return as_text
    parsed = any(isinstance(cell, float) for cell in found)
    return Mixed(values, as_text, texts, float(share), parsed)


def _distinct(cells: np.ndarray, form: Format) -> tuple[np.ndarray, list[Any]]:
    """Return codes [n] and the different cells; a missing one is None, or has the code -1."""
    import pandas as pd

    codes, found = pd.factorize(cells)
    missing = {text.casefold() for text in ("", *form.missing)}
    kept = [
        None if isinstance(cell, str) and cell.strip().casefold() in missing else cell
        for cell in found
    ]
    return codes, kept


def _texts(codes: np.ndarray, found: list[str | None]) -> Texts:
    values = in_order({text for text in found if text is not None})
    position = {text: i for i, text in enumerate(values)}
    renamed = [-1 if text is None else position[text] for text in found]
    return Texts(np.array([*renamed, -1])[codes], tuple(values))


def _number(cell: Any, decimal: str) -> float:
    """Return a cell as a number, NaN if it is none."""
    if not isinstance(cell, str):
        return np.nan if cell is None else float(cell)
    text = cell.strip()
    if decimal != ".":
        text = text.replace(".", " ").replace(decimal, ".")
    return float(text) if NUMBER.fullmatch(text) else np.nan


def is_written_with(column: Texts, decimal: str) -> bool:
    """Whether all texts would be numbers with another decimal mark."""
    return not np.isnan([_number(text, decimal) for text in column.values]).any()


def distinct(column: Values) -> int:
    """Return how many different values there are, missing ones apart."""
    if isinstance(column, Texts):
        return len(column.values)
    return len(np.unique(column.values[~column.is_missing]))
