"""Which run folders lie in a folder: a run itself, the cells of a sweep, or a folder of those."""

from collections.abc import Iterator
from pathlib import Path

from fedtsd.report.tables import read_mapping


def run_folders(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield run folders and their overrides, if a sweep knows them.

    A sweep yields the cells of its plan, begun or not; other runs in its folder belong to other
    plans. What lies inside a run is not searched.
    """
    if (folder / "config.yaml").is_file():
        yield folder, ()
    elif (folder / "sweep.json").is_file():
        for cell in read_mapping(folder / "sweep.json").get("cells", []):
            yield folder / cell["folder"], tuple(cell["overrides"])
    else:
        for place in sorted(folder.iterdir()):
            if place.is_dir() and not place.name.startswith("."):
                yield from run_folders(place)
