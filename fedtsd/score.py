"""What a run is scored by: accuracy, or in regression the mean absolute error.

One value knows its columns, its words, which end is better and how it is printed. Whoever compares
or prints scores asks it, and nobody asks for the task. A *gain* is a difference of two scores,
positive where the first is better. Values are as stored (accuracies in 0..1, errors in the target's
unit) or as printed (`scale` times that).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil, floor, inf, isfinite, log10
from statistics import median
from typing import Any, Protocol, TypeVar

DIGITS = 3  # significant ones, of a score without decimals of its own


class Numeric(Protocol):
    """A number, or an array, series or frame of them."""

    def __neg__(self) -> Any: ...
    def __sub__(self, other: Any, /) -> Any: ...


T = TypeVar("T", bound=Numeric)


@dataclass(frozen=True)
class Score:
    """A measure of how well a client is served on its own test data.

    name: its column in clients.csv and, before `_mean`, `_std`, `_worst10`, in rounds.csv and
    summary.json. label: its full name; noun: its short one; gain_label, gain_noun: what a gain is.
    scale: what a stored value is multiplied by for print; unit, gain_unit: of printed values and
    gains, empty where it is that of the target. limit: the largest stored value there can be;
    the smallest is 0. decimals: of a printed value, None where they depend on its size.
    """

    name: str
    label: str
    noun: str
    gain_label: str
    gain_noun: str
    higher_is_better: bool
    scale: float
    unit: str
    gain_unit: str
    limit: float
    decimals: int | None

    @property
    def mean(self) -> str:
        """The column of the mean over clients."""
        return f"{self.name}_mean"

    @property
    def std(self) -> str:
        """The column of the standard deviation over clients."""
        return f"{self.name}_std"

    @property
    def worst10(self) -> str:
        """The column of the mean over the worst tenth of the clients."""
        return f"{self.name}_worst10"

    @property
    def validation(self) -> str:
        """The mean over clients on validation data, in summary.json."""
        return f"{self.name}_validation"

    @property
    def columns(self) -> tuple[str, str, str]:
        """Mean, std and worst tenth."""
        return self.mean, self.std, self.worst10

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1."""
        return 1 if self.higher_is_better else -1

    @property
    def most(self) -> float:
        """The largest printed value there can be."""
        return self.scale * self.limit

    def merit(self, values: T) -> T:
        """Turn scores (number, array, series, frame) into what is better the higher it is."""
        if self.higher_is_better:
            return values
        turned: T = -values
        return turned

    def gain(self, ours: T, theirs: T) -> T:
        """By how much `ours` is better."""
        difference: T = ours - theirs
        return self.merit(difference)

    def worst_tenth(self, values: Iterable[float]) -> list[float]:
        """The worst ceil(N / 10) of N values, the worst first."""
        ordered = sorted(values, key=self.merit)
        return ordered[: ceil(len(ordered) / 10)]

    def hundredth(self, level: float) -> float:
        """A change that is just worth a word: 1 % of the limit or, where none is, of the level."""
        return 0.01 * (self.limit if isfinite(self.limit) else abs(level))

    def decimals_of(self, printed: Iterable[float]) -> int:
        """Decimals for a group of printed values: three digits of their median, if not fixed."""
        if self.decimals is not None:
            return self.decimals
        sizes = [abs(value) for value in printed if isfinite(value) and value != 0]
        return max(0, DIGITS - 1 - (floor(log10(median(sizes))) if sizes else 0))

    def text(self, value: float, decimals: int | None = None) -> str:
        """Print a stored value with its unit: `81.3%`, `0.0412`."""
        printed = self.scale * value
        places = self.decimals_of([printed]) if decimals is None else decimals
        return f"{printed:.{places}f}{self.unit}"

    def difference(self, gain: float, decimals: int | None = None) -> str:
        """Print a stored gain in words: `+3.0 points`, `0.21 less error`."""
        printed = self.scale * gain
        places = self.decimals_of([printed]) if decimals is None else decimals
        if self.gain_unit:
            return f"{printed:+.{places}f} {self.gain_unit}".replace("-", "−")
        return f"{abs(printed):.{places}f} {'less' if gain >= 0 else 'more'} error"

    def heading(self, words: str) -> str:
        """Words with the unit or, without one, the better end: `MAE (lower is better)`."""
        return f"{words} ({self._note})" if self._note else words

    def axis(self, words: str) -> str:
        """The same for an axis; what is too long for one line takes two."""
        return self.heading(words) if self.unit else f"{words}\n({self._note})"

    @property
    def _note(self) -> str:
        ends = "" if self.higher_is_better else "lower is better"
        return ", ".join(part for part in (self.unit, ends) if part)


ACCURACY = Score(
    name="accuracy",
    label="test accuracy",
    noun="accuracy",
    gain_label="difference in test accuracy (points)",
    gain_noun="gain (points)",
    higher_is_better=True,
    scale=100.0,
    unit="%",
    gain_unit="points",
    limit=1.0,
    decimals=1,
)
MAE = Score(
    name="mae",
    label="mean absolute error",
    noun="MAE",
    gain_label="reduction of the mean absolute error",
    gain_noun="reduction of MAE",
    higher_is_better=False,
    scale=1.0,
    unit="",
    gain_unit="",
    limit=inf,
    decimals=None,
)
SCORES = {score.name: score for score in (ACCURACY, MAE)}


def score_of(found: Mapping[str, Any] | str) -> Score:
    """Return the score of this name, or of the run with this summary.

    A summary without `metric` is older than regression: accuracy. Raises ValueError for another
    name.
    """
    name = found if isinstance(found, str) else str(found.get("metric", ACCURACY.name))
    if name not in SCORES:
        raise ValueError(f"metric: must be one of {', '.join(SCORES)}, got {name!r}")
    return SCORES[name]


def score_of_task(regression: bool) -> Score:
    """Return what a task is scored by."""
    return MAE if regression else ACCURACY


def score_in(columns: Iterable[str]) -> Score:
    """Return the score that a table with these columns holds; accuracy if it holds none."""
    names = set(columns)
    found = [score for score in SCORES.values() if names & {score.name, score.mean}]
    return found[0] if found else ACCURACY
