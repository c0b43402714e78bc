"""The layout of a CSV file: its columns, and the line of every row.

A pass over the file before the cells are parsed. It finds what a parser mends in silence or names
by numbers of its own: rows with too few cells, bytes that are not text, the line of a row after
cells of several lines.
"""

import codecs
import csv
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from fedtsd.data.table.bad_rows import BadRows
from fedtsd.data.targets import few
from fedtsd.errors import DataError

SEPARATORS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Layout:
    """names: of the columns; those without one are `unnamed` and called `column 3`.

    lines: int64 [n], the line on which each row begins, from 1.
    skip: records that are no rows: the header, blank lines, rows left out; counted from 0.
    """

    separator: str
    names: list[str]
    unnamed: tuple[str, ...]
    lines: np.ndarray
    skip: list[int]


def scan(path: Path, separator: str, decimal: str, encoding: str, bad: BadRows) -> Layout:
    """Return the layout of a CSV file.

    Raises DataError that names the file and line of what is wrong.
    """
    try:
        if separator == "auto":
            with _opened(path, encoding) as file:
                separator = _guessed_separator(file, decimal)
        with _opened(path, encoding) as file:
            layout = _layout(path, file, separator, bad)
    except UnicodeDecodeError as error:
        raise DataError(_undecodable(path, encoding)) from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not len(layout.lines):
        raise DataError(f"{path}: has no rows" if layout.names else f"{path}: is empty")
    return layout


def _layout(path: Path, file: IO[str], separator: str, bad: BadRows) -> Layout:
    names: list[str] = []
    unnamed: list[str] = []
    lines: list[int] = []
    skip: list[int] = []
    for record, (line, row) in enumerate(_records(path, file, separator)):
        if names and len(row) == len(names):
            lines.append(line)
            continue
        skip.append(record)
        if not row or (len(row) == 1 and not row[0].strip()):
            continue
        if names:
            bad.add(f"{path}, line {line}", f"has {len(row)} cells, not {len(names)}")
        else:
            unnamed = [f"column {i}" for i, cell in enumerate(row, 1) if not cell.strip()]
            names = [cell.strip() or f"column {i}" for i, cell in enumerate(row, 1)]
            _check_header(names, f"{path}, line {line}")
    return Layout(separator, names, tuple(unnamed), np.array(lines, dtype=np.int64), skip)


def _records(path: Path, file: IO[str], separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line on which each record begins, and its cells."""
    reader = csv.reader(file, delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}, line {line}: {error}; check its quotes") from error


def _check_header(names: list[str], place: str) -> None:
    if all(re.fullmatch(r"[+-]?[\d.,]+(e[+-]?\d+)?", name) for name in names):
        raise DataError(f"{place}: must name the columns, got the numbers {few(names)}")
    check_names(names, place)


def check_names(names: list[str], place: str) -> None:
    """Raise DataError if two columns have the same name."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        where = " and ".join(str(i) for i, other in enumerate(names, 1) if other == name)
        raise DataError(f"{place}: columns {where} have the same name {name!r}")


def _guessed_separator(file: IO[str], decimal: str) -> str:
    header = next((line for line in file if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", header)
    return max((sep for sep in SEPARATORS if sep != decimal), key=bare.count)


def _opened(path: Path, encoding: str) -> IO[str]:
    if path.name.lower().endswith(".gz"):
        return cast(IO[str], gzip.open(path, "rt", encoding=encoding, newline=""))
    return path.open(encoding=encoding, newline="")


def _undecodable(path: Path, encoding: str) -> str:
    """Find the line and the byte that is not text in this encoding."""
    hint = "say which encoding it has: dataset.encoding=cp1252 (Western), cp932 (Japanese), ..."
    decoder = codecs.getincrementaldecoder(encoding)()
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                decoder.decode(line)
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                return (
                    f"{path}, line {number}: byte {error.start + 1} (0x{byte:02x}) "
                    f"is not {encoding.removesuffix('-sig')}; {hint}"
                )
    return f"{path}: ends within a letter of {encoding.removesuffix('-sig')}; {hint}"
