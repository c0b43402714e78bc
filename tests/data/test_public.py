import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedtsd.catalogue import options
from fedtsd.data.dataset import Arrays, Dataset, Digits, Facts
from fedtsd.data.image_folder import ImageFolder
from fedtsd.data.images import ImageSet
from fedtsd.data.public import (
    KINDS,
    Folder,
    HeldOut,
    Mixed,
    Noise,
    OtherDataset,
    PublicSource,
)
from fedtsd.errors import DataError

DIGITS = Digits("digits", 200, "moments")
NOWHERE = Path("/nowhere")


@dataclass(frozen=True)
class Toy:
    """Samples 0, 1, 2, ... of one shape, each filled with its number."""

    name: str = "toy"
    num_samples: int = 40
    shape: tuple[int, ...] = (1, 2, 2)
    public_size: int | None = 10
    standardise: str = "moments"
    path: str | None = None

    @property
    def facts(self) -> Facts:
        return Facts(self.num_samples, self.shape, ("a", "b"))

    def load(self, root: Path) -> Arrays:
        numbers = np.arange(self.num_samples).reshape(-1, *[1] * len(self.shape))
        inputs = np.broadcast_to(numbers, (self.num_samples, *self.shape)).astype(np.uint8)
        return Arrays(inputs, numbers.reshape(-1) % 2, ("a", "b"))


@dataclass(frozen=True)
class ToyTable(Toy):
    """Two numbers and a category of three as one-hot columns."""

    shape: tuple[int, ...] = (5,)

    def load(self, root: Path) -> Arrays:
        rng = np.random.default_rng(0)
        numbers = rng.normal((1000.0, -2.0), (50.0, 0.1), (self.num_samples, 2))
        numbers[::4, 1] = np.nan
        one_hot = np.eye(3)[np.arange(self.num_samples) % 3]
        inputs = np.hstack([numbers, one_hot]).astype(np.float32)
        scaled = np.array([True, True, False, False, False])
        labels = np.arange(self.num_samples) % 2
        return Arrays(inputs, labels, ("a", "b"), scaled=scaled)

    def read_unlabelled(self, path: Path) -> np.ndarray:
        return np.loadtxt(path, delimiter=",", dtype=np.float32, ndmin=2)


def draw(source: PublicSource, dataset: Any, seed: int = 0) -> np.ndarray:
    """Hold out the first samples of the data set and draw, as a run does."""
    source.check(dataset)
    own = dataset.load(NOWHERE).inputs[: source.held_out_for(dataset)]
    return source.draw(own, dataset, NOWHERE, np.random.default_rng(seed))


