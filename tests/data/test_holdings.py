import dataclasses
import os

import numpy as np
import pytest
import torch

from fedtsd.data import holdings
from fedtsd.data.dataset import Arrays
from fedtsd.data.holdings import Holdings, View
from fedtsd.data.shift import LabelNoise, PermutedLabels, Rotation
from fedtsd.data.standard import Standard, standard_of

RNG = np.random.default_rng(0)
PICTURES = Arrays(
    RNG.integers(0, 256, (60, 1, 4, 4), dtype=np.uint8), np.arange(60) % 3, ("a", "b", "c")
)
CUTS = [
    dict(zip(("train", "val", "test"), np.split(np.arange(s, s + 20), [12, 14]), strict=True))
    for s in (0, 20, 40)
]


def make(shift=None, arrays=PICTURES, standard=True, values=None) -> Holdings:
    view = View(arrays, shift, seed=0)
    standard = standard_of(arrays.inputs, arrays.scaled) if standard else None
    return Holdings(view, CUTS, standard, values)


def test_each_holder_has_its_samples_standardised() -> None:
    pixels = PICTURES.inputs.astype(np.float32)
    expected = (pixels - pixels.mean()) / pixels.std()
    for holder, cut in enumerate(CUTS):
        data = make()[holder]
        assert data.train.inputs.numpy() == pytest.approx(expected[cut["train"]], abs=1e-4)
        assert data.test.labels.tolist() == PICTURES.labels[cut["test"]].tolist()


def test_what_is_no_longer_kept_is_made_again_alike(monkeypatch) -> None:
    found = make(Rotation(2, 90.0))
    first = [data.train.inputs.clone() for data in found]
    size = found[0].num_bytes
    monkeypatch.setattr(holdings, "KEPT_BYTES", 2 * size)
    found = make(Rotation(2, 90.0))
    for _ in range(2):
        for holder in (2, 0, 1):
            assert torch.equal(found[holder].train.inputs, first[holder])
            assert len(found._kept) <= 2
            assert found._kept_bytes == size * len(found._kept)


def test_by_site_each_holder_is_standardised_by_its_own_training_samples() -> None:
    for data in make(standard=False):
        assert data.train.inputs.mean().item() == pytest.approx(0, abs=1e-5)
        assert data.train.inputs.std(unbiased=False).item() == pytest.approx(1, abs=1e-3)


def test_labels_are_those_that_the_holder_sees() -> None:
    permuted = make(PermutedLabels(3, 1.0))
    assert permuted.labels(0, "train").tolist() == PICTURES.labels[CUTS[0]["train"]].tolist()
    before = PICTURES.labels[CUTS[1]["train"]]
    assert (permuted.labels(1, "train") != before).all()  # no class keeps its name
    assert permuted.labels(1, "train").tolist() == permuted[1].train.labels.tolist()
    turned = make(Rotation(3, 180.0))
    assert turned.labels(1, "train").tolist() == before.tolist()


def test_how_far_a_shift_goes_by_hand() -> None:
    assert make().moved(0) == (0.0, 0.0)
    assert make(PermutedLabels(3, 1.0)).moved(1) == (0.0, 1.0)
    half_turn = make(Rotation(2, 180.0))
    assert half_turn.moved(0) == (0.0, 0.0)  # group 0 stays
    pixels = PICTURES.inputs[CUTS[1]["train"]].astype(np.float32)
    change = (pixels[:, :, ::-1, ::-1] - pixels) / PICTURES.inputs.astype(np.float32).std()
    assert half_turn.moved(1)[0] == pytest.approx(np.sqrt((change**2).mean()), rel=1e-4)
    noisy = make(LabelNoise(None, 1.0))
    assert 0 <= noisy.moved(0)[1] <= 1


def test_values_of_a_regression_are_standardised_and_know_their_unit() -> None:
    values = np.arange(60, dtype=np.float32) * 10
    table = Arrays(
        RNG.normal(size=(60, 2)).astype(np.float32), np.arange(60) // 20, ("low", "mid", "high"),
        values,
    )  # fmt: skip
    view = View(table, None, 0)
    standard = view.value_standard(CUTS, [0, 1])
    train = np.concatenate([values[cut["train"]] for cut in CUTS[:2]])  # the third is a newcomer
    data = Holdings(view, CUTS, standard_of(table.inputs, None), standard)[2]
    assert data.train.unit == pytest.approx(train.std(), rel=1e-5)
    expected = (values[CUTS[2]["train"]] - train.mean()) / train.std()
    assert data.train.labels.tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert data.train.labels.dtype == torch.float32


def test_a_memory_map_is_read_for_what_is_asked_only(tmp_path) -> None:
    np.save(tmp_path / "inputs.npy", PICTURES.inputs)
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    found = make(arrays=Arrays(mapped, PICTURES.labels, PICTURES.classes))
    assert found.labels(1, "train").tolist() == PICTURES.labels[CUTS[1]["train"]].tolist()
    assert not found._kept  # labels and sizes need no inputs
    assert found.size(1, "val") == 2
    assert torch.equal(found[1].val.inputs, make()[1].val.inputs)
    with pytest.raises(IndexError):
        found[3]


def test_what_a_forked_process_has_made_is_seen_here() -> None:
    """Of values to predict too, whose unit is then known without having made them."""
    values = np.linspace(0, 9, 60, dtype=np.float32)
    arrays = dataclasses.replace(PICTURES, values=values)
    found = make(arrays=arrays, values=Standard(np.array([4.0]), np.array([2.0])))
    child = os.fork()
    if child == 0:
        found[1]
        os._exit(0)
    os.waitpid(child, 0)
    shelf = found._shelf
    assert [shelf.has(holder) for holder in range(3)] == [False, True, False]
    seen = shelf.get(1)
    assert seen.train.labels.tolist() == pytest.approx((values[CUTS[1]["train"]] - 4) / 2)
    assert seen.test.unit == 2.0
