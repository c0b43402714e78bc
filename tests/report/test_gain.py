import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedtsd.errors import RunFolderError
from fedtsd.report.gain import GAIN_COLUMNS, gain, gain_table
from fedtsd.report.results import Results
from tests.report.drawn import group, overlaps, texts, words
from tests.report.runs import RunBuilder, write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("gain")
    return Results.read([write_sweep(folder, seeds=(0, 1), alphas=(1.0, 0.1))])


@pytest.fixture(scope="module")
def figure(sweep: Results) -> Figure:
    return gain(sweep)


def set_accuracies(folder: Path, values: list[float]) -> None:
    """Let the clients have these test accuracies in the last round."""
    path = folder / "clients.csv"
    head, *lines = path.read_text().splitlines()
    names = head.split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines]
    for row in rows:
        row["accuracy"] = str(values[int(row["client"])])
    path.write_text("\n".join([head, *(",".join(row.values()) for row in rows)]) + "\n")


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """Three clients: 50, 60, 70 % alone; 60, 60, 50 % with FedAvg."""
    for method, values in (("local", [0.5, 0.6, 0.7]), ("fedavg", [0.6, 0.6, 0.5])):
        builder = RunBuilder(clients=3, groups=1, rounds=2, method=method, tests=False)
        set_accuracies(builder.write(tmp_path / method), values)
    return tmp_path


def test_gain_is_the_accuracy_less_that_of_training_alone(by_hand: Path) -> None:
    table = gain_table(Results.read([by_hand]))
    assert list(table.columns) == GAIN_COLUMNS
    assert table["client"].tolist() == [0, 1, 2]
    assert table["alone"].tolist() == [0.5, 0.6, 0.7]
    assert table["score"].tolist() == [0.6, 0.6, 0.5]
    assert table["gain"].tolist() == [0.1, 0.0, -0.2]
    assert set(table["method"]) == {"fedavg"}


def test_the_numbers_below_are_mean_worst_and_share_that_loses(by_hand: Path) -> None:
    shown = gain(Results.read([by_hand]))
    numbers = [group(shown, name)[0].get_text() for name in ("mean", "worst", "lose")]
    assert numbers == ["−3.3", "−20.0", "33 %"]
    (line,) = group(shown, "gain fedavg")
    assert list(line.get_ydata()) == pytest.approx([-20, 0, 10])
    assert list(line.get_xdata()) == pytest.approx([100 / 6, 50, 500 / 6])


def test_runs_pair_within_setting_and_seed(sweep: Results) -> None:
    table = gain_table(sweep)
    assert len(table) == 2 * 2 * 2 * 20
    assert set(table["method"]) == {"fedavg", "fedtsdp"}
    rows = sweep.clients.set_index(["method", "setting", "seed", "client"])["score"]
    for row in table.sample(30, random_state=0).itertuples():
        cell = (row.setting, row.seed, row.client)
        assert row.alone == rows[("local", *cell)]
        assert row.score == rows[(row.method, *cell)]


def test_a_run_without_a_twin_is_left_out(tmp_path: Path) -> None:
    write_sweep(tmp_path, methods=("fedavg",), seeds=(0, 1), alphas=(1.0, 0.1))
    write_sweep(tmp_path, methods=("local",), seeds=(1,), alphas=(0.1,))
    results = Results.read([tmp_path])
    table = gain_table(results)
    assert {*zip(table["setting"], table["seed"], strict=True)} == {("Dirichlet α = 0.1", 1)}
    shown = " ".join(gain(results).get_suptitle().split())
    assert "Dirichlet α = 0.1" in shown


def test_the_twin_that_trains_alike_is_preferred(tmp_path: Path) -> None:
    for epochs in (1, 2):
        options = {"clients": 3, "groups": 1, "rounds": 2, "tests": False}
        changes: dict[str, dict[str, object]] = {"training": {"epochs": epochs}}
        for method in ("local", "fedavg"):
            folder = tmp_path / f"{method}{epochs}"
            RunBuilder(method=method, changes=changes, **options).write(folder)
            set_accuracies(folder, [0.1 * epochs if method == "local" else 0.5] * 3)
    table = gain_table(Results.read([tmp_path])).groupby("method")["alone"].first()
    assert table["fedavg epochs=1"] == pytest.approx(0.1)
    assert table["fedavg epochs=2"] == pytest.approx(0.2)


@pytest.mark.parametrize("methods", [("fedavg", "fedtsdp"), ("local",)])
def test_without_pairs_one_line_says_which_command_helps(
    methods: tuple[str, ...], tmp_path: Path
) -> None:
    results = Results.read([write_sweep(tmp_path, methods=methods, seeds=(0,), alphas=(1.0,))])
    for ask in (gain_table, gain):
        with pytest.raises(RunFolderError, match=r"fedtsd train \.\.\. method=local") as caught:
            ask(results)
        assert "\n" not in str(caught.value)


def test_curves_are_the_sorted_gains_of_all_seeds(sweep: Results, figure: Figure) -> None:
    table = gain_table(sweep)
    curves = {}
    for setting, ax in zip(sweep.settings, figure.axes[:2], strict=True):
        for line in ax.get_lines():
            if str(line.get_gid()).startswith("gain "):
                curves[setting, line.get_gid().removeprefix("gain ")] = line.get_ydata()
    assert len(curves) == 4
    for (setting, method), rows in table.groupby(["setting", "method"]):
        assert list(curves[setting, method]) == pytest.approx(sorted(rows["gain"] * 100))
    assert "clients of 2 seeds pooled" in figure.get_suptitle()


def test_panels_share_their_scale_and_losses_have_a_ground(
    figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    tops = figure.axes[:2]
    assert tops[0].get_ylim() == tops[1].get_ylim()
    low, _ = tops[0].get_ylim()
    for ground in group(figure, "losses"):
        assert (ground.get_y(), ground.get_y() + ground.get_height()) == (low, 0)
    assert overlaps(texts(figure, monkeypatch)) == []


def test_long_names_go_to_a_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = "A method with a name that has no room below"
    write_sweep(tmp_path, methods=("local", "fedavg"), seeds=(0,), alphas=(1.0,))
    path = tmp_path / "fedavg-1.0-0" / "config.yaml"
    path.write_text(path.read_text().replace("label: FedAvg", f"label: {long}"))
    shown = gain(Results.read([tmp_path]))
    assert words(shown).count(long) == 1
    assert [text.get_text() for text in shown.legends[0].get_texts()] == [long]
    assert overlaps(texts(shown, monkeypatch)) == []


def test_the_rule_decides_the_round(by_hand: Path) -> None:
    folder = by_hand / "fedavg"
    lines = (folder / "clients.csv").read_text().splitlines()
    first = [line.replace(",0.5,", ",0.9,") if line.startswith("1,2,") else line for line in lines]
    (folder / "clients.csv").write_text("\n".join(first) + "\n")
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    summary["best_by_validation"]["round"] = 1
    path.write_text(json.dumps(summary))
    last = gain_table(Results.read([by_hand]))
    best = gain_table(Results.read([by_hand], "best_by_validation"))
    np.testing.assert_allclose(last["gain"], [0.1, 0, -0.2], atol=1e-12)
    np.testing.assert_allclose(best["gain"], [0.1, 0, 0.2], atol=1e-12)
