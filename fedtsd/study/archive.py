"""What the tables are made from, in one small file, so that a sitting can go on elsewhere.

Of every finished run it holds what the study reads: its config, status, summary and environment;
beside them the plan and the choice. Packed again from the same runs, it has the same bytes.
"""

import io
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fedtsd.cell import PLAN, Cell, read_plan
from fedtsd.disk import write_atomically
from fedtsd.errors import RunFolderError
from fedtsd.study import choice
from fedtsd.study.sitting import extend_plan, read_cells

OF_A_RUN = ("config.yaml", "environment.json", "status.json", "summary.json")


def pack(folders: list[Path], path: Path) -> Path:
    """Write the finished runs of several plans to one file; failed ones belong to them.

    folders: of the plans; their names must differ.
    """
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w:xz", preset=9) as tar:
        for folder in folders:
            for file in _files(folder):
                info = tarfile.TarInfo(f"{folder.name}/{file.relative_to(folder).as_posix()}")
                content = file.read_bytes()
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue())
    return path


def unpack(path: Path, folder: Path) -> int:
    """Lay out below `folder` what is packed and not there; return the number of runs.

    What is there wins, a run as a whole. Raises RunFolderError if the file is not one of ours.
    """
    packed = _read(path)
    plans = {PurePosixPath(name).parent for name in packed if PurePosixPath(name).name == PLAN}
    found = 0
    for plan in sorted(plans):
        place = folder / plan
        cells = read_plan(packed[str(plan / PLAN)].decode(), place)
        known = {cell.values for cell in read_cells(place)}
        for cell in cells:
            found += _lay_out(packed, plan, cell)
        extend_plan(place, [cell for cell in cells if cell.values not in known])
        told = packed.get(str(plan / choice.FILE))
        if told is not None and not (place / choice.FILE).exists():
            write_atomically(place / choice.FILE, told)
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Yield what is packed of a plan, in an order of its own."""
    for name in (PLAN, choice.FILE):
        if (folder / name).is_file():
            yield folder / name
    ended = [cell for cell in read_cells(folder) if cell.state in ("done", "failed")]
    for cell in sorted(ended, key=lambda cell: cell.folder):
        yield from (cell.folder / name for name in OF_A_RUN if (cell.folder / name).is_file())


def _lay_out(packed: dict[str, bytes], plan: PurePosixPath, cell: Cell) -> bool:
    """Write the files of one run, its status last; return whether there was anything to write."""
    files = {name: packed.get(str(plan / cell.folder.name / name)) for name in OF_A_RUN}
    if cell.folder.exists() or files["status.json"] is None:
        return False
    cell.folder.mkdir(parents=True)
    for name, content in sorted(files.items(), key=lambda item: item[0] == "status.json"):
        if content is not None:
            write_atomically(cell.folder / name, content)
    return True


def _read(path: Path) -> dict[str, bytes]:
    """Return the files by their names; nothing is written by these names."""
    try:
        with tarfile.open(path, mode="r:xz") as tar:
            members = [member for member in tar if member.isfile()]
            files = {member.name: tar.extractfile(member) for member in members}
            return {name: file.read() for name, file in files.items() if file is not None}
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise RunFolderError(f"{path}: not an archive of a benchmark: {error}") from error
