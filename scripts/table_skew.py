"""Measure how unlike clients come out for every partition, sizes and shift at every severity.

The tables of docs/data.md: Fashion-MNIST, 20 clients, mean of three seeds.
Run: python scripts/table_skew.py [overrides of fedtsd train]
"""

import sys
from dataclasses import asdict

from fedtsd.catalogue import options
from fedtsd.compose import LEVELS, SEVERITIES, check, composed
from fedtsd.data.skew import skew_of
from fedtsd.loading import load_federation
from fedtsd.skew import Skew, mean_skew

SEEDS = (0, 1, 2)
MEASURES = {
    "label_js": ("label JS", "{:.3f}"),
    "label_emd": ("EMD", "{:.2f}"),
    "classes_mean": ("classes", "{:.1f}"),
    "size_min": ("smallest", "{:.0f}"),
    "size_max": ("largest", "{:.0f}"),
    "size_gini": ("Gini", "{:.2f}"),
    "input_shift": ("input shift", "{:.2f}"),
    "label_shift": ("label shift", "{:.2f}"),
}
SIZES = ("size_min", "size_max", "size_gini")
TABLES = {
    "partition": ([], ("label_js", "label_emd", "classes_mean", *SIZES)),
    "sizes": (["partition=iid"], ("label_js", *SIZES)),
    "shift": (["partition=iid"], ("input_shift", "label_shift")),
}


def main() -> None:
    given = sys.argv[1:] or ["dataset=fashion_mnist"]
    for group, (base, names) in TABLES.items():
        print(f"\n| setting | severity | knob | {' | '.join(MEASURES[n][0] for n in names)} |")
        print("|---|---|---|" + "---:|" * len(names))
        for option in options(group):
            for severity in SEVERITIES[1:]:
                overrides = [*given, *base, f"{group}={option}", f"severity={severity}"]
                if knob := knob_of(group, overrides):
                    skew = asdict(measured(overrides))
                    cells = [MEASURES[name][1].format(skew[name]) for name in names]
                    words = (f"`{group}={option}`", severity, knob, *cells)
                    print(f"| {' | '.join(words)} |")


def knob_of(group: str, overrides: list[str]) -> str | None:
    """Return `key = value` of the knob that severity sets, None if the option has none."""
    cfg = composed(overrides)
    node = cfg.partition.sizes if group == "sizes" else cfg[group]
    keys = [key for key in node if LEVELS in str(node._get_node(key)) and key != LEVELS]
    return f"{keys[0]} {show(node[keys[0]])}" if keys else None


def show(value: float | None) -> str:
    return "null" if value is None else f"{value:g}"


def measured(overrides: list[str]) -> Skew:
    found = []
    for seed in SEEDS:
        config = check(composed([*overrides, f"seed={seed}"]))
        found.append(skew_of(load_federation(config)))
    return mean_skew(found)


if __name__ == "__main__":
    main()
