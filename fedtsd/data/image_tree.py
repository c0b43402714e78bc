"""What lies in a folder of images: FOLDER/site/class/image or FOLDER/class/image, no file opened.

Nothing is dropped in silence: what is no image is named in a note, what has no class is an error.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedtsd.errors import DataError
from fedtsd.schema import unknown

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
LAYOUTS = ("site_class", "class")
MACHINE_MADE = ("__MACOSX", "@eaDir")
"""Folders that macOS and network drives leave behind; what begins with a dot is hidden as well."""


@dataclass(frozen=True)
class Tree:
    """The images of a folder, sorted by site, class and file name.

    files: n paths relative to the folder. site_of, class_of: n indices into sites and classes.
    sites: empty where the layout has none; site_of is 0 then.
    """

    files: tuple[str, ...]
    sites: tuple[str, ...]
    classes: tuple[str, ...]
    site_of: tuple[int, ...]
    class_of: tuple[int, ...]
    notes: tuple[str, ...]


def labelled_images(folder: Path, layout: str, classes: tuple[str, ...] | None) -> Tree:
    """List the images of sites and classes; `classes` are the only legal ones, None for any.

    Raises DataError with one line naming the folder that does not fit the layout.
    """
    ignored: list[str] = []
    with_sites = layout == "site_class"
    sites = _folders_only(folder, "", layout, ignored) if with_sites else ("",)
    found: list[tuple[str, str, str]] = []
    for site in sites:
        found += _images_of(folder, site, layout, classes, ignored)
    names = classes or tuple(sorted({name for _, name, _ in found}))
    if with_sites:
        _refuse_twins(folder, sites, "sites")
    _refuse_twins(folder, names, "classes")
    if len(names) < 2:
        raise DataError(f"{folder}: all images are of the one class {names[0]!r}; two are needed")
    site_index = {site: s for s, site in enumerate(sites)}
    class_index = {name: c for c, name in enumerate(names)}
    return Tree(
        tuple(os.path.join(*parts) for parts in found),
        sites if with_sites else (),
        names,
        tuple(site_index[site] for site, _, _ in found),
        tuple(class_index[name] for _, name, _ in found),
        ignored_note(ignored),
    )


def all_images(folder: Path) -> list[str]:
    """List the images in a folder, however deep, as sorted paths relative to it.

    A folder that is reached twice, as through a link to itself, is read once. Raises DataError if
    the folder is missing.
    """
    found: list[str] = []
    seen: set[str] = set()
    waiting = [""]
    while waiting:
        place = waiting.pop()
        real = os.path.realpath(folder / place)
        if real not in seen:
            seen.add(real)
            folders, images = _content(folder, place, [])
            found += images
            waiting += reversed(folders)
    return sorted(found)


def names_in(folder: Path) -> list[str]:
    """Return the sorted names in a folder. Raises DataError if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from error


def few(names: Sequence[str], shown: int = 3) -> str:
    """Join the first names; say how many more there are."""
    rest = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {rest} more" if rest > 0 else "")


def count(number: int, noun: str, plural: str = "") -> str:
    """Return `1 image`, `2 images`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def ignored_note(ignored: list[str]) -> tuple[str, ...]:
    """Return the note about files and folders that were passed over; none if there are none."""
    if not ignored:
        return ()
    what = "is hidden or no image" if len(ignored) == 1 else "are hidden or no images"
    return (f"ignored {count(len(ignored), 'entry', 'entries')} that {what}: {few(ignored)}",)


def _images_of(
    folder: Path, site: str, layout: str, classes: tuple[str, ...] | None, ignored: list[str]
) -> list[tuple[str, str, str]]:
    """Return (site, class, file name) of a site's images."""
    found = []
    for name in _folders_only(folder, site, layout, ignored):
        place = os.path.join(site, name)
        if classes is not None and name not in classes:
            raise DataError(f"{folder / place}: {unknown(name, classes, 'class')}")
        deeper, images = _content(folder, place, ignored)
        if deeper:
            hint = "" if site else "; if sites come first, set dataset.layout=site_class"
            raise DataError(f"{folder / deeper[0]}: a folder inside a class folder{hint}")
        if not images:
            raise DataError(f"{folder / place}: the class folder has no image ({_legal()})")
        found += [(site, name, os.path.basename(image)) for image in images]
    return found


def _folders_only(folder: Path, place: str, layout: str, ignored: list[str]) -> tuple[str, ...]:
    """Return the names of the folders in a place where no image may lie."""
    folders, images = _content(folder, place, ignored)
    here = folder / place
    kind = "site" if layout == "site_class" and not place else "class"
    if images:
        hint = "; without sites, set dataset.layout=class" if place else ""
        count_here = count(len(images), "image")
        raise DataError(f"{here}: {count_here} outside a {kind} folder, as {images[0]}{hint}")
    if not folders:
        what = "the site has no image" if place else "there are no folders in it"
        raise DataError(f"{here}: {what}; images must lie in {_pattern(folder, layout)}")
    return tuple(os.path.basename(name) for name in folders)


def _content(folder: Path, place: str, ignored: list[str]) -> tuple[list[str], list[str]]:
    """Return the folders and the images in a place, sorted, as paths relative to `folder`."""
    folders, images = [], []
    for name in names_in(folder / place):
        path = os.path.join(place, name)
        whole = os.path.join(folder, path)
        if name.startswith(".") or name in MACHINE_MADE:
            ignored.append(path)
        elif name.lower().endswith(ENDINGS) and os.path.isfile(whole):
            images.append(path)
        elif os.path.isdir(whole):
            folders.append(path)
        else:
            ignored.append(path)
    return folders, images


def _refuse_twins(folder: Path, names: tuple[str, ...], what: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        twin = seen.setdefault("".join(name.split()).casefold(), name)
        if twin != name:
            raise DataError(
                f"{folder}: the {what} {twin!r} and {name!r} differ only in case or blanks; "
                "rename one"
            )


def _pattern(folder: Path, layout: str) -> str:
    return f"{folder}/{'site/class' if layout == 'site_class' else 'class'}/image"


def _legal() -> str:
    return ", ".join(ENDINGS)
