"""What is wrong with a table is one line that names the file, the line and what is legal."""

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedtsd.errors import ConfigError, DataError
from tests.data.tables import table, write

CURE = "; mend it, or leave such rows out: dataset.on_bad=skip"


def error_of(folder: Path, **changes: Any) -> str:
    """Return the line with which the facts of a table fail; T stands for the folder."""
    with pytest.raises(DataError) as caught:
        _ = table(**{"path": str(folder / "t.csv"), **changes}).facts
    return str(caught.value).replace(str(folder), "T")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"path": None},
            "dataset.path: must be a CSV or Parquet file, or a folder with one per site, got null",
        ),
        (
            {"task": "guess"},
            "dataset.task: must be one of auto, classification, regression, got 'guess'",
        ),
        ({"strata": 1}, "dataset.strata: must be at least 2, got 1"),
        ({"ignore": ["y"]}, "dataset.ignore: must not hold the target, got 'y'"),
        ({"site": "s", "ignore": ["s"]}, "dataset.ignore: must not hold the site, got 's'"),
        ({"site": "y"}, "dataset.site: must not be the target, got 'y'"),
        (
            {"categorical": ["a"], "ignore": ["a"]},
            "dataset.ignore: 'a' is in dataset.categorical as well",
        ),
        ({"classes": ["a"]}, "dataset.classes: must be 2 or more that differ, got ['a']"),
        ({"classes": ["a", "a"]}, "dataset.classes: must be 2 or more that differ, got ['a', 'a']"),
        (
            {"classes": ["a", "b"], "task": "regression"},
            "dataset.classes: must be null if task is regression",
        ),
        ({"separator": "::"}, "dataset.separator: must be auto or one letter, got '::'"),
        ({"decimal": ";"}, "dataset.decimal: must be '.' or ',', got ';'"),
        (
            {"decimal": ",", "separator": ","},
            "dataset.separator: must not be the decimal mark, got ','",
        ),
        (
            {"encoding": "utf8x"},
            "dataset.encoding: must be one that Python knows, such as utf-8 or cp1252, got 'utf8x'",
        ),
        ({"max_categories": 1}, "dataset.max_categories: must be at least 2, got 1"),
        ({"on_bad": "drop"}, "dataset.on_bad: must be one of error, skip, got 'drop'"),
        ({"public_size": 0}, "dataset.public_size: must be null or at least 1, got 0"),
    ],
)
def test_settings_are_checked(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table(**{"path": "t.csv", **changes})
    assert str(caught.value) == line


ROWS = ("a,b,y", "1,u,no", "2,v,yes")


@pytest.mark.parametrize(
    ("lines", "changes", "expected"),
    [
        (
            ROWS,
            {"target": None},
            "dataset.target: must name the column to predict; T/t.csv has a, b, y",
        ),
        (ROWS, {"target": "Y"}, "dataset.target: column 'Y' is unknown; legal: a, b, y"),
        (
            ("age,site,y", "1,r,no"),
            {"site": "sitte"},
            "dataset.site: column 'sitte' is unknown; did you mean site?",
        ),
        (
            ("age,y", "1,no"),
            {"ignore": ["agee"]},
            "dataset.ignore: column 'agee' is unknown; did you mean age?",
        ),
        (
            ("age,y", "1,no"),
            {"categorical": ["aeg"]},
            "dataset.categorical: column 'aeg' is unknown; did you mean age?",
        ),
        (("",), {}, "T/t.csv: is empty"),
        (("a,y",), {}, "T/t.csv: has no rows"),
        (
            ("1.5,2,0", "2,3,1"),
            {},
            "T/t.csv, line 1: must name the columns, got the numbers 1.5, 2, 0",
        ),
        (
            ("", "a,b,a,y", "1,2,3,no"),
            {},
            "T/t.csv, line 2: columns 1 and 3 have the same name 'a'",
        ),
        (
            ("a y", "1 no"),
            {},
            "T/t.csv: has one column only ('a y'); dataset.separator says what parts cells",
        ),
        ((*ROWS, "3,w"), {}, f"T/t.csv, line 4: has 2 cells, not 3{CURE}"),
        (
            ("a,b,y", '1,"u', 'u",no', "", "2,v,yes,5"),
            {},
            f"T/t.csv, line 5: has 4 cells, not 3{CURE}",
        ),
        ((*ROWS, '3,"w,no'), {}, "T/t.csv, line 4: unexpected end of data; check its quotes"),
        (
            ("a,y", *(f"{i},{i % 2}" for i in range(10)), " x ,1"),
            {},
            "T/t.csv, line 12: column 'a' has 'x' among numbers (a sign of dataset.missing? a "
            f"column for dataset.categorical?){CURE}",
        ),
        (
            ("a,y", *(f"a{i},{i % 2}" for i in range(51))),
            {},
            "T/t.csv: column 'a' has 51 different texts (a0, a1, a2 and 48 more), above "
            "dataset.max_categories (50); list it in dataset.ignore, or raise the limit",
        ),
        (
            ("a;y", *(f"{i},5;{i % 2}" for i in range(51))),
            {},
            "T/t.csv: column 'a' has 51 different texts (0,5, 1,5, 2,5 and 48 more), above "
            "dataset.max_categories (50); are these numbers, with dataset.decimal ','?",
        ),
        (
            ("a,y", *(f"{i % 2},c{i}" for i in range(51))),
            {},
            "T/t.csv: target 'y' has 51 different texts (c0, c1, c2 and 48 more), above "
            "dataset.max_categories (50); raise the limit if these are classes",
        ),
        (
            ("a,b,y", "1,,no", "2,NA,yes"),
            {},
            "T/t.csv: column 'b' is missing in every row; list it in dataset.ignore",
        ),
        (
            ("a,b,y", "1,2,no", "1,2,yes"),
            {},
            "T/t.csv: no column is left to learn from; a (one value), b (one value), y (target)",
        ),
        (
            ("a,y", "1,no", "-inf,yes"),
            {},
            "T/t.csv, line 3: column 'a' has -inf, which is infinite or beyond float32" + CURE,
        ),
        (
            ("a,y", "1,no", "1e39,yes"),
            {},
            "T/t.csv, line 3: column 'a' has 1e+39, which is infinite or beyond float32" + CURE,
        ),
        (("a,y", "1,no", "2,-"), {}, f"T/t.csv, line 3: target 'y' is missing{CURE}"),
        (("a,y", "1,no", "2,no"), {}, "T/t.csv: target 'y' is no in every row; must differ"),
        (("a,y", "1,5", "2,5.0"), {}, "T/t.csv: target 'y' is 5 in every row; must differ"),
        (
            ROWS,
            {"task": "regression"},
            "T/t.csv, line 2: target 'y' has 'no', dataset.task=regression needs numbers",
        ),
        (
            ROWS,
            {"classes": ["no", "maybe"]},
            f"T/t.csv, line 3: target 'y' has 'yes', dataset.classes are no, maybe{CURE}",
        ),
        (
            ("a,s,y", "1,rome,no", "2, ,yes"),
            {"site": "s"},
            f"T/t.csv, line 3: site 's' is missing{CURE}",
        ),
        (
            ("a,s,y", "1,Rome,no", "2,Bonn,no", "3,rome ,yes"),
            {"site": "s"},
            "T/t.csv, line 4: site 'rome ' differs only in case or blanks from 'Rome' "
            "(T/t.csv, line 2); write them alike",
        ),
        (
            ("a,y", ",no", "1,"),
            {"classes": ["u", "v"], "on_bad": "skip"},
            "T/t.csv: no row is left; left out 2 rows: T/t.csv, line 3 target 'y' is missing; "
            "T/t.csv, line 2 target 'y' has 'no', dataset.classes are u, v",
        ),
    ],
)
def test_a_bad_file_is_one_line(
    tmp_path: Path, lines: tuple[str, ...], changes: dict[str, Any], expected: str
) -> None:
    write(tmp_path / "t.csv", *lines)
    assert error_of(tmp_path, **changes) == expected


def test_a_class_outside_the_legal_ones_may_be_a_number(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "a,y", "1,0", "2,1", "3,2")
    line = f"T/t.csv, line 4: target 'y' has '2', dataset.classes are 0, 1{CURE}"
    assert error_of(tmp_path, classes=["0", "1"]) == line


def test_a_missing_path_and_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    assert error_of(tmp_path) == "T/t.csv: there is no such file or folder"
    write(tmp_path / "t.xlsx", "x")
    legal = ".csv, .tsv, .csv.gz, .tsv.gz or .parquet"
    line = f"T/t.xlsx: must be a {legal} file; save it as one, or move it away"
    assert error_of(tmp_path, path=str(tmp_path / "t.xlsx")) == line
    write(tmp_path / "t.csv", *ROWS)
    assert error_of(tmp_path, path=str(tmp_path)) == line


def test_an_empty_folder_and_a_folder_of_folders_are_refused(tmp_path: Path) -> None:
    legal = ".csv, .tsv, .csv.gz, .tsv.gz or .parquet"
    assert (
        error_of(tmp_path, path=str(tmp_path))
        == f"T: has no table; must hold one {legal} file per site"
    )
    write(tmp_path / "rome" / "t.csv", *ROWS)
    line = "T/rome: is a folder in a folder of tables; must be one file per site"
    assert error_of(tmp_path, path=str(tmp_path)) == line


@pytest.mark.parametrize("other", ["rome.tsv", "Rome.csv", "rome .csv", "rome.parquet"])
def test_two_files_for_one_site_are_refused(tmp_path: Path, other: str) -> None:
    write(tmp_path / "rome.csv", *ROWS)
    write(tmp_path / other, *ROWS)
    second, first = sorted([other, "rome.csv"])[::-1]
    line = (
        f"T/{second}: the same site as {first}; names must differ in more than case, blanks "
        "and ending"
    )
    assert error_of(tmp_path, path=str(tmp_path)) == line


def test_parquet_beside_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "rome.csv", *ROWS)
    write(tmp_path / "bonn.parquet", *ROWS)
    line = "T: has Parquet (bonn.parquet) and text files (rome.csv); must be all of one kind"
    assert error_of(tmp_path, path=str(tmp_path)) == line


