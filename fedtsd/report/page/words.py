"""The words of the page in one language.

Every visible text stands in `en.yaml` and `ja.yaml` under the same keys. A placeholder says what
its value is, `{gain:points}` or `{sites:n site}`, so the code hands over numbers and each language
writes them in its own way.
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
from fedtsd.report.page.numbers import BYTE_UNITS, MISSING, PLAIN, share, signed, three_digits

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
    """Renders texts and numbers in one language."""

    def __init__(self, lang: str) -> None:
        """Read the words of `lang`; raises InputError for a language that is not there."""
        if lang not in LANGUAGES:
            raise InputError(f"lang: must be one of {', '.join(LANGUAGES)}, got {lang!r}")
        self.lang = lang
        self.texts = read_words(lang)

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
        """Write a value as `kind`: percent, points, bytes, time, names, sites, `n NOUN`, ...

        Without a kind, as it is. What is missing (None, NaN) becomes a dash.
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

    def units(self) -> dict[str, Any]:
        """Return what `script.js` needs to write times and bytes as this class does."""
        times = [[least, size, self.texts[f"unit.{name}"]] for least, size, name in TIME_UNITS]
        return {"time": times, "bytes": BYTE_UNITS}

    def _counted(self, noun: str, n: int) -> str:
        one = f"noun.{noun}.one"
        return self(one if n == 1 and one in self.texts else f"noun.{noun}.other", n=f"{n:,}")

    def _points(self, value: float) -> str:
        return self("unit.points", value=signed(value))

    def _gap(self, value: float) -> str:
        return self("unit.points", value=share(abs(value)))

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

    def _sites(self, values: Sequence[int]) -> str:
        """Write sites by their numbers; of very many the first ones and how many more."""
        if not values:
            return MISSING
        shown = values if len(values) <= MOST_LISTED else values[: MOST_LISTED - 2]
        key = "unit.one_site" if len(values) == 1 else "unit.some_sites"
        text = self(key, numbers=self._listed(shown))
        more = len(values) - len(shown)
        return self("unit.and_more", head=text, more=more) if more else text

    def _listed(self, values: Sequence[Any]) -> str:
        return self.texts["unit.comma"].join(map(str, values))


@cache
def read_words(lang: str) -> Mapping[str, str]:
    """Return all texts of a language by dotted key."""
    text = Path(__file__).with_name(f"{lang}.yaml").read_text(encoding="utf-8")
    return dict(_flat(yaml.safe_load(text)))


def _flat(node: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", str(value)
