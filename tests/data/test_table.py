"""What a table becomes: schema, features, target, sites."""

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import datasets

from fedtsd.data.dataset import Arrays
from fedtsd.data.table import dataset as table_dataset
from fedtsd.data.table.dataset import Table, schema_of
from fedtsd.data.table.schema import schema_rows
from fedtsd.data.table.show import show_schema
from tests.data.tables import table, write

PATIENTS = (
    "id,age,colour,sick,centre,y",
    "p1,30,red,true,Rome,no",
    "p2,NA,blue,false,Berlin,yes",
    "p3,41.5,,true,Rome,no",
    "p4,28, red ,false,Berlin,yes",
)


def load(data: Table) -> Arrays:
    return data.load(Path())


@pytest.fixture
def patients(tmp_path: Path) -> Table:
    path = write(tmp_path / "patients.csv", *PATIENTS)
    return table(path=path, site="centre", ignore=["id"])


def test_a_small_table_becomes_the_features_worked_out_by_hand(patients: Table) -> None:
    names = ("age", "age missing", "colour=blue", "colour=red", "colour=(missing)")
    assert schema_of(patients).features == (*names, "sick=false", "sick=true")
    arrays = load(patients)
    assert arrays.inputs.dtype == np.float32
    expected = [
        [30, 0, 0, 1, 0, 0, 1],
        [np.nan, 1, 1, 0, 0, 1, 0],
        [41.5, 0, 0, 0, 1, 0, 1],
        [28, 0, 0, 1, 0, 1, 0],
    ]
    assert np.array_equal(arrays.inputs, np.array(expected, np.float32), equal_nan=True)
    assert arrays.scaled is not None
    assert arrays.scaled.tolist() == [True] + [False] * 6


def test_a_small_table_has_the_target_and_sites_worked_out_by_hand(patients: Table) -> None:
    arrays, facts = load(patients), patients.facts
    assert arrays.classes == facts.classes == ("no", "yes")
    assert arrays.labels.tolist() == [0, 1, 0, 1]
    assert arrays.labels.dtype == np.int64
    assert facts.sites == ("Berlin", "Rome")
    assert facts.site_sizes == (2, 2)
    assert arrays.sites is not None
    assert arrays.sites.tolist() == [1, 0, 1, 0]
    assert arrays.sites.dtype == np.int64
    assert (facts.num_samples, facts.shape, facts.regression) == (4, (7,), False)
    assert facts.notes == (
        "site Berlin has one class only: yes (2 samples)",
        "site Rome has one class only: no (2 samples)",
    )


def test_the_schema_says_what_each_column_is_taken_for(patients: Table) -> None:
    rows = {row["name"]: row for row in schema_rows(schema_of(patients))}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "id": "ignored",
        "age": "numeric",
        "colour": "categorical",
        "sick": "categorical",
        "centre": "site",
        "y": "target",
    }
    assert (rows["age"]["low"], rows["age"]["high"], rows["age"]["missing"]) == (28, 41.5, 1)
    assert (rows["colour"]["values"], rows["colour"]["distinct"]) == (["blue", "red"], 2)
    assert rows["id"]["reason"] == "dataset.ignore"
    assert json.loads(json.dumps(list(rows.values()))) == list(rows.values())


def test_the_schema_is_shown_as_a_grid_with_all_there_is_to_know(patients: Table) -> None:
    lines = show_schema(schema_of(patients)).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["column", "kind", "different", "missing", "holds"],
        ["id", "ignored", "4", "-", "left", "out:", "dataset.ignore"],
        ["age", "numeric", "3", "1", "28", "to", "41.5"],
        ["colour", "categorical", "2", "1", "blue,", "red"],
    ]
    assert lines[8:] == [
        "4 samples, 7 features",
        "classification, 2 classes: no, yes",
        "2 sites: Berlin (2), Rome (2)",
        "note: site Berlin has one class only: yes (2 samples)",
        "note: site Rome has one class only: no (2 samples)",
    ]


