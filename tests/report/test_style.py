import subprocess
import sys
import threading
from dataclasses import replace
from itertools import combinations, pairwise
from random import Random

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from fedtsd.report import style
from fedtsd.report.tables import RunTables
from fedtsd.skew import label_skew

NAMES = [*style.METHOD_MARKS, *(f"fedtsdp p={i}" for i in range(9)), *(f"new{i}" for i in range(9))]


def test_known_methods_have_their_own_marks_in_colour_and_in_grey() -> None:
    marks = style.METHOD_MARKS.values()
    assert len(marks) >= 25
    assert len(set(marks)) == len(marks)
    assert len({(mark.marker, mark.line) for mark in marks}) == len(marks)


def test_another_method_never_takes_a_known_ones_mark() -> None:
    taken = {(mark.marker, mark.line) for mark in style.METHOD_MARKS.values()}
    others = [style.method_mark(f"method{i}") for i in range(200)]
    assert all((mark.marker, mark.line) not in taken for mark in others)


@given(st.lists(st.sampled_from(NAMES), unique=True, max_size=25), st.randoms())
def test_no_two_methods_of_a_figure_look_alike_in_whatever_order(
    names: list[str], random: Random
) -> None:
    marks = style.method_marks(names)
    assert list(marks) == names
    assert len(set(marks.values())) == len(names)
    shuffled = random.sample(names, len(names))
    assert style.method_marks(shuffled) == marks
    for name in names:
        if name in style.METHOD_MARKS:
            assert marks[name] == style.METHOD_MARKS[name]


def test_variants_keep_the_colour_of_their_method_and_differ_in_marker() -> None:
    names = [f"fedtsdp stage2={value}" for value in range(9)]
    marks = style.method_marks(["fedtsdp", *names])
    assert {mark.colour for mark in marks.values()} == {style.method_colour("fedtsdp")}
    assert len({mark.marker for mark in marks.values()}) == 10


def test_marks_are_the_same_in_every_process() -> None:
    names = ["ditto", "unheard of", "fedtsdp stage2=false", "fedper layers=2"]
    code = "from fedtsd.report.style import method_marks; import sys; "
    code += f"sys.stdout.write(repr(method_marks({names!r})))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "1"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert run.stdout == repr(style.method_marks(names))


def lightness(colour: str) -> float:
    return float(np.dot(to_rgb(colour), [0.299, 0.587, 0.114]))


def test_methods_that_stand_together_differ_in_lightness() -> None:
    together = ("local", "fedavg", "fedper", "fedtsdp")
    grey = sorted(lightness(style.method_colour(name)) for name in together)
    assert min(b - a for a, b in pairwise(grey)) > 0.15
    assert grey[-1] < 0.75  # still seen on white


def test_a_title_is_broken_into_lines_of_about_one_length() -> None:
    assert style.fold("a b c d", 1.0) == "a b c d"
    words = "one two three four five six seven"
    first, second = style.fold(words, 1.6).split("\n")
    assert f"{first} {second}" == words
    assert abs(len(first) - len(second)) <= 5


def test_thirteen_cluster_colours_are_distinct_and_neighbours_differ_in_grey() -> None:
    colours = style.CLUSTER_COLOURS
    assert len(set(colours)) == 13
    far = [np.linalg.norm(np.subtract(to_rgb(a), to_rgb(b))) for a, b in combinations(colours, 2)]
    assert min(far) > 0.2
    pairs = pairwise(colours[1:])
    assert min(abs(lightness(a) - lightness(b)) for a, b in pairs) > 0.05


def test_the_clusters_of_the_end_take_the_first_colours(tables: dict[str, RunTables]) -> None:
    colours = style.cluster_colours(tables["typical"])
    assert colours[0] == style.PALE
    assert [colours[k] for k in (3, 4, 5, 6)] == list(style.CLUSTER_COLOURS[1:5])
    assert len(set(colours.values())) == 7


def test_text_on_a_colour_has_contrast() -> None:
    assert style.ink_on("#FFFFFF") == "black"
    assert style.ink_on("#F0E442") == "black"
    assert style.ink_on("#332288") == "white"


def test_a_title_says_method_data_set_partition_and_measured_skew(
    tables: dict[str, RunTables],
) -> None:
    run = tables["typical"]
    skew = label_skew(run.train_counts)
    title = style.run_title(run, 7.0)
    assert title == f"FedTSDP, Fashion-MNIST, Dirichlet α = 0.1 (JS {skew:.2f})"
    told = replace(run, summary={"skew": {"label_js": 0.25}})
    assert style.run_title(told, 7.0).endswith("(JS 0.25)")


def test_a_config_that_says_nothing_has_an_empty_title(tables: dict[str, RunTables]) -> None:
    assert style.run_title(replace(tables["typical"], config={}), 3.3) == ""


def test_settings_are_ours_inside_and_the_users_afterwards() -> None:
    with matplotlib.rc_context({"font.size": 31, "pdf.fonttype": 3}):
        with style.paper_style():
            assert matplotlib.rcParams["pdf.fonttype"] == 42
            assert matplotlib.rcParams["font.size"] == 7
        assert matplotlib.rcParams["font.size"] == 31


def test_settings_belong_to_one_thread_at_a_time() -> None:
    entered = threading.Event()

    def enter() -> None:
        with style.paper_style():
            entered.set()

    other = threading.Thread(target=enter)
    with style.paper_style():
        other.start()
        assert not entered.wait(0.2)
    assert entered.wait(10)
    other.join()


def test_a_long_title_makes_the_figure_taller_not_the_panels_smaller(
    tables: dict[str, RunTables],
) -> None:
    run = tables["typical"]
    long = replace(run, config={**run.config, "dataset": {"name": "x" * 45}})
    with style.paper_style():
        heights = [style.new_figure(t, 3.3, 2.0).get_size_inches()[1] for t in (run, long)]
    assert heights == pytest.approx([2.0 + style.TITLE_LINE, 2.0 + 2 * style.TITLE_LINE])
