"""Small pieces of inline SVG; text is escaped, colours are classes of `style.css`.

Lengths are units of a view box 380 wide, which a phone shows at about one pixel a unit.
"""

from collections.abc import Iterable
from unicodedata import east_asian_width

from markupsafe import Markup

WIDTH = 380.0
TEXT = 12.0  # font size


def figure(height: float, title: str, desc: str, parts: Iterable[Markup], name: str) -> Markup:
    """An SVG element with a title and a description for screen readers; `name` is its unique id."""
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-labelledby="{n}-t {n}-d">'
        '<title id="{n}-t">{t}</title><desc id="{n}-d">{d}</desc>{body}</svg>'
    ).format(w=_n(WIDTH), h=_n(height), n=name, t=title, d=desc, body=Markup("").join(parts))


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    """A straight line."""
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(
        _n(x1), _n(y1), _n(x2), _n(y2), kind
    )


def path(points: Iterable[tuple[float, float]], kind: str) -> Markup:
    """A line through points."""
    text = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    return Markup('<polyline points="{}" class="{}"/>').format(text, kind)


def dot(x: float, y: float, radius: float, kind: str) -> Markup:
    """A disc."""
    return Markup('<circle cx="{}" cy="{}" r="{}" class="{}"/>').format(
        _n(x), _n(y), _n(radius), kind
    )


def box(x: float, y: float, width: float, height: float, kind: str) -> Markup:
    """A rectangle."""
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}"/>').format(
        _n(x), _n(y), _n(width), _n(height), kind
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> Markup:
    """Words with their middle line at `y`."""
    return Markup('<text x="{}" y="{}" class="{}" text-anchor="{}">{}</text>').format(
        _n(x), _n(y + 0.35 * TEXT), kind, anchor, words
    )


def room(words: str) -> float:
    """A safe estimate of the width of words, at most two fifths of the chart."""
    return min(_width(words), 0.4 * WIDTH)


def fit(words: str, width: float) -> str:
    """Shorten words that are wider than `width`; an ellipsis says so."""
    kept = words
    while kept and _width(kept) > width:
        kept = kept[:-1]
    return words if kept == words else f"{kept[:-1].rstrip()}…"


def _width(words: str) -> float:
    """About the width in a wide sans serif, bold: East Asian letters are square."""
    return 1.05 * TEXT * sum(_letter(letter) for letter in words)


def _letter(letter: str) -> float:
    if east_asian_width(letter) in "WF":
        return 1.0
    if letter in "fijlrtI.,:;'|()- ":
        return 0.42
    return 0.98 if letter in "mwMW%" else 0.72 if letter.isupper() else 0.64


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
