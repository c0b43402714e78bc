"""Charts of sites, as inline SVG: alone against the focus method, and clusters over the rounds."""

from markupsafe import Markup

from fedtsd.report.page import svg
from fedtsd.report.page.names import Names
from fedtsd.report.page.scale import ScoreScale, score_scale
from fedtsd.report.page.sites import SiteRow
from fedtsd.report.results import Run
from fedtsd.report.timeline import NOBODY, Block, rectangles, timeline

MOST_SITES = 40  # of more sites than this only the two ends are drawn
ENDS = 15
ROW = 17.0
COLOURS = 12  # classes c0..c11 in `style.css`
BEGIN, END = 62.0, 318.0


def dumbbell(names: Names, rows: list[SiteRow], name: str) -> Markup | None:
    """Score alone -> with the focus method, a line per site, the largest gain on top.

    None where no site has both. Of many sites, only those with the highest and lowest gains.
    """
    known = [row for row in rows if row.gain is not None]
    if not known:
        return None
    known.sort(key=lambda row: (-(row.gain or 0), row.client))
    cut = len(known) > MOST_SITES
    shown = [*known[:ENDS], *known[-ENDS:]] if cut else known
    values = [value for row in shown for value in (row.alone or 0.0, row.focus)]
    scale = score_scale(names.results.score, min(values), max(values), 4)
    parts = _scale(scale, 30 + ROW * (len(shown) + cut))
    for i, row in enumerate(shown):
        parts += _dumbbell_row(names, row, 30 + ROW * (i + 0.5 + (cut and i >= ENDS)), scale)
    say = names.words
    if cut:
        between = say("chart.sites.between", n=len(known) - len(shown))
        parts.append(
            svg.text((BEGIN + END) / 2, 30 + ROW * (ENDS + 0.5), between, "tick", "middle")
        )
    told = {"method": names.method(names.roles.focus), "n": len(shown), "of": len(known)}
    key = "chart.sites.ends" if cut else "chart.sites.all"
    height = 34 + ROW * (len(shown) + cut)
    title = say("chart.sites.title", **told)
    return svg.figure(height, title, say(key, **told), parts, name)


def _x(value: float, scale: ScoreScale) -> float:
    return BEGIN + scale.place(value) * (END - BEGIN)


def _scale(scale: ScoreScale, bottom: float) -> list[Markup]:
    parts = []
    for tick in scale.ticks:
        x = _x(tick, scale)
        parts.append(svg.line(x, 20, x, bottom, "grid"))
        parts.append(svg.text(x, 9, scale.label(tick), "tick", "middle"))
    return parts


def _dumbbell_row(names: Names, row: SiteRow, at: float, scale: ScoreScale) -> list[Markup]:
    alone, focus = _x(row.alone or 0.0, scale), _x(row.focus, scale)
    gain = names.words.write("signed", row.gain)
    return [
        svg.text(BEGIN - 10, at, _site(names, row.client, BEGIN - 10), "tick", "end"),
        svg.line(alone, at, focus, at, f"stem {row.clear}"),
        svg.dot(alone, at, 3.6, "hollow alone"),
        svg.dot(focus, at, 4.2, "focus"),
        svg.text(svg.WIDTH, at, gain, f"label {row.clear}", "end"),
    ]


def _site(names: Names, client: int, room: float) -> str:
    """A site's name, as much of it as there is room for, or `site` and its number."""
    known = names.words.site_names.get(client)
    return svg.fit(known or names.words("chart.sites.site", client=client), room)


def cluster_timeline(names: Names, run: Run, name: str) -> Markup:
    """The cluster of every site by round, sites ordered by their last cluster."""
    first, members = timeline(run.tables)
    n, rounds = members.shape
    row = 15.0 if n <= MOST_SITES else max(3.0, 15.0 * MOST_SITES / n)
    right = svg.WIDTH - 34
    ids = {cluster: i % COLOURS for i, cluster in enumerate(run.tables.cluster_ids)}
    across = (right - BEGIN) / rounds
    parts: list[Markup] = []
    for block in rectangles(members):
        if block.cluster != NOBODY:
            parts += _block(block, across, row, ids[block.cluster])
    if n <= MOST_SITES:
        for i, client in enumerate(run.tables.order):
            site = _site(names, client, BEGIN - 8)
            parts.append(svg.text(BEGIN - 8, 4 + row * (i + 0.5), site, "tick", "end"))
    bottom = 4 + row * n
    parts += _final_names(run, row, right)
    for turn in sorted({first, first + rounds // 2, first + rounds - 1}):
        x = BEGIN + (turn - first + 0.5) * across
        parts.append(svg.text(x, bottom + 12, str(turn), "tick", "middle"))
    say = names.words
    parts.append(
        svg.text((BEGIN + right) / 2, bottom + 27, say("chart.rounds.axis"), "tick", "middle")
    )
    last = len(set(run.tables.final_clusters))
    title = say("chart.clusters.title", setting=names.setting(run.setting))
    return svg.figure(bottom + 36, title, say("chart.clusters.desc", n=last), parts, name)


def _block(block: Block, across: float, row: float, colour: int) -> list[Markup]:
    left, top = BEGIN + block.begin * across, 4 + block.top * row
    width, height = (block.end - block.begin) * across, (block.bottom - block.top) * row
    parts = [svg.box(left, top, width, height, f"c{colour}")]
    if width > 24 and height > 11:
        parts.append(
            svg.text(
                left + width / 2, top + height / 2, f"C{block.cluster}", f"in c{colour}", "middle"
            )
        )
    return parts


def _final_names(run: Run, row: float, right: float) -> list[Markup]:
    """Each last cluster's name beside its first row of sites."""
    order = [int(cluster) for cluster in run.tables.final_clusters]
    parts, last_at = [], -20.0
    for cluster in dict.fromkeys(order):
        at = 4 + row * (order.index(cluster) + order.count(cluster) / 2)
        if at - last_at >= 13:
            parts.append(svg.text(right + 6, at, f"C{cluster}", "label"))
            last_at = at
    return parts
