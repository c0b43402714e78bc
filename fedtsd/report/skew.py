"""How unlike the clients of a run are: from its summary, or from who holds what; and in words."""

from collections.abc import Mapping
from math import isnan, nan
from typing import Any

from fedtsd.report.dealing import node_at
from fedtsd.report.tables import RunTables
from fedtsd.skew import MEASURES, Skew, counts_skew

LEAST = 0.005  # what is printed as 0.00 is not named
NBSP = "\N{NO-BREAK SPACE}"  # a number stays beside its name
SHORT = {
    "label_js": "JS",
    "size_gini": "Gini",
    "input_shift": "input shift",
    "label_shift": "label shift",
}


def telling(skew: Skew, config: Mapping[str, Any]) -> dict[str, float]:
    """The measures that say something of a setting with this config, by their names in Skew."""
    sized = bool(node_at(config, "partition.sizes"))
    told = {
        "label_js": skew.label_js,
        "size_gini": skew.size_gini if sized else nan,
        "input_shift": skew.input_shift if skew.input_shift >= LEAST else nan,
        "label_shift": skew.label_shift if skew.label_shift >= LEAST else nan,
    }
    return {name: value for name, value in told.items() if not isnan(value)}


def run_skew(tables: RunTables) -> Skew:
    """The skew of a run whose tables have been read."""
    return summary_skew(tables.summary) or counts_skew(tables.train_counts)


def with_skew(name: str, config: Mapping[str, Any], skew: Skew) -> str:
    """The name of a setting with what was measured of it: `Dirichlet α = 0.1 (JS 0.36)`."""
    told = telling(skew, config).items()
    words = ", ".join(f"{SHORT[key]} {value:.2f}".replace(" ", NBSP) for key, value in told)
    return f"{name} ({words})" if name and words else name


def summary_skew(summary: Mapping[str, Any]) -> Skew | None:
    """The skew that a summary tells; None for that of an older version."""
    told = summary.get("skew")
    if not isinstance(told, Mapping):
        return None
    known = {name: told[name] for name in MEASURES if told.get(name) is not None}
    return Skew(**{name: float(value) for name, value in known.items()})
