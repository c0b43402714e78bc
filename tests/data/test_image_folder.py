import json
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from fedtsd.data import decoding, image_folder
from fedtsd.data.cache import RowWriter
from fedtsd.data.image_folder import ImageFolder
from fedtsd.data.images import average_pool
from fedtsd.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDTSD_DATA", str(tmp_path / "kept"))
    return tmp_path / "kept"


def images(path: Path | str, **changes: Any) -> ImageFolder:
    fields: dict[str, Any] = {
        "name": "own",
        "path": str(path),
        "layout": "site_class",
        "size": None,
        "channels": None,
        "pool": 1,
        "classes": None,
        "on_bad": "error",
        "public_size": None,
        "standardise": "public",
    }
    return ImageFolder(**(fields | changes))


def paint(path: Path, pixels: Any = 0, mode: str = "L", shape: tuple[int, int] = (2, 2)) -> Path:
    """Write an image of one value, or of the given pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(pixels, np.uint8)
    if values.ndim < 2:
        values = np.broadcast_to(values, (*shape, *values.shape))
    Image.fromarray(values).convert(mode).save(path)
    return path


def toy(folder: Path) -> Path:
    """Two sites; osaka has no dog. Pixels have the value that stands in the file's name."""
    for name in ("osaka/cat/3", "osaka/cat/12", "tokyo/cat/5", "tokyo/dog/7", "tokyo/dog/1"):
        paint(folder / f"{name}.png", int(name.split("/")[-1]))
    return folder


def error_of(dataset: ImageFolder) -> str:
    with pytest.raises(DataError) as caught:
        _ = dataset.facts
    with pytest.raises(DataError) as again:
        dataset.load(Path(os.environ["FEDTSD_DATA"]))
    assert str(again.value) == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_toy_folder_becomes_arrays_sorted_by_site_class_and_name(tmp_path, root) -> None:
    dataset = images(toy(tmp_path / "toy"))
    arrays = dataset.load(root)
    assert arrays.inputs.shape == (5, 1, 2, 2)
    assert arrays.inputs[:, 0, 1, 0].tolist() == [12, 3, 5, 1, 7]
    assert arrays.labels.tolist() == [0, 0, 0, 1, 1]
    assert arrays.sites.tolist() == [0, 0, 1, 1, 1]
    assert arrays.labels.dtype == arrays.sites.dtype == np.int64
    facts = dataset.facts
    assert (facts.num_samples, facts.shape) == (5, (1, 2, 2))
    assert facts.classes == arrays.classes == ("cat", "dog")
    assert (facts.sites, facts.site_sizes) == (("osaka", "tokyo"), (2, 3))
    assert facts.notes == (
        "1 class is at one site only: dog (tokyo)",
        "1 site has one class only: osaka (cat)",
    )
    assert dataset.skipped == ()