def test_files_with_other_columns_say_which(tmp_path: Path) -> None:
    write(tmp_path / "bonn.csv", *ROWS)
    write(tmp_path / "rome.csv", "a,y,c,d", "1,no,2,3")
    line = (
        "T/rome.csv: lacks b and has c, d in addition; all files must have the columns of bonn.csv"
    )
    assert error_of(tmp_path, path=str(tmp_path)) == line


def test_a_column_of_numbers_here_and_texts_there_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "bonn.csv", "a,y", "1,no", "2,yes")
    write(tmp_path / "rome.csv", "a,y", "u,no", "2,yes")
    line = (
        "T/rome.csv, line 2: column 'a' has 'u', but numbers only in bonn.csv; list it in "
        "dataset.categorical or dataset.ignore"
    )
    assert error_of(tmp_path, path=str(tmp_path)) == line
    cured = table(path=str(tmp_path), categorical=["a"])
    assert cured.content.schema.features == ("a=1", "a=2", "a=u")


HINT = "say which encoding it has: dataset.encoding=cp1252 (Western), cp932 (Japanese), ..."


def test_bytes_that_are_no_text_are_named_by_line_and_byte(tmp_path: Path) -> None:
    content = "a,b,y\n1,u,no\n2,é,yes\n".encode("latin-1")
    (tmp_path / "t.csv").write_bytes(content)
    assert error_of(tmp_path) == f"T/t.csv, line 3: byte 3 (0xe9) is not utf-8; {HINT}"
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(content))
    line = f"T/t.csv.gz, line 3: byte 3 (0xe9) is not utf-8; {HINT}"
    assert error_of(tmp_path, path=str(tmp_path / "t.csv.gz")) == line
    assert table(path=str(tmp_path / "t.csv"), encoding="latin-1").facts.num_samples == 2