def message_of(source: PublicSource, dataset: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole line is compared
        source.check(dataset)
    return str(caught.value)


def paint(folder: Path, values: list[int], shape: tuple[int, int] = (2, 2)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k, value in enumerate(values):
        Image.fromarray(np.full(shape, value, np.uint8)).save(folder / f"{k:02d}.png")
    return folder


def test_held_out_samples_are_those_of_the_data_set() -> None:
    assert HeldOut(None).size_for(DIGITS) == HeldOut(None).held_out_for(DIGITS) == 200
    assert HeldOut(50).size_for(DIGITS) == HeldOut(50).held_out_for(DIGITS) == 50
    assert np.array_equal(draw(HeldOut(50), DIGITS), DIGITS.load(NOWHERE).inputs[:50])


@pytest.mark.parametrize(
    ("num_samples", "share"), [(12_345, 1000), (5_000, 500), (60, 10), (12, 6)]
)
def test_a_data_set_that_says_no_number_gives_a_tenth(num_samples: int, share: int) -> None:
    dataset = Toy(num_samples=num_samples, public_size=None)
    assert HeldOut(None).held_out_for(dataset) == share
    assert Noise(None, "uniform").size_for(dataset) == share


def test_another_data_set_gives_its_samples_once_each() -> None:
    other = Toy("other", num_samples=30)
    source = OtherDataset(None, other)
    assert (source.size_for(DIGITS), source.held_out_for(DIGITS)) == (200, 0)
    drawn = draw(dataclasses.replace(source, size=20), Toy())
    numbers = drawn[:, 0, 0, 0].tolist()
    assert len(set(numbers)) == 20
    assert set(numbers) <= set(range(30))
    assert numbers != draw(dataclasses.replace(source, size=20), Toy(), seed=1)[:, 0, 0, 0].tolist()


def test_another_data_set_must_have_the_same_shape() -> None:
    mnist = ImageSet("mnist", "auto", 2, 1000, "public")
    assert message_of(OtherDataset(None, mnist), DIGITS) == (
        "dataset: samples of mnist have shape 1 x 14 x 14, those of digits 1 x 8 x 8; they must "
        "be equal (pool makes images smaller)"
    )


def test_another_data_set_must_have_enough_samples() -> None:
    assert message_of(OtherDataset(31, Toy("other", num_samples=30)), Toy()) == (
        "size: must be at most the 30 samples of other, got 31"
    )


def test_the_data_set_of_the_clients_is_no_other_one() -> None:
    assert message_of(OtherDataset(5, Toy(public_size=3)), Toy()) == (
        "dataset: toy is what the clients hold; take another data set, or public=held_out"
    )
    OtherDataset(5, Toy(path="/there")).check(Toy(path="/here"))  # own data, one name for both


def test_a_folder_of_images_of_the_shape(tmp_path) -> None:
    folder = paint(tmp_path / "free", [10, 20, 30])
    paint(folder / "more", [40])
    source = Folder(None, str(folder))
    assert (source.size_for(Toy()), source.held_out_for(Toy())) == (4, 0)
    assert draw(source, Toy())[:, 0, 1, 1].tolist() == [10, 20, 30, 40]
    some = draw(Folder(2, str(folder)), Toy())
    assert some.dtype == np.uint8
    assert len(set(some[:, 0, 0, 0].tolist()) & {10, 20, 30, 40}) == 2


def test_a_folder_for_own_images_is_read_as_they_are(tmp_path) -> None:
    paint(tmp_path / "own/a", [1] * 12, (6, 4))
    paint(tmp_path / "own/b", [2] * 12, (4, 4))
    free = paint(tmp_path / "free", [7, 9], (8, 2))
    own = ImageFolder("own", str(tmp_path / "own"), "class", (4, 4), None, 2, None, "error", None, "site")  # fmt: skip # noqa: E501
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDTSD_DATA", str(tmp_path / "kept"))
        source = Folder(None, str(free))
        source.check(own)
        drawn = source.draw(np.empty(0), own, tmp_path / "kept", np.random.default_rng(0))
    assert drawn.tolist() == [[[[v, v], [v, v]]] for v in (7, 9)]


def test_a_file_for_a_table_is_read_by_the_table(tmp_path) -> None:
    np.savetxt(tmp_path / "free.csv", np.arange(15).reshape(3, 5), delimiter=",")
    source = Folder(None, str(tmp_path / "free.csv"))
    assert source.size_for(ToyTable()) == 3
    assert draw(source, ToyTable()).tolist() == np.arange(15.0).reshape(3, 5).tolist()


def test_too_few_images_in_a_folder(tmp_path) -> None:
    folder = paint(tmp_path / "free", [1, 2])
    with pytest.raises(DataError) as caught:
        draw(Folder(3, str(folder)), Toy())
    assert str(caught.value) == f"{folder}: has 2 samples, public.size asks for 3"


def test_images_of_another_shape_in_a_folder(tmp_path) -> None:
    folder = paint(tmp_path / "free", [1, 2], (3, 4))
    with pytest.raises(DataError) as caught:
        draw(Folder(None, str(folder)), Toy())
    assert str(caught.value) == (
        f"{folder}: images have 3 x 4 pixels (height x width), those of the data set 2 x 2"
    )


def test_rows_of_another_shape_in_a_file(tmp_path) -> None:
    np.savetxt(tmp_path / "free.csv", np.zeros((3, 4)), delimiter=",")
    with pytest.raises(DataError) as caught:
        draw(Folder(None, str(tmp_path / "free.csv")), ToyTable())
    assert str(caught.value) == (f"{tmp_path / 'free.csv'}: samples have shape 4, those of toy 5")


@pytest.mark.parametrize("inside", [True, False])
def test_a_folder_that_holds_the_clients_own_data(tmp_path, inside: bool) -> None:
    (tmp_path / "data/site").mkdir(parents=True)
    public, own = tmp_path / "data/site", tmp_path / "data"
    if not inside:
        public, own = own, public
    assert message_of(Folder(None, str(public)), Toy(path=str(own))) == (
        f"path: {public} holds data of the clients"
    )


def test_a_folder_that_is_not_there() -> None:
    assert message_of(Folder(None, "/nowhere/free"), Toy()) == (
        "path: there is no file or folder /nowhere/free"
    )


def test_a_table_that_cannot_read_files(tmp_path) -> None:
    assert message_of(Folder(None, str(tmp_path)), Toy(shape=(3,))) == (
        "path: toy cannot read samples from a file or folder"
    )


def test_uniform_noise_fills_the_range() -> None:
    source = Noise(500, "uniform")
    assert source.held_out_for(DIGITS) == 0
    drawn = draw(source, DIGITS)
    counts = np.bincount(drawn.reshape(-1), minlength=256)
    # 32,000 pixels: 125 of each value, standard deviation 11.2
    assert np.abs(counts - 125).max() < 5 * 11.2
    assert (drawn.shape, drawn.dtype) == ((500, 1, 8, 8), np.uint8)


def test_gaussian_noise_lies_around_the_middle() -> None:
    drawn = draw(Noise(500, "gaussian"), DIGITS)
    assert (drawn.shape, drawn.dtype) == ((500, 1, 8, 8), np.uint8)
    assert drawn.mean() == pytest.approx(127.5, abs=2)
    # Clipped at two standard deviations of 63.75: P(0) = P(Z < -1.992) = 0.0232.
    assert (drawn == 0).mean() == pytest.approx(0.0232, abs=0.005)
    assert np.mean(np.abs(drawn - 127.5) < 63.75) == pytest.approx(0.683, abs=0.01)


def test_shuffled_pixels_keep_their_distribution_and_lose_their_connection() -> None:
    source = Noise(300, "shuffled")
    assert source.held_out_for(DIGITS) == 300
    own = DIGITS.load(NOWHERE).inputs[:300]
    before = own.copy()
    drawn = draw(source, DIGITS)
    assert np.array_equal(own, before)
    assert np.array_equal(np.sort(drawn, axis=0), np.sort(own, axis=0))
    center = (slice(None), 0, 3)

    def connection(images: np.ndarray) -> float:
        return float(np.corrcoef(images[*center, 3], images[*center, 4])[0, 1])

    assert connection(own) > 0.3
    assert abs(connection(drawn)) < 0.2


@pytest.mark.parametrize("kind", KINDS)
def test_noise_of_a_table_has_its_scale_and_valid_categories(kind: str) -> None:
    dataset = ToyTable(num_samples=900)
    source = Noise(400, kind)
    assert source.held_out_for(dataset) == 400
    own = dataset.load(NOWHERE).inputs[:400]
    before = own.copy()
    drawn = draw(source, dataset)
    assert (drawn.shape, drawn.dtype) == ((400, 5), np.float32)
    assert np.array_equal(own, before, equal_nan=True)
    assert np.array_equal(np.sort(drawn[:, 2:], axis=0), np.sort(own[:, 2:], axis=0))
    assert (drawn[:, 2:].sum(axis=1) == 1).all()
    if kind == "shuffled":
        assert np.array_equal(
            np.sort(drawn[:, :2], axis=0), np.sort(own[:, :2], axis=0), equal_nan=True
        )
        return
    assert not np.isnan(drawn).any()
    low, high = np.nanmin(own, axis=0)[:2], np.nanmax(own, axis=0)[:2]
    if kind == "uniform":
        assert (drawn[:, :2] >= low).all()
        assert (drawn[:, :2] <= high).all()
        assert drawn[:, :2].std(axis=0) == pytest.approx((high - low) / np.sqrt(12), rel=0.1)
    else:
        assert drawn[:, 0].mean() == pytest.approx(1000, abs=10)
        assert drawn[:, :2].std(axis=0) == pytest.approx((50, 0.1), rel=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_feature_without_any_value_stays_missing(kind: str) -> None:
    own = np.array([[1, np.nan, 7], [3, np.nan, 7]], np.float32)
    dataset = Toy(shape=(3,), num_samples=9)  # its arrays say nothing of scaled features
    drawn = Noise(2, kind).draw(own, dataset, NOWHERE, np.random.default_rng(0))
    assert np.isnan(drawn[:, 1]).all()
    assert drawn[:, 2].tolist() == [7, 7]
    assert not np.isnan(drawn[:, 0]).any()


def test_a_contaminated_pool_has_its_share_of_junk() -> None:
    dataset = Toy(num_samples=60)
    source = Mixed(50, HeldOut(None), OtherDataset(None, Toy("other", num_samples=200)), 0.9)
    assert (source.size_for(dataset), source.held_out_for(dataset)) == (50, 5)
    own = np.full((5, 1, 2, 2), 255, np.uint8)
    drawn = source.draw(own, dataset, NOWHERE, np.random.default_rng(0))
    clean = drawn[:, 0, 0, 0] == 255
    assert (len(drawn), clean.sum()) == (50, 5)
    assert not clean[:5].all()  # the order says nothing
    assert not clean[-5:].all()


def test_both_sources_of_a_pool_get_held_out_samples_of_their_own() -> None:
    dataset = Toy(num_samples=60)
    source = Mixed(20, HeldOut(None), Noise(None, "shuffled"), 0.25)
    assert source.held_out_for(dataset) == 20
    drawn = draw(source, dataset)
    # Shuffling pixels within five samples keeps each pixel's values: every number comes once.
    for pixel in drawn.reshape(20, -1).T:
        assert sorted(pixel.tolist()) == list(range(20))
    assert len(whole(drawn)) >= 15


def whole(drawn: np.ndarray) -> set[int]:
    """Return the numbers of the toy samples that are there as they were."""
    return {int(image.flat[0]) for image in drawn if (image == image.flat[0]).all()}


def test_the_clean_part_of_a_pool_is_not_its_first_site_or_class() -> None:
    # Held-out samples come sorted; number 0 would be clean each time if they were taken in order.
    source = Mixed(20, HeldOut(None), Noise(None, "shuffled"), 0.9)
    drawn = [whole(draw(source, Toy(num_samples=60), seed)) for seed in range(5)]
    assert not all(0 in numbers for numbers in drawn)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_pool_of_one_source_only(share: float) -> None:
    dataset = Toy(num_samples=60)
    source = Mixed(None, HeldOut(None), Noise(None, "uniform"), share)
    assert source.held_out_for(dataset) == (10 if share == 0 else 0)
    assert draw(source, dataset).shape == (10, 1, 2, 2)


def test_the_parts_of_a_pool_are_checked() -> None:
    source = Mixed(50, HeldOut(None), OtherDataset(None, Toy("other", num_samples=30)), 0.9)
    assert message_of(source, Toy(num_samples=60)) == (
        "junk.size: must be at most the 30 samples of other, got 45"
    )


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 39),
    share=st.floats(0, 1),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from((*KINDS, "held out", "other"))),
    table=st.booleans(),
    seed=st.integers(0, 5),
)
def test_every_source_gives_exactly_what_it_says_and_the_same_again(
    size, share, kinds, table, seed
) -> None:
    dataset = ToyTable() if table else Toy()
    parts: list[PublicSource] = [
        HeldOut(None)
        if kind == "held out"
        else OtherDataset(None, dataclasses.replace(dataset, name="other"))
        if kind == "other"
        else Noise(None, kind)
        for kind in kinds
    ]
    for source in (*(dataclasses.replace(part, size=size) for part in parts),
                   Mixed(size, *parts, share)):  # fmt: skip
        assert 0 <= source.held_out_for(dataset) <= source.size_for(dataset) == size
        drawn = draw(source, dataset, seed)
        assert drawn.shape == (size, *dataset.shape)
        assert drawn.dtype == dataset.load(NOWHERE).inputs.dtype
        assert np.array_equal(drawn, draw(source, dataset, seed), equal_nan=True)


