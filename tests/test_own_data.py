"""People's own data from files to the tables of a run."""

import json

import numpy as np
import pandas as pd
import pytest

from fedtsd.cli import main
from fedtsd.loading import load_federation
from fedtsd.traffic import SENT_SUMS
from tests.own import SITES, write_clinics, write_diabetes, write_pictures
from tests.runs import run_toy, table

CLINICS = ("dataset=table", "dataset.path=clinics", "dataset.target=diagnosis", "partition=by_site")
DIABETES = ("dataset=table", "dataset.path=diabetes", "dataset.target=target", "partition=by_site")


def run(*overrides: str, expect: int = 0) -> None:
    assert main(["train", *overrides, "hydra.run.dir=run"]) == expect


def summary(folder) -> dict:
    return json.loads((folder / "run/summary.json").read_text())


def test_a_table_per_site_is_trained_on_and_its_sites_have_names(outputs) -> None:
    write_clinics(outputs / "clinics")
    run(*CLINICS, "method=fedavg", "rounds=8")
    found = summary(outputs)
    assert found["last"]["accuracy_mean"] > 0.93
    assert json.loads((outputs / "run/sites.json").read_text()) == list(SITES)
    schema = json.loads((outputs / "run/schema.json").read_text())
    assert {row["name"] for row in schema if row["kind"] == "target"} == {"diagnosis"}
    assert any("public samples are the sites' own" in note for note in found["notes"])
    # Sums for standardisation: three per feature, 8 bytes each, from three sites; once.
    crossed = table(outputs / "run", "exchanged")
    sums = crossed[crossed["item"] == SENT_SUMS]
    assert sums[["round", "num_bytes"]].to_numpy().tolist() == [
        [0, 3 * 30 * 8 * 3],
        [0, 2 * 30 * 8 * 3],
    ]


def test_regression_serves_values_and_is_scored_by_its_errors(outputs, capsys) -> None:
    write_diabetes(outputs / "diabetes")
    run(*DIABETES, "method=fedavg", "rounds=8", "training.lr=0.01", "model.hidden=[16]")
    rows = table(outputs / "run", "clients").query("split == 'test' and round == 8")
    assert list(rows.columns[-4:-1]) == ["mae", "rmse", "loss"]
    frame = pd.concat(pd.read_csv(outputs / f"diabetes/{site}.csv") for site in SITES)
    guessing = (frame["target"] - frame["target"].mean()).abs().mean()
    assert rows["mae"].mean() < 0.8 * guessing  # in the target's own unit
    assert (rows["mae"] <= rows["rmse"]).all()
    found = summary(outputs)
    assert found["metric"] == "mae"
    assert found["last"]["mae_mean"] == pytest.approx(rows["mae"].mean())
    assert found["last"]["mae_worst10"] == pytest.approx(rows["mae"].max())
    assert found["last"]["rmse_mean"] == pytest.approx(rows["rmse"].mean())
    means = table(outputs / "run", "clients").query("split == 'val'").groupby("round")["mae"].mean()
    assert found["best_by_validation"]["round"] == means.idxmin()
    assert (outputs / "run/figures/accuracy.png").is_file()


def test_the_errors_are_those_of_the_predictions(config, outputs) -> None:
    """A model that always predicts the mean of the training targets, worked out from the files."""
    write_diabetes(outputs / "diabetes")
    cfg = config(*DIABETES, "method=fedavg", "rounds=1", "training.lr=1e-30")
    federation = load_federation(cfg)
    run_toy(cfg, federation, outputs / "run")
    rows = table(outputs / "run", "clients").query("split == 'test'").set_index("client")
    for client, data in enumerate(federation.clients):
        values = data.test.labels.numpy() * data.test.unit
        # An untrained network predicts nearly nothing, and 0 stands for the mean.
        assert rows["mae"][client] == pytest.approx(np.abs(values).mean(), rel=0.15)


def test_sites_that_disagree_about_a_value_are_told_apart(outputs) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(960, 4)).astype(np.float32)
    site = np.arange(960) % 12
    sign = np.where(site % 2, 1.0, -1.0)
    y = sign * (x @ np.array([1.0, -1.0, 0.5, 0.0])) + 0.05 * rng.normal(size=960)
    np.savez(outputs / "values.npz", x=x, y=y, site=site)
    run(
        "dataset=arrays", "dataset.path=values.npz", "dataset.task=regression", "partition=by_site",
        "model.hidden=[16]", "rounds=12", "method=fedtsdp",
    )  # fmt: skip
    final = (
        table(outputs / "run", "assignments").query("round == 12").set_index("client")["cluster"]
    )
    for cluster in final.unique():
        assert len({client % 2 for client in final.index[final == cluster]}) == 1
    assert final.nunique() >= 2
    rounds = table(outputs / "run", "rounds")
    assert rounds["mae_mean"].iloc[-1] < 0.5 * rounds["mae_mean"].iloc[1]


@pytest.mark.parametrize("standardise", ["public", "moments", "site", "none"])
def test_pictures_in_folders_are_learned_however_they_are_standardised(
    standardise: str, outputs, monkeypatch
) -> None:
    monkeypatch.setenv("FEDTSD_DATA", str(outputs / "data"))
    write_pictures(outputs / "pictures", per_class=40)
    run(
        "dataset=image_folder", "dataset.path=pictures", "partition=by_site", "method=fedavg",
        "rounds=6", f"dataset.standardise={standardise}",
    )  # fmt: skip
    assert summary(outputs)["last"]["accuracy_mean"] > 0.8
    counts = pd.read_csv(outputs / "run/partition.csv").groupby("client")["count"].sum()
    assert counts.sum() == 360 - 36  # a tenth is public


def test_other_data_under_a_stopped_run_are_refused(outputs, capsys) -> None:
    write_clinics(outputs / "clinics")
    run(*CLINICS, "method=fedavg", "rounds=2")
    status = json.loads((outputs / "run/status.json").read_text())
    (outputs / "run/status.json").write_text(json.dumps(status | {"state": "interrupted"}))
    with (outputs / "clinics/lima.csv").open("a") as file:
        file.write((outputs / "clinics/kyoto.csv").read_text().splitlines()[1] + "\n")
    capsys.readouterr()
    assert main(["train", "resume=run"]) == 2
    assert "clinics: has changed since the run in run began" in capsys.readouterr().err


def test_nothing_is_written_for_bad_files(outputs, capsys) -> None:
    write_clinics(outputs / "clinics")
    text = (outputs / "clinics/lima.csv").read_text().splitlines()
    text[4] = text[4].replace(text[4].split(",")[0], "abc", 1)
    (outputs / "clinics/lima.csv").write_text("\n".join(text))
    run(*CLINICS, expect=2)
    assert "clinics/lima.csv, line 5: column 'mean radius' has 'abc'" in capsys.readouterr().err
    assert not (outputs / "run").exists()
    run(*CLINICS, "dataset.on_bad=skip", "rounds=1")
    assert any("line 5" in note for note in summary(outputs)["notes"])
    assert "line 5" in (outputs / "run/run.log").read_text()