def test_a_folder_has_a_site_per_file_and_columns_in_any_order(tmp_path: Path) -> None:
    write(tmp_path / "site 10.csv", "a,y", "1,no", "2,yes")
    write(tmp_path / "site 2.tsv", "y\ta", "no\t3")
    write(tmp_path / "README.md", "two sites")
    data = table(path=str(tmp_path))
    assert data.facts.sites == ("site 2", "site 10")
    assert data.facts.site_sizes == (1, 2)
    assert load(data).inputs[:, 0].tolist() == [1, 2, 3]
    assert load(data).sites.tolist() == [1, 1, 0]  # type: ignore[union-attr]
    assert data.facts.notes[0] == "not read: README.md"


def test_one_file_without_a_site_column_has_no_sites(tmp_path: Path) -> None:
    data = table(path=write(tmp_path / "t.csv", "a,y", "1,no", "2,yes"))
    assert data.facts.sites == ()
    assert load(data).sites is None


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found_in_the_header(tmp_path: Path, separator: str) -> None:
    lines = [line.replace(",", separator) for line in PATIENTS]
    found = table(path=write(tmp_path / "t.csv", *lines), ignore=["id"])
    golden = table(path=write(tmp_path / "golden.csv", *PATIENTS), ignore=["id"])
    assert np.array_equal(load(found).inputs, load(golden).inputs, equal_nan=True)


def test_numbers_with_a_decimal_comma_are_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a;b;y", "1,5;2;no", "-0,25; ;yes")
    data = table(path=path, decimal=",")
    assert load(data).inputs[:, :2].tolist()[0] == [1.5, 2]
    assert load(data).inputs[1, 0] == np.float32(-0.25)


def test_a_point_is_no_decimal_mark_where_the_comma_is(tmp_path: Path) -> None:
    data = table(path=write(tmp_path / "t.csv", "a;y", "1.500,5;no", "2;yes"), decimal=",")
    assert schema_of(data).features == ("a=1.500,5", "a=2")


def test_a_table_made_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("\ufeffä;y\r\n1;no\r\n2;yes\r\n\r\n".encode())
    assert schema_of(table(path=str(tmp_path / "t.csv"))).features == ("ä",)


def test_other_encodings_and_compressed_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress("色,y\n赤,no\n青,yes\n".encode("cp932")))
    data = table(path=str(tmp_path / "t.csv.gz"), encoding="cp932")
    assert schema_of(data).features == ("色=赤", "色=青")


def test_texts_that_mean_missing_do_so_in_any_case_and_between_blanks(tmp_path: Path) -> None:
    cells = ["1", "", " ", "NaN", " null ", "N/A", "-", "-999"]
    path = write(tmp_path / "t.csv", "a,y", *(f"{c},{i % 2}" for i, c in enumerate(cells)))
    data = table(path=path, missing=["NaN", "NULL", "n/a", "-", "-999"])
    column = schema_of(data).columns[0]
    assert (column.kind, column.distinct, column.missing) == ("numeric", 1, 7)


def test_forced_categories_keep_their_zeros_and_missing_ones_get_a_column(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "zip,a,y", "007,1,no", "7,2,yes", ",3,no")
    data = table(path=path, categorical=["zip"])
    assert schema_of(data).features == ("a", "zip=007", "zip=7", "zip=(missing)")


def test_a_column_of_one_value_and_one_without_a_name_are_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", ",a,b,c,y", "0,1,x,5,no", "1,2,x,5,yes")
    data = table(path=path)
    assert schema_of(data).features == ("a",)
    assert data.facts.notes == (
        "2 columns are left out, with one value only: b, c",
        "1 column is left out, with no name: column 1",
    )


def test_a_column_with_one_value_and_gaps_is_kept(tmp_path: Path) -> None:
    data = table(path=write(tmp_path / "t.csv", "a,b,y", "1,5,no", "2,,yes"))
    assert schema_of(data).features == ("a", "b", "b missing")


