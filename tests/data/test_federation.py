from pathlib import Path

import numpy as np
import pytest

from fedtsd.data.dataset import Digits
from fedtsd.data.federation import Deal, Shares, build_federation
from fedtsd.data.partition import Dirichlet, Iid, Pathological
from fedtsd.data.public import HeldOut

DIGITS = Digits("digits", 200, "public")
ARRAYS = DIGITS.load(Path("unused"))
SHARES = Shares(test=0.4, val=0.1)


def build(partition, seed=0, **parts):
    deal = Deal(DIGITS, HeldOut(None), partition, SHARES, **parts)
    return build_federation(ARRAYS, deal, Path("unused"), seed)


def rows(tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in tensor}


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    assert ARRAYS.inputs.shape == (1797, 1, 8, 8)
    assert np.array_equal(ARRAYS.labels, labels)
    assert np.array_equal(np.rint(ARRAYS.inputs.reshape(1797, 64) * (16 / 255)), pixels)


def test_every_sample_belongs_to_one_place() -> None:
    federation = build(Dirichlet(20, 10, None, None, 0.5))
    places = [split for c in federation.clients for split in (c.train, c.val, c.test)]
    # No two digits of the data set are equal, so equal rows would be a sample in two places.
    seen = [rows(split.inputs) for split in places] + [rows(federation.public)]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 1797
    assert len(federation.public) == 200


def test_shares_are_cut_as_asked() -> None:
    client = build(Iid(10, 10, 100, None)).clients[0]
    assert (len(client.test), len(client.val), len(client.train)) == (40, 6, 54)


def test_test_data_follow_the_clients_own_law() -> None:
    federation = build(Pathological(20, 10, None, None, 2))
    train, test = (federation.label_counts(split) > 0 for split in ("train", "test"))
    assert np.array_equal(train, test)


def test_public_samples_standardise_everything() -> None:
    public = build(Iid(5, 10, None, None)).public
    assert public.mean().item() == pytest.approx(0, abs=1e-5)
    assert public.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)


def test_same_seed_same_federation() -> None:
    a, b, c = (build(Dirichlet(5, 10, None, None, 0.5), seed) for seed in (0, 0, 1))
    assert all(
        x.train.inputs.equal(y.train.inputs) for x, y in zip(a.clients, b.clients, strict=True)
    )
    assert not np.array_equal(a.label_counts("train"), c.label_counts("train"))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_tiny_clients_still_train_and_test(size: int) -> None:
    cut = SHARES.cut(np.arange(size), np.random.default_rng(0))
    assert sorted(np.concatenate(list(cut.values())).tolist()) == list(range(size))
    assert len(cut["train"]) >= 1
    assert len(cut["test"]) >= 1


def test_no_validation_if_its_share_is_zero() -> None:
    assert len(Shares(0.4, 0.0).cut(np.arange(50), np.random.default_rng(0))["val"]) == 0


@pytest.mark.parametrize(("test", "val"), [(0.0, 0.1), (1.0, 0.1), (0.4, -0.1)])
def test_shares_are_checked(test: float, val: float) -> None:
    with pytest.raises(ValueError, match="must be"):
        Shares(test, val)
