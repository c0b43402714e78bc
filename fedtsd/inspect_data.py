"""`fedtsd data show`: what a run's clients would hold, before anything is trained.

Shapes: N clients, Y classes.
"""

import io
from collections.abc import Iterable

import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from fedtsd.compose import check, composed
from fedtsd.config import Config
from fedtsd.data.dataset import Facts
from fedtsd.data.federation import SPLITS, Federation
from fedtsd.data.skew import skew_of
from fedtsd.data.table.dataset import Table, schema_of
from fedtsd.data.table.show import show_schema
from fedtsd.loading import load_federation

MOST_CLIENTS = 40
WIDTH = 100


def show_data(overrides: list[str]) -> str:
    """Return the data set, the schema of a table, the clients and their skew, as text.

    `overrides` are those of `fedtsd train`. Raises InputError like it.
    """
    config = check(composed(overrides))
    federation = load_federation(config)
    facts = config.dataset.facts
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False)
    console.print(_headline(config, facts, federation))
    if isinstance(config.dataset, Table):
        console.print(show_schema(schema_of(config.dataset), WIDTH), markup=False)
    console.print(clients_table(federation))
    console.print(f"\nskew: {skew_of(federation).in_words(federation.regression)}")
    shown = schema_of(config.dataset).notes if isinstance(config.dataset, Table) else ()
    for note in federation.notes:
        if note not in shown:
            console.print(f"note: {note}", markup=False)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "".join(line.rstrip() + "\n" for line in text.splitlines())


def _headline(config: Config, facts: Facts, federation: Federation) -> str:
    kind = "images" if facts.is_image else "features"
    shape = " x ".join(map(str, facts.shape))
    predicts = "a number" if facts.regression else f"{len(facts.classes)} classes"
    return (
        f"{config.dataset.name}: {facts.num_samples} samples, {shape} {kind}, {predicts}; "
        f"{len(federation.public)} public samples, {federation.num_clients} clients"
    )


def clients_table(federation: Federation) -> Grid:
    """Return a row per client: samples by split, and the classes it holds; the largest first."""
    counts = {split: federation.label_counts(split) for split in SPLITS}
    sizes = sum(counts[split].sum(axis=1) for split in SPLITS)
    order = np.argsort(-np.asarray(sizes), kind="stable")
    table = Grid(box=None, pad_edge=False, header_style="bold")
    what = "stratum" if federation.regression else "class"
    for title in ("client", *SPLITS, f"{what}es held" if what == "class" else "strata held"):
        table.add_column(title, justify="left" if title == "client" else "right")
    table.add_column(f"most of one {what}", overflow="fold")
    if federation.groups is not None:
        table.add_column("planted group", justify="right")
    for client in order[:MOST_CLIENTS].tolist():
        table.add_row(*_cells(federation, client, [counts[split][client] for split in SPLITS]))
    if len(order) > MOST_CLIENTS:
        table.add_row(f"... and {len(order) - MOST_CLIENTS} smaller ones")
    return table


def _cells(federation: Federation, client: int, counts: Iterable[np.ndarray]) -> list[str]:
    found = list(counts)
    total = np.sum(found, axis=0)
    name = str(client) if federation.names is None else federation.names[client]
    marks = [word for word, ids in (("joins later", federation.newcomers),) if client in ids]
    most = int(total.argmax())
    return [
        ", ".join([name, *marks]),
        *(str(int(part.sum())) for part in found),
        str(int((total > 0).sum())),
        f"{federation.classes[most]} ({100 * total[most] / total.sum():.0f} %)",
        *([] if federation.groups is None else [str(federation.groups[client])]),
    ]
