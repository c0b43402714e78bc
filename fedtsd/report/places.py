"""Places on the axis of severity: where each setting stands, from IID to the most skewed.

Dirichlet's alpha has a log axis, skew grows to the right. IID (alpha infinite) has a place of its
own on the left, partitions without alpha on the right, each behind a break of the axis. Where one
other knob differs, its values are the ticks; where several do, the names of the severities.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log10, nan
from textwrap import fill

from fedtsd.report.dealing import (
    KINDS,
    PLACES,
    SEVERITIES,
    class_of,
    knob_text,
    node_at,
    partition_label,
)
from fedtsd.report.order import knob_ranks, severity_of
from fedtsd.report.results import Results, Run
from fedtsd.skew import mean_skew

APART = 1.4  # steps between places without alpha; one step is the mean distance of two alphas
# What may not differ between the settings of one axis: these and everything else but severity.
SIZES = ("num_clients", "min_size", "samples_per_client")
SHARED = ("public", "split", "model", "cohort", "rounds")
# What skew is measured by where the settings differ in this place of the config.
MEASURED = {
    "partition": ("label_js",),
    "partition.sizes": ("size_gini",),
    "shift": ("input_shift", "label_shift"),
    "drift": ("label_js",),
}
MEASURES = {
    "label_js": "measured skew (mean JS divergence)",
    "size_gini": "measured skew of sizes (Gini)",
    "input_shift": "measured shift of inputs (std)",
    "label_shift": "share of labels changed",
}


@dataclass(frozen=True)
class Place:
    """A setting on the axis: `x` in steps, its tick, and its measured skew, mean over runs.

    `on_scale`: whether a line may join it to its neighbours. `axis` says what the ticks are,
    `measure` (a key of MEASURES) what the skew is.
    """

    setting: str
    x: float
    tick: str
    skew: float
    alpha: float
    on_scale: bool
    axis: str
    measure: str


Runs = dict[str, Run]  # by setting


def axes_of(results: Results) -> dict[str, list[Place]]:
    """What settings share apart from severity, in words -> their places, from left to right.

    Only axes with at least two places. Settings that differ in more than how data are dealt (data
    set, model, cohort, rounds, number of clients) have different axes.
    """
    shared: dict[str, Runs] = {}
    for run in results.runs:
        shared.setdefault(_shared(run), {}).setdefault(run.setting, run)
    axes: dict[str, list[Place]] = {}
    for found in shared.values():
        kinds = _by_kind(found)
        for runs in kinds:
            name, ticks = _words(list(runs.values()))
            if len(kinds) > 1:
                name = ", ".join(word for word in (name, _kinds_text(runs, found)) if word)
            if len(runs) > 1:
                axes[name] = _places(results, runs, ticks)
    return axes


def _shared(run: Run) -> str:
    """Everything of a setting but the severity, as one text."""
    partition = run.config.get("partition") or {}
    dataset = run.config.get("dataset") or {}
    facts = {
        "dataset": {key: value for key, value in dataset.items() if key != "source"},
        "partition": {key: partition.get(key) for key in SIZES},
        **{key: run.config.get(key) for key in SHARED},
    }
    return json.dumps(facts, sort_keys=True, default=str)


def _by_kind(runs: Runs) -> list[Runs]:
    """Settings by the classes that deal their data, if each kind makes an axis of its own.

    Else by those of sizes, shift and drift alone: partitions may share an axis.
    """
    for places in (PLACES, PLACES[1:]):
        kinds: dict[tuple[str, ...], Runs] = {}
        for setting, run in runs.items():
            kinds.setdefault(_kinds(run, places), {})[setting] = run
        if len(kinds) > 1 and min(map(len, kinds.values())) > 1:
            return list(kinds.values())
    return [runs]


def _kinds(run: Run, places: Sequence[str]) -> tuple[str, ...]:
    return tuple(class_of(node_at(run.config, place)) for place in places)


def _kinds_text(runs: Runs, among: Runs) -> str:
    """What one kind is called: by the classes that all of it has and not all of the others."""
    ours, every = (
        [set(classes) for classes in zip(*(_kinds(r, PLACES) for r in some.values()), strict=True)]
        for some in (runs, among)
    )
    kinds = [next(iter(o)) for o, e in zip(ours, every, strict=True) if len(o) == 1 < len(e)]
    words = [KINDS[kind].axis or kind for kind in kinds if kind in KINDS]
    return ", ".join(words) or "label skew alone"


def _words(runs: Sequence[Run]) -> tuple[str, dict[str, str]]:
    """The words that all settings' names share, and what is left of each name."""
    parts = {run.setting: run.setting.split(", ") for run in runs}
    # IID needs no words for how its labels or sizes were dealt: the others may share some.
    telling = [words for words in parts.values() if "IID" not in words]
    compared = telling if len(telling) > 1 else list(parts.values())
    common = [word for word in compared[0] if all(word in words for words in compared)]
    if len(runs) == 1:
        common = [word for word in common if word != partition_label(runs[0].config)]
    rest = {name: [w for w in words if w not in common] for name, words in parts.items()}
    return ", ".join(common), {name: ", ".join(words) or name for name, words in rest.items()}


