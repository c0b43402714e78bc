import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.data.dataset import Digits, Facts
from fedtsd.data.shift import (
    Blur,
    Brightness,
    LabelNoise,
    Noise,
    PermutedLabels,
    Rotation,
    Viewer,
)
from tests.data.levels import RISING, at, files, with_knob

ARRAYS = Digits("digits", 200, "public").load(Path())
LABELS = ARRAYS.labels[:300]
# Twice the size: 16 x 16 pixels.
PICTURES = np.kron(ARRAYS.inputs[:300], np.ones((1, 1, 2, 2), dtype=np.uint8))
IMAGES = Facts(300, (1, 16, 16), tuple("0123456789"))
TABLE = Facts(300, (5,), ("a", "b"))
REGRESSION = Facts(300, (1, 16, 16), ("low", "high"), regression=True)

ALL = [
    Rotation(4, 270.0),
    Rotation(None, 90.0),
    Brightness(4, 0.8),
    Blur(3, 1.5),
    Noise(4, 0.3),
    Noise(None, 0.3),
    PermutedLabels(4, 1.0),
    PermutedLabels(None, 0.5),
    LabelNoise(None, 0.4),
    LabelNoise(4, 0.4),
]


def seen(shift, client: int, split: str = "train", seed: int = 0, pictures=PICTURES):
    labels = LABELS[: len(pictures)]
    return shift.apply(pictures, labels, Viewer(client, split, 10, seed))


def rms(pictures: np.ndarray, others: np.ndarray) -> float:
    return float(np.sqrt(np.mean((pictures.astype(float) - others.astype(float)) ** 2)))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(ALL),
    st.integers(0, 7),
    st.sampled_from(["train", "val", "test"]),
    st.integers(0, 50),
    st.integers(1, 40),
)
def test_a_shift_keeps_shapes_and_scale_and_is_reproducible(
    shift, client, split, seed, count
) -> None:
    before = PICTURES[:40].copy()
    pictures, labels = seen(shift, client, split, seed, before)
    assert pictures.shape == before.shape
    assert pictures.dtype in (np.uint8, np.float32)
    assert pictures.min() >= 0
    assert pictures.max() <= 255.01
    assert labels.dtype == np.int64
    assert labels.min() >= 0
    assert labels.max() < 10
    assert np.array_equal(before, PICTURES[:40])  # what is stored is not touched
    again = seen(shift, client, split, seed, before)
    assert np.array_equal(again[0], pictures)
    assert np.array_equal(again[1], labels)
    # The first samples look the same whether or not others come after them.
    first = seen(shift, client, split, seed, before[:count])
    assert np.array_equal(first[0], pictures[:count])
    assert np.array_equal(first[1], labels[:count])


@pytest.mark.parametrize("shift", ALL, ids=str)
def test_group_zero_and_no_strength_change_nothing(shift) -> None:
    idle = dataclasses.replace(shift, **{shift.KNOB: 0.0})
    assert idle.groups_of(8) is None
    for client in range(8):
        pictures, labels = seen(idle, client)
        assert np.array_equal(pictures, PICTURES)
        assert np.array_equal(labels, LABELS)
    if shift.num_groups is None:
        assert shift.groups_of(8) is None
    else:
        assert shift.groups_of(8).tolist() == [i % shift.num_groups for i in range(8)]
        pictures, labels = seen(shift, shift.num_groups)
        assert np.array_equal(pictures, PICTURES)
        assert np.array_equal(labels, LABELS)


def test_groups_stand_at_even_strengths() -> None:
    assert [Rotation(4, 270.0).strength(i, 0) for i in range(5)] == [0, 90, 180, 270, 0]
    assert [Noise(3, 0.5).strength(i, 0) for i in range(3)] == [0, 0.25, 0.5]


def test_without_groups_strengths_are_uniform() -> None:
    drawn = np.array([Blur(None, 2.0).strength(i, 0) for i in range(2000)])
    assert drawn.mean() == pytest.approx(1.0, abs=0.05)
    assert drawn.var() == pytest.approx(4 / 12, rel=0.1)
    assert drawn.min() >= 0
    assert drawn.max() <= 2
    assert Blur(None, 2.0).strength(7, 0) != Blur(None, 2.0).strength(7, 1)


