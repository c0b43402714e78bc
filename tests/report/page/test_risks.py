import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fedtsd.report.page.answer import choose_roles, verdicts
from fedtsd.report.page.names import Names
from fedtsd.report.page.risks import KINDS, Risk, late_change, risks
from fedtsd.report.page.rollout import drop, pilot_sites, stages
from fedtsd.report.page.sites import SiteRow
from fedtsd.report.page.words import Words
from fedtsd.report.results import Results
from fedtsd.score import ACCURACY, MAE
from tests.report.page.conftest import NAN, SITE
from tests.report.runs import RunBuilder, write_sweep

Get = Callable[[str], Results]


def found(results: Results) -> list[Risk]:
    roles = choose_roles(results)
    names = Names(Words("en"), results, roles)
    return risks(names, verdicts(results, roles))


def texts(results: Results, kind: str) -> list[str]:
    return [Words("en")(risk.seen) for risk in found(results) if risk.kind == kind]


def test_failed_and_missing_runs_are_named_with_their_error(results: Get) -> None:
    seen = texts(results("holes"), "holes")
    assert len(seen) == 3
    assert any(NAN in text and "failed, 6 of 6 rounds" in text for text in seen)
    assert any("fedtsdp-9.0-0" in t and "never started, 0 of ? rounds" in t for t in seen)


def test_few_seeds_are_a_risk_and_three_are_none(results: Get) -> None:
    assert texts(results("sweep"), "few_seeds")[0].startswith("Some results rest on 2 seeds")
    assert texts(results("many"), "few_seeds") == []


def test_sites_that_lose_are_those_beyond_their_margin(results: Get) -> None:
    many = results("many")
    (answer,) = verdicts(many, choose_roles(many))
    assert answer.alone is not None
    (text,) = texts(many, "losing")
    assert f"the noise margin: {len(answer.alone.losing)} of 300 site results, at worst" in text


def test_a_rising_or_falling_end() -> None:
    def rounds(*values: float) -> pd.DataFrame:
        return pd.DataFrame({"round": range(1, len(values) + 1), "score_mean": values})

    rising = rounds(0.1, 0.5, 0.5, 0.5, 0.6, 0.6, 0.6)
    assert late_change(rising, ACCURACY) == pytest.approx(0.1)
    assert late_change(rising, MAE) == pytest.approx(-0.1)
    falling = rounds(0.9, 0.9, 0.9, 0.6, 0.6, np.nan, 0.6)
    assert late_change(falling, ACCURACY) == pytest.approx(-0.3)
    assert late_change(rounds(0.1, 0.2, 0.3, 0.4, 0.5), ACCURACY) is None  # too few to say


def test_unstable_clusters_unfinished_rounds_and_few_samples(tmp_path: Path) -> None:
    folder = RunBuilder(rounds=6, clients=8).write(tmp_path / "run")
    rows = pd.read_csv(folder / "assignments.csv")
    rows.loc[(rows["round"] == 6) & (rows["client"] == 0), "cluster"] = 99
    rows.to_csv(folder / "assignments.csv", index=False)
    parts = pd.read_csv(folder / "partition.csv")
    parts = parts[~((parts["client"] == 3) & (parts["split"] == "test"))]
    parts.loc[len(parts)] = [3, "test", 0, 16]
    parts.to_csv(folder / "partition.csv", index=False)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"rounds": 10}))
    seen = Results.read([tmp_path])
    # Moves after round 4: all eight in the second split at round 5, and site 0 at round 6.
    assert "(9 times in all)" in texts(seen, "unstable")[0]
    assert texts(seen, "unfinished") == ["Only 6 of 10 planned rounds are in the tables."]
    summary = json.loads((folder / "summary.json").read_text())
    told = json.dumps(summary | {"privacy": {"rounds": 6}})  # the budget is spent
    (folder / "summary.json").write_text(told)
    assert texts(Results.read([tmp_path]), "unfinished") == []
    (few,) = texts(seen, "few_samples")
    assert "the fewest: 16" in few
    assert "±25.0 points" in few  # 1 / sqrt(16)


def test_sites_that_number_their_classes_otherwise_are_named(tmp_path: Path) -> None:
    folder = RunBuilder(rounds=6, clients=8).write(tmp_path / "run")
    assert texts(Results.read([tmp_path]), "coding") == []
    rows = pd.read_csv(folder / "assignments.csv")
    first, second = sorted(rows.loc[rows["round"] == 6, "cluster"].unique())[:2]
    sites = rows[(rows["round"] == 6) & (rows["cluster"] == second)]["client"].tolist()
    early = {"round": 5, "cluster": second, "like": first, "class": 0, "name": 3}
    names = [1, 0, 2, 3]
    late = [{**early, "round": 6, "class": k, "name": name} for k, name in enumerate(names)]
    pd.DataFrame([early, *late]).to_csv(folder / "codings.csv", index=False)
    (text,) = texts(Results.read([tmp_path]), "coding")
    listed = ", ".join(str(site) for site in sites)
    assert text.startswith(f"2 of 4 classes have other numbers at sites {listed} than at sites ")


def test_every_kind_of_risk_has_words() -> None:
    for lang in ("en", "ja"):
        for kind in KINDS:
            assert {f"risks.{kind}.name", f"risks.{kind}.do"} <= set(Words(lang).texts)


def row(client: int, gain: float | None) -> SiteRow:
    return SiteRow(client, 1, 1, None, None, 0.5, gain, 0.1, 0, 0, None, None, None)


def test_the_pilot_takes_the_sites_that_gain_most_and_the_one_that_gains_least() -> None:
    rows = [row(0, 0.1), row(1, -0.2), row(2, 0.3), row(3, 0.0), row(4, 0.2)]
    assert pilot_sites(rows) == ([0, 2, 4], 1)
    assert pilot_sites([row(0, 0.1), row(1, 0.2)]) == ([1], 0)
    assert pilot_sites([row(0, 0.1)]) == ([0], None)
    assert pilot_sites([row(0, None), row(1, None)]) == ([0, 1], None)


def test_stages_follow_the_answer(results: Get) -> None:
    for name, expected in {
        "many": ["pilot", "automate", "scale"],
        "plain": ["first"],
        "one": ["first"],
        "alone": ["first"],
    }.items():
        seen = results(name)
        roles = choose_roles(seen)
        (answer,) = verdicts(seen, roles)
        names = Names(Words("en"), seen, roles)
        assert [stage.name for stage in stages(names, answer, SITE)] == expected


def test_the_stop_criterion_is_twice_the_spread_but_at_least_a_point(results: Get) -> None:
    run = results("many").find("fedtsdp")[0]
    values = run.tables.rounds["score_mean"].to_numpy()
    assert drop(run) == pytest.approx(max(2 * np.diff(values[4:]).std(), 0.01))


def test_one_common_model_is_piloted_first_where_it_does_as_well(tmp_path: Path) -> None:
    write_sweep(tmp_path, alphas=(0.1,), seeds=(0,), clients=8, rounds=6)
    seen = Results.read([tmp_path])
    clients = seen.clients.copy()
    clients["score"] = clients["method"].map({"local": 0.4, "fedavg": 0.9, "fedtsdp": 0.9})
    seen.__dict__["clients"] = clients
    roles = choose_roles(seen)
    (answer,) = verdicts(seen, roles)
    pilot = stages(Names(Words("en"), seen, roles), answer, SITE)[0]
    assert "Pilot one common model (FedAvg) first" in Words("en")(pilot.steps[0])