def _places(results: Results, runs: Runs, ticks: Mapping[str, str]) -> list[Place]:
    order = [name for name in results.settings if name in runs]
    ranks = [knob_ranks(run.config) for run in runs.values()]
    varied = [PLACES[i] for i in range(len(PLACES)) if len({rank[i] for rank in ranks}) > 1]
    measure, skews = _measured(results, order, varied)
    if scale := _knob_scale(runs, varied) or _severity_scale(runs, varied):
        axis, words = scale
        return [
            Place(name, float(i), tick, skews[name], nan, True, axis, measure)
            for i, (name, tick) in enumerate(words.items())
        ]
    alphas = {name: runs[name].alpha for name in order}
    if set(varied) > {"partition"}:  # alpha is not all that differs
        alphas = dict.fromkeys(order, nan)
    spots = _spots(alphas, ticks)
    on_scale = any(isfinite(alpha) for _, _, alpha in spots.values())
    axis = "partition" if set(varied) <= {"partition"} else "how the data are dealt"
    axis = "Dirichlet α (skew grows to the right)" if on_scale else axis
    places = [
        Place(name, x, tick, skews[name], alpha, isfinite(alpha), axis, measure)
        for name, (x, tick, alpha) in spots.items()
    ]
    return sorted(places, key=lambda place: place.x)


Scale = tuple[str, dict[str, str]]  # what the ticks are; setting -> tick, from left to right


def _knob_scale(runs: Runs, varied: Sequence[str]) -> Scale | None:
    """The values of a knob, if it is all that differs; Dirichlet's alpha has an axis of its own."""
    if len(varied) != 1:
        return None
    nodes = {name: node_at(run.config, varied[0]) for name, run in runs.items()}
    kinds = {class_of(node) for node in nodes.values()} - {"", "Iid"}
    kind = KINDS.get(next(iter(kinds), ""))
    levels = [node for node in nodes.values() if class_of(node) in kinds]
    if len(kinds) != 1 or len(levels) < 2 or not kind or not kind.knob or "Dirichlet" in kinds:
        return None
    index = PLACES.index(varied[0])
    ranks = {name: knob_ranks(run.config)[index][1] for name, run in runs.items()}
    if len(set(ranks.values())) < len(ranks):
        return None
    ticks = {
        name: knob_text(nodes[name]) or ("IID" if varied[0] == "partition" else "none")
        for name in sorted(ranks, key=lambda name: ranks[name])
    }
    return kind.axis + ("" if kind.rising else " (skew grows to the right)"), ticks


def _severity_scale(runs: Runs, varied: Sequence[str]) -> Scale | None:
    """The names of the severities, where several knobs were turned together by them."""
    names = {name: severity_of(run.config) for name, run in runs.items()}
    if len(varied) < 2 or None in names.values() or len(set(names.values())) < len(names):
        return None
    order = sorted(names, key=lambda name: SEVERITIES.index(str(names[name])))
    kinds = {class_of(node_at(run.config, place)) for run in runs.values() for place in varied}
    turned = [KINDS[kind].axis for kind in KINDS if kind in kinds and KINDS[kind].knob]
    return f"severity of {', '.join(turned)}", {name: str(names[name]) for name in order}


def _measured(
    results: Results, order: Sequence[str], varied: Sequence[str]
) -> tuple[str, dict[str, float]]:
    """What the settings differ in most of what their knobs turn, and how much each has of it."""
    skews = {
        name: mean_skew([run.brief_skew for run in results.find(setting=name)]) for name in order
    }
    candidates = [] if "partition" in varied else [m for place in varied for m in MEASURED[place]]

    def reach(measure: str) -> float:
        values = [getattr(skew, measure) for skew in skews.values()]
        return max(values) - min(values) if all(map(isfinite, values)) else -1.0

    measure = max(candidates or ["label_js"], key=reach)
    return measure, {name: float(getattr(skew, measure)) for name, skew in skews.items()}


def _spots(
    alphas: Mapping[str, float], ticks: Mapping[str, str]
) -> dict[str, tuple[float, str, float]]:
    """Setting -> place, tick and alpha, NaN for what has no place on the log axis."""
    known = list(alphas.values())
    # Two settings of one alpha differ in something else: neither stands for that alpha.
    scale = sorted((a for a in known if isfinite(a) and known.count(a) == 1), reverse=True)
    step = log10(scale[0] / scale[-1]) / (len(scale) - 1) if len(scale) > 1 else 1.0
    at = {alpha: log10(scale[0] / alpha) / step for alpha in scale}
    end = max(at.values(), default=-APART)
    spots = {}
    for setting, alpha in alphas.items():
        if alpha in at:
            spots[setting] = (at[alpha], f"{alpha:g}", alpha)
        elif alpha == float("inf") and known.count(alpha) == 1:
            spots[setting] = (-1.0, "IID", alpha)
        else:
            end += APART
            spots[setting] = (end, fill(ticks[setting], 9, break_long_words=False), nan)
    return spots