def test_a_file_that_ends_within_a_letter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,y\n1,no\n2,\xc3")
    assert error_of(tmp_path) == f"T/t.csv: ends within a letter of utf-8; {HINT}"


def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(b"a,y\n1,no\n")
    line = "T/t.csv.gz: cannot be read: Not a gzipped file (b'a,')"
    assert error_of(tmp_path, path=str(tmp_path / "t.csv.gz")) == line


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "t.parquet", "x")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    line = "T/t.parquet: Parquet needs: pip install 'fedtsd[parquet]'"
    assert error_of(tmp_path, path=str(tmp_path / "t.parquet")) == line


def test_a_broken_parquet_file_and_a_bad_row_in_a_good_one_are_named(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = str(tmp_path / "t.parquet")
    write(tmp_path / "t.parquet", "x")
    with pytest.raises(DataError, match=r"t\.parquet: cannot be read as Parquet: [^\n]+$"):
        _ = table(path=path).facts
    pd.DataFrame({"a": [1, np.inf], "y": ["no", "yes"]}).to_parquet(path)
    line = "T/t.parquet, row 2: column 'a' has inf, which is infinite or beyond float32" + CURE
    assert error_of(tmp_path, path=path) == line


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (("a", "1"), "T/p.csv: lacks b; must have the columns of T/t.csv"),
        (("a,y", "1,no"), "T/p.csv: lacks b; must have the columns of T/t.csv"),
        (("a,b,cc", "1,u,2"), "T/p.csv: column 'cc' is unknown; legal: a, b, y"),
        (
            ("a,b", "1,u", "2,w"),
            "T/p.csv, line 3: column 'b' has 'w', must be one of u, v",
        ),
        (("a,b", "1,u", "2,"), "T/p.csv, line 3: column 'b' has no value, must be one of u, v"),
        (("a,b", "1,u", "2"), "T/p.csv, line 3: has 1 cells, not 2; mend it"),
        (("a,b", "1,u", "inf,v"), "T/p.csv, line 3: column 'a' has inf, which is infinite or "
                                  "beyond float32; mend it"),
        (("a,b", "1,u", "x,v"), "T/p.csv, line 3: column 'a' has 'x', must be a number"),
        (("a,b", "x,u", "z,v"), "T/p.csv, line 2: column 'a' has 'x', must be a number"),
    ],
)  # fmt: skip
def test_bad_unlabelled_rows_are_one_line(
    tmp_path: Path, lines: tuple[str, ...], expected: str
) -> None:
    data = table(path=write(tmp_path / "t.csv", *ROWS))
    with pytest.raises(DataError) as caught:
        data.read_unlabelled(Path(write(tmp_path / "p.csv", *lines)))
    assert str(caught.value).replace(str(tmp_path), "T") == expected
