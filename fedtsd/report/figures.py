"""The figures: functions of the tables of one run, or of many, written as PDF and PNG.

Drawing the same tables again gives the same bytes. No pyplot, no torch.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from fedtsd.errors import InputError
from fedtsd.report.ablation import ablation
from fedtsd.report.accuracy import accuracy
from fedtsd.report.across import NotApplicableError
from fedtsd.report.alluvial import alluvial
from fedtsd.report.budget import OFFICE, budget
from fedtsd.report.clusters import clusters
from fedtsd.report.cost import Site
from fedtsd.report.critical_difference import critical_difference
from fedtsd.report.gain import gain
from fedtsd.report.hopkins import hopkins
from fedtsd.report.partition import partition
from fedtsd.report.personal import personal_layers
from fedtsd.report.results import Results
from fedtsd.report.rounds import rounds
from fedtsd.report.severity import severity
from fedtsd.report.similarity import similarity, similarity_change
from fedtsd.report.spread import clients
from fedtsd.report.style import paper_style
from fedtsd.report.tables import RunTables

__all__ = [
    "FIGURES", "RESULT_FIGURES", "NotApplicableError", "accuracy", "clusters", "draw",
    "draw_results", "partition", "save", "similarity",
]  # fmt: skip

log = logging.getLogger(__name__)

FIGURES: dict[str, Callable[[RunTables], Figure]] = {
    "accuracy": accuracy,
    "partition": partition,
    "similarity": similarity,
    "similarity_change": similarity_change,
    "clusters": clusters,
    "hopkins": hopkins,
    "alluvial": alluvial,
}
RESULT_FIGURES: dict[str, Callable[[Results], Figure]] = {
    "rounds": rounds,
    "severity": severity,
    "personal_layers": personal_layers,
    "budget": budget,
    "ablation": ablation,
    "critical_difference": critical_difference,
    "clients": clients,
    "gain": gain,
}


def figures_about(
    reference: str, site: Site = OFFICE, target: float | None = None
) -> dict[str, Callable[[Results], Figure]]:
    """Return RESULT_FIGURES made for one method, one kind of site and one target score."""
    return {
        **RESULT_FIGURES,
        "budget": partial(budget, site=site, target=target),
        "ablation": partial(ablation, base=reference),
    }


# Whatever a file says of its maker or its time would differ from one drawing to the next.
ANONYMOUS: dict[str, dict[str, str | None]] = {
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "png": {"Software": None},
}


def draw(
    folder: Path, names: Iterable[str] | None = None, target: Path | None = None
) -> list[Path]:
    """Draw figures of the run in `folder` into `target/figures` (`folder/figures` without one).

    Without `names`, every figure that the run has data for. Returns the files written. Raises
    `InputError` for an unknown name, `RunFolderError` for a table that is missing or broken.
    """
    chosen = None if names is None else list(names)
    _check_names(chosen or [], FIGURES)
    tables = RunTables.read(folder)
    if chosen is None:
        chosen = [name for name in FIGURES if tables.similarity or "similarity" not in name]
    place = target or tables.folder
    return [path for name in chosen for path in save(FIGURES[name](tables), place, name)]


def draw_results(
    results: Results,
    target: Path,
    names: Iterable[str] | None = None,
    figures: Mapping[str, Callable[[Results], Figure]] = RESULT_FIGURES,
) -> list[Path]:
    """Draw figures across runs into `target/figures`; return the files written.

    Without `names`, every figure that applies; why others do not goes to the log. Raises
    `InputError` for an unknown name, `NotApplicableError` for a named figure that does not apply.
    """
    chosen = None if names is None else list(names)
    _check_names(chosen or [], figures)
    target.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for name in figures if chosen is None else chosen:
        try:
            figure = figures[name](results)
        except NotApplicableError as reason:
            if chosen is not None:
                raise
            log.info("not drawn: %s", reason)
            continue
        paths += save(figure, target, name)
    return paths


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


def _check_names(names: list[str], known: Mapping[str, object]) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"figure: unknown {name!r}; choose from {', '.join(known)}")
