import pandas as pd

from fedtsd.report.printed import Printed, markdown, number, rank_marks, signed

NAN = float("nan")


def table(**changes: object) -> Printed:
    texts = pd.DataFrame({"x|y": ["1", "2", "3"], "z": ["a_b", "—", "c"]}, index=["p", "q", "r*"])
    marks = pd.DataFrame({"x|y": ["", "second", "best"], "z": ["", "", ""]}, index=texts.index)
    known = {
        "name": "t", "corner": "Method", "texts": texts, "marks": marks,
        "groups": ("One", "Two", "Two"), "caption": "About 5 % of a_b.",
    }  # fmt: skip
    return Printed(**{**known, **changes})


def test_best_and_second_are_marked() -> None:
    assert rank_marks([1.0, 3.0, 2.0, NAN], 1) == ["", "best", "second", ""]
    assert rank_marks([1.0, 3.0, 2.0], 1, highest=False) == ["best", "", "second"]


def test_values_equal_as_printed_share_a_mark() -> None:
    assert rank_marks([90.04, 89.96, 89.9, 89.94], 1) == ["best", "best", "second", "second"]
    assert rank_marks([90.04, 89.96], 2) == ["best", "second"]


def test_nobody_is_best_alone() -> None:
    assert rank_marks([1.0, NAN], 1) == ["", ""]
    assert rank_marks([], 1) == []


def test_numbers_have_a_true_minus() -> None:
    assert [number(v, "+.1f") for v in (-1.25, 0.5, NAN)] == ["−1.2", "+0.5", "—"]


def test_markdown_with_groups_marks_and_escapes() -> None:
    assert markdown(table()).splitlines() == [
        r"| Method | x\|y | z |",
        "| --- | ---: | ---: |",
        "| *One* |  |  |",
        r"| p | 1 | a\_b |",
        "| *Two* |  |  |",
        "| q | <ins>2</ins> | — |",
        r"| r\* | **3** | c |",
        "",
        r"About 5 % of a\_b.",
    ]


def test_without_groups_there_are_no_headings() -> None:
    assert "*One*" not in markdown(table(groups=("", "", "")))


def test_turned_twice_is_the_same_but_for_the_headings() -> None:
    turned = table().turned()
    assert turned.texts.loc["z", "p"] == "a_b"
    assert turned.groups == ("", "")
    assert turned.turned().texts.equals(table().texts)


def test_differences_have_a_sign_and_zero_has_none() -> None:
    shown = [signed(value, 1) for value in (1.26, -0.04, 0.04, -2.0)]
    assert shown == ["+1.3", "0.0", "0.0", "−2.0"]
    assert signed(-0.04, 2) == "−0.04"
