import dataclasses

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from fedtsd.data.skew import skew_of
from fedtsd.loading import load_federation
from fedtsd.skew import label_skew

SMALL = ("partition.num_clients=4", "method=fedavg")


def skew(config, *overrides: str):
    return skew_of(load_federation(config(*SMALL, *overrides)))


def test_every_kind_of_skew_shows_in_its_own_measure(config) -> None:
    flat = skew(config, "severity=iid")
    assert flat.label_js < 0.01
    assert flat.size_gini < 0.01
    assert (flat.classes_min, flat.input_shift, flat.label_shift) == (10, 0, 0)
    assert skew(config, "partition=pathological", "severity=extreme").label_js > 0.5
    assert skew(config, "partition=iid", "sizes=power_law", "severity=extreme").size_gini > 0.4
    assert skew(config, "partition=iid", "shift=rotation").input_shift > 0.5
    permuted = skew(config, "partition=iid", "shift=permuted_labels")
    # Three of four groups give every class another name.
    assert (permuted.label_shift, permuted.input_shift) == (0.75, 0)


def test_it_is_measured_on_what_clients_train_on(config) -> None:
    federation = load_federation(config(*SMALL, "partition=label_groups"))
    counts = federation.label_counts("train")
    laws = counts / counts.sum(axis=1, keepdims=True)
    pooled = counts.sum(axis=0) / counts.sum()
    found = skew_of(federation)
    assert found.label_emd == pytest.approx(np.abs(laws - pooled).sum(axis=1).mean())
    assert (found.size_min, found.size_max) == (counts.sum(axis=1).min(), counts.sum(axis=1).max())


def test_the_line_of_the_log_leaves_out_what_did_not_happen(config) -> None:
    found = skew(config, "severity=iid")
    assert "shifted" not in found.in_words(regression=False)
    moved = dataclasses.replace(found, input_shift=0.51, label_shift=0.3)
    line = moved.in_words(regression=True)
    assert line.endswith("shifted by 0.51 standard deviations; 30 % of training labels changed")
    assert "strata per client" in line


def test_label_skew_by_hand() -> None:
    assert label_skew(np.array([[5, 5], [50, 50]])) == 0.0
    # Two one-class clients of equal size, each against (1/2, 1/2)
    # with m = (3/4, 1/4): H(m) = .811278, minus (H(1, 0) + H(1/2, 1/2)) / 2 = 1/2.
    assert label_skew(np.array([[8, 0], [0, 8]])) == pytest.approx(0.311278, abs=1e-6)


def test_label_skew_is_the_divergence_of_scipy() -> None:
    counts = np.random.default_rng(0).poisson(2.0, (20, 10))
    counts[:, 3] = 0  # a class of nobody
    laws = counts / counts.sum(axis=1, keepdims=True)
    pooled = counts.sum(axis=0) / counts.sum()
    distances = jensenshannon(laws, pooled[None, :], base=2, axis=1)
    assert label_skew(counts) == pytest.approx(np.mean(distances**2), rel=1e-12)