def test_inputs_are_a_memory_map_that_nobody_can_write_to(tmp_path, root) -> None:
    arrays = images(toy(tmp_path / "toy")).load(root)
    assert type(arrays.inputs) is np.memmap
    assert not arrays.inputs.flags.writeable


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with every image that is decoded."""
    seen: list[str] = []
    real = decoding._read

    def read(path: Path, style: decoding.Style) -> Any:
        seen.append(path.name)
        return real(path, style)

    monkeypatch.setattr(decoding, "_read", read)
    return seen


def test_images_are_decoded_once_also_for_another_process(tmp_path, root, monkeypatch) -> None:
    seen = count_decoded(monkeypatch)
    folder = toy(tmp_path / "toy")
    first = images(folder)
    assert first.facts == first.facts
    first.load(root)
    assert len(seen) == 5
    image_folder._survey.cache_clear()  # as a new process has it
    arrays = images(folder, name="other", public_size=2).load(root)
    assert arrays.inputs[:, 0, 0, 0].tolist() == [12, 3, 5, 1, 7]
    assert len(seen) == 5


def test_another_root_gets_arrays_of_its_own(tmp_path, root) -> None:
    dataset = images(toy(tmp_path / "toy"))
    elsewhere = dataset.load(tmp_path / "elsewhere")
    assert Path(str(elsewhere.inputs.filename)).is_relative_to(tmp_path / "elsewhere")
    assert np.array_equal(elsewhere.inputs, dataset.load(root).inputs)


@pytest.mark.parametrize("change", ["add", "remove", "replace"])
def test_changed_files_are_decoded_anew(tmp_path, root, change: str) -> None:
    folder = toy(tmp_path / "toy")
    before = images(folder).load(root)
    if change == "add":
        paint(folder / "osaka/dog/9.png", 9)
        wanted = [12, 3, 9, 5, 1, 7]
    elif change == "remove":
        (folder / "tokyo/dog/7.png").unlink()
        wanted = [12, 3, 5, 1]
    else:
        paint(tmp_path / "new.png", 200).replace(folder / "tokyo/dog/7.png")
        wanted = [12, 3, 5, 1, 200]
    after = images(folder)
    assert after.load(root).inputs[:, 0, 0, 0].tolist() == wanted
    assert after.facts.num_samples == len(wanted)
    assert before.inputs[:, 0, 0, 0].tolist() == [12, 3, 5, 1, 7]  # still readable


@pytest.mark.parametrize("damage", ["cut", "gone", "no meta", "half meta", "meta of others"])
def test_a_damaged_cache_is_made_anew(tmp_path, root, damage: str) -> None:
    dataset = images(toy(tmp_path / "toy"))
    wanted = np.array(dataset.load(root).inputs)
    (place,) = (root / "own").iterdir()
    meta = json.loads((place / "meta.json").read_text())
    if damage == "cut":
        os.truncate(place / "inputs.npy", 140)
    elif damage == "gone":
        (place / "sites.npy").unlink()
    elif damage == "no meta":
        (place / "meta.json").unlink()
    elif damage == "half meta":
        (place / "meta.json").write_text(json.dumps(meta)[:50])
    else:
        del meta["site_names"]
        (place / "meta.json").write_text(json.dumps(meta))
    assert np.array_equal(dataset.load(root).inputs, wanted)
    assert dataset.facts.sites == ("osaka", "tokyo")
    assert {path.name for path in place.iterdir()} == {
        ".lock", "inputs.npy", "labels.npy", "sites.npy", "meta.json",
    }  # fmt: skip


def test_two_that_ask_at_once_decode_once(tmp_path, root, monkeypatch) -> None:
    seen = count_decoded(monkeypatch)
    dataset = images(toy(tmp_path / "toy"))
    together = threading.Barrier(2)

    def ask() -> None:
        together.wait()
        dataset.load(root)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 5


def test_interruption_leaves_no_half_cache(tmp_path, root, monkeypatch) -> None:
    dataset = images(toy(tmp_path / "toy"))

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            dataset.load(root)
    assert {path.name for path in root.rglob("*") if path.is_file()} <= {".lock"}
    assert len(dataset.load(root).labels) == 5


def test_a_layout_without_sites(tmp_path, root) -> None:
    for name, value in (("b/1", 1), ("a/2", 2), ("a/1", 3)):
        paint(tmp_path / "own" / f"{name}.png", value)
    dataset = images(tmp_path / "own", layout="class")
    arrays = dataset.load(root)
    assert arrays.sites is None
    assert arrays.inputs[:, 0, 0, 0].tolist() == [3, 2, 1]
    assert arrays.labels.tolist() == [0, 0, 1]
    assert (dataset.facts.sites, dataset.facts.site_sizes) == ((), ())
    assert dataset.facts.notes == ()


def test_classes_fix_the_order_of_labels(tmp_path, root) -> None:
    dataset = images(toy(tmp_path / "toy"), classes=("fox", "dog", "cat"))
    assert dataset.load(root).labels.tolist() == [2, 2, 2, 1, 1]
    assert dataset.facts.classes == ("fox", "dog", "cat")
    assert dataset.facts.notes[0] == "1 class has no image: fox"


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "tiff", "webp", "PNG", "Bmp"])
def test_every_lossless_format_keeps_its_pixels(tmp_path, root, ending: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    for name, array in zip("ab", pixels, strict=True):
        (tmp_path / "own" / name).mkdir(parents=True)
        options = {"lossless": True, "exact": True} if ending == "webp" else {}
        Image.fromarray(array).save(tmp_path / "own" / name / f"1.{ending}", **options)
    arrays = images(tmp_path / "own", layout="class").load(root)
    assert np.array_equal(arrays.inputs, pixels.transpose(0, 3, 1, 2))


def test_jpeg_is_read_nearly_as_it_was(tmp_path, root) -> None:
    for name, value in (("a", 40), ("b", 200)):
        for ending in ("jpg", "jpeg"):
            paint(tmp_path / "own" / name / f"1.{ending}", value, shape=(16, 16))
    arrays = images(tmp_path / "own", layout="class").load(root)
    assert np.abs(arrays.inputs[:, 0].mean(axis=(1, 2)) - [40, 40, 200, 200]).max() < 2


def test_colour_appears_when_one_image_has_it(tmp_path, root, monkeypatch) -> None:
    seen = count_decoded(monkeypatch)
    folder = toy(tmp_path / "toy")
    paint(folder / "tokyo/dog/9.png", (10, 20, 30), "RGB")
    arrays = images(folder).load(root)
    assert arrays.inputs[:, :, 0, 0].tolist() == [
        [12] * 3, [3] * 3, [5] * 3, [1] * 3, [7] * 3, [10, 20, 30],
    ]  # fmt: skip
    assert len(seen) == 12  # again from the start
    grey = images(folder, channels=1).load(root)
    # ITU-R 601: 0.299 x 10 + 0.587 x 20 + 0.114 x 30 = 18.15
    assert grey.inputs[:, 0, 0, 0].tolist() == [12, 3, 5, 1, 7, 18]
    assert images(toy(tmp_path / "grey"), channels=3).load(root).inputs.shape == (5, 3, 2, 2)


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)]
)
def test_grey_is_what_is_stored_as_grey(tmp_path, root, mode: str, channels: int) -> None:
    for name in "ab":
        paint(tmp_path / "own" / name / "1.png", 255, mode)
    arrays = images(tmp_path / "own", layout="class").load(root)
    assert arrays.inputs.tolist() == np.full((2, channels, 2, 2), 255).tolist()


def test_phone_pictures_are_turned_upright(tmp_path, root) -> None:
    # Orientation 6: the first row of what is stored is the right column of what is meant.
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "own" / "a").mkdir(parents=True)
    pixels = np.array([[1, 2, 3], [4, 5, 6]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "own/a/1.png", exif=exif)
    paint(tmp_path / "own/b/1.png", [[1, 2], [3, 4], [5, 6]])
    arrays = images(tmp_path / "own", layout="class").load(root)
    assert arrays.inputs[0, 0].tolist() == [[4, 1], [5, 2], [6, 3]]


def test_images_are_resized_and_pooled(tmp_path, root) -> None:
    halves = np.zeros((40, 60), np.uint8)
    halves[:, 30:] = 200
    paint(tmp_path / "own/a/1.png", halves)
    paint(tmp_path / "own/b/1.png", 90, shape=(7, 5))
    dataset = images(tmp_path / "own", layout="class", size=(4, 6))
    arrays = dataset.load(root)
    assert arrays.inputs.shape == (2, 1, 4, 6)
    assert arrays.inputs[0, 0, :, [0, 1, 4, 5]].tolist() == [[0] * 4] * 2 + [[200] * 4] * 2
    assert (arrays.inputs[1] == 90).all()
    pooled = images(tmp_path / "own", layout="class", size=(4, 6), pool=2)
    assert pooled.facts.shape == (1, 2, 3)
    assert np.array_equal(pooled.load(root).inputs, average_pool(arrays.inputs, 2))


def test_big_photos_are_resized_alike_whether_jpeg_or_not(tmp_path, root) -> None:
    rows = np.linspace(0, 255, 600, dtype=np.uint8)
    for name, ending in (("a", "png"), ("b", "jpg")):
        paint(tmp_path / "own" / name / f"1.{ending}", np.tile(rows, (400, 1)), "RGB")
    arrays = images(tmp_path / "own", layout="class", size=(8, 8)).load(root)
    inputs = np.asarray(arrays.inputs, dtype=int)
    assert np.abs(inputs[0] - inputs[1]).max() <= 3
    assert (np.diff(inputs[0, 0, 0]) > 20).all()


def test_what_is_ignored_is_noted(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    for name in ("readme.txt", "osaka/.DS_Store", "tokyo/cat/Thumbs.db", "tokyo/dog/._7.png"):
        (folder / name).touch()
    for name in (".git", "__MACOSX", "tokyo/cat/@eaDir"):
        (folder / name).mkdir()
        paint(folder / name / "1.png")
    (folder / "tokyo/cat/lost.png").symlink_to(folder / "nowhere")
    dataset = images(folder)
    assert dataset.facts.notes[0] == (
        "ignored 8 entries that are hidden or no images: .git, __MACOSX, readme.txt and 5 more"
    )
    assert dataset.facts.num_samples == 5
    (folder / "osaka/.DS_Store").unlink()
    assert dataset.facts.notes[0].startswith("ignored 7 entries")


def test_one_ignored_file_is_noted(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    (folder / "tokyo" / "list.csv").touch()
    assert images(folder).facts.notes[0] == (
        "ignored 1 entry that is hidden or no image: tokyo/list.csv"
    )


def test_links_to_folders_are_followed_and_loops_end(tmp_path, root) -> None:
    folder = toy(tmp_path / "toy")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "kobe").symlink_to(folder / "tokyo")
    (tmp_path / "linked" / "osaka").symlink_to(folder / "osaka")
    (tmp_path / "linked" / "loop").symlink_to("loop")
    dataset = images(tmp_path / "linked")
    assert dataset.load(root).inputs[:, 0, 0, 0].tolist() == [5, 1, 7, 12, 3]
    assert dataset.facts.notes[0].endswith("no image: loop")
    (folder / "again").symlink_to(folder)
    assert error_of(images(folder)) == (
        f"{folder / 'again/again/again'}: a folder inside a class folder"
    )


def test_missing_folder(tmp_path) -> None:
    assert error_of(images(tmp_path / "none")) == (
        f"{tmp_path / 'none'}: there is no such folder; dataset.path must name a folder of images"
    )


def test_no_site_folders(tmp_path) -> None:
    (tmp_path / "own").mkdir()
    assert error_of(images(tmp_path / "own")) == (
        f"{tmp_path / 'own'}: there are no folders in it; images must lie in "
        f"{tmp_path / 'own'}/site/class/image"
    )
    assert error_of(images(tmp_path / "own", layout="class")) == (
        f"{tmp_path / 'own'}: there are no folders in it; images must lie in "
        f"{tmp_path / 'own'}/class/image"
    )


def test_images_outside_a_site(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    paint(folder / "1.png")
    assert error_of(images(folder)) == f"{folder}: 1 image outside a site folder, as 1.png"


def test_images_of_a_site_outside_a_class(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    paint(folder / "osaka/1.png")
    paint(folder / "osaka/2.png")
    assert error_of(images(folder)) == (
        f"{folder / 'osaka'}: 2 images outside a class folder, as osaka/1.png; without sites, "
        "set dataset.layout=class"
    )


def test_folders_inside_a_class(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    assert error_of(images(folder, layout="class")) == (
        f"{folder / 'osaka/cat'}: a folder inside a class folder; if sites come first, set "
        "dataset.layout=site_class"
    )


def test_a_site_without_images(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    (folder / "kobe").mkdir()
    assert error_of(images(folder)) == (
        f"{folder / 'kobe'}: the site has no image; images must lie in {folder}/site/class/image"
    )


def test_an_empty_class_folder(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    (folder / "osaka/dog").mkdir()
    (folder / "osaka/dog/notes.txt").touch()
    assert error_of(images(folder)) == (
        f"{folder / 'osaka/dog'}: the class folder has no image "
        "(.png, .jpg, .jpeg, .bmp, .tif, .tiff, .webp)"
    )


def test_a_class_outside_the_legal_ones(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    assert error_of(images(folder, classes=("cat", "dogs"))) == (
        f"{folder / 'tokyo/dog'}: class 'dog' is unknown; did you mean dogs?"
    )


def test_one_class_is_not_enough(tmp_path) -> None:
    folder = tmp_path / "own"
    paint(folder / "tokyo/cat/1.png")
    assert error_of(images(folder)) == (
        f"{folder}: all images are of the one class 'cat'; two are needed"
    )


@pytest.mark.parametrize("twin", ["Tokyo", "tokyo ", "to kyo"])
def test_sites_that_differ_in_case_or_blanks(tmp_path, twin: str) -> None:
    folder = toy(tmp_path / "toy")
    paint(folder / twin / "cat/1.png")
    one, other = sorted(["tokyo", twin])
    assert error_of(images(folder)) == (
        f"{folder}: the sites {one!r} and {other!r} differ only in case or blanks; rename one"
    )


def test_classes_that_differ_in_case(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    paint(folder / "osaka/Dog/1.png")
    assert error_of(images(folder)) == (
        f"{folder}: the classes 'Dog' and 'dog' differ only in case or blanks; rename one"
    )


def test_sizes_that_differ(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    paint(folder / "tokyo/cat/6.png", shape=(3, 2))
    assert error_of(images(folder)) == (
        f"{folder}: images differ in size (height x width): osaka/cat/12.png has 2 x 2, "
        "tokyo/cat/6.png 3 x 2; dataset.size=[2,2] resizes them"
    )


def test_a_pool_that_does_not_fit(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    assert error_of(images(folder, pool=4)) == (
        f"{folder}: dataset.pool must divide the sides of the images, 2 x 2, got 4"
    )


def break_two(folder: Path) -> None:
    paint(folder / "osaka/cat/4.png", np.random.default_rng(0).integers(0, 256, (40, 40)))
    content = (folder / "osaka/cat/4.png").read_bytes()
    (folder / "osaka/cat/4.png").write_bytes(content[:-300])
    (folder / "tokyo/cat/2.png").write_text("not at all")


def test_images_that_cannot_be_read(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    (folder / "tokyo/cat/2.png").write_text("not at all")
    assert error_of(images(folder)) == (
        f"{folder}: 1 image cannot be read: tokyo/cat/2.png (not an image); mend or remove them, "
        "or set dataset.on_bad=skip"
    )
    break_two(folder)
    said = error_of(images(folder))
    assert said.startswith(
        f"{folder}: 2 images cannot be read, the first is osaka/cat/4.png (image file is truncated"
    )
    assert said.endswith("); mend or remove them, or set dataset.on_bad=skip")


def test_sixteen_bits_are_not_cut_to_eight(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    Image.fromarray(np.full((2, 2), 3000, np.uint16)).save(folder / "tokyo/cat/deep.png")
    assert error_of(images(folder)) == (
        f"{folder}: 1 image cannot be read: tokyo/cat/deep.png (more than 8 bits a channel, mode "
        "I;16); mend or remove them, or set dataset.on_bad=skip"
    )


def test_images_that_cannot_be_read_are_skipped_and_told(tmp_path, root) -> None:
    folder = toy(tmp_path / "toy")
    break_two(folder)
    dataset = images(folder, on_bad="skip")
    arrays = dataset.load(root)
    assert arrays.inputs[:, 0, 0, 0].tolist() == [12, 3, 5, 1, 7]
    assert arrays.labels.tolist() == [0, 0, 0, 1, 1]
    assert arrays.sites.tolist() == [0, 0, 1, 1, 1]
    assert dataset.facts.site_sizes == (2, 3)
    assert dataset.skipped == ("osaka/cat/4.png", "tokyo/cat/2.png")
    assert dataset.facts.notes[0].startswith(
        "skipped 2 images that cannot be read: osaka/cat/4.png (image file is truncated"
    )
    assert dataset.facts.notes[0].endswith("tokyo/cat/2.png (not an image)")


def test_many_skipped_images_are_all_listed_the_first_ones_noted(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    for k in range(7):
        (folder / f"tokyo/dog/b{k}.jpg").touch()
    dataset = images(folder, on_bad="skip")
    assert dataset.skipped == tuple(f"tokyo/dog/b{k}.jpg" for k in range(7))
    assert dataset.facts.notes[0] == (
        "skipped 7 images that cannot be read: tokyo/dog/b0.jpg (not an image), "
        "tokyo/dog/b1.jpg (not an image), tokyo/dog/b2.jpg (not an image) and 4 more"
    )


def test_a_site_of_unreadable_images_only(tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    for name in ("3", "12"):
        (folder / f"osaka/cat/{name}.png").write_text("")
    assert error_of(images(folder, on_bad="skip")) == (
        f"{folder / 'osaka'}: none of the site's 2 images can be read"
    )
    for file in folder.rglob("*.png"):
        file.write_text("")
    image_folder._survey.cache_clear()
    assert error_of(images(folder, on_bad="skip")) == f"{folder}: none of its 5 images can be read"


def test_a_root_that_cannot_be_written(tmp_path, root) -> None:
    root.touch()
    folder = toy(tmp_path / "toy")
    with pytest.raises(DataError) as caught:
        images(folder).load(root)
    said = str(caught.value)
    assert said.startswith(f"{folder}: decoded images cannot be kept in {root / 'own'}")
    assert said.endswith("; choose another place with FEDTSD_DATA")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": None}, "path: must be a folder of images, such as data/images, got null"),
        ({"layout": "flat"}, "layout: must be one of site_class, class, got 'flat'"),
        ({"size": (28,)}, "size: must be null or [height, width], at least 1 each, got [28]"),
        ({"size": (0, 2)}, "size: must be null or [height, width], at least 1 each, got [0, 2]"),
        ({"channels": 2}, "channels: must be null, 1 or 3, got 2"),
        ({"pool": 0}, "pool: must be at least 1 and divide the sides of size, got 0"),
        (
            {"size": (4, 6), "pool": 4},
            "pool: must be at least 1 and divide the sides of size, got 4",
        ),
        ({"classes": ("a",)}, "classes: must be null or at least two different names, got ['a']"),
        (
            {"classes": ("a", "b", "a")},
            "classes: must be null or at least two different names, got ['a', 'b', 'a']",
        ),
        ({"on_bad": "drop"}, "on_bad: must be one of error, skip, got 'drop'"),
        ({"public_size": 0}, "public_size: must be null or at least 1, got 0"),
        (
            {"standardise": "me"},
            "standardise: must be one of public, moments, site, none, got 'me'",
        ),
    ],
)
def test_settings_are_checked(change, message) -> None:
    fields = {"path": "x"} | change
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole line is compared
        images(**{**fields, "path": fields["path"]}) if fields["path"] else _without_path()
    assert str(caught.value) == message


def _without_path() -> ImageFolder:
    return ImageFolder("own", None, "class", None, None, 1, None, "error", None, "public")


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    counts=st.lists(
        st.lists(st.integers(0, 3), min_size=3, max_size=3), min_size=1, max_size=4
    ).filter(
        lambda rows: (
            all(any(row) for row in rows) and sum(any(row[c] for row in rows) for c in range(3)) > 1
        )
    ),
    broken=st.sets(st.integers(0, 35), max_size=6),
)
def test_every_readable_image_is_there_once_with_its_site_and_class(
    tmp_path_factory, counts, broken
) -> None:
    base = tmp_path_factory.mktemp("tree")
    wanted = []
    number = 0
    for s, row in enumerate(counts):
        for c, size in enumerate(row):
            for k in range(size):
                path = paint(base / "own" / f"s{s}" / f"c{c}" / f"{k}.png", number)
                if number in broken:
                    path.write_bytes(path.read_bytes()[:40])
                else:
                    wanted.append((number, f"s{s}", f"c{c}"))
                number += 1
    dataset = images(base / "own", on_bad="skip")
    if {site for _, site, _ in wanted} != {f"s{s}" for s in range(len(counts))}:
        with pytest.raises(DataError, match="can be read"):
            dataset.load(base / "kept")
        return
    arrays = dataset.load(base / "kept")
    sites = sorted({site for _, site, _ in wanted})
    found = [
        (int(image[0, 0, 0]), sites[site], arrays.classes[label])
        for image, site, label in zip(arrays.inputs, arrays.sites, arrays.labels, strict=True)
    ]
    assert found == wanted
    assert len(dataset.skipped) == number - len(wanted)


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6))
def test_rows_written_in_pieces_are_read_as_one_array(tmp_path_factory, sizes) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    pieces = [np.random.default_rng(k).integers(0, 256, (n, 2, 3), np.uint8)
              for k, n in enumerate(sizes)]  # fmt: skip
    with RowWriter(path) as rows:
        for piece in pieces:
            rows.append(piece[:, ::-1].copy()[:, ::-1])  # not in one stretch of memory
    assert np.array_equal(np.load(path), np.concatenate(pieces))


def test_small_blocks_and_threads_give_the_same_arrays(tmp_path, root, monkeypatch) -> None:
    rng = np.random.default_rng(3)
    for k in range(9):
        paint(tmp_path / "own" / f"c{k % 2}" / f"{k}.png", rng.integers(0, 256, (9, 7)))
    whole = images(tmp_path / "own", layout="class").load(root).inputs
    monkeypatch.setattr(decoding, "SMALL", 0)  # always in threads
    monkeypatch.setattr(decoding, "BLOCK_BYTES", 200)
    pieces = images(tmp_path / "own", layout="class").load(tmp_path / "again").inputs
    assert np.array_equal(whole, pieces)


def test_unlabelled_images_at_any_depth(tmp_path) -> None:
    dataset = images(toy(tmp_path / "toy"))
    paint(tmp_path / "free/b.png", 2)
    paint(tmp_path / "free/a/deep/down/1.png", 1)
    paint(tmp_path / "free/c/1.png", (9, 9, 9), "RGB")
    (tmp_path / "free/a/up").symlink_to(tmp_path / "free")
    found = dataset.read_unlabelled(tmp_path / "free")
    assert found.dtype == np.uint8
    assert found.tolist() == [[[[v, v], [v, v]]] for v in (1, 2, 9)]


def test_unlabelled_images_are_resized_and_pooled_like_the_own(tmp_path) -> None:
    dataset = images(toy(tmp_path / "toy"), size=(6, 4), pool=2)
    paint(tmp_path / "free/1.png", 80, shape=(30, 50))
    assert dataset.read_unlabelled(tmp_path / "free").tolist() == np.full((1, 1, 3, 2), 80).tolist()


@pytest.mark.parametrize("case", ["size", "broken", "empty", "missing"])
def test_what_unlabelled_images_can_do_wrong(tmp_path, case: str) -> None:
    dataset = images(toy(tmp_path / "toy"))
    free = tmp_path / "free"
    if case != "missing":
        free.mkdir()
    if case == "size":
        paint(free / "1.png", shape=(2, 3))
        wanted = "images have 2 x 3 pixels (height x width), those of the data set 2 x 2"
    elif case == "broken":
        (free / "1.png").touch()
        wanted = "1 image cannot be read: 1.png (not an image); mend or remove them"
    elif case == "empty":
        wanted = "there is no image in it"
    else:
        wanted = "cannot be read: No such file or directory"
    with pytest.raises(DataError) as caught:
        dataset.read_unlabelled(free)
    assert str(caught.value).endswith(wanted)
    assert str(caught.value).startswith(f"{free}")


def test_oddities_in_readable_files_warn_nobody(tmp_path, root) -> None:
    def odd(*_: Any) -> Any:
        warnings.warn("odd", UserWarning, stacklevel=1)
        return np.zeros((1, 2, 2), np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "_read", odd)
        assert len(images(toy(tmp_path / "toy")).load(root).labels) == 5


def test_the_config_makes_the_data_set(config, tmp_path) -> None:
    folder = toy(tmp_path / "toy")
    for k in range(20):
        for site in ("osaka", "tokyo"):
            for name in ("cat", "dog"):
                paint(folder / site / name / f"x{k}.png", k)
    made = config("dataset=image_folder", f"dataset.path={folder}", "partition.num_clients=2")
    assert made.dataset == images(folder, name="toy")
    with pytest.raises(ConfigError) as caught:
        config("dataset=image_folder")
    assert str(caught.value) == (
        "dataset.path: must be a folder of images, such as data/images, got null"
    )