@pytest.mark.parametrize(
    ("cells", "classes", "labels"),
    [
        (["b", "a", "b"], ("a", "b"), [1, 0, 1]),
        (["True", "false", "True"], ("True", "false"), [0, 1, 0]),
        (["10", "9", "2"], ("2", "9", "10"), [2, 1, 0]),
        (["1.0", "0", "1"], ("0", "1"), [1, 0, 1]),
        (["-1", "1", "-1"], ("-1", "1"), [0, 1, 0]),
        (["grade 10", "grade 2", "A"], ("A", "grade 2", "grade 10"), [2, 1, 0]),
    ],
)
def test_texts_and_few_whole_numbers_are_classes(
    tmp_path: Path, cells: list[str], classes: tuple[str, ...], labels: list[int]
) -> None:
    path = write(tmp_path / "t.csv", "a,y", *(f"{i}.5,{c}" for i, c in enumerate(cells)))
    arrays = load(table(path=path))
    assert arrays.classes == classes
    assert arrays.labels.tolist() == labels
    assert arrays.values is None


def test_fractions_and_many_whole_numbers_are_values(tmp_path: Path) -> None:
    fractions = table(path=write(tmp_path / "f.csv", "a,y", "1,0.5", "2,1", "3,2"))
    assert load(fractions).values.tolist() == [0.5, 1, 2]  # type: ignore[union-attr]
    path = write(tmp_path / "w.csv", "a,y", *(f"{i}.5,{i}" for i in range(21)))
    whole = table(path=path)
    assert whole.facts.regression
    assert whole.facts.notes == (
        "target y has 21 different whole numbers, so it is a value, not a class; "
        "dataset.task says otherwise",
    )
    as_classes = table(path=path, task="classification")
    assert as_classes.facts.classes == tuple(str(i) for i in range(21))
    assert as_classes.facts.notes == ()
    as_value = table(path=write(tmp_path / "b.csv", "a,y", "1,0", "2,1"), task="regression")
    assert load(as_value).values.tolist() == [0, 1]  # type: ignore[union-attr]


