"""Which files a table's path means."""

from pathlib import Path

from fedtsd.data.table.sheet import ENDINGS, ending, stem
from fedtsd.data.targets import few
from fedtsd.errors import DataError

BESIDE = ("readme", "license", "licence", "notice", "changelog")
"""Files that often lie beside data; they are passed over, with a note."""


def table_files(path: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Return the file, or the files of the folder by name, and a note on those passed over.

    Raises DataError if there is none, or a file that may hold data and cannot be read.
    """
    if path.is_file():
        _check_ending(path)
        return [path], ()
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder")
    seen = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    files, beside = [], []
    for entry in seen:
        if entry.is_dir():
            raise DataError(
                f"{entry}: is a folder in a folder of tables; must be one file per site"
            )
        if entry.name.lower().startswith(BESIDE) and ending(entry) is None:
            beside.append(entry.name)
        else:
            _check_ending(entry)
            files.append(entry)
    if not files:
        raise DataError(f"{path}: has no table; must hold one {_legal()} file per site")
    parquet = [file for file in files if ending(file) == ".parquet"]
    _check_sites(files)
    if parquet and len(parquet) < len(files):
        text = next(file for file in files if file not in parquet)
        raise DataError(
            f"{path}: has Parquet ({parquet[0].name}) and text files ({text.name}); "
            "must be all of one kind"
        )
    return files, (f"not read: {few(beside)}",) if beside else ()


def _check_ending(path: Path) -> None:
    if ending(path) is None:
        raise DataError(f"{path}: must be a {_legal()} file; save it as one, or move it away")


def _check_sites(files: list[Path]) -> None:
    """Raise DataError if two files would have the same name as a site."""
    seen: dict[str, Path] = {}
    for file in files:
        other = seen.setdefault(stem(file).strip().casefold(), file)
        if other != file:
            raise DataError(
                f"{file}: the same site as {other.name}; names must differ in more than case, "
                "blanks and ending"
            )


def _legal() -> str:
    return f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
