"""`fedtsd data`: list the data sets, fetch one ahead of time, show what clients would hold."""

import argparse
import sys
from pathlib import Path

import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fedtsd.catalogue import conf_dir, options
from fedtsd.data.dataset import default_root
from fedtsd.data.images import ORIGINALS, ImageSet
from fedtsd.errors import DataError
from fedtsd.imports import fast_imports


def data_command(args: list[str]) -> int:
    """Run `fedtsd data [get NAME [--root DIR] [--force]]` or `fedtsd data show OVERRIDES`.

    Returns the exit code.
    """
    if args[:1] == ["show"]:
        with fast_imports():
            from fedtsd.inspect_data import show_data

        sys.stdout.write(show_data(args[1:]))
        return 0
    parser = argparse.ArgumentParser(
        "fedtsd data",
        description="List data sets, or fetch one; `fedtsd data show OVERRIDES` shows what the "
        "clients of `fedtsd train OVERRIDES` would hold.",
    )
    parser.add_argument("action", nargs="?", choices=("list", "get"), default="list")
    parser.add_argument("name", nargs="?", help="a data set, for get")
    parser.add_argument("--root", type=Path, default=default_root(), help="where to keep it")
    parser.add_argument("--force", action="store_true", help="fetch again what is there already")
    chosen = parser.parse_args(args)
    if chosen.action == "list":
        sys.stdout.write(listing(chosen.root))
        return 0
    if chosen.name is None:
        parser.error("get needs the name of a data set")
    return _get(chosen.name, chosen.root, chosen.force)


def listing(root: Path) -> str:
    """One line per data set: name, whether it is on this machine, what it is."""
    rows = []
    for name, text in options("dataset").items():
        place = "embedded" if name == "digits" else "your own"
        if name in ORIGINALS:
            place = "fetched" if image_set(name).is_ready(root) else "to fetch"
        rows.append(f"{name:<14} {place:<9} {text}\n")
    return "".join(rows) + f"data sets are kept in {root}\n"


def image_set(name: str) -> ImageSet:
    """Return the data set of a config file."""
    node = yaml.safe_load((conf_dir() / "dataset" / f"{name}.yaml").read_text())
    return ImageSet(**{key: value for key, value in node.items() if key != "_target_"})


def _get(name: str, root: Path, force: bool) -> int:
    if name in options("dataset") and name not in ORIGINALS:
        sys.stdout.write(f"{name} needs no fetching\n")
        return 0
    if name not in ORIGINALS:
        from fedtsd.schema import unknown

        raise DataError(unknown(name, options("dataset"), "data set"))
    dataset = image_set(name)
    if force or not dataset.is_ready(root):
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(f"{name}: starting", total=None)
            dataset.fetch(
                root,
                lambda stage, done, total: bar.update(
                    task, description=f"{name}: {stage}", completed=done, total=total
                ),
            )
            bar.update(task, description=f"{name}: done", completed=1, total=1)
    sys.stdout.write(f"{root / name}\n")
    return 0
