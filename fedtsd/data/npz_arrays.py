"""A person's arrays, checked and typed: inputs, target, sites.

Shapes: n samples, F features, C channels, H x W pixels, S sites.
"""

import numpy as np

from fedtsd.data.npz_entries import Entry
from fedtsd.data.targets import (
    Target,
    alike,
    few,
    guessed_task,
    in_order,
    is_whole,
    named_numbers,
    number_text,
    regression,
)
from fedtsd.errors import DataError

MOST_CHANNELS = 4
BLOCK = 2**22
"""Cells that are looked at together: memory stays small where the inputs are a memory map."""


def read_inputs(
    entry: Entry, channels: str
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Return inputs uint8 [n, C, H, W] or float32 [n, F], which features are scaled, and notes.

    Nothing is copied if the type is right and no value is missing.
    """
    array = entry.array
    if array.size and array.ndim == 2 and array.dtype.kind in "biuf":
        return _numbers(entry)
    if not array.size or array.ndim not in (3, 4) or array.dtype != np.uint8:
        raise DataError(
            f"{entry.place}: must be images uint8 [n, C, H, W] or [n, H, W], or numbers [n, F], "
            f"got {entry.form}"
        )
    if array.ndim == 3:
        return array[:, None], None, ()
    images = np.moveaxis(array, -1, 1) if channels == "last" else array
    if images.shape[1] > MOST_CHANNELS:
        other = "first" if channels == "last" else "last"
        raise DataError(
            f"{entry.place}: has {images.shape[1]} channels in {entry.form}, at most "
            f"{MOST_CHANNELS} are legal; is it dataset.channels={other}?"
        )
    return images, None, ()


def _numbers(entry: Entry) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    with np.errstate(over="ignore"):
        inputs = entry.array.astype(np.float32, copy=False)
    missing, constant = _looked_through(entry, inputs)
    gaps = np.flatnonzero(missing)
    notes = []
    if constant:
        notes.append(f"x has {constant} of {inputs.shape[1]} columns with one value only")
    if not len(gaps):
        return inputs, None, tuple(notes)
    notes.append(
        f"x has {missing.sum():,} missing values, in columns {few(map(str, gaps.tolist()), 10)}; "
        "a further column for each says where"
    )
    scaled = np.arange(inputs.shape[1] + len(gaps)) < inputs.shape[1]
    return np.hstack([inputs, np.isnan(inputs[:, gaps])]), scaled, tuple(notes)


def _looked_through(entry: Entry, inputs: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the missing values of each column, int64 [F], and how many columns are constant."""
    width = inputs.shape[1]
    missing = np.zeros(width, dtype=np.int64)
    low, high = np.full(width, np.nan, np.float32), np.full(width, np.nan, np.float32)
    step = max(1, BLOCK // width)
    for start in range(0, len(inputs), step):
        block = inputs[start : start + step]
        infinite = np.argwhere(np.isinf(block))
        if len(infinite):
            row, column = start + infinite[0, 0], infinite[0, 1]
            raise DataError(
                f"{entry.place}: [{row}, {column}] is {entry.array[row, column]}, infinite or "
                "beyond float32; must be finite, or NaN where missing"
            )
        missing += np.isnan(block).sum(axis=0)
        low = np.fmin(low, np.fmin.reduce(block, axis=0))
        high = np.fmax(high, np.fmax.reduce(block, axis=0))
    if np.any(missing == len(inputs)):
        column = int(np.argmax(missing == len(inputs)))
        raise DataError(f"{entry.place}: column {column} is NaN in every row; leave it out")
    return missing, int(np.count_nonzero((low == high) & (missing == 0)))


def read_target(
    entry: Entry, classes: Entry | None, task: str, strata: int
) -> tuple[Target, tuple[str, ...]]:
    """Return what y asks to predict, and notes. Raises DataError naming the sample, from 0."""
    names = None if classes is None else _class_names(classes)
    if names is not None and task == "regression":
        raise DataError(f"{entry.place}: dataset.task=regression has no classes, but the file has")
    y = _flat(entry, "biufUS")
    if y.dtype.kind not in "iuf":
        if task == "regression":
            raise DataError(
                f"{entry.place}: dataset.task=regression needs numbers, got {entry.form}"
            )
        target = _named_texts(entry, _as_text(entry, y), names)
    else:
        target = _from_numbers(entry, y, names, task, strata)
    held = np.bincount(target.labels, minlength=len(target.classes))
    if np.count_nonzero(held) == 1:
        raise DataError(f"{entry.place}: is the same in every sample; must differ")
    notes = []
    if task == "auto" and target.values is not None and is_whole(y):
        notes.append(
            f"y has {len(np.unique(y)):,} different whole numbers, so it is a value, not a class; "
            "dataset.task says otherwise"
        )
    absent = [name for name, count in zip(target.classes, held, strict=True) if not count]
    if absent:
        notes.append(f"no sample has the class: {few(absent, 10)}")
    return target, tuple(notes)


def _from_numbers(
    entry: Entry, y: np.ndarray, names: tuple[str, ...] | None, task: str, strata: int
) -> Target:
    values = y.astype(np.float64)
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32))
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(f"{entry.place}: [{row}] is {y[row]}; must be a finite number")
    if names is not None:
        known = (values == np.round(values)) & (values >= 0) & (values < len(names))
        if not known.all():
            row = int(np.argmin(known))
            raise DataError(
                f"{entry.place}: [{row}] is {number_text(values[row])}; must be 0 to "
                f"{len(names) - 1}, the position in classes ({few(names, 10)})"
            )
        return Target(values.astype(np.int64), names)
    chosen = guessed_task(values) if task == "auto" else task
    return regression(values, strata) if chosen == "regression" else named_numbers(values)


