"""What left the sites and what did not, from the channel's own records (exchanged.csv)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from fedtsd.report.layout import blocks
from fedtsd.report.tables import RunTables

IntArray = npt.NDArray[np.int64]
# What is not a layer, as `fedtsd.messages` names it, and the key of its words here.
OTHER_ITEMS = {
    "sums for standardisation": "sums",
    "outputs on public samples": "outputs",
    "numbers of public samples": "numbers",
    "losses of the cluster models": "losses",
    "divergence between its halves": "noise",
}
MOST_SPANS = 4


@dataclass(frozen=True)
class Span:
    """Rounds `first..last` in which `sites` sites sent the same thing."""

    first: int
    last: int
    sites: int


@dataclass(frozen=True)
class Item:
    """A layer or something else that crossed.

    name: the layer's name, or a key of the words. spans: how many sites sent it (received it, if
    nobody sends it) and when. kept_by: sites that kept it, of the kept_of in the last round,
    kept_from: the round since when some did.
    """

    name: str
    is_layer: bool
    parameters: int | None
    spans: tuple[Span, ...]
    bytes_up: int
    bytes_down: int
    kept_by: int = 0
    kept_of: int = 0
    kept_from: int | None = None

    @property
    def varies(self) -> bool:
        """Whether there are too many spans to list."""
        return len(self.spans) > MOST_SPANS

    @property
    def least_and_most(self) -> tuple[int, int]:
        """The fewest and the most sites that sent it in a round."""
        counts = [span.sites for span in self.spans]
        return min(counts), max(counts)


@dataclass(frozen=True)
class Exchange:
    """What one run's records say. unknown: items that are no layers and not in OTHER_ITEMS."""

    items: tuple[Item, ...]
    unknown: tuple[str, ...]
    num_records: int
    num_rounds: int
    bytes_up: int

    @property
    def layers(self) -> tuple[Item, ...]:
        """The items that are layers, from the input."""
        return tuple(item for item in self.items if item.is_layer)

    @property
    def stopped(self) -> tuple[Item, ...]:
        """Layers that some sites keep at home at the end."""
        return tuple(item for item in self.layers if item.kept_by)

    @property
    def has_outputs(self) -> bool:
        """Whether outputs on public samples were sent."""
        return any(item.name == "outputs" and item.bytes_up for item in self.items)


def exchange(tables: RunTables) -> Exchange | None:
    """Read the records of a run; None where it kept none (runs of older versions)."""
    if not (tables.folder / "exchanged.csv").is_file():
        return None
    records = tables.exchanged
    present = _present(tables)
    layers = _layers(tables)
    known = {tensor for tensors in layers.values() for tensor in tensors}
    others = [name for name in OTHER_ITEMS if name in set(records["item"])]
    items = [_item(tables, records, name, tensors, present) for name, tensors in layers.items()]
    items += [_other(records, name, present) for name in others]
    unknown = sorted(set(records["item"]) - known - set(OTHER_ITEMS))
    up = records.loc[records["direction"] == "up", "num_bytes"].sum()
    return Exchange(tuple(items), tuple(unknown), len(records), len(present), int(up))


def _present(tables: RunTables) -> "pd.Series[int]":
    """Round -> how many sites took part in its training."""
    rounds = sorted(tables.rounds["round"])
    counts = tables.traffic.groupby("round")["client"].nunique()
    if counts.empty:
        counts = tables.exchanged.groupby("round")["num_clients"].max()
    return counts.reindex(rounds, fill_value=0).astype(int)


def _layers(tables: RunTables) -> Mapping[str, list[str]]:
    if tables.model:
        return {str(layer["name"]): list(layer["tensors"]) for layer in tables.model}
    found: dict[str, list[str]] = {}
    for item in dict.fromkeys(tables.exchanged["item"]):
        if "." in item and item not in OTHER_ITEMS:
            found.setdefault(item.rpartition(".")[0], []).append(item)
    return found


def _item(
    tables: RunTables,
    records: pd.DataFrame,
    name: str,
    tensors: list[str],
    present: "pd.Series[int]",
) -> Item:
    rows = records[records["item"].isin(tensors)]
    counts = _counts(rows[rows["item"] == tensors[0]], present)
    kept = present.to_numpy() - counts
    sizes = {str(layer["name"]): int(layer["num_parameters"]) for layer in tables.model}
    return Item(
        name=name,
        is_layer=True,
        parameters=sizes.get(name),
        spans=_spans(counts, present),
        bytes_up=_bytes(rows, "up"),
        bytes_down=_bytes(rows, "down"),
        kept_by=int(kept[-1]) if len(kept) else 0,
        kept_of=int(present.iloc[-1]) if len(kept) else 0,
        kept_from=_since(kept, present),
    )


def _other(records: pd.DataFrame, name: str, present: "pd.Series[int]") -> Item:
    rows = records[records["item"] == name]
    direction = str(rows["direction"].iloc[0])
    if rows["round"].min() == 0:  # sent once, before the first round
        present = pd.concat([pd.Series({0: 0}), present])
    spans = _spans(_counts(rows, present, direction), present)
    when = tuple(span for span in spans if span.sites)
    return Item(OTHER_ITEMS[name], False, None, when, _bytes(rows, "up"), _bytes(rows, "down"))


def _counts(rows: pd.DataFrame, present: "pd.Series[int]", direction: str = "up") -> IntArray:
    """How many sites sent something, `[rounds]`."""
    sent = rows[rows["direction"] == direction].groupby("round")["num_clients"].sum()
    return sent.reindex(present.index, fill_value=0).to_numpy(np.int64)


def _spans(counts: IntArray, present: "pd.Series[int]") -> tuple[Span, ...]:
    rounds = [int(r) for r in present.index]
    return tuple(Span(rounds[a], rounds[b - 1], n) for n, a, b in blocks(counts.tolist()))


def _since(kept: IntArray, present: "pd.Series[int]") -> int | None:
    """The first round of the last stretch in which some sites kept the layer."""
    if not len(kept) or kept[-1] <= 0:
        return None
    ended = np.flatnonzero(kept <= 0)
    return int(present.index[ended[-1] + 1 if len(ended) else 0])


def _bytes(rows: pd.DataFrame, direction: str) -> int:
    return int(rows.loc[rows["direction"] == direction, "num_bytes"].sum())
