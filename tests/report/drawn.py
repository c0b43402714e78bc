"""What a figure really shows: the texts that reach the page, and artists by their group id."""

from itertools import combinations

import pytest
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from fedtsd.report.style import paper_style


def texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Bbox]]:
    """Every text drawn, with its box in points. Tick labels out of view are never drawn."""
    seen: list[Text] = []
    draw = Text.draw

    def record(self: Text, renderer: object, *rest: object, **more: object) -> None:
        if self.get_visible() and self.get_text().strip():
            seen.append(self)
        draw(self, renderer, *rest, **more)

    with monkeypatch.context() as patch, paper_style():
        patch.setattr(Text, "draw", record)
        figure.canvas.draw()
        scale = 72 / figure.dpi
        boxes = {id(text): text.get_window_extent() for text in seen}
    unique = {id(text): text for text in seen}
    return [
        (text.get_text(), Bbox(boxes[key].get_points() * scale)) for key, text in unique.items()
    ]


def overlaps(drawn: list[tuple[str, Bbox]], slack: float = 0.4) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes share more than a rim of `slack` points."""
    boxes = [(name, box.padded(-slack)) for name, box in drawn]
    return [(a, b) for (a, p), (b, q) in combinations(boxes, 2) if p.overlaps(q)]


def group(figure: Figure, gid: str) -> list[Artist]:
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def words(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]
