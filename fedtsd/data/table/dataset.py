"""The data set `table`: settings, facts, arrays."""

import codecs
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedtsd.data.dataset import Arrays, Facts, check_standardise
from fedtsd.data.files import check_public_size, fingerprint, share_of
from fedtsd.data.table.content import Content, read_content, read_unlabelled
from fedtsd.data.table.schema import Schema
from fedtsd.data.table.sheet import Format
from fedtsd.data.targets import check_task


@dataclass(frozen=True)
class Table:
    """A CSV or Parquet file, or a folder with one per site.

    target: the column to predict. site: the column that says whose a row is; null in a folder with
    a file per site, which is called as the file is, and where there are no sites.
    task: `auto` takes a target of texts, or of few whole numbers, for classes, else for a value.
    classes: all legal ones, in order; null for those that occur.
    """

    name: str
    path: str | None
    target: str | None
    site: str | None
    task: str
    classes: tuple[str, ...] | None
    categorical: tuple[str, ...]
    ignore: tuple[str, ...]
    separator: str
    decimal: str
    encoding: str
    missing: tuple[str, ...]
    max_categories: int
    strata: int
    on_bad: str
    public_size: int | None
    standardise: str

    def __post_init__(self) -> None:
        if self.path is None:
            raise ValueError(
                "path: must be a CSV or Parquet file, or a folder with one per site, got null"
            )
        check_task(self.task, self.strata)
        check_standardise(self.standardise)
        check_public_size(self.public_size)
        self._check_columns()
        self._check_format()

    def _check_columns(self) -> None:
        if self.target is not None and self.target == self.site:
            raise ValueError(f"site: must not be the target, got {self.site!r}")
        for key in ("target", "site"):
            if getattr(self, key) in self.ignore:
                raise ValueError(f"ignore: must not hold the {key}, got {getattr(self, key)!r}")
        for name in self.categorical:
            if name in self.ignore:
                raise ValueError(f"ignore: {name!r} is in dataset.categorical as well")
        if self.classes is not None and self.task == "regression":
            raise ValueError("classes: must be null if task is regression")
        if self.classes is not None and len(set(self.classes)) != max(2, len(self.classes)):
            raise ValueError(f"classes: must be 2 or more that differ, got {list(self.classes)}")

    def _check_format(self) -> None:
        if self.separator != "auto" and len(self.separator) != 1:
            raise ValueError(f"separator: must be auto or one letter, got {self.separator!r}")
        if self.decimal not in (".", ","):
            raise ValueError(f"decimal: must be '.' or ',', got {self.decimal!r}")
        if self.separator == self.decimal:
            raise ValueError(f"separator: must not be the decimal mark, got {self.separator!r}")
        try:
            codecs.lookup(self.encoding)
        except LookupError:
            raise ValueError(
                f"encoding: must be one that Python knows, such as utf-8 or cp1252, "
                f"got {self.encoding!r}"
            ) from None
        if self.max_categories < 2:
            raise ValueError(f"max_categories: must be at least 2, got {self.max_categories}")
        if self.on_bad not in ("error", "skip"):
            raise ValueError(f"on_bad: must be one of error, skip, got {self.on_bad!r}")

    @property
    def format(self) -> Format:
        """How cells are written."""
        return Format(self.separator, self.decimal, self.encoding, self.missing)

    @property
    def texts(self) -> frozenset[str]:
        """Columns that are text whatever they hold."""
        is_class = self.task == "classification" or self.classes is not None
        named = {self.site, self.target if is_class else None, *self.categorical}
        return frozenset(name for name in named if name is not None)

    @property
    def content(self) -> Content:
        """What the files hold now; they are read once for as long as they stay the same."""
        return _content(self, fingerprint(Path(self.path or "")))

    @property
    def facts(self) -> Facts:
        schema = self.content.schema
        return Facts(
            schema.num_samples,
            (len(schema.features),),
            schema.classes,
            schema.task == "regression",
            schema.sites,
            schema.site_sizes,
            schema.notes,
        )

    @property
    def num_public(self) -> int:
        """`public_size`, also where it is null."""
        return share_of(self.facts.num_samples) if self.public_size is None else self.public_size

    def load(self, root: Path) -> Arrays:
        return self.content.arrays

    def read_unlabelled(self, path: Path) -> np.ndarray:
        """Read other rows, without target and site, as inputs float32 [m, F] like those here.

        path: a file, or a folder of files. Target, site and ignored columns may be there.
        Raises DataError naming the file, and the row of a category that does not occur here.
        """
        return read_unlabelled(self, self.content.schema, path)


def schema_of(table: Table) -> Schema:
    """Return the schema of a table; reads its files."""
    return table.content.schema


@lru_cache(maxsize=2)
def _content(table: Table, mark: str) -> Content:
    return read_content(table)
