import os
import time
from pathlib import Path

import pytest

from fedtsd.data import files
from fedtsd.data.dataset import Digits
from fedtsd.data.files import check_public_size, files_in, fingerprint, public_size_of, share_of
from fedtsd.errors import DataError
from tests.data.tables import table


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "berlin").mkdir(parents=True)
    (tmp_path / "data" / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "data" / "berlin" / "b.csv").write_text("x,y\n3,4\n")
    return tmp_path / "data"


def test_a_fingerprint_is_sixteen_hex_digits_and_stays(folder: Path) -> None:
    mark = fingerprint(folder)
    assert len(mark) == 16
    assert int(mark, 16) >= 0
    assert fingerprint(folder) == mark


def test_a_fingerprint_changes_with_contents_of_the_same_size(folder: Path) -> None:
    mark = fingerprint(folder)
    (folder / "berlin" / "b.csv").write_text("x,y\n3,5\n")
    assert fingerprint(folder) != mark


def test_a_fingerprint_changes_with_the_name_of_a_file(folder: Path) -> None:
    mark = fingerprint(folder)
    (folder / "a.csv").rename(folder / "c.csv")
    assert fingerprint(folder) != mark


def test_a_fingerprint_does_not_depend_on_the_place_or_on_hidden_files(folder: Path) -> None:
    mark, of_file = fingerprint(folder), fingerprint(folder / "a.csv")
    (folder / ".DS_Store").write_text("junk")
    moved = folder.rename(folder.parent / "moved")
    assert fingerprint(moved) == mark
    assert fingerprint(moved / "a.csv") == of_file


def test_of_large_files_the_time_of_change_counts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "READ_BELOW", 10)
    mark = fingerprint(folder)
    stat = (folder / "a.csv").stat()
    (folder / "a.csv").write_text("x,y\n1,3\n")
    os.utime(folder / "a.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(folder) == mark
    os.utime(folder / "a.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert fingerprint(folder) != mark


def test_a_file_that_stays_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "CLOCK_TICK", 0)
    read, original = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: read.append(file.name) or original(file))
    mark = fingerprint(folder)
    assert fingerprint(folder) == mark
    assert read == ["a.csv", "b.csv"]
    stat = (folder / "a.csv").stat()
    time.sleep(0.05)  # the next time of change is another one
    (folder / "a.csv").write_text("x,y\n1,3\n")
    os.utime(folder / "a.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(folder) != mark
    assert read == ["a.csv", "b.csv", "a.csv"]


def test_links_are_followed_but_not_in_circles(folder: Path) -> None:
    (folder / "berlin" / "up").symlink_to(folder)
    (folder / "rome").symlink_to(folder / "berlin")
    names = [file.relative_to(folder).as_posix() for file in files_in(folder)]
    assert names == ["a.csv", "berlin/b.csv", "rome/b.csv"]


def test_a_path_with_nothing_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        fingerprint(tmp_path / "none")
    assert str(caught.value) == f"{tmp_path}/none: there is no such file or folder"


@pytest.mark.parametrize(
    ("samples", "public"), [(6, 3), (50, 10), (100, 10), (450, 45), (10_000, 1000), (99_999, 1000)]
)
def test_a_tenth_becomes_public_within_limits(samples: int, public: int) -> None:
    assert share_of(samples) == public


def test_a_public_size_that_is_given_is_kept() -> None:
    assert public_size_of(Digits("digits", 200, "public")) == 200


def test_a_public_size_of_null_is_worked_out(folder: Path) -> None:
    rows = "".join(f"{i / 3},{i % 2}\n" for i in range(470))
    (folder / "a.csv").write_text(f"x,y\n{rows}")
    assert public_size_of(table(path=str(folder / "a.csv"), target="y")) == 47


def test_a_public_size_of_none_is_legal_and_of_zero_is_not() -> None:
    check_public_size(None)
    with pytest.raises(ValueError, match="public_size: must be null or at least 1, got 0"):
        check_public_size(0)
