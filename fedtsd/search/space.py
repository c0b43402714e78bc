"""The space of a search: the keys that vary and over what, in Hydra's own grammar of sweeps.

`KEY=interval(a,b)` is a range of numbers, `KEY=tag(log,interval(a,b))` one whose logarithm is drawn
evenly, `KEY=range(a,b,step)` are ordered values, `KEY=choice(a,b)` or `KEY=a,b` unordered ones.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep, Sweep

from fedtsd.catalogue import GROUPS
from fedtsd.compose import check, composed
from fedtsd.config import Config
from fedtsd.errors import ConfigError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

GOLDEN = (math.sqrt(5) - 1) / 2  # a place inside an interval that is no whole number
TAKEN = {
    "seed": "search.seeds sets it",
    "resume": "the same command continues a search",
    "hydra": "a search names the folders of its runs itself",
}


class Axis(Protocol):
    """One key that is searched. What optuna draws is a value, what a run is given its text."""

    @property
    def key(self) -> str:
        """The key, as on the command line."""
        ...

    @property
    def size(self) -> float:
        """How many texts there are."""
        ...

    def distribution(self) -> "BaseDistribution":
        """What optuna draws from."""
        ...

    def text(self, value: Any) -> str:
        """Return a drawn value as an override has it."""
        ...

    def probes(self) -> list[str]:
        """Return texts that stand for all: if a config takes these, it takes the others."""
        ...


@dataclass(frozen=True)
class Interval:
    """Numbers from low to high; floats are rounded to four digits."""

    key: str
    low: float
    high: float
    log: bool
    whole: bool

    def __post_init__(self) -> None:
        told = f"interval({self.low:g},{self.high:g})"
        if not self.low < self.high:
            raise ConfigError(f"{self.key}: {told} must have its lower end first")
        if self.log and self.low <= 0:
            raise ConfigError(f"{self.key}: {told} must be above 0 to be searched by its logarithm")
        if self.whole and not (self.low % 1 == 0 == self.high % 1):
            raise ConfigError(f"{self.key}: takes whole numbers, {told} has other ends")

    @property
    def size(self) -> float:
        """How many texts there are; floats count as infinitely many."""
        return self.high - self.low + 1 if self.whole else math.inf

    def distribution(self) -> "BaseDistribution":
        """Return a distribution of floats or ints."""
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), self.log)
        return FloatDistribution(self.low, self.high, self.log)

    def text(self, value: float) -> str:
        """Return four digits, or the end of the interval that rounding would cross."""
        if self.whole:
            return str(int(value))
        rounded = f"{value:.4g}"
        ends = {self.low: float(rounded) < self.low, self.high: float(rounded) > self.high}
        return next((repr(end) for end, crossed in ends.items() if crossed), rounded)

    def probes(self) -> list[str]:
        """Return both ends and a number between."""
        between = self.low + GOLDEN * (self.high - self.low)
        return [self.text(value) for value in (self.low, self.high, between)]


@dataclass(frozen=True)
class Choice:
    """Some values; with `ordered`, neighbours are taken to be alike."""

    key: str
    texts: tuple[str, ...]
    ordered: bool

    @property
    def size(self) -> float:
        """How many texts there are."""
        return len(set(self.texts))

    def distribution(self) -> "BaseDistribution":
        """Return a distribution of texts, or of their places if they are ordered."""
        from optuna.distributions import CategoricalDistribution, IntDistribution

        if self.ordered:
            return IntDistribution(0, len(self.texts) - 1)
        return CategoricalDistribution(self.texts)

    def text(self, value: str | int) -> str:
        """Return the text, or the one at this place."""
        return value if isinstance(value, str) else self.texts[value]

    def probes(self) -> list[str]:
        """Return all of them, of ordered ones the first and the last."""
        return [self.texts[0], self.texts[-1]] if self.ordered else list(self.texts)


def space_of(fixed: Sequence[str], swept: Sequence[Override]) -> tuple[list[Axis], list[Config]]:
    """Return the axes, and the checked configs of every probe with the other axes at their first.

    Raises ConfigError with one line for anything that no run could take.
    """
    if not swept:
        raise ConfigError(
            "search: there is no key to search over; give one a range, such as "
            "training.lr=interval(0.001,0.1), or several values"
        )
    keys = [override.get_key_element() for override in swept]
    _check_keys(keys, [text.partition("=")[0] for text in fixed])
    first = {key: _first(override) for key, override in zip(keys, swept, strict=True)}
    configs = [check(composed(with_texts(fixed, first)))]
    axes = [_axis(override, configs[0]) for override in swept]
    for axis in axes:
        others = [text for text in axis.probes() if text != first[axis.key]]
        configs += [check(composed(with_texts(fixed, {**first, axis.key: t}))) for t in others]
    if any(config.split.val == 0 for config in configs):
        raise ConfigError("split.val: must be above 0, as a search goes by validation data")
    return axes, configs


def with_texts(fixed: Sequence[str], texts: Mapping[str, str]) -> list[str]:
    """Return the overrides of a run."""
    return [*fixed, *(f"{key}={text}" for key, text in texts.items())]


def _check_keys(swept: list[str], fixed: list[str]) -> None:
    for key in [*swept, *fixed]:
        if (group := key.partition(".")[0].lstrip("+~")) in TAKEN:
            raise ConfigError(f"{key}: cannot be given, {TAKEN[group]}")
        if (swept + fixed).count(key) > 1 and key in swept:
            raise ConfigError(f"{key}: is given twice")


def _first(override: Override) -> str:
    """Return a text that the key can have, before it is known whether it holds whole numbers."""
    if override.is_interval_sweep():
        if override.key_or_group in GROUPS:
            raise ConfigError(f"{override.key_or_group}: is chosen by name, not from an interval()")
        return f"{_sweep(override).start:g}"
    return _texts(override)[0]


def _axis(override: Override, config: Config) -> Axis:
    """Turn a sweep into an axis; what the key holds in `config` says if it takes whole numbers."""
    key, sweep = override.get_key_element(), _sweep(override)
    if not isinstance(sweep, IntervalSweep):
        return Choice(key, tuple(_texts(override)), isinstance(sweep, RangeSweep))
    ends = (sweep.start, sweep.end)
    whole = type(_held(config, key)) is int or all(type(end) is int for end in ends)
    low, high = (float(end) for end in ends if end is not None)
    return Interval(key, low, high, "log" in sweep.tags, whole)


def _sweep(override: Override) -> Any:
    """Return the parsed sweep, refusing what has no meaning in a search."""
    key, sweep = override.get_key_element(), override.value()
    if isinstance(sweep, Glob):
        raise ConfigError(f"{key}: a search takes no glob(), name the values")
    if not isinstance(sweep, IntervalSweep) and getattr(sweep, "shuffle", False):
        raise ConfigError(f"{key}: a search takes no shuffle(), it draws at random itself")
    legal = {"log"} if isinstance(sweep, IntervalSweep) else set()
    if isinstance(sweep, Sweep) and (others := sorted(sweep.tags - legal)):
        raise ConfigError(f"{key}: tag {others[0]} is unknown; legal: log, on interval()")
    return sweep


def _texts(override: Override) -> list[str]:
    _sweep(override)
    texts = [str(text) for text in override.sweep_string_iterator()]
    if len(set(texts)) < 2:
        raise ConfigError(f"{override.key_or_group}: needs two values or more to search among")
    return texts


def _held(config: Config, key: str) -> Any:
    """Return the value of a dotted key, None if it names a group or nothing."""
    node: Any = config
    for name in key.split("."):
        node = getattr(node, name, None)
    return node