def test_quarter_turns_are_exact_and_counter_clockwise() -> None:
    picture = np.array([[1, 2], [3, 4]], dtype=np.uint8).reshape(1, 1, 2, 2)
    turned = [
        Rotation(4, 270.0).apply(picture, LABELS[:1], Viewer(i, "train", 10, 0))[0]
        for i in range(4)
    ]
    assert [turn.ravel().tolist() for turn in turned] == [
        [1, 2, 3, 4],
        [2, 4, 1, 3],
        [4, 3, 2, 1],
        [3, 1, 4, 2],
    ]
    assert all(turn.dtype == np.uint8 for turn in turned)


def test_turns_between_go_the_same_way() -> None:
    almost, exact = seen(Rotation(2, 89.9), 1)[0], seen(Rotation(2, 90.0), 1)[0]
    assert rms(almost, exact) < 2 < 40 < rms(almost, PICTURES)


def test_oblong_pictures_keep_their_shape() -> None:
    oblong = PICTURES[:5, :, :, 3:11]
    for degrees in (90.0, 180.0):
        turned = Rotation(2, degrees).apply(oblong, LABELS[:5], Viewer(1, "train", 10, 0))[0]
        assert turned.shape == oblong.shape
    assert np.array_equal(turned, oblong[:, :, ::-1, ::-1])


def test_a_turn_takes_edge_pixels_from_outside() -> None:
    grey = np.full((1, 3, 9, 9), 77, dtype=np.uint8)
    turned = Rotation(2, 30.0).apply(grey, LABELS[:1], Viewer(1, "train", 10, 0))[0]
    assert turned == pytest.approx(77)


def test_brightness_by_hand() -> None:
    # At .5: 127.5 + .75 (x - 127.5) + 63.75; black gives 95.625, 100 gives 170.625, white is cut.
    picture = np.array([0, 100, 255, 255], dtype=np.uint8).reshape(1, 1, 2, 2)
    lit = Brightness(2, 0.5).apply(picture, LABELS[:1], Viewer(1, "train", 10, 0))[0]
    assert lit.ravel().tolist() == [95.625, 170.625, 255, 255]


def test_blur_spreads_a_point_as_a_gaussian() -> None:
    point = np.zeros((1, 2, 21, 21), dtype=np.uint8)
    point[0, 0, 10, 10] = 200
    blurred = Blur(2, 1.5).apply(point, LABELS[:1], Viewer(1, "train", 10, 0))[0].astype(float)
    assert blurred[0, 1].max() == 0  # channels do not mix
    assert blurred.sum() == pytest.approx(200, rel=1e-4)
    row = blurred[0, 0].sum(axis=0)
    place = np.arange(21) - 10
    assert (row @ place**2) / row.sum() == pytest.approx(1.5**2, rel=0.02)


def test_noise_has_its_standard_deviation_and_differs_by_client_and_split() -> None:
    grey = np.full((50, 1, 16, 16), 128, dtype=np.uint8)

    def noisy(client: int, split: str) -> np.ndarray:
        return Noise(2, 0.1).apply(grey, LABELS[:50], Viewer(client, split, 10, 0))[0]

    assert (noisy(1, "train") - 128).std() == pytest.approx(25.5, rel=0.02)
    assert rms(noisy(1, "train"), noisy(3, "train")) == pytest.approx(25.5 * 2**0.5, rel=0.03)
    assert rms(noisy(1, "train"), noisy(1, "test")) == pytest.approx(25.5 * 2**0.5, rel=0.03)


@pytest.mark.parametrize("share", [0.2, 0.4, 0.7, 1.0])
def test_permuted_labels_move_their_share_of_the_classes(share: float) -> None:
    shift = PermutedLabels(4, share)
    maps = [shift.permutation(client, 10, 0) for client in range(4)]
    assert maps[0].tolist() == list(range(10))
    for mapping in maps[1:]:
        assert sorted(mapping) == list(range(10))
        assert (mapping != np.arange(10)).sum() == round(share * 10)
    assert len({tuple(mapping) for mapping in maps}) == 4
    for split in ("train", "val", "test"):
        assert np.array_equal(seen(shift, 6, split)[1], maps[2][LABELS])


