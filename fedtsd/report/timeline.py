"""Clusters over the rounds as rectangles, and which of them deserve a name.

Letters: `N` clients; a column is a round.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fedtsd.report.layout import blocks
from fedtsd.report.tables import RunTables

IntArray = npt.NDArray[np.int64]
NOBODY = -1  # a client without a row in a round


@dataclass(frozen=True)
class Block:
    """Rows `top..bottom` share a cluster through columns `begin..end`; the ends are excluded."""

    cluster: int
    top: int
    bottom: int
    begin: int
    end: int

    @property
    def cells(self) -> int:
        """How much of the timeline it covers."""
        return (self.bottom - self.top) * (self.end - self.begin)


def timeline(tables: RunTables, values: str = "cluster") -> tuple[int, IntArray]:
    """First round, and clusters `[N, rounds]`, rows in the order of the figures.

    `values` names another column of the assignments; one that they lack is 0 throughout.
    """
    table = tables.assignments
    if values not in table:
        table = table.assign(**{values: 0})
    table = table.pivot_table(index="client", columns="round", values=values)
    first, last = int(table.columns.min()), int(table.columns.max())
    table = table.reindex(index=tables.order, columns=range(first, last + 1))
    return first, table.fillna(NOBODY).to_numpy(np.int64)


def changes(members: IntArray) -> list[tuple[int, int]]:
    """Spans of columns (start, stop) over which no client changes its cluster."""
    moved = np.any(members[:, 1:] != members[:, :-1], axis=0)
    return list(pairwise([0, *(np.flatnonzero(moved) + 1).tolist(), members.shape[1]]))


def rectangles(members: IntArray) -> list[Block]:
    """Tile the timeline `[N, rounds]` with blocks, each as long as its rows stay together."""
    done: list[Block] = []
    begun: dict[tuple[int, int, int], int] = {}
    for begin, _ in changes(members):
        now = list(blocks(members[:, begin].tolist()))
        for key in [key for key in begun if key not in set(now)]:
            done.append(Block(*key, begun.pop(key), begin))
        for key in now:
            begun.setdefault(key, begin)
    return done + [Block(*key, begin, members.shape[1]) for key, begin in begun.items()]


def named_blocks(members: IntArray) -> list[Block]:
    """The largest block of each connected area of one cluster.

    Leaves out those that reach the last round, for they are named beside it, and areas of nobody.
    """
    from scipy import ndimage

    areas = {k: ndimage.label(members == k)[0] for k in np.unique(members).tolist()}
    largest: dict[tuple[int, int], Block] = {}
    for block in rectangles(members):
        area = (block.cluster, int(areas[block.cluster][block.top, block.begin]))
        if area not in largest or block.cells >= largest[area].cells:
            largest[area] = block
    last = members.shape[1]
    return [b for b in largest.values() if b.end < last and b.cluster != NOBODY]
