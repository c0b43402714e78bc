"""From image files to arrays, block by block, so that memory does not grow with their number.

Shapes: n files, k images of a block, C channels, H height, W width.
"""

import struct
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fedtsd.data.image_tree import all_images
from fedtsd.data.images import average_pool
from fedtsd.errors import DataError

THREADS = 2
SMALL = 128 * 128
"""Pixels below which one thread is faster than two: less time goes by in pillow's C code, where
threads run side by side, than in Python.
"""
BLOCK_BYTES = 2**22
GREY = ("1", "L", "LA", "La")
DEEP = ("F", "I", "I;16", "I;16B", "I;16L", "I;16N")
BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    struct.error,
    Image.DecompressionBombError,
)
"""What pillow raises over damaged files: it has no exception of its own for that."""
NOTHING = np.empty((0, 0, 0, 0), np.uint8)


class ColourFoundError(Exception):
    """An image has colour although all were thought to be grey."""


@dataclass(frozen=True)
class Style:
    """How images are decoded.

    size: height and width that they are resized to, without keeping their ratio; None: all must
    have one size. channels: 1 or 3; None: 1, and `ColourFoundError` at the first image with more.
    pool: side of the squares that are averaged into one pixel.
    """

    size: tuple[int, int] | None
    channels: int | None
    pool: int


@dataclass(frozen=True)
class Block:
    """Consecutive files: images uint8 [k, C, H, W], and those that are `bad`: (file, reason).

    With k = 0 the images have no shape.
    """

    images: np.ndarray
    bad: tuple[tuple[str, str], ...]


def blocks(folder: Path, files: Sequence[str], style: Style) -> Iterator[Block]:
    """Decode files of a folder in their order, in blocks of some 4 MB.

    Raises DataError if two images differ in size, or cannot be pooled.
    """
    first: tuple[str, tuple[int, ...]] | None = None
    start, step = 0, THREADS
    with ThreadPoolExecutor(THREADS) as threads:
        while start < len(files):
            some = files[start : start + step]
            images, bad = [], []
            for file, result in zip(some, _read_all(folder, some, style, threads), strict=True):
                if isinstance(result, str):
                    bad.append((file, result))
                    continue
                first = first or (file, result.shape)
                _check_size(folder, first, (file, result.shape))
                images.append(result)
            start += step
            if first is not None:
                step = max(THREADS, min(1024, BLOCK_BYTES // int(np.prod(first[1]))))
            pixels = _pooled(folder, np.stack(images), style.pool) if images else NOTHING
            yield Block(pixels, tuple(bad))


def read_images(
    folder: Path, shape: tuple[int, ...], resize: bool = False, pool: int = 1
) -> np.ndarray:
    """Read all images in a folder, however deep, as uint8 [n, *shape].

    shape: [C, H, W] of the result, after pooling. Raises DataError if the folder has no image, one
    cannot be read or, unless they are resized, has another size.
    """
    files = all_images(folder)
    if not files:
        raise DataError(f"{folder}: there is no image in it")
    channels, height, width = shape[0], shape[1] * pool, shape[2] * pool
    style = Style((height, width) if resize else None, channels, pool)
    found = list(blocks(folder, files, style))
    if bad := [item for block in found for item in block.bad]:
        raise DataError(f"{folder}: {unreadable(bad)}; mend or remove them")
    images = np.concatenate([block.images for block in found])  # none is empty here
    if images.shape[1:] != tuple(shape):
        raise DataError(
            f"{folder}: images have {images.shape[2] * pool} x {images.shape[3] * pool} pixels "
            f"(height x width), those of the data set {height} x {width}"
        )
    return images


def unreadable(bad: Sequence[tuple[str, str]]) -> str:
    """Say how many images cannot be read, and the first one."""
    file, reason = bad[0]
    if len(bad) == 1:
        return f"1 image cannot be read: {file} ({reason})"
    return f"{len(bad)} images cannot be read, the first is {file} ({reason})"


def _read_all(
    folder: Path, files: Sequence[str], style: Style, threads: ThreadPoolExecutor
) -> list[np.ndarray | str]:
    def read(file: str) -> np.ndarray | str:
        return _read(folder / file, style)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pillow warns of oddities in files that it can read
        if _num_pixels(folder / files[0]) < SMALL:
            return [read(file) for file in files]
        return list(threads.map(read, files))


def _read(path: Path, style: Style) -> np.ndarray | str:
    """Return uint8 [C, H, W], upright and without transparency, or why it cannot be read."""
    try:
        with Image.open(path) as image:
            if style.size is not None:  # a JPEG file need not be decoded in full
                image.draft(None, (2 * max(style.size), 2 * max(style.size)))
            image.load()
            if image.mode in DEEP:
                return f"more than 8 bits a channel, mode {image.mode}"
            if style.channels is None and image.mode not in GREY:
                raise ColourFoundError(str(path))
            ImageOps.exif_transpose(image, in_place=True)
            plain = image.convert("RGB" if style.channels == 3 else "L")
            if style.size is not None:
                height, width = style.size
                plain = plain.resize((width, height), Image.Resampling.BILINEAR)
    except BROKEN as error:
        return _reason(error)
    pixels = np.asarray(plain)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _num_pixels(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return int(image.width * image.height)
    except BROKEN:
        return 0


def _check_size(
    folder: Path, first: tuple[str, tuple[int, ...]], this: tuple[str, tuple[int, ...]]
) -> None:
    if first[1] != this[1]:
        (one, (_, height, width)), (other, shape) = first, this
        raise DataError(
            f"{folder}: images differ in size (height x width): {one} has {height} x {width}, "
            f"{other} {shape[1]} x {shape[2]}; dataset.size=[{height},{width}] resizes them"
        )


def _pooled(folder: Path, images: np.ndarray, pool: int) -> np.ndarray:
    height, width = images.shape[2:]
    if height % pool or width % pool:
        raise DataError(
            f"{folder}: dataset.pool must divide the sides of the images, {height} x {width}, "
            f"got {pool}"
        )
    return images if pool == 1 else average_pool(images, pool)
