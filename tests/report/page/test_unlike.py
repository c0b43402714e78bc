import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fedtsd.report.page import build_page
from fedtsd.report.page.answer import choose_roles
from fedtsd.report.page.names import Names
from fedtsd.report.page.unlike import unlike, unlike_rows
from fedtsd.report.page.words import Words
from fedtsd.report.results import Results
from tests.report.page.conftest import SITE
from tests.report.runs import RunBuilder, write_sweep

TOLD = {
    "label_js": 0.36, "label_emd": 0.9, "size_gini": 0.4, "size_min": 12, "size_max": 340,
    "classes_min": 1, "classes_mean": 3.44, "classes_max": 6, "input_shift": 0.5,
    "label_shift": 0.125,
}  # fmt: skip
Make = Callable[..., Results]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """One run; its summary tells this skew, its sites have these names, its config says more."""

    def run(
        skew: dict[str, float] | None, names: list[str] | None = None, **more: object
    ) -> Results:
        RunBuilder(clients=8, rounds=6, groups=2).write(tmp_path)
        summary = json.loads((tmp_path / "summary.json").read_text())
        (tmp_path / "summary.json").write_text(json.dumps({**summary, "skew": skew}))
        (tmp_path / "sites.json").write_text(json.dumps(names))
        config = yaml.safe_load((tmp_path / "config.yaml").read_text())
        (tmp_path / "config.yaml").write_text(yaml.safe_dump({**config, **more}))
        return Results.read([tmp_path])

    return run


def said(results: Results, lang: str) -> str:
    words = Words(lang, results.score, results.decimals)
    return str(words.paragraph(unlike(results.runs[0])))


def test_how_different_the_sites_are_is_said_in_plain_words(make: Make) -> None:
    results = make(TOLD)
    assert said(results, "en") == (
        "The mixes of classes differ strongly from site to site: 0.36 on a scale from 0 (all the "
        "same) to 1 (nothing in common). A site holds 3.4 of 10 classes on average. A site has 12 "
        "to 340 training samples. What a site sees of its samples is shifted by 0.50 standard "
        "deviations on average. On average 12.5 % of a site&#39;s training labels are changed."
    )
    for number in ("0.36", "3.4", "12～340", "0.50", "12.5%", "大きく異なります"):
        assert number in said(results, "ja")


@pytest.mark.parametrize(
    ("js", "words"),
    [(0.0, "hardly differ"), (0.05, "differ a little"), (0.2, "differ clearly"), (0.3, "strongly")],
)
def test_the_degree_follows_the_divergence(make: Make, js: float, words: str) -> None:
    equal = {**TOLD, "label_js": js, "classes_mean": 10, "size_max": 12, "input_shift": 0.0}
    text = said(make(equal), "en")
    assert words in text
    assert "Every site has 12 training samples." in text
    assert "classes on average" not in text
    assert "shifted" not in text


def test_an_old_run_is_measured_from_who_holds_what(make: Make) -> None:
    results = make(None)
    (row,) = unlike_rows(results)
    assert row.values["label_js"] == pytest.approx(results.runs[0].skew)
    assert f"{results.runs[0].skew:.2f} on a scale" in said(results, "en")


@pytest.mark.parametrize(
    ("lang", "name"),
    [
        ("en", "Dirichlet α = 0.1, rotated up to 90° in 4 groups (JS 0.36, input shift 0.50"),
        ("ja", "ディリクレ分布 α = 0.1、最大90°回転（4グループ）（偏り 0.36、入力のずれ 0.50"),
    ],
)
def test_settings_are_named_in_the_language_with_their_skew(
    make: Make, lang: str, name: str
) -> None:
    shift = {"_target_": "a.Rotation", "degrees": 90.0, "num_groups": 4}
    results = make(TOLD, shift=shift)
    names = Names(Words(lang), results, choose_roles(results))
    assert names.setting(results.settings[0]).startswith(name)
    html = build_page(results, lang, SITE)
    assert name in html
    assert said(results, lang)[:30] in html


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_sites_with_names_are_called_by_them(make: Make, lang: str) -> None:
    towns = ["Akita", "Beppu", "Chiba", "Dazaifu", "Ebina", "Fukui", "Gifu", "a very long name"]
    html = build_page(make(TOLD, towns), lang, SITE)
    table = re.findall(r'<th scope="row" class="num" data-value="(\d)">([^<]*)</th>', html)
    assert table == [(str(i), name) for i, name in enumerate(towns)]
    (chart,) = re.findall(r"<svg.*?</svg>", html, re.DOTALL)[-1:]
    assert "Akita" in chart
    assert "a very long name" not in chart  # no room
    assert re.search(r'<td class="list">Akita', html)


def test_names_are_used_only_where_all_runs_are_about_the_same_sites(tmp_path: Path) -> None:
    write_sweep(tmp_path, ("local", "fedtsdp"), (0.1,), (0,), clients=8, rounds=6)
    towns = [f"town{i}" for i in range(8)]
    (tmp_path / "local-0.1-0" / "sites.json").write_text(json.dumps(towns))
    assert "town3" not in build_page(Results.read([tmp_path]), "en", SITE)
    (tmp_path / "fedtsdp-0.1-0" / "sites.json").write_text(json.dumps(towns))
    assert "town3" in build_page(Results.read([tmp_path]), "en", SITE)