def _named_texts(entry: Entry, y: np.ndarray, names: tuple[str, ...] | None) -> Target:
    found, codes = np.unique(y, return_inverse=True)
    legal = list(names) if names is not None else in_order(found.tolist())
    for code, text in enumerate(found.tolist()):
        if not text.strip() or text not in legal:
            row = int(np.argmax(codes == code))
            must = f"one of {few(legal, 10)}" if text.strip() else "a class"
            raise DataError(f"{entry.place}: [{row}] is {text!r}; must be {must}")
    position = np.array([legal.index(text) for text in found.tolist()])
    return Target(position[codes].astype(np.int64), tuple(legal))


def _class_names(entry: Entry) -> tuple[str, ...]:
    names = _as_text(entry, _flat(entry, "iuUS")).tolist()
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"{entry.place}: must be 2 or more names that differ, got {few(names)}")
    return tuple(names)


def read_sites(entry: Entry | None) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return whose each sample is, int64 [n], and the S names; None and nothing without sites."""
    if entry is None:
        return None, ()
    found, codes = np.unique(_as_text(entry, _flat(entry, "iuUS")), return_inverse=True)
    pair = alike(found.tolist())
    if pair:
        raise DataError(
            f"{entry.place}: sites {pair[0]!r} and {pair[1]!r} differ only in case or blanks; "
            "write them alike"
        )
    if "" in (text.strip() for text in found.tolist()):
        row = int(np.argmax(np.char.strip(found[codes]) == ""))
        raise DataError(f"{entry.place}: [{row}] has no name; every sample must have a site")
    names = in_order(found.tolist())
    position = np.array([names.index(text) for text in found.tolist()])
    return position[codes].astype(np.int64), tuple(name.strip() for name in names)


def _flat(entry: Entry, kinds: str) -> np.ndarray:
    """Return the array as [n]. Raises DataError if it has another shape, or type of value."""
    array = entry.array
    flat = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)
    if not flat or array.dtype.kind not in kinds or not array.size:
        what = "whole numbers or texts" if "f" not in kinds else "numbers or texts"
        raise DataError(f"{entry.place}: must be {what} [n], got {entry.form}")
    return array.reshape(-1)


def _as_text(entry: Entry, array: np.ndarray) -> np.ndarray:
    try:
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array.astype(str)
    except UnicodeDecodeError as error:
        raise DataError(f"{entry.place}: must be text in utf-8, got {error.object!r}") from error