def test_strata_hold_equally_many_and_are_named_by_their_range(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,y", *(f"{-i},{i + 0.5}" for i in range(100)))
    arrays = load(table(path=path, strata=4))
    assert np.bincount(arrays.labels).tolist() == [25, 25, 25, 25]
    assert arrays.classes == ("0.5 to 24.5", "25.5 to 49.5", "50.5 to 74.5", "75.5 to 99.5")
    assert arrays.values is not None
    assert np.array_equal(np.argsort(arrays.values), np.arange(100))
    assert arrays.values.dtype == np.float32


def test_given_classes_keep_their_order_and_may_lack_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,y", "1,low", "2,high")
    data = table(path=path, classes=["low", "mid", "high"])
    assert load(data).labels.tolist() == [0, 2]
    assert data.facts.classes == ("low", "mid", "high")
    assert data.facts.notes == ("no row has the class: mid",)


def test_notes_say_what_is_odd(tmp_path: Path) -> None:
    cells = [
        f"{i},{i % 3},{'Yes' if i % 2 else 'yes'},{'no' if i < 9 else 'NO'}" for i in range(20)
    ]
    notes = table(path=write(tmp_path / "t.csv", "id,a,b,y", *cells)).facts.notes
    assert notes == (
        "column id has another whole number in every row; if it only names the row, list it in "
        "dataset.ignore",
        "column b holds 'Yes' and 'yes': the same?",
        "column y holds 'NO' and 'no': the same?",
    )


def test_a_site_without_any_value_in_a_column_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", "u,v,y", "1,,no", "2,,yes")
    write(tmp_path / "b.csv", "u,v,y", "3,5,no", "4,6,yes")
    data = table(path=str(tmp_path))
    assert data.facts.notes == ("site a has no value in: v",)
    assert schema_of(data).features == ("u", "v", "v missing")


def test_bad_rows_are_left_out_and_listed_if_asked(tmp_path: Path) -> None:
    good = [f"{i},b{i % 2},{i % 2}" for i in range(40)]
    bad = ["x,b0,1", "1,b0", "inf,b0,0", "1,b0,", "5,b1,1"]
    path = write(tmp_path / "t.csv", "a,b,y", *good, *bad)
    data = table(path=path, on_bad="skip")
    assert data.facts.num_samples == 41
    assert load(data).inputs[-1].tolist() == [5, 0, 1]
    assert data.facts.notes == (
        f"left out 4 rows: {path}, line 43 has 2 cells, not 3; "
        f"{path}, line 42 column 'a' has 'x' among numbers (a sign of dataset.missing? a column "
        f"for dataset.categorical?); {path}, line 44 column 'a' has inf, which is infinite or "
        f"beyond float32; {path}, line 45 target 'y' is missing",
    )


def test_rows_are_left_out_between_cells_of_several_lines(tmp_path: Path) -> None:
    lines = ("a,b,y", '1,"u', 'u",no', "", '2,"v', 'v"', "  ", '3,"w', "", 'w",yes', '4,"x",no,')
    path = write(tmp_path / "t.csv", *lines)
    data = table(path=path, on_bad="skip")
    assert load(data).inputs[:, 0].tolist() == [1, 3]
    assert schema_of(data).features == ("a", "b=u\nu", "b=w\n\nw")
    assert data.facts.notes == (
        f"left out 2 rows: {path}, line 5 has 2 cells, not 3; {path}, line 11 has 4 cells, not 3",
    )


def test_nan_is_text_unless_it_means_missing(tmp_path: Path) -> None:
    data = table(path=write(tmp_path / "t.csv", "a,y", "nan,no", "1,yes"), missing=[])
    assert schema_of(data).features == ("a=1", "a=nan")


def test_a_class_of_rows_that_are_left_out_is_no_class(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", "a,b,y", "1,u,no", "2,v,yes", "3,w,maybe", "4,u,no")
    data = table(path=path, classes=["no", "yes"], on_bad="skip")
    assert data.facts.num_samples == 3
    assert schema_of(data).features == ("a", "b=u", "b=v")


def test_files_are_read_once_until_they_change(
    patients: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    monkeypatch.setattr(
        table_dataset, "read_content", lambda data: read.append(data) or read_content(data)
    )
    first = load(patients)
    assert load(patients).inputs is first.inputs
    assert dataclasses.replace(patients).facts == patients.facts
    assert len(read) == 1
    write(tmp_path / "patients.csv", *PATIENTS, "p5,1,red,true,Rome,no")
    assert patients.facts.num_samples == 5
    assert len(read) == 2


read_content = table_dataset.read_content


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame(
        {
            "a": [1.5, np.nan, 3],
            "n": pd.array([1, None, 2], dtype="Int64"),
            "b": [True, False, True],
            "c": pd.Categorical(["x", None, "y"]),
            "d": ["u", None, "v"],
            "zip": [7, 8, 9],
            "y": ["no", "yes", "no"],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    made = [table(path=str(tmp_path / f"t.{e}"), categorical=["zip"]) for e in ("parquet", "csv")]
    assert schema_of(made[0]) == schema_of(made[1])
    assert np.array_equal(load(made[0]).inputs, load(made[1]).inputs, equal_nan=True)
    assert schema_of(made[0]).columns[2].values == ("False", "True")


def test_unlabelled_rows_become_inputs_of_the_same_form(patients: Table, tmp_path: Path) -> None:
    path = write(tmp_path / "public" / "p.csv", "colour,sick,age", "red,true,", "?,false,7")
    found = patients.read_unlabelled(Path(path))
    expected = [[np.nan, 1, 0, 1, 0, 0, 1], [7, 0, 0, 0, 1, 1, 0]]
    assert np.array_equal(found, np.array(expected, np.float32), equal_nan=True)
    assert np.array_equal(patients.read_unlabelled(Path(path).parent), found, equal_nan=True)


def test_the_rows_of_a_table_read_as_unlabelled_are_its_inputs(patients: Table) -> None:
    found = patients.read_unlabelled(Path(patients.path or ""))
    assert np.array_equal(found, load(patients).inputs, equal_nan=True)


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "diabetes"])
def test_real_tables_written_out_per_site_come_back(tmp_path: Path, name: str) -> None:
    bunch = getattr(datasets, f"load_{name}")(as_frame=True)
    features, target = bunch.data.round(6), bunch.target
    frame = features.assign(y=target if name == "diabetes" else bunch.target_names[target])
    sites = np.random.default_rng(0).integers(0, 5, len(frame))
    for site in range(5):
        frame[sites == site].to_csv(tmp_path / f"site{site}.csv", index=False)
    data = table(path=str(tmp_path))
    order = np.argsort(sites, kind="stable")
    arrays = load(data)
    assert np.array_equal(arrays.inputs, features.to_numpy(np.float32)[order])
    assert data.facts.site_sizes == tuple(np.bincount(sites))
    assert np.array_equal(arrays.sites, sites[order])  # type: ignore[arg-type]
    if name == "diabetes":
        assert np.array_equal(arrays.values, target.to_numpy(np.float32)[order])  # type: ignore[arg-type]
        assert data.facts.regression
        assert np.bincount(arrays.labels).max() < 1.3 * len(frame) / 10
    else:
        assert [arrays.classes[label] for label in arrays.labels] == frame.y[order].tolist()
        assert not data.facts.regression


def test_a_table_with_all_kinds_of_columns_matches_the_pipeline_of_pandas(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "a": np.where(rng.random(60) < 0.2, np.nan, rng.normal(size=60)),
            "b": rng.choice(["u", "v", "w", None], 60),
            "y": rng.choice(["no", "yes"], 60),
        }
    )
    frame.to_csv(tmp_path / "t.csv", index=False)
    reference = pd.concat(
        [frame.a, frame.a.isna(), pd.get_dummies(frame.b, dummy_na=True)], axis=1
    ).to_numpy(np.float32)
    found = load(table(path=str(tmp_path / "t.csv"))).inputs
    assert np.array_equal(found, reference, equal_nan=True)


WORDS = st.text("abcXYZé ß_#'\"\n,;", min_size=1, max_size=6).filter(lambda w: w == w.strip())
NUMBERS = st.floats(-(2**100), 2**100, width=32)
ROWS = st.lists(
    st.tuples(st.one_of(st.none(), WORDS), st.one_of(st.none(), NUMBERS)), min_size=2, max_size=12
)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_numbers_and_categories_are_the_columns_and_dummies_of_pandas(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str | None, float | None]]
) -> None:
    frame = pd.DataFrame(rows, columns=["b", "a"]).astype({"b": object, "a": float})
    frame["y"] = np.where(np.arange(len(frame)) % 2, "yes", "no")
    assume(frame.a.notna().any() and frame.b.notna().any())
    informative = {name: frame[name].nunique(dropna=False) > 1 for name in "ab"}
    assume(any(informative.values()))
    path = tmp_path_factory.mktemp("drawn") / "t.csv"
    frame.to_csv(path, index=False)
    data = table(path=str(path))
    arrays, features = load(data), schema_of(data).features
    reference = {"a": frame.a} if informative["a"] else {}
    if informative["a"] and frame.a.isna().any():
        reference["a missing"] = frame.a.isna()
    if informative["b"]:
        dummies = pd.get_dummies(frame.b.fillna("(missing)"), prefix="b", prefix_sep="=")
        reference |= {str(name): dummies[name] for name in dummies}
    assert set(features) == set(reference)
    expected = np.stack([reference[name].to_numpy(np.float32) for name in features], axis=1)
    assert np.array_equal(arrays.inputs, expected, equal_nan=True)
