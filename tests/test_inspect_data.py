import pytest

from fedtsd.cli import main
from fedtsd.errors import ConfigError
from fedtsd.inspect_data import show_data
from tests.own import write_clinics, write_pictures

TABLE = ("dataset=table", "dataset.path=clinics", "dataset.target=diagnosis", "partition=by_site")


def test_a_table_is_shown_with_its_schema_and_its_sites(outputs) -> None:
    write_clinics(outputs / "clinics")
    shown = show_data(list(TABLE))
    assert shown.startswith(
        "clinics: 569 samples, 30 features, 2 classes; 56 public samples, 3 client"
    )
    assert "mean radius              numeric        456        -  6.981 to 28.11" in shown
    assert "diagnosis                target           2        -  benign, malignant" in shown
    (berlin,) = (line for line in shown.splitlines() if line.startswith("berlin"))
    train, val, test, classes = berlin.split()[1:5]
    assert classes == "2"
    assert int(train) + int(val) + int(test) <= 190  # some of its rows are public
    assert "note: the 56 public samples are the sites' own" in shown


def test_pictures_and_newcomers_are_shown(outputs, monkeypatch) -> None:
    monkeypatch.setenv("FEDTSD_DATA", str(outputs / "data"))
    write_pictures(outputs / "pictures", per_class=40)
    shown = show_data(
        [
            *("dataset=image_folder", "dataset.path=pictures", "partition=by_site"),
            "cohort.newcomers=0.34",
        ]
    )
    assert "1 x 8 x 8 images, 3 classes" in shown
    assert shown.count("joins later") == 1


def test_planted_groups_are_shown() -> None:
    shown = show_data(["partition=label_groups", "partition.num_clients=8"])
    rows = [line.split() for line in shown.splitlines() if line.endswith((" 0", " 1", " 2", " 3"))]
    assert {int(row[0]): int(row[-1]) for row in rows} == {i: i % 4 for i in range(8)}


def test_many_clients_are_summed_up() -> None:
    shown = show_data(["partition.num_clients=60", "partition.min_size=2"])
    assert "... and 20 smaller ones" in shown


def test_it_refuses_what_training_would_refuse(capsys) -> None:
    with pytest.raises(ConfigError, match=r"did you mean partition\.alpha"):
        show_data(["partition.alhpa=1"])
    assert main(["data", "show", "dataset=digit"]) == 2
    assert "did you mean digits?" in capsys.readouterr().err
