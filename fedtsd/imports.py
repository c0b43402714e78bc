"""Importing large packages quickly, and those that not everybody has."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import without collecting garbage; once torch is there, later collections pass over it.

    torch makes some hundred thousand objects that live to the end: walking them again and again
    takes a quarter of its import, and as much at the end of the process.
    """
    collecting, had_torch = gc.isenabled(), "torch" in sys.modules
    gc.disable()
    try:
        yield
    finally:
        # Only then: Triton, which may come later, would report its frozen objects as leaks.
        if not had_torch and "torch" in sys.modules:
            gc.freeze()
        if collecting:
            gc.enable()


@contextmanager
def from_extra(extra: str) -> Iterator[None]:
    """Import what an extra of this package brings; the error of what is missing names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{error.name} is not installed; run pip install 'fedtsd[{extra}]'"
        raise ImportError(message) from error
