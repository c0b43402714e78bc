import errno
import os
from pathlib import Path

import pytest

from fedtsd.disk import append_whole, refusals, write_atomically
from fedtsd.errors import StorageError


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_beside_it(
    tmp_path, monkeypatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full_disk(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(StorageError, match=r"/file: No space left on device$"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_contents_are_on_disk_before_the_name_is_and_then_the_folder(tmp_path, monkeypatch) -> None:
    steps = []
    fsync, replace = os.fsync, Path.replace

    def watched(place: int) -> None:
        steps.append(f"flush {Path(os.readlink(f'/proc/self/fd/{place}')).name}")
        fsync(place)

    def moved(path: Path, target: Path) -> Path:
        steps.append("move")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(Path, "replace", moved)
    write_atomically(tmp_path / "file", b"new")
    assert steps == ["flush .file.writing", "move", f"flush {tmp_path.name}"]


def test_rows_are_appended_whole_or_not_at_all() -> None:
    """A device that is always full: the error is the system's own."""
    with pytest.raises(StorageError, match="/dev/full: No space left on device"):
        append_whole(Path("/dev/full"), b"row")


def test_what_was_appended_in_part_is_taken_back(tmp_path, monkeypatch) -> None:
    path = tmp_path / "table"
    path.write_bytes(b"header\n")
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(StorageError, match="File too large"):
            append_whole(path, b"a row that is too long\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == b"header\n"


def test_other_errors_keep_their_kind(tmp_path) -> None:
    with pytest.raises(FileNotFoundError), refusals(tmp_path):
        (tmp_path / "nothing").read_bytes()
