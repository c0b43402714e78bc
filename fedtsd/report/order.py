"""The order of settings in every figure, table and page: the least skewed first."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Protocol

from fedtsd.report.dealing import KINDS, PLACES, SEVERITIES, class_of, knob_of, node_at


class Dealt(Protocol):
    """A run as far as its data go. skew: of the labels, measured (mean JS divergence)."""

    @property
    def setting(self) -> str:
        """The name of its setting."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Its config."""
        ...

    @property
    def skew(self) -> float:
        """Mean JS divergence of the clients' label laws to the pooled law."""
        ...


def least_skewed_first(runs: Sequence[Dealt]) -> list[str]:
    """The settings of the runs, in order.

    By severity, where all configs name one; then by measured label skew, unless all deal labels in
    one way and differ in sizes, shift or drift; then by the knobs.
    """
    runs_of: dict[str, list[Dealt]] = {}
    for run in runs:
        runs_of.setdefault(run.setting, []).append(run)
    configs = {setting: found[0].config for setting, found in runs_of.items()}
    severities = {setting: severity_of(config) for setting, config in configs.items()}
    named = None not in severities.values()
    ranks = {setting: knob_ranks(config) for setting, config in configs.items()}
    laws = {str(_labels(config)) for config in configs.values()}
    knobs_alone = len(laws) == 1 and len(set(ranks.values())) > 1

    def key(setting: str) -> tuple[Any, ...]:
        found = runs_of[setting]
        skew = round(sum(run.skew for run in found) / len(found), 6)
        return (
            SEVERITIES.index(str(severities[setting])) if named else 0,
            0.0 if knobs_alone else skew,
            ranks[setting],
            setting,
        )

    return sorted(runs_of, key=key)


def severity_of(config: Mapping[str, Any]) -> str | None:
    """The severity that a config names, if it is not the default."""
    name = config.get("severity")
    return name if name in SEVERITIES else None


def knob_ranks(config: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """For each place of a knob its class and a number that grows with the differences."""
    return tuple(_rank(node_at(config, place)) for place in PLACES)


def _rank(node: Mapping[str, Any]) -> tuple[str, float]:
    value = knob_of(node)
    if value is None:
        return class_of(node), -inf
    return class_of(node), value if KINDS[class_of(node)].rising else -value


def _labels(config: Mapping[str, Any]) -> dict[str, Any]:
    """How labels are dealt: the partition without its sizes."""
    return {key: value for key, value in node_at(config, "partition").items() if key != "sizes"}
