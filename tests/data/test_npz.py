"""People's own arrays: what they become, and what is wrong with them in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_wine

from fedtsd.data import npz, npz_arrays
from fedtsd.data.dataset import Arrays
from fedtsd.data.npz import ArrayFile
from fedtsd.errors import ConfigError, DataError
from tests.data.tables import array_file

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 0, 1])


def saved(folder: Path, settings: dict[str, Any] | None = None, **arrays: Any) -> ArrayFile:
    np.savez(folder / "t.npz", **arrays)
    return array_file(path=str(folder / "t.npz"), **(settings or {}))


def load(data: ArrayFile) -> Arrays:
    return data.load(Path())


def test_numbers_and_sites_become_arrays(tmp_path: Path) -> None:
    data = saved(tmp_path, x=X.astype(np.int16), y=["b", "a", "b", "b"], site=[10, 2, 10, 2])
    arrays, facts = load(data), data.facts
    assert arrays.inputs.dtype == np.float32
    assert np.array_equal(arrays.inputs, X)
    assert arrays.labels.tolist() == [1, 0, 1, 1]
    assert arrays.sites is not None
    assert arrays.sites.tolist() == [1, 0, 1, 0]
    assert (arrays.labels.dtype, arrays.sites.dtype) == (np.int64, np.int64)
    assert arrays.scaled is None
    assert (facts.num_samples, facts.shape, facts.classes) == (4, (3,), ("a", "b"))
    assert (facts.sites, facts.site_sizes) == (("2", "10"), (2, 2))
    assert facts.notes == ("site 10 has one class only: b (2 samples)",)


def test_other_names_of_keys_are_legal_and_further_keys_are_noted(tmp_path: Path) -> None:
    data = saved(tmp_path, inputs=X, targets=Y, ids=np.arange(4))
    assert load(data).labels.tolist() == [0, 1, 0, 1]
    assert data.facts.notes == ("not read: ids",)


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((4, 5, 6), "first", (1, 5, 6)),
        ((4, 3, 5, 6), "first", (3, 5, 6)),
        ((4, 5, 6, 3), "last", (3, 5, 6)),
    ],
)
def test_images_have_channels_first(
    tmp_path: Path, shape: tuple[int, ...], channels: str, expected: tuple[int, ...]
) -> None:
    images = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    data = saved(tmp_path, {"channels": channels}, x=images, y=Y)
    inputs = load(data).inputs
    assert data.facts.shape == inputs.shape[1:] == expected
    assert data.facts.is_image
    assert inputs.dtype == np.uint8
    pixel = inputs[3, -1, 2, 1]
    assert pixel == images[(3, 2, 1) if len(shape) == 3 else
                           (3, 2, 2, 1) if channels == "first" else (3, 2, 1, 2)]  # fmt: skip


def test_a_folder_is_read_as_memory_maps_without_a_copy(tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", X)
    np.save(tmp_path / "labels.npy", Y)
    np.save(tmp_path / "site.npy", np.array(["u", "v", "v", "u"]))
    arrays = load(array_file(path=str(tmp_path)))
    assert isinstance(arrays.inputs, np.memmap)
    assert not arrays.inputs.flags.writeable
    assert np.array_equal(arrays.inputs, X)
    assert arrays.sites is not None
    assert arrays.sites.tolist() == [0, 1, 1, 0]


def test_images_of_a_folder_stay_on_disk_with_channels_last(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 5, 6, 3), np.uint8))
    np.save(tmp_path / "y.npy", Y)
    inputs = load(array_file(path=str(tmp_path), channels="last")).inputs
    assert inputs.shape == (4, 3, 5, 6)
    assert isinstance(inputs, np.memmap)


def test_missing_values_stay_and_are_marked(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(npz_arrays, "BLOCK", 3)  # a row at a time
    x = X.astype(np.float64)
    x[1, 2] = x[3, 2] = np.nan
    x[:, 0] = 5
    data = saved(tmp_path, x=x, y=Y)
    arrays = load(data)
    assert np.array_equal(arrays.inputs[:, :3], x.astype(np.float32), equal_nan=True)
    assert arrays.inputs[:, 3].tolist() == [0, 1, 0, 1]
    assert arrays.inputs.dtype == np.float32
    assert arrays.scaled is not None
    assert arrays.scaled.tolist() == [True, True, True, False]
    assert data.facts.notes == (
        "x has 1 of 3 columns with one value only",
        "x has 2 missing values, in columns 2; a further column for each says where",
    )


def test_classes_name_whole_numbers_by_position_and_texts_by_order(tmp_path: Path) -> None:
    numbers = saved(tmp_path, x=X, y=[2, 0, 2, 0], classes=["u", "v", "w"])
    assert load(numbers).labels.tolist() == [2, 0, 2, 0]
    assert numbers.facts.notes == ("no sample has the class: v",)
    texts = saved(tmp_path, x=X, y=["w", "u", "w", "u"], classes=["w", "u"])
    assert load(texts).labels.tolist() == [0, 1, 0, 1]
    assert texts.facts.classes == ("w", "u")


def test_true_and_false_bytes_and_a_column_of_targets_are_classes(tmp_path: Path) -> None:
    assert saved(tmp_path, x=X, y=Y == 1).facts.classes == ("False", "True")
    assert saved(tmp_path, x=X, y=np.array(["é", "b"] * 2)).facts.classes == ("b", "é")
    assert saved(tmp_path, x=X, y=np.array([b"a", b"b"] * 2)).facts.classes == ("a", "b")
    assert load(saved(tmp_path, x=X, y=Y[:, None])).labels.tolist() == [0, 1, 0, 1]


def test_fractions_are_values_with_strata(tmp_path: Path) -> None:
    data = saved(tmp_path, {"strata": 2}, x=X, y=[0.5, 1.5, 2.5, 3.5])
    arrays = load(data)
    assert data.facts.regression
    assert arrays.labels.tolist() == [0, 0, 1, 1]
    assert arrays.values is not None
    assert arrays.values.tolist() == [0.5, 1.5, 2.5, 3.5]
    assert arrays.classes == ("0.5 to 1.5", "2.5 to 3.5")


def test_many_whole_numbers_are_values_unless_told_otherwise(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30)
    assert saved(tmp_path, x=x, y=y).facts.notes == (
        "y has 30 different whole numbers, so it is a value, not a class; "
        "dataset.task says otherwise",
    )
    assert len(saved(tmp_path, {"task": "classification"}, x=x, y=y).facts.classes) == 30


@pytest.mark.parametrize("source", [load_digits, load_wine])
def test_real_arrays_come_back(tmp_path: Path, source: Any) -> None:
    x, y = source(return_X_y=True)
    arrays = load(saved(tmp_path, x=x, y=y))
    assert np.array_equal(arrays.inputs, x.astype(np.float32))
    assert np.array_equal(arrays.labels, y)


def test_files_are_read_once_until_they_change(tmp_path: Path, monkeypatch: Any) -> None:
    read, original = [], npz.read_entries
    monkeypatch.setattr(npz, "read_entries", lambda path: read.append(path) or original(path))
    first = load(saved(tmp_path, x=X, y=Y))
    assert load(array_file(path=str(tmp_path / "t.npz"))).inputs is first.inputs
    assert load(saved(tmp_path, x=X, y=1 - Y)).labels.tolist() == [1, 0, 1, 0]
    assert len(read) == 2


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"path": None}, "dataset.path: must be a .npz file, or a folder of .npy files, got null"),
        (
            {"channels": "middle"},
            "dataset.channels: must be one of first, last, got 'middle'",
        ),
        (
            {"task": "x"},
            "dataset.task: must be one of auto, classification, regression, got 'x'",
        ),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        array_file(**{"path": "t.npz", **changes})
    assert str(caught.value) == line


IMAGES = "must be images uint8 [n, C, H, W] or [n, H, W], or numbers [n, F]"


@pytest.mark.parametrize(
    ("arrays", "settings", "expected"),
    [
        ({"X": X, "y": Y}, {}, "T: lacks x or inputs; has X, y"),
        ({"x": X}, {}, "T: lacks y or labels or targets; has x"),
        ({"x": X, "inputs": X, "y": Y}, {}, "T: has x and inputs; must have one of them"),
        ({"x": X[0], "y": Y}, {}, f"T, key 'x': {IMAGES}, got float32 [3]"),
        ({"x": X[:0], "y": Y[:0]}, {}, f"T, key 'x': {IMAGES}, got float32 [0, 3]"),
        ({"x": X[:, :, None], "y": Y}, {}, f"T, key 'x': {IMAGES}, got float32 [4, 3, 1]"),
        ({"x": X.astype(str), "y": Y}, {}, f"T, key 'x': {IMAGES}, got <U32 [4, 3]"),
        (
            {"x": np.zeros((4, 8, 9, 3), np.uint8), "y": Y},
            {},
            "T, key 'x': has 8 channels in uint8 [4, 8, 9, 3], at most 4 are legal; is it "
            "dataset.channels=last?",
        ),
        (
            {"x": X.astype(object), "y": Y},
            {},
            "T, key 'x': holds Python objects; save it as numbers or, with .astype(str), as text",
        ),
        (
            {"x": np.where(X == 7, np.inf, X), "y": Y},
            {},
            "T, key 'x': [2, 1] is inf, infinite or beyond float32; must be finite, or NaN where "
            "missing",
        ),
        (
            {"x": np.where(X == 7, np.float64(1e300), X), "y": Y},
            {},
            "T, key 'x': [2, 1] is 1e+300, infinite or beyond float32; must be finite, or NaN "
            "where missing",
        ),
        (
            {"x": X + np.array([0, np.nan, 0]), "y": Y},
            {},
            "T, key 'x': column 1 is NaN in every row; leave it out",
        ),
        ({"x": X, "y": Y[:3]}, {}, "T, key 'y': has 3 samples, T, key 'x' has 4"),
        ({"x": X, "y": Y, "site": Y[:3]}, {}, "T, key 'site': has 3 samples, T, key 'x' has 4"),
        ({"x": X, "y": X}, {}, "T, key 'y': must be numbers or texts [n], got float32 [4, 3]"),
        (
            {"x": X, "y": Y, "site": X[:, 0]},
            {},
            "T, key 'site': must be whole numbers or texts [n], got float32 [4]",
        ),
        (
            {"x": X, "y": [0, 1, np.nan, 1]},
            {},
            "T, key 'y': [2] is nan; must be a finite number",
        ),
        ({"x": X, "y": [1] * 4}, {}, "T, key 'y': is the same in every sample; must differ"),
        ({"x": X, "y": ["a", "", "b", "a"]}, {}, "T, key 'y': [1] is ''; must be a class"),
        (
            {"x": X, "y": ["a", "b"] * 2},
            {"task": "regression"},
            "T, key 'y': dataset.task=regression needs numbers, got <U1 [4]",
        ),
        (
            {"x": X, "y": Y, "classes": ["a", "b"]},
            {"task": "regression"},
            "T, key 'y': dataset.task=regression has no classes, but the file has",
        ),
        (
            {"x": X, "y": [0, 1, 2, 0], "classes": ["a", "b"]},
            {},
            "T, key 'y': [2] is 2; must be 0 to 1, the position in classes (a, b)",
        ),
        (
            {"x": X, "y": ["a", "b", "a", "c"], "classes": ["a", "b"]},
            {},
            "T, key 'y': [3] is 'c'; must be one of a, b",
        ),
        (
            {"x": X, "y": Y, "classes": ["a", "a"]},
            {},
            "T, key 'classes': must be 2 or more names that differ, got a, a",
        ),
        (
            {"x": X, "y": Y, "site": ["Rome", "Bonn", "rome", "Bonn"]},
            {},
            "T, key 'site': sites 'Rome' and 'rome' differ only in case or blanks; write them "
            "alike",
        ),
        (
            {"x": X, "y": Y, "site": ["Rome", "Rome", "", "Bonn"]},
            {},
            "T, key 'site': [2] has no name; every sample must have a site",
        ),
        (
            {"x": X, "y": Y, "site": np.array([b"\xe9"] * 4)},
            {},
            "T, key 'site': must be text in utf-8, got b'\\xe9'",
        ),
    ],
)
def test_bad_arrays_are_one_line(
    tmp_path: Path, arrays: dict[str, Any], settings: dict[str, Any], expected: str
) -> None:
    data = saved(tmp_path, settings, **arrays)
    with pytest.raises(DataError) as caught:
        _ = data.facts
    assert str(caught.value).replace(f"{tmp_path}/t.npz", "T") == expected


def test_files_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    data = array_file(path=str(path))
    legal = "must be a .npz file, as np.savez writes, or a folder of .npy files"
    for content in (b"no zip", b"PK\x03\x04 broken", b""):
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            _ = data.facts
        assert str(caught.value) == f"{path}: {legal}"
    path.unlink()
    with pytest.raises(DataError) as caught:
        _ = data.facts
    assert str(caught.value) == f"{path}: there is no such file or folder"


def test_objects_in_a_folder_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.astype(object))
    np.save(tmp_path / "y.npy", Y)
    with pytest.raises(DataError) as caught:
        _ = array_file(path=str(tmp_path)).facts
    assert str(caught.value) == (
        f"{tmp_path}/x.npy: holds Python objects; save it as numbers or, with .astype(str), as text"
    )
