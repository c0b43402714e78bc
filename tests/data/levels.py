"""Config files of one group as dataclasses, at each severity; and how skewed clients are."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from scipy.spatial.distance import jensenshannon

from fedtsd.catalogue import conf_dir
from fedtsd.schema import convert

RISING = ("iid", "mild", "moderate", "severe", "extreme")


def files(group: str) -> list[Path]:
    return sorted((conf_dir() / group).glob("*.yaml"))


def with_knob(group: str) -> list[Path]:
    return [path for path in files(group) if "_severity_" in path.read_text()]


def at(path: Path, severity: str, **changes: Any) -> Any:
    """The dataclass that a file describes at a severity, with other values for some keys."""
    cfg = OmegaConf.create({"severity": severity, "node": OmegaConf.load(path)})
    node = OmegaConf.to_container(cfg, resolve=True)["node"]
    node.pop("_severity_", None)
    return convert({**node, **changes}, None, path.stem)


def label_js(counts: np.ndarray) -> float:
    """Mean Jensen-Shannon divergence of label laws [N, Y] to the pooled one, 0 to 1."""
    laws = counts / counts.sum(axis=1, keepdims=True)
    pooled = counts.sum(axis=0) / counts.sum()
    return float(np.mean(jensenshannon(laws, pooled[None], base=2, axis=1) ** 2))


def gini(sizes: np.ndarray) -> float:
    """Gini index: the mean absolute difference of two sizes over twice their mean."""
    return float(np.abs(sizes[:, None] - sizes).mean() / (2 * sizes.mean()))
