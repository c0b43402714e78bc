import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from fedtsd.errors import InputError
from fedtsd.report.gain import gain_table
from fedtsd.report.page.answer import (
    Versus,
    choose_roles,
    error_noise,
    margin,
    share_noise,
    shown_run,
    verdicts,
    versus,
)
from fedtsd.report.page.headline import finding, headline, overall
from fedtsd.report.page.names import Names
from fedtsd.report.page.sites import site_rows
from fedtsd.report.page.words import Words
from fedtsd.report.results import Results

Get = Callable[[str], Results]
KINDS = ("gain", "either", "tie", "alone_better", "common_better", "no_alone", "only_alone")


def compared(gains: list[float], margins: list[float], seeds: list[int] | None = None) -> Versus:
    rows = {"seed": seeds or [0] * len(gains), "client": range(len(gains))}
    return Versus(pd.DataFrame({**rows, "gain": gains, "margin": margins}))


def test_the_margin_by_hand() -> None:
    # 18 of 18 and 9 of 18 right: 19/20 and 10/20; variances .0475/20 and .25/20.
    expected = 2 * np.sqrt((0.0475 + 0.25) / 20)
    known = np.array([np.nan]), np.array([18.0])
    noises = [share_noise(np.array([share]), *known) for share in (1.0, 0.5)]
    assert margin(*noises) == pytest.approx([expected])


def test_a_site_that_gets_everything_right_still_has_noise() -> None:
    assert share_noise(np.array([1.0]), np.array([np.nan]), np.array([50.0]))[0] > 0


def test_the_noise_of_an_error_by_hand() -> None:
    # Errors 1, 3, 2, 2 and the two added, 0 and 4: mean 2, squares 1 + 1 + 4 + 4, over 6 and 6.
    noise = error_noise(np.array([2.0]), np.array([np.sqrt(18 / 4)]), np.array([4.0]))
    assert noise == pytest.approx([10 / 36])


def test_who_gains_who_loses_and_by_how_much() -> None:
    found = compared([0.3, 0.05, -0.2, -0.4], [0.1, 0.1, 0.1, 0.1])
    assert (found.gaining, found.unclear, found.losing["client"].tolist()) == (1, 1, [3, 2])
    assert found.mean == pytest.approx(-0.0625)
    assert found.margin == pytest.approx(np.sqrt(4 * 0.01) / 4)
    assert found.worst["client"] == 3
    assert found.outcome == "worse"


@pytest.mark.parametrize(
    ("gains", "outcome"), [([0.2, 0.2], "better"), ([0.01, -0.01], "tie"), ([-0.2, -0.2], "worse")]
)
def test_a_mean_within_its_noise_is_a_tie(gains: list[float], outcome: str) -> None:
    assert compared(gains, [0.1, 0.1]).outcome == outcome


def test_gains_are_those_of_the_gain_table(results: Get) -> None:
    sweep = results("sweep")
    found = versus(sweep, "Dirichlet α = 0.1", "fedtsdp", "local")
    assert found is not None
    table = gain_table(sweep).query("method == 'fedtsdp' and setting == 'Dirichlet α = 0.1'")
    both = found.rows.merge(table, on=["seed", "client"])
    assert len(both) == len(table) == 24
    assert (both["gain_x"] - both["gain_y"]).abs().max() < 1e-12
    assert both["score"].to_numpy() == pytest.approx(both["ours"].to_numpy())


def test_roles(results: Get) -> None:
    roles = choose_roles(results("holes"))
    assert (roles.focus, roles.alone, roles.common) == ("fedtsdp", "local", "fedavg")
    assert choose_roles(results("holes"), "fedper").focus == "fedper"
    plain = choose_roles(results("plain"))  # never alone where anything else ran
    assert (plain.focus, plain.alone, plain.common) == ("fedavg", "local", None)
    assert choose_roles(results("alone")).focus == "local"


def test_a_method_that_cannot_be_judged_is_refused(results: Get) -> None:
    message = "focus: must be one of fedavg, fedtsdp, got 'local'"
    with pytest.raises(InputError, match=message):
        choose_roles(results("sweep"), "local")


def test_without_a_finished_run_there_is_no_page() -> None:
    with pytest.raises(InputError, match="no finished run"):
        choose_roles(Results((), (), "last"))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("one", ["no_alone"]),
        ("alone", ["only_alone"]),
        ("plain", ["alone_better"]),
        ("many", ["gain"]),
    ],
)
def test_kinds_of_answers(results: Get, name: str, kinds: list[str]) -> None:
    found = results(name)
    assert [answer.kind for answer in verdicts(found, choose_roles(found))] == kinds


