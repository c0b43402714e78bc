"""Tables for tests: settings as in the config file, and small files."""

from pathlib import Path
from typing import Any

import yaml

from fedtsd.catalogue import conf_dir
from fedtsd.data.npz import ArrayFile
from fedtsd.data.table.dataset import Table
from fedtsd.schema import convert


def _built(name: str, expected: Any, changes: dict[str, Any]) -> Any:
    node = yaml.safe_load((conf_dir() / "dataset" / f"{name}.yaml").read_text())
    return convert({**node, **changes}, expected, "dataset")


def table(**changes: Any) -> Table:
    """A table with the settings of its config file, apart from the changes."""
    return _built("table", Table, {"target": "y", **changes})


def array_file(**changes: Any) -> ArrayFile:
    """Arrays with the settings of their config file, apart from the changes."""
    return _built("arrays", ArrayFile, changes)


def write(path: Path, *lines: str) -> str:
    """Write lines to a file; return its path as settings want it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return str(path)
