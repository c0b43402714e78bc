import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fedtsd.errors import InputError
from fedtsd.report.figures import FIGURES, draw
from fedtsd.report.tables import RunTables
from tests.report.conftest import VARIANTS
from tests.report.drawn import overlaps, texts

Copy = Callable[[str], Path]
Page = Callable[[str, str], Figure]


def run_python(code: str, **environment: str) -> str:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_no_text_lies_on_another_or_leaves_the_page(
    page: Page, monkeypatch: pytest.MonkeyPatch, variant: str, figure: str
) -> None:
    shown = page(figure, variant)
    drawn = texts(shown, monkeypatch)
    assert len(drawn) >= 3
    assert overlaps(drawn) == []
    width, height = shown.get_size_inches() * 72
    for text, box in drawn:
        assert box.x0 > -0.5, text
        assert box.y0 > -0.5, text
        assert box.x1 < width + 0.5, text
        assert box.y1 < height + 0.5, text


@pytest.mark.parametrize("figure", ["partition", "clusters"])
def test_a_legend_covers_nothing(page: Page, figure: str) -> None:
    shown = page(figure, "typical")
    renderer = shown.canvas.get_renderer()
    (legend,) = shown.legends
    for ax in shown.axes:
        assert not legend.get_window_extent().padded(-1).overlaps(ax.get_tightbbox(renderer))


def test_overlapping_texts_would_be_noticed(
    tables: dict[str, RunTables], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = FIGURES["accuracy"](tables["typical"])
    for text in page.axes[0].texts:
        text.xy = (1.0, 50.0)
    assert len(overlaps(texts(page, monkeypatch))) == 6


@pytest.fixture(scope="module")
def drawn_run(folders: dict[str, Path]) -> list[Path]:
    return draw(folders["ten"])


def test_every_figure_is_written_twice(drawn_run: list[Path], folders: dict[str, Path]) -> None:
    target = folders["ten"] / "figures"
    assert drawn_run == [target / f"{name}.{kind}" for name in FIGURES for kind in ("pdf", "png")]
    assert all(path.stat().st_size > 1000 for path in drawn_run)


def test_only_the_named_figures_are_drawn(copy: Copy) -> None:
    folder = copy("ten")
    draw(folder, iter(["accuracy"]))
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {"accuracy.pdf", "accuracy.png"}


def test_an_unknown_name_is_refused_before_anything_is_drawn(copy: Copy) -> None:
    folder = copy("ten")
    with pytest.raises(InputError, match="unknown 'acuracy'; choose from accuracy, partition"):
        draw(folder, ["accuracy", "acuracy"])
    assert not (folder / "figures").exists()


def test_files_embed_fonts_and_say_nothing_of_when_or_by_what(copy: Copy) -> None:
    pdf, png = draw(copy("ten"), ["accuracy"])
    content = pdf.read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    assert b"CreationDate" not in content
    assert b"Matplotlib" not in content
    with Image.open(png) as image:
        assert image.width == 990  # 3.3 inch at 300 dots per inch
        assert set(image.info) <= {"dpi"}


def test_drawing_again_in_another_process_gives_the_same_bytes(
    drawn_run: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "elsewhere"
    shutil.copytree(drawn_run[0].parents[1], folder, ignore=shutil.ignore_patterns("figures"))
    code = "import sys; from pathlib import Path; from fedtsd.report.figures import draw; "
    code += f"draw(Path({str(folder)!r}))"
    run_python(code, PYTHONHASHSEED="12345", TZ="Asia/Tokyo", LC_ALL="C")
    for path in drawn_run:
        assert (folder / "figures" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_users_own_settings_change_nothing(drawn_run: list[Path], copy: Copy) -> None:
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9, "pdf.fonttype": 3}):
        again = draw(copy("ten"), ["accuracy"])
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in drawn_run[:2]]


def test_two_threads_do_not_disturb_each_other(folders: dict[str, Path], copy: Copy) -> None:
    folder = copy("ten")
    alone = draw(folder, ["accuracy"])[1].read_bytes()
    drawn: list[bytes] = []

    def work(name: str) -> None:
        drawn.append(draw(folder, [name])[1].read_bytes())

    before = dict(matplotlib.rcParams)
    threads = [threading.Thread(target=work, args=(n,)) for n in ("accuracy", "clusters")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 2
    assert alone in drawn
    assert dict(matplotlib.rcParams) == before


def test_neither_torch_nor_pyplot_is_imported(copy: Copy) -> None:
    code = "import sys; import fedtsd.report.figures as figures; from pathlib import Path; "
    code += f"figures.draw(Path({str(copy('one_client'))!r}), ['similarity']); "
    code += "sys.stdout.write(' '.join({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    assert run_python(code) == ""
