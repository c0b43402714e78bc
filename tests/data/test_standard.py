import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedtsd.data.standard import moments_of, raw_standard, standard_of

NAN = float("nan")


def test_means_and_deviations_by_hand_missing_values_left_out() -> None:
    table = np.array([[1.0, 10.0], [3.0, NAN], [5.0, 30.0]], dtype=np.float32)
    standard = standard_of(table, None)
    # Mean 3, variance (4 + 0 + 4) / 3; mean 20 and deviation 10 of the two that are known.
    assert standard.mean.tolist() == [[3.0, 20.0]]
    assert standard.scale[0] == pytest.approx([(8 / 3) ** 0.5, 10.0])
    assert standard.apply(table)[:, 1].tolist() == [-1.0, 0.0, 1.0]  # missing: the mean


def test_features_that_are_not_scaled_stay_as_they_are() -> None:
    table = np.array([[1.0, 0.0], [3.0, 1.0]], dtype=np.float32)
    applied = standard_of(table, np.array([True, False])).apply(table)
    assert applied.tolist() == [[-1.0, 0.0], [1.0, 1.0]]


def test_a_feature_that_never_varies_becomes_zero_and_does_not_blow_up() -> None:
    table = np.full((4, 1), 1e9, dtype=np.float32)
    standard = standard_of(table, None)
    assert standard.apply(table).tolist() == [[0.0]] * 4
    assert standard.apply(table + 64).max() == 64  # the next float32: not scaled up


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (12, 3), elements=st.floats(-1e3, 1e3, width=32) | st.just(NAN)),
    st.lists(st.integers(1, 11), min_size=2, max_size=2, unique=True).map(sorted),
)
def test_sums_of_sites_standardise_like_their_pooled_data(table, cuts) -> None:
    sites = np.split(table, cuts)
    summed = sum((moments_of(site) for site in sites[1:]), start=moments_of(sites[0]))
    together = moments_of(table)
    for name in ("count", "total", "squares"):
        assert getattr(summed, name) == pytest.approx(getattr(together, name))
    with np.errstate(invalid="ignore"):
        known = ~np.isnan(table).all(axis=0)
        means = np.nanmean(table[:, known].astype(np.float64), axis=0)
        stds = np.nanstd(table[:, known].astype(np.float64), axis=0)
    standard = summed.standard(None)
    assert standard.mean[0, known] == pytest.approx(means, abs=1e-3)
    varies = stds > 1e-2
    assert standard.scale[0, known][varies] == pytest.approx(stds[varies], rel=1e-2)


def test_images_have_one_mean_and_deviation_per_channel() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
    applied = standard_of(images, None).apply(images)
    assert applied.mean(axis=(0, 2, 3)) == pytest.approx([0, 0, 0], abs=1e-5)
    assert applied.std(axis=(0, 2, 3)) == pytest.approx([1, 1, 1], abs=1e-5)
    summed = moments_of(images).standard(None).apply(images)
    assert summed == pytest.approx(applied, abs=1e-5)


def test_without_standardisation_pixels_lie_in_0_to_1_and_tables_stay() -> None:
    images = np.array([[[[0, 255]]]], dtype=np.uint8)
    assert raw_standard(images).apply(images).tolist() == [[[[0.0, 1.0]]]]
    table = np.array([[7.0, NAN]], dtype=np.float32)
    assert raw_standard(table).apply(table).tolist() == [[7.0, 0.0]]
