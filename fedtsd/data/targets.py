"""What a person's data ask to predict: classes, or a value and its strata.

Shapes: n samples, Y classes or strata.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

TASKS = ("auto", "classification", "regression")
MOST_CLASSES = 20
"""Different whole numbers up to which a target is guessed to be a class, not a value."""


@dataclass(frozen=True)
class Target:
    """labels: int64 [n], 0 to Y - 1. classes: the Y names. values: float32 [n] in regression."""

    labels: np.ndarray
    classes: tuple[str, ...]
    values: np.ndarray | None = None


def check_task(task: str, strata: int) -> None:
    """Raise ValueError unless both settings are legal."""
    if task not in TASKS:
        raise ValueError(f"task: must be one of {', '.join(TASKS)}, got {task!r}")
    if strata < 2:
        raise ValueError(f"strata: must be at least 2, got {strata}")


def guessed_task(values: np.ndarray) -> str:
    """Return what numbers [n] without NaN look like: few whole numbers are classes."""
    is_class = is_whole(values) and len(np.unique(values)) <= MOST_CLASSES
    return "classification" if is_class else "regression"


def is_whole(values: np.ndarray) -> bool:
    """Whether numbers [n] are all whole, and none is missing."""
    return bool(np.all(values == np.round(values)))


def named_numbers(values: np.ndarray) -> Target:
    """Return numbers [n] as classes, in order of size."""
    distinct, labels = np.unique(values, return_inverse=True)
    return Target(labels.astype(np.int64), tuple(number_text(value) for value in distinct))


def regression(values: np.ndarray, count: int) -> Target:
    """Return numbers [n] with their strata: up to `count` intervals that hold about equally many.

    A value that is very frequent may fill an interval alone. A name is the range of what lies
    inside: `12 to 30`.
    """
    inner = np.unique(np.quantile(values, np.linspace(0, 1, count + 1)[1:-1]))
    # A value that fills many intervals belongs below its edge or above: whichever cuts more.
    cuts = [np.searchsorted(inner, values, side=side) for side in ("left", "right")]
    intervals = max(cuts, key=lambda cut: len(np.unique(cut)))
    _, labels = np.unique(intervals, return_inverse=True)
    within = [values[labels == stratum] for stratum in range(labels.max() + 1)]
    names = range_names([(part.min(), part.max()) for part in within])
    return Target(labels.astype(np.int64), names, values.astype(np.float32))


def range_names(ranges: list[tuple[float, float]]) -> tuple[str, ...]:
    """Name disjoint ranges with as few digits as keep the names apart, but at least three."""
    names: list[str] = []
    for digits in range(3, 18):
        names = [_range_name(low, high, digits) for low, high in ranges]
        if len(set(names)) == len(names):
            break
    return tuple(names)


def _range_name(low: float, high: float, digits: int) -> str:
    first, last = _rounded(low, digits), _rounded(high, digits)
    return first if low == high else f"{first} to {last}"


def _rounded(value: float, digits: int) -> str:
    whole = value == round(value) and abs(value) < 1e15
    return number_text(value) if whole else f"{value:.{digits}g}"


def number_text(value: float) -> str:
    """Write a number as a person would: 3 for 3.0, else with all its digits."""
    whole = value == round(value) and abs(value) < 1e15
    return str(int(value)) if whole else repr(float(value))


def in_order(texts: Iterable[str]) -> list[str]:
    """Sort texts, numbers in them by size: `site 2` before `site 10`, -3 before -2."""
    found = list(texts)
    if all(re.fullmatch(r"[+-]?[0-9]+", text) for text in found):
        return sorted(found, key=lambda text: (int(text), text))
    return sorted(found, key=_pieces)


def _pieces(text: str) -> tuple[tuple[str | int, ...], str]:
    # Words and numbers alternate, so that like is compared with like.
    pieces = re.split(r"([0-9]+)", text)
    return tuple(int(piece) if i % 2 else piece for i, piece in enumerate(pieces)), text


def alike(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that differ only in case or surrounding blanks, if any do."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.strip().casefold(), name)
        if other != name:
            return other, name
    return None


def few(texts: Iterable[str], most: int = 5, mark: str = ", ") -> str:
    """List texts in a line; of many the first ones, and how many more there are."""
    found = list(texts)
    more = f" and {len(found) - most:,} more" if len(found) > most else ""
    return mark.join(found[:most]) + more


def one_class_notes(codes: np.ndarray, sites: tuple[str, ...], target: Target) -> Iterator[str]:
    """Yield a line for each site whose samples are all of one class; codes: int64 [n]."""
    if target.values is not None:
        return
    for code, site in enumerate(sites):
        held = np.unique(target.labels[codes == code])
        if len(held) == 1:
            size = np.count_nonzero(codes == code)
            yield f"site {site} has one class only: {target.classes[held[0]]} ({size:,} samples)"
