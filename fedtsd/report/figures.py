"""The figures of one run: functions of its tables, written as PDF and PNG.

Drawing the same tables again gives the same bytes. No pyplot, no torch.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from matplotlib.figure import Figure

from fedtsd.errors import InputError
from fedtsd.report.accuracy import accuracy
from fedtsd.report.clusters import clusters
from fedtsd.report.partition import partition
from fedtsd.report.similarity import similarity
from fedtsd.report.style import paper_style
from fedtsd.report.tables import RunTables

__all__ = ["FIGURES", "accuracy", "clusters", "draw", "partition", "save", "similarity"]

FIGURES: dict[str, Callable[[RunTables], Figure]] = {
    "accuracy": accuracy,
    "partition": partition,
    "similarity": similarity,
    "clusters": clusters,
}
# Whatever a file says of its maker or its time would differ from one drawing to the next.
ANONYMOUS: dict[str, dict[str, str | None]] = {
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "png": {"Software": None},
}


def draw(folder: Path, names: Iterable[str] | None = None) -> list[Path]:
    """Draw figures of the run in `folder` into `folder/figures`; return the files written.

    Without `names`, every figure that the run has data for. Raises `InputError` for an unknown
    name, `RunFolderError` for a table that is missing or broken.
    """
    chosen = None if names is None else list(names)
    _check_names(chosen or [])
    tables = RunTables.read(folder)
    if chosen is None:
        chosen = [name for name in FIGURES if name != "similarity" or tables.similarity]
    return [path for name in chosen for path in save(FIGURES[name](tables), tables.folder, name)]


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write `folder/figures/NAME.pdf` and `.png`."""
    target = folder / "figures"
    target.mkdir(exist_ok=True)
    paths = []
    with paper_style():  # fonts and their embedding are settings read while saving
        for kind, metadata in ANONYMOUS.items():
            path = target / f"{name}.{kind}"
            figure.savefig(path, format=kind, metadata=metadata)
            paths.append(path)
    return paths


def _check_names(names: list[str]) -> None:
    for name in names:
        if name not in FIGURES:
            raise InputError(f"figure: unknown {name!r}; choose from {', '.join(FIGURES)}")
