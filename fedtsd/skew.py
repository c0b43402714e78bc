"""How unlike clients are, measured: label laws, sizes, and what a shift makes of samples.

Shapes: N clients, Y classes (in regression, strata of the target).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from math import nan

import numpy as np


@dataclass(frozen=True)
class Skew:
    """What sets the clients of one run apart; NaN where it was not measured.

    label_js, label_emd: means over clients of the Jensen-Shannon divergence (0..1) and of the sum
    of absolute differences (0..2; Zhao et al. 2018) of a client's label law to the pooled law.
    size_gini (0..1), size_min, size_max: of the numbers of training samples. classes_*: how many
    classes a client holds. input_shift: root mean square change of the training inputs by the
    shift, in standard deviations. label_shift: share of the training labels that it changes.
    """

    label_js: float = nan
    label_emd: float = nan
    size_gini: float = nan
    size_min: float = nan
    size_max: float = nan
    classes_min: float = nan
    classes_mean: float = nan
    classes_max: float = nan
    input_shift: float = nan
    label_shift: float = nan

    def in_words(self, regression: bool) -> str:
        """Return the measures as one line of a log."""
        classes = "strata" if regression else "classes"
        words = [
            f"label laws JS {self.label_js:.3f}, EMD {self.label_emd:.3f} from the pooled law",
            f"training sizes {self.size_min:.0f} to {self.size_max:.0f}, Gini {self.size_gini:.2f}",
            f"{self.classes_min:.0f} to {self.classes_max:.0f} {classes} per client, "
            f"mean {self.classes_mean:.1f}",
        ]
        if self.input_shift:
            words.append(f"inputs shifted by {self.input_shift:.2f} standard deviations")
        if self.label_shift:
            words.append(f"{100 * self.label_shift:.0f} % of training labels changed")
        return "; ".join(words)


MEASURES = tuple(field.name for field in fields(Skew))


def counts_skew(counts: np.ndarray) -> Skew:
    """The skew of training samples `[N, Y]`; of a shift they show nothing."""
    held = np.asarray(counts, dtype=np.float64)
    held = held[held.sum(axis=1) > 0]
    if not len(held):
        return Skew()
    sizes, classes = held.sum(axis=1), (held > 0).sum(axis=1)
    laws, pooled = held / sizes[:, None], held.sum(axis=0) / held.sum()
    return Skew(
        label_js=label_skew(held),
        label_emd=float(np.abs(laws - pooled).sum(axis=1).mean()),
        size_gini=gini(sizes),
        size_min=float(sizes.min()),
        size_max=float(sizes.max()),
        classes_min=float(classes.min()),
        classes_mean=float(classes.mean()),
        classes_max=float(classes.max()),
    )


def gini(sizes: np.ndarray) -> float:
    """Gini's coefficient: half the mean absolute difference of two sizes over their mean, 0..1."""
    ordered = np.sort(np.asarray(sizes, dtype=np.float64))
    n, total = len(ordered), ordered.sum()
    ranks = np.arange(1, n + 1)
    return float((2 * ranks - n - 1) @ ordered / (n * total)) if total else 0.0


def mean_skew(skews: Sequence[Skew]) -> Skew:
    """The mean of several runs, measure by measure, over those that know it."""
    table = np.array([list(asdict(skew).values()) for skew in skews], dtype=np.float64)
    known = ~np.isnan(table)
    sums = np.where(known, table, 0.0).sum(axis=0)
    means = [s / n if n else nan for s, n in zip(sums, known.sum(axis=0), strict=True)]
    return Skew(*(float(mean) for mean in means))


def label_skew(counts: np.ndarray) -> float:
    """Return the mean Jensen-Shannon divergence of the clients' label laws to the pooled law.

    `counts` [N, Y] are label counts. In 0..1 (divided by ln 2); 0 where all laws are alike.
    """
    counts = np.asarray(counts, dtype=np.float64)
    laws = counts / counts.sum(axis=1, keepdims=True)
    pooled = counts.sum(axis=0) / counts.sum()
    # By entropies: scipy has the divergence too, but every run would wait for its import.
    divergences = _entropy((laws + pooled) / 2) - (_entropy(laws) + _entropy(pooled)) / 2
    return max(float(np.mean(divergences)), 0.0)


def _entropy(laws: np.ndarray) -> np.ndarray:
    """Entropy in bits of laws [..., Y]."""
    logs = np.log2(laws, out=np.zeros_like(laws), where=laws > 0)
    entropy: np.ndarray = -(laws * logs).sum(axis=-1)
    return entropy
