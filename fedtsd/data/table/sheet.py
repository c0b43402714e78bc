"""One file of a table: CSV or Parquet becomes columns whose rows know their line.

Shapes: n rows.
"""

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedtsd.data.table.bad_rows import BadRows
from fedtsd.data.table.layout import Layout, check_names, scan
from fedtsd.data.targets import number_text
from fedtsd.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

TEXT_FILES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
ENDINGS = (*TEXT_FILES, ".parquet")


@dataclass(frozen=True)
class Format:
    """How cells are written: see `conf/dataset/table.yaml`."""

    separator: str
    decimal: str
    encoding: str
    missing: tuple[str, ...]

    @property
    def codec(self) -> str:
        """The encoding; of UTF-8 the kind that drops the mark that Excel writes in front."""
        return "utf-8-sig" if codecs.lookup(self.encoding).name == "utf-8" else self.encoding


@dataclass(frozen=True)
class Sheet:
    """The rows of one file.

    cells: by column float64 [n], or objects [n]: text as it is written, NaN where missing.
    lines: int64 [n], the line of each row as an editor counts; of Parquet the row, from 1.
    unnamed: columns without a name, called `column 3` here.
    """

    path: Path
    cells: dict[str, np.ndarray]
    lines: np.ndarray
    unnamed: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """What `lines` counts."""
        return "line" if ending(self.path) in TEXT_FILES else "row"


def ending(path: Path) -> str | None:
    """Return the legal ending of a file's name, None if it has none."""
    return next((end for end in ENDINGS if path.name.lower().endswith(end)), None)


def stem(path: Path) -> str:
    """Return the file's name without its ending: what a site is called."""
    return path.name[: -len(ending(path) or path.suffix)]


def read_sheet(path: Path, form: Format, text: frozenset[str], bad: BadRows) -> Sheet:
    """Read one file. text: columns that are kept as they are written, as 007.

    Raises DataError with one line that names the file and, where there is one, the line.
    """
    if ending(path) == ".parquet":
        return _read_parquet(path, text)
    layout = scan(path, form.separator, form.decimal, form.codec, bad)
    return Sheet(path, _parse(path, form, layout, text), layout.lines, layout.unnamed)


def _parse(path: Path, form: Format, layout: Layout, text: frozenset[str]) -> dict[str, np.ndarray]:
    """Parse as numbers what is numbers in a whole column, and the other columns again as text."""
    import pandas as pd

    options: dict[str, Any] = {
        "sep": layout.separator,
        "decimal": form.decimal,
        "encoding": form.codec,
        "header": None,
        "names": layout.names,
        "skiprows": layout.skip,
        "skip_blank_lines": False,
        "index_col": False,
        "na_values": ["", *form.missing],
        "keep_default_na": False,
        "low_memory": False,
    }
    try:
        frame = pd.read_csv(path, dtype=dict.fromkeys(text & {*layout.names}, object), **options)
        numeric = [name for name in layout.names if name not in text and _numeric(frame[name])]
        again = [name for name in layout.names if name not in text and name not in numeric]
        texts = pd.read_csv(path, usecols=again, dtype=object, **options) if again else frame
    except ValueError as error:
        raise DataError(f"{path}: cannot be read: {first_line(error)}") from error
    if len(frame) != len(layout.lines):
        raise DataError(
            f"{path}: rows cannot be told apart (are they {len(layout.lines)} or {len(frame)}?); "
            "check its quotes"
        )
    cells = {name: frame[name].to_numpy(np.float64) for name in numeric}
    cells |= {name: frame[name].to_numpy() for name in text & {*layout.names}}
    cells |= {name: texts[name].to_numpy() for name in again}
    return {name: cells[name] for name in layout.names}


def _read_parquet(path: Path, text: frozenset[str]) -> Sheet:
    import pandas as pd

    try:
        frame = pd.read_parquet(path, engine="pyarrow")
    except ImportError as error:
        raise DataError(f"{path}: Parquet needs: pip install 'fedtsd[parquet]'") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {first_line(error)}") from error
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    frame.columns = [str(name) for name in frame.columns]
    check_names(list(frame.columns), str(path))
    if not len(frame):
        raise DataError(f"{path}: has no rows")
    cells = {name: _column(frame[name], name in text) for name in frame.columns}
    return Sheet(path, cells, np.arange(1, len(frame) + 1))


def _column(column: "pd.Series[Any]", text: bool) -> np.ndarray:
    if _numeric(column) and not text:
        return column.to_numpy(np.float64, na_value=np.nan)
    written = column.astype(object).map(_written, na_action="ignore")
    return written.where(written.notna(), np.nan).to_numpy(object)


def _numeric(column: "pd.Series[Any]") -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return is_numeric_dtype(column.dtype) and not is_bool_dtype(column.dtype)


def _written(value: Any) -> str:
    return number_text(value) if isinstance(value, float) else str(value)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