def test_few_classes_have_few_permutations() -> None:
    maps = [PermutedLabels(8, 1.0).permutation(client, 3, 0).tolist() for client in range(8)]
    assert maps[0] == [0, 1, 2]
    assert sorted(map(tuple, maps[1:3])) == [(1, 2, 0), (2, 0, 1)]
    two = [PermutedLabels(3, 0.1).permutation(client, 2, 0).tolist() for client in range(3)]
    assert two == [[0, 1], [1, 0], [1, 0]]


def test_without_groups_every_client_has_a_permutation_of_its_own() -> None:
    shift = PermutedLabels(None, 1.0)
    maps = [shift.permutation(client, 10, 0) for client in range(200)]
    moved = [int((mapping != np.arange(10)).sum()) for mapping in maps]
    assert set(moved) == {2, 3, 4, 5, 6, 7, 8, 9, 10}
    assert len({tuple(mapping) for mapping in maps}) > 180


def test_label_noise_is_symmetric_and_spares_the_test() -> None:
    labels = np.repeat(np.arange(4), 10_000)
    shift = LabelNoise(3, 0.6)
    pictures = np.zeros((len(labels), 1, 1, 1), dtype=np.uint8)
    for client, rate in ((1, 0.3), (2, 0.6)):
        for split in ("train", "val"):
            noisy = shift.apply(pictures, labels, Viewer(client, split, 4, 0))[1]
            table = np.zeros((4, 4))
            np.add.at(table, (labels, noisy), 1e-4)
            expected = np.full((4, 4), rate / 3)
            np.fill_diagonal(expected, 1 - rate)
            assert table == pytest.approx(expected, abs=0.015)
        assert np.array_equal(
            shift.apply(pictures, labels, Viewer(client, "test", 4, 0))[1], labels
        )


def strength(path: Path, severity: str) -> float:
    """How far four groups are apart: pictures by RMS in standard deviations, labels by share."""
    shift = at(path, severity, num_groups=4)
    views = [seen(shift, client) for client in range(4)]
    pairs = list(itertools.combinations(views, 2))
    pictures = np.mean([rms(a[0], b[0]) for a, b in pairs]) / PICTURES.std()
    return float(pictures + np.mean([np.mean(a[1] != b[1]) for a, b in pairs]))


@pytest.mark.parametrize("path", with_knob("shift"), ids=lambda path: path.stem)
def test_severity_grows_the_shift(path: Path) -> None:
    found = [strength(path, severity) for severity in RISING]
    assert found[0] == 0
    assert all(a + 0.03 < b for a, b in itertools.pairwise(found)), found
    assert found[1] < strength(path, "default") <= found[4]


def test_every_shift_has_a_knob() -> None:
    assert files("shift") == with_knob("shift")
    assert {type(at(path, "severe")) for path in files("shift")} == {type(shift) for shift in ALL}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rotation(1, 90.0), "num_groups: must be null or at least 2, got 1"),
        (lambda: Rotation(4, -1.0), "degrees: must be 0 to 360, got -1"),
        (lambda: Rotation(4, 361.0), "degrees: must be 0 to 360, got 361"),
        (lambda: Brightness(4, 1.1), "amount: must be 0 to 1, got 1.1"),
        (lambda: Blur(4, -1.0), "sigma: must be 0 to 100, got -1"),
        (lambda: Noise(4, 2.0), "std: must be 0 to 1, got 2"),
        (lambda: PermutedLabels(4, 1.5), "share: must be 0 to 1, got 1.5"),
        (lambda: LabelNoise(4, -0.5), "rate: must be 0 to 1, got -0.5"),
        (lambda: Rotation(4, 90.0).check(TABLE), r"degrees: needs images, .* shape \(5,\)"),
        (lambda: Noise(4, 0.1).check(TABLE), "std: needs images"),
        (lambda: PermutedLabels(4, 1.0).check(REGRESSION), "share: needs a data set with two"),
        (lambda: LabelNoise(4, 0.1).check(REGRESSION), "rate: needs a data set with two or more"),
    ],
)
def test_bad_settings_name_the_field(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def refused(shift, facts) -> str | None:
    try:
        shift.check(facts)
    except ValueError as error:
        return str(error)
    return None


def test_shifts_accept_what_fits() -> None:
    fitting = [*((shift, IMAGES) for shift in ALL), (PermutedLabels(4, 1.0), TABLE)]
    for shift, facts in [*fitting, (Blur(4, 1.0), REGRESSION)]:
        assert refused(shift, facts) is None
    assert refused(Blur(4, 1.0), TABLE) is not None
