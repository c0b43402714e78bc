"""The words of the page in one language.

Every visible text stands in `en.yaml` and `ja.yaml` under the same keys. What is said otherwise
where runs are scored by the mean absolute error stands in `en.mae.yaml` and `ja.mae.yaml`. A
placeholder says what its value is, `{gain:points}` or `{sites:n site}`, so the code hands over
numbers and each language writes them in its own way.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import yaml
from markupsafe import Markup, escape

from fedtsd.errors import InputError
from fedtsd.report.page.numbers import BYTE_UNITS, MISSING, PLAIN, three_digits
from fedtsd.report.printed import number, signed
from fedtsd.score import ACCURACY, Score

LANGUAGES = ("en", "ja")
# From how many seconds on a time is written in which unit, and its seconds.
TIME_UNITS = (
    (2 * 86400.0, 86400.0, "day"), (3600.0, 3600.0, "hour"), (60.0, 60.0, "minute"),
    (0.0, 1.0, "second"),
)  # fmt: skip
MOST_LISTED = 12


@dataclass(frozen=True)
class Say:
    """A text not yet in any language: its key and what fills its placeholders."""

    key: str
    values: Mapping[str, Any]


def say(key: str, **values: Any) -> Say:
    """Return a text by its key."""
    return Say(key, values)


class Words(Formatter):
    """Renders texts and numbers in one language, scores with a fixed number of decimals."""

    def __init__(
        self,
        lang: str,
        score: Score = ACCURACY,
        decimals: int = 1,
        site_names: Sequence[str] = (),
    ) -> None:
        """Read the words of `lang`; raises InputError for a language that is not there.

        site_names: what people call the sites, by number; without them numbers are written.
        """
        if lang not in LANGUAGES:
            raise InputError(f"lang: must be one of {', '.join(LANGUAGES)}, got {lang!r}")
        self.lang = lang
        self.score = score
        self.site_names = dict(enumerate(site_names))
        self.decimals = decimals
        self.texts = {**read_words(lang), **read_words(f"{lang}.{score.name}")}

    def __call__(self, key: str | Say, **values: Any) -> str:
        """Return the text under `key`, its placeholders filled."""
        if isinstance(key, Say):
            return self(key.key, **key.values)
        return self.vformat(self.texts[key], (), values)

    def prose(self, key: str | Say, **values: Any) -> Markup:
        """Return the text as HTML: everything escaped, `words in backticks` set as code."""
        escaped = str(escape(self(key, **values)))
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped))

    def paragraph(self, sentences: Iterable[Say]) -> Markup:
        """Return sentences as HTML, spaced as this language does."""
        return Markup(self.texts["unit.gap"]).join(self.prose(sentence) for sentence in sentences)

    def format_field(self, value: Any, format_spec: str) -> str:
        """Write one value as its placeholder asks; called by `vformat`."""
        return self.write(format_spec, value)

    def write(self, kind: str, value: Any) -> str:
        """Write a value as `kind`: score, points, bytes, time, names, sites, `n NOUN`, ...

        Of scores, `score` has the unit and `bare` has not; of their differences, `points` has the
        unit and a sign, `gap` the unit alone, `signed` the sign alone. Without a kind, as it is.
        What is missing (None, NaN) becomes a dash.
        """
        if isinstance(value, Say):
            return self(value)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return MISSING
        if not kind:
            return str(value)
        if kind.startswith("n "):
            return self._counted(kind.removeprefix("n "), value)
        if kind in PLAIN:
            return PLAIN[kind](value)
        return str(getattr(self, f"_{kind}")(value))

    def site_list(self, values: Sequence[int]) -> str:
        """Return all of the sites, by name or number."""
        return self._listed([self._site(value) for value in values])

    def units(self) -> dict[str, Any]:
        """Return what `script.js` needs to write times and bytes as this class does."""
        times = [[least, size, self.texts[f"unit.{name}"]] for least, size, name in TIME_UNITS]
        return {"time": times, "bytes": BYTE_UNITS}

    def _counted(self, noun: str, n: int) -> str:
        one = f"noun.{noun}.one"
        return self(one if n == 1 and one in self.texts else f"noun.{noun}.other", n=f"{n:,}")

    def _score(self, value: float) -> str:
        return f"{self._bare(value)}{self.score.unit}"

    def _bare(self, value: float) -> str:
        return number(self.score.scale * value, f",.{self.decimals}f")

    def _signed(self, value: float) -> str:
        return signed(self.score.scale * value, self.decimals)

    def _points(self, value: float) -> str:
        return self("unit.points", value=self._signed(value))

    def _gap(self, value: float) -> str:
        return self("unit.points", value=self._bare(abs(value)))

    def _time(self, value: float) -> str:
        _, size, name = next(unit for unit in TIME_UNITS if value >= unit[0])
        return self(f"unit.{name}", value=three_digits(value / size))

    def _names(self, values: Sequence[Any]) -> str:
        texts = [self.write("", value) for value in values]
        if len(texts) < 2:
            return "".join(texts) or MISSING
        return self("unit.and", head=self._listed(texts[:-1]), tail=texts[-1])

    def _seeds(self, values: Sequence[int]) -> str:
        return self("unit.seed_list", numbers=self._listed(values))

    def _site(self, value: int) -> str:
        return self.site_names.get(value, str(value))

    def _sites(self, values: Sequence[int]) -> str:
        """Write sites by name or number; of very many the first ones and how many more."""
        if not values:
            return MISSING
        shown = values if len(values) <= MOST_LISTED else values[: MOST_LISTED - 2]
        key = "unit.one_site" if len(values) == 1 else "unit.some_sites"
        text = self(key, numbers=self._listed([self._site(site) for site in shown]))
        more = len(values) - len(shown)
        return self("unit.and_more", head=text, more=more) if more else text

    def _listed(self, values: Sequence[Any]) -> str:
        return self.texts["unit.comma"].join(map(str, values))


@cache
def read_words(lang: str) -> Mapping[str, str]:
    """Return all texts of `lang` (en, ja.mae, ...) by dotted key; none where it has no file."""
    path = Path(__file__).with_name(f"{lang}.yaml")
    if not path.is_file():
        return {}
    return dict(_flat(yaml.safe_load(path.read_text(encoding="utf-8"))))


def _flat(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", str(value)