@pytest.mark.parametrize("source", [HeldOut(40), Noise(40, "shuffled")])
def test_clients_must_keep_samples(source) -> None:
    assert message_of(source, Toy()) == "size: must be below the 40 samples of the data set, got 40"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HeldOut(0), "size: must be null or at least 1, got 0"),
        (
            lambda: Noise(5, "pink"),
            "kind: must be one of uniform, gaussian, shuffled, got 'pink'",
        ),
        (lambda: Folder(None, None), "path: must be a folder or file of samples, got null"),
        (
            lambda: Mixed(9, HeldOut(None), HeldOut(None), 1.5),
            "junk_share: must be in [0, 1], got 1.5",
        ),
        (
            lambda: Mixed(9, HeldOut(None), HeldOut(4), 0.5),
            "junk.size: must be null, as size and junk_share say it, got 4",
        ),
    ],
)
def test_settings_are_checked(make, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole line is compared
        make()
    assert str(caught.value) == message


MNIST = ImageSet("mnist", "auto", 1, 1000, "public")
UNIFORM = Noise(None, "uniform")


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        (["public=held_out"], HeldOut(None)),
        (["public=held_out", "public.size=70"], HeldOut(70)),
        (["public=noise", "public.kind=gaussian"], Noise(None, "gaussian")),
        (["public=other"], OtherDataset(None, MNIST)),
        (
            ["public=other", "dataset=mnist", "dataset@public.dataset=fashion_mnist",
             "public.size=100"],
            OtherDataset(100, ImageSet("fashion_mnist", "auto", 1, 1000, "public")),
        ),
        (["public=contaminated"], Mixed(None, HeldOut(None), UNIFORM, 0.9)),
        (
            ["public=contaminated", "public@public.junk=other", "public.junk_share=0.5"],
            Mixed(None, HeldOut(None), OtherDataset(None, MNIST), 0.5),
        ),
        (
            ["public=contaminated", "public@public.clean=other", "dataset=mnist",
             "dataset@public.clean.dataset=fashion_mnist"],
            Mixed(
                None,
                OtherDataset(None, ImageSet("fashion_mnist", "auto", 1, 1000, "public")),
                UNIFORM,
                0.9,
            ),
        ),
    ],
)  # fmt: skip
def test_every_source_is_composed(config, overrides, wanted) -> None:
    made = config("dataset=fashion_mnist", "dataset.standardise=moments", *overrides)
    assert made.public == wanted


def test_a_folder_is_composed(config, tmp_path) -> None:
    paint(tmp_path / "free", [1, 2, 3], (8, 8))
    made = config(
        "public=folder", f"public.path={tmp_path / 'free'}", "dataset.standardise=moments"
    )
    assert made.public == Folder(None, str(tmp_path / "free"))
    assert made.public.size_for(made.dataset) == 3


def test_every_file_of_the_group_is_tested_here() -> None:
    assert set(options("public")) == {"contaminated", "folder", "held_out", "noise", "other"}


def test_data_sets_are_what_the_tests_take_them_for() -> None:
    toys: list[Dataset] = [Toy(), ToyTable()]
    assert [toy.load(NOWHERE).inputs.shape[1:] for toy in toys] == [toy.facts.shape for toy in toys]
