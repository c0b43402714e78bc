"""What happened to the clusters and personal layers of a run, round by round, in words.

Clusters are told apart by their members: one is the child of the cluster that most of its members
come from, so a change of numbers alone is no event.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedtsd.report.layout import shortened
from fedtsd.report.tables import RunTables
from fedtsd.report.timeline import NOBODY, IntArray, timeline

MOST_NAMED = 3  # clients that an event names one by one
MOST_CHILDREN = 4  # new clusters that a split names one by one


@dataclass(frozen=True)
class Event:
    """Something that changed in `round`; `major` is a split or the choice of personal layers."""

    round: int
    words: str
    major: bool


def events(tables: RunTables) -> list[Event]:
    """Splits, clients that were ejected or moved, and changes of personal layers, by round."""
    first, members = timeline(tables)
    layers = timeline(tables, "personal_layers")[1]
    found = []
    for column in range(1, members.shape[1]):
        was, now = column - 1, column
        found += _regrouped(tables, first + now, members[:, was], members[:, now])
        found += _layers(first + now, layers[:, was], layers[:, now])
    return found


def parents(was: IntArray, now: IntArray) -> dict[int, int]:
    """Cluster of `now` [N] -> the cluster of `was` [N] that most of its members come from.

    Of equals the one with the same number counts, else the lowest. Clients that are absent before
    or after do not.
    """
    pairs = Counter(zip(was.tolist(), now.tolist(), strict=True))
    known = [pair for pair in pairs if NOBODY not in pair]
    ranked = sorted(known, key=lambda pair: (pairs[pair], pair[0] == pair[1], -pair[0]))
    return {new: old for old, new in ranked}  # the best comes last


def _regrouped(tables: RunTables, at: int, was: IntArray, now: IntArray) -> list[Event]:
    if np.array_equal(was, now):
        return []
    origin = parents(was, now)
    children: dict[int, list[int]] = {}
    for new, old in sorted(origin.items()):
        children.setdefault(old, []).append(new)
    split = {old: new for old, new in children.items() if len(new) > 1}
    found = []
    if split:
        count = f"{len(set(was.tolist()) - {NOBODY})} → {len(origin)}"
        parts = "; ".join(f"C{old} into {_named(new)}" for old, new in split.items())
        found.append(Event(at, f"split {count} clusters ({parts})", True))
        found += _alone(tables, at, was, now, split)
    return found + _moved(tables, at, was, now, origin)


def _moved(
    tables: RunTables, at: int, was: IntArray, now: IntArray, origin: dict[int, int]
) -> list[Event]:
    """Clients whose cluster is not a child of the one they were in."""
    strayed = [
        (client, old, new)
        for client, old, new in zip(tables.order, was.tolist(), now.tolist(), strict=True)
        if NOBODY not in (old, new) and origin[new] != old
    ]
    if len(strayed) > MOST_NAMED:
        return [Event(at, f"{len(strayed)} clients moved", False)]
    return [
        Event(at, f"{_who(tables, client)} moved (C{a} → C{b})", False) for client, a, b in strayed
    ]


def _who(tables: RunTables, client: int) -> str:
    """A site by its name, a client by its number."""
    name = shortened(tables.client_names[client])
    return f"client {name}" if tables.sites is None else name


def _named(clusters: Sequence[int]) -> str:
    if len(clusters) > MOST_CHILDREN:
        return str(len(clusters))
    return ", ".join(f"C{k}" for k in clusters)


def _alone(
    tables: RunTables, at: int, was: IntArray, now: IntArray, split: dict[int, list[int]]
) -> list[Event]:
    """Clients that a split left alone; in stage 1 those are ejected (docs/methods.md).

    Unless the split did not know every member: then they wait to be measured.
    """
    found = []
    for old, new in split.items():
        rows = tables.clustering
        rows = rows[(rows["round"] == at) & (rows["cluster"] == old) & (rows["split"] == 1)]
        whole = "size" not in rows or (rows["size"] == (was == old).sum()).all()
        ejected = len(rows) > 0 and (rows["stage"] == 1).all() and whole
        for k in new:
            (members,) = np.nonzero(now == k)
            if len(members) == 1:
                word = "ejected" if ejected else "left alone"
                who = _who(tables, tables.order[members[0]])
                found.append(Event(at, f"{who} {word} (C{k})", False))
    return found


def _layers(at: int, was: IntArray, now: IntArray) -> list[Event]:
    known = (was != NOBODY) & (now != NOBODY)
    changed = int((was != now)[known].sum())
    if not changed:
        return []
    if was[known].max() > 0:
        return [Event(at, f"personal layers changed for {counted(changed, 'client')}", False)]
    low, high = int(now[known].min()), int(now[known].max())
    each = f"{low}" if low == high else f"{low} to {high}"
    return [Event(at, f"personal layers chosen ({each} a client)", True)]


def counted(number: int, noun: str) -> str:
    """The number with its noun, in the plural where it is not one."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
