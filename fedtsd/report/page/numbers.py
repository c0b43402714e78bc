"""Numbers as both languages write them; `script.js` writes bytes and times alike."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

MISSING = "–"
BYTE_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B"))  # 1 kB = 1000 B


def three_digits(value: float) -> str:
    """Write a number with about three digits."""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def size(value: float) -> str:
    """Write bytes in the unit that suits, with its name."""
    unit = unit_for([value])
    return f"{unit.write(value)} {unit.name}"


@dataclass(frozen=True)
class ByteUnit:
    """A unit of `size` bytes."""

    size: float
    name: str

    def write(self, value: float | None) -> str:
        """Write bytes in this unit, without its name."""
        if value is None:
            return MISSING
        return three_digits(value / self.size) if self.size > 1 else f"{round(value):,}"


def unit_for(values: Iterable[float | None]) -> ByteUnit:
    """Return the one unit in which a whole column of bytes is written."""
    most = max((value for value in values if value is not None), default=0.0)
    return ByteUnit(*next((unit for unit in BYTE_UNITS if most >= unit[0]), BYTE_UNITS[-1]))


# What a placeholder may ask for, and how it is written.
PLAIN: Mapping[str, Callable[[float], str]] = {
    "count": lambda value: f"{round(value):,}",
    "decimal": lambda value: f"{value:.2f}".replace("-", "−"),
    "number": lambda value: f"{value:,g}",
    "seconds": three_digits,
    "bytes": size,
}
