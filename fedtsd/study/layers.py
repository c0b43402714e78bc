"""The figure that goes with an ablation: personal layers chosen, and the best fixed number."""

import dataclasses
from pathlib import Path

from fedtsd.report.figures import save
from fedtsd.report.personal import best_fixed, personal_layers, unlike_in_layers
from fedtsd.study.standing import read_results


def draw_layers(folder: Path, target: Path, part: str, reference: str) -> list[Path]:
    """Write figures/benchmark_PART_layers.pdf and .png; nothing where no number is fixed.

    folder: of the runs. Only the reference is drawn, with runs that differ from it in their
    personal layers alone.
    """
    results = read_results(folder)
    runs = unlike_in_layers(results, reference)
    some = dataclasses.replace(results, runs=runs, holes=())
    if not best_fixed(some):
        return []
    target.mkdir(parents=True, exist_ok=True)
    return save(personal_layers(some), target, f"benchmark_{part}_layers")
