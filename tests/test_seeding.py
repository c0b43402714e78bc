import torch

from fedtsd.seeding import derive, numpy_rng, torch_rng


def test_same_purpose_same_draw() -> None:
    assert derive(3, "train", 5, 7) == derive(3, "train", 5, 7)
    assert numpy_rng(1, "cohort", 2).integers(1 << 40) == numpy_rng(1, "cohort", 2).integers(
        1 << 40
    )
    a, b = (torch.randperm(50, generator=torch_rng(1, "train", 4, 2)) for _ in range(2))
    assert torch.equal(a, b)


def test_every_argument_matters() -> None:
    seeds = {
        derive(0, "train", 1, 2),
        derive(1, "train", 1, 2),
        derive(0, "tune", 1, 2),
        derive(0, "train", 2, 1),
        derive(0, "train", 12),
        derive(0, "train", 1, 2, 0),
    }
    assert len(seeds) == 6


def test_seed_does_not_depend_on_process() -> None:
    # Python's hash() would; a published run must come out the same tomorrow.
    assert derive(0, "model") == 3156147057281590451
