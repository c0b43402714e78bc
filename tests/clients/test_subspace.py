import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtsd.clients.subspace import data_subspace
from fedtsd.data.holdings import Split


def split(rows, labels=None) -> Split:
    inputs = torch.tensor(rows, dtype=torch.float32)
    labels = torch.zeros(len(inputs), dtype=torch.int64) if labels is None else labels
    return Split(inputs, labels)


def projector(basis: torch.Tensor) -> np.ndarray:
    return (basis @ basis.T).numpy()


def test_the_longest_directions_come_first() -> None:
    rows = [[0, 0, 3], [0, 1, 0], [0, 0, 3], [0.1, 0, 0]]
    one, two = data_subspace(split(rows), 1), data_subspace(split(rows), 2)
    assert one.abs().tolist() == pytest.approx(np.array([[0], [0], [1]]), abs=1e-6)
    assert projector(two) == pytest.approx(np.diag([0.0, 1.0, 1.0]), abs=1e-6)
    assert one.dtype == torch.float32
    assert one.is_contiguous()


def test_samples_are_not_centred() -> None:
    # Equal samples have no variance, and yet a direction.
    basis = data_subspace(split([[1, 1, 0], [1, 1, 0]]), 3)
    assert projector(basis) == pytest.approx(
        np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 0]]), abs=1e-6
    )
    assert basis.shape == (3, 1)  # the rest would be any vectors


def test_no_more_vectors_than_samples_span() -> None:
    assert data_subspace(split(np.eye(5)[:2]), 4).shape == (5, 2)
    assert data_subspace(split(np.zeros((3, 4))), 2).shape == (4, 0)


def test_labels_do_not_matter() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 4))
    expected = projector(data_subspace(split(rows), 2))
    for labels in (torch.arange(9) % 3, torch.linspace(0, 1, 9)):
        found = projector(data_subspace(split(rows, labels), 2))
        np.testing.assert_array_equal(found, expected)


def test_pictures_are_taken_as_vectors() -> None:
    pictures = np.random.default_rng(1).normal(size=(6, 2, 3, 3))
    found = data_subspace(split(pictures), 3)
    np.testing.assert_array_equal(found, data_subspace(split(pictures.reshape(6, 18)), 3))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 6))
def test_it_is_the_best_approximation_of_its_size(seed: int, samples: int, count: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(samples, 7)).astype(np.float32)
    basis = data_subspace(split(rows), count).double().numpy()
    np.testing.assert_allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-5)
    # Eckart and Young: what is left are the other singular values.
    left = rows - rows @ basis @ basis.T
    values = np.linalg.svd(rows, compute_uv=False)[count:]
    assert np.sum(left**2) == pytest.approx(np.sum(values**2), rel=1e-4, abs=1e-6)