def with_accuracy(results: Results, **accuracies: float) -> list[str]:
    """Kinds of answers where every site of a method has the same accuracy."""
    changed = Results(results.runs, results.holes, results.rule)
    clients = results.clients.copy()
    clients["score"] = clients["method"].map(accuracies)
    changed.__dict__["clients"] = clients
    return [answer.kind for answer in verdicts(changed, choose_roles(changed))]


def test_one_common_model_is_named_where_it_does_as_well(results: Get) -> None:
    sweep = results("sweep")
    kinds = {
        "gain": with_accuracy(sweep, local=0.5, fedavg=0.5, fedtsdp=0.9),
        "either": with_accuracy(sweep, local=0.5, fedavg=0.9, fedtsdp=0.9),
        "common_better": with_accuracy(sweep, local=0.5, fedavg=0.95, fedtsdp=0.7),
        "tie": with_accuracy(sweep, local=0.9, fedavg=0.5, fedtsdp=0.9),
        "alone_better": with_accuracy(sweep, local=0.95, fedavg=0.5, fedtsdp=0.7),
    }
    for kind, found in kinds.items():
        assert set(found) == {kind}


def test_the_overall_answer_is_no_better_than_its_parts(results: Get) -> None:
    answers = verdicts(results("sweep"), choose_roles(results("sweep")))

    def of(*kinds: str) -> str:
        pairs = zip(answers, kinds, strict=False)
        return overall([dataclasses.replace(a, kind=kind) for a, kind in pairs])

    assert of("gain", "gain", "gain") == "gain"
    assert of("gain", "either", "gain") == "worth_it"
    assert of("gain", "tie", "alone_better") == "mixed"
    assert of("tie", "tie", "alone_better") == "not_worth_it"


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_answer_has_a_headline(results: Get, lang: str, kind: str) -> None:
    sweep = results("sweep")
    roles = choose_roles(sweep)
    names = Names(Words(lang), sweep, roles)
    answers = [dataclasses.replace(answer, kind=kind) for answer in verdicts(sweep, roles)]
    for part in (answers, answers[:1]):
        text = names.words(headline(part, names))
        assert "{" not in text
        assert kind == "only_alone" or "FedTSDP" in text or kind == "either"
    mixed = [answers[0], *(dataclasses.replace(answer, kind="gain") for answer in answers[1:])]
    assert "{" not in names.words(headline(mixed, names))


def test_a_seed_that_disagrees_with_the_mean_is_named(results: Get) -> None:
    sweep = results("sweep")
    roles = choose_roles(sweep)
    names = Names(Words("en"), sweep, roles)
    split = compared([0.3, 0.3, -0.1, -0.1], [0.1] * 4, [0, 0, 1, 1])
    split.rows["theirs"] = 0.5
    answer = dataclasses.replace(verdicts(sweep, roles)[0], alone=split)
    text = names.words.paragraph(finding(answer, names))
    assert "Not every seed agrees: the mean has the other sign in seed 1." in text
    agreed = compared([0.3, 0.1], [0.1] * 2, [0, 1])
    agreed.rows["theirs"] = 0.5
    text = names.words.paragraph(finding(dataclasses.replace(answer, alone=agreed), names))
    assert "Not every seed" not in text


def test_the_sites_shown_are_of_the_lowest_seed_that_ran_alone_too(results: Get) -> None:
    holes = results("holes")
    roles = choose_roles(holes)
    run = shown_run(holes, roles, "Dirichlet α = 0.1")
    assert run.seed == 1  # seed 0 has no finished run alone
    rows = site_rows(holes, roles, run)
    assert [row.client for row in rows] == list(range(8))
    assert all(row.gain == pytest.approx(row.focus - row.alone) for row in rows if row.alone)
    traffic = run.tables.traffic
    assert sum(row.bytes_up or 0 for row in rows) == traffic["bytes_up"].sum()


def test_sites_without_a_twin_or_traffic_have_gaps(results: Get) -> None:
    one, old = results("one"), results("old")
    row = site_rows(one, choose_roles(one), one.runs[0])[0]
    assert (row.alone, row.gain, row.margin, row.clear) == (None, None, None, "unclear")
    row = site_rows(old, choose_roles(old), old.find("fedtsdp")[0])[0]
    assert (row.bytes_up, row.bytes_down, row.seconds) == (None, None, None)
