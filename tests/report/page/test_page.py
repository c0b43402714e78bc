import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedtsd.errors import InputError
from fedtsd.report.page import build_page, write_page
from fedtsd.report.results import Results
from tests.report.page.conftest import MAKERS, SITE
from tests.report.runs import RunBuilder

Get = Callable[[str], Results]
VOID = {"meta", "link", "br", "input"}


class Page(HTMLParser):
    """Checks that elements nest, and collects them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def pages(results: Get) -> Callable[[str, str], str]:
    known: dict[tuple[str, str], str] = {}

    def get(name: str, lang: str) -> str:
        if (name, lang) not in known:
            known[name, lang] = build_page(results(name), lang, SITE)
        return known[name, lang]

    return get


every_page = pytest.mark.parametrize(
    ("name", "lang"), [(name, lang) for name in MAKERS for lang in ("en", "ja")]
)


@every_page
def test_every_page_is_whole_and_accessible(
    pages: Callable[[str, str], str], name: str, lang: str
) -> None:
    html = pages(name, lang)
    page = Page(html)
    assert page.all("html") == [{"lang": lang}]
    assert len(page.all("h1")) == 1
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs in page.all("a"):
        assert str(attrs["href"]).removeprefix("#") in ids
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    for attrs in page.all("svg"):
        assert attrs["role"] == "img"
        assert set(str(attrs["aria-labelledby"]).split()) <= set(ids)
    assert len(page.all("title")) == 1 + len(page.all("svg"))
    assert len(page.all("desc")) == len(page.all("svg"))
    for attrs in page.all("input"):
        assert attrs["name"] in ("upload", "download", "slowdown", "rounds")


@every_page
def test_every_page_stands_alone_and_has_no_gap(
    pages: Callable[[str, str], str], name: str, lang: str
) -> None:
    html = pages(name, lang)
    assert not re.search(r"https?://|url\(|@import|<img|<iframe|\bsrc=|fetch\(|XMLHttp", html)
    assert [a["href"] for a in Page(html).all("link")] == ["data:,"]
    assert "default-src 'none'" in html
    text = Page(html).text
    assert not re.search(r"\bnan\b|None|Undefined|[{}]|\binf\b", text)
    assert re.search(r"2026-01-31", text)  # dates are ISO


def test_the_same_results_give_the_same_bytes(results: Get, tmp_path: Path) -> None:
    first = write_page(results("holes"), tmp_path / "a", "ja", SITE)
    again = Results.read([results("holes").runs[0].folder.parent])
    second = write_page(again, tmp_path / "b", "ja", SITE)
    assert first.name == "report.ja.html"
    assert first.read_bytes() == second.read_bytes()


def test_languages_and_methods_are_checked(results: Get) -> None:
    with pytest.raises(InputError, match="lang: must be one of en, ja, got 'fr'"):
        build_page(results("one"), "fr", SITE)
    with pytest.raises(InputError, match="focus: must be one of fedtsdp, got 'fedavg'"):
        build_page(results("one"), "en", SITE, focus="fedavg")


def test_names_from_a_config_are_escaped(tmp_path: Path) -> None:
    label = '<script>alert("x")</script>'
    changes = {"method": {"label": label}, "dataset": {"name": "a<b>c"}}
    RunBuilder(rounds=5, clients=8, changes=changes).write(tmp_path / "run")
    html = build_page(Results.read([tmp_path]), "en", SITE)
    assert "<script>alert" not in html
    assert "<b>c" not in html
    assert "&lt;script&gt;alert" in html


def test_the_answer_comes_first_and_says_what_is_missing(pages: Callable[[str, str], str]) -> None:
    text = Page(pages("one", "en")).text
    assert text.index("cannot tell whether FedTSDP is worth it") < text.index("What was run")
    assert "fedtsd train -m method=local,fedtsdp seed=0,1,2" in text
    assert "method=fedavg adds it" in text
    alone = Page(pages("alone", "en")).text
    assert "Only training alone was run" in alone


def test_numbers_of_the_answer_are_those_of_the_tables(
    results: Get, pages: Callable[[str, str], str]
) -> None:
    table = results("many").table.groupby("method")["score"].mean()
    gain = 100 * (table["fedtsdp"] - table["local"])
    for lang, sentence in (
        ("en", f"on average a site gains {gain:.1f} points over training alone"),
        ("ja", f"拠点の正解率は平均{gain:.1f}ポイント向上します"),
    ):
        text = Page(pages("many", lang)).text
        assert sentence in text
        assert f"{100 * table['fedtsdp']:.1f}%" in text
        assert f"{100 * (table['fedtsdp'] - table['fedavg']):+.1f}" in text


def test_of_many_settings_the_first_is_open(pages: Callable[[str, str], str]) -> None:
    settings = [a for a in Page(pages("sweep", "en")).all("details") if a.get("class") == "setting"]
    assert ["open" in attrs for attrs in settings] == 3 * [True, False, False]


def test_old_runs_say_what_they_lack(pages: Callable[[str, str], str]) -> None:
    text = Page(pages("old", "en")).text
    for name in ("traffic.csv", "exchanged.csv"):
        assert name in text
    assert "Not available" in text
    assert 'id="calculator"' not in pages("old", "en")


def test_what_leaves_is_told_from_the_records(
    results: Get, pages: Callable[[str, str], str]
) -> None:
    text = Page(pages("one", "en")).text
    records = len(results("one").runs[0].tables.exchanged)
    assert f"All {records} records of the run name a layer" in text
    assert "Layers that stopped leaving: fc3 (kept by 20 of the 20 sites of the last round" in text
    assert "pass through a site's personal layers" in text
    assert "Nothing left a site in this run" in Page(pages("alone", "en")).text


def test_how_to_run_it_again(results: Get, pages: Callable[[str, str], str]) -> None:
    text = Page(pages("holes", "en")).text
    runs = results("holes").runs
    assert "fedtsd train" in text
    assert "fedtsd 0.1.0, python 3.11.7, torch 2.15.0" in text
    assert f"{runs[0].folder.parent.name}/ ({len(runs)})" in text  # many: where they lie
    assert results("one").runs[0].folder.name in Page(pages("one", "en")).text
    assert "partition.alpha" in text


def test_japanese_pages_name_partitions_in_japanese(tmp_path: Path) -> None:
    two = {"_target_": "fedtsd.data.partition.Pathological", "classes_per_client": 2}
    RunBuilder(rounds=5, clients=8, alpha=None, changes={"partition": two}).write(tmp_path / "run")
    html = build_page(Results.read([tmp_path]), "ja", SITE)
    assert "拠点あたり2クラス" in html
    assert "classes per client" not in html


def test_another_method_can_be_judged(results: Get) -> None:
    html = build_page(results("holes"), "en", SITE, focus="fedper")
    assert "Method judged: FedPer" in html


def test_a_hundred_sites_fit_their_charts(pages: Callable[[str, str], str]) -> None:
    html = pages("many", "en")
    assert "70 sites in between: see the table" in html
    assert len(html) < 300_000
    for attrs in Page(html).all("svg"):
        _, _, width, height = (float(x) for x in str(attrs["viewbox"]).split())
        assert width == 380
        assert height < 800


@pytest.mark.parametrize(("lang", "word"), [("en", r"accurac|points\b"), ("ja", "正解率|ポイント")])
def test_a_regression_speaks_of_errors_alone(
    pages: Callable[[str, str], str], lang: str, word: str
) -> None:
    text = Page(pages("regression", lang)).text
    assert not re.search(word, text)
    assert not re.search(r"\d%", text)


def test_numbers_of_a_regression_are_those_of_the_tables(
    results: Get, pages: Callable[[str, str], str]
) -> None:
    table = results("kept_out").table.groupby("method")["score"].mean()
    fall = table["local"] - table["fedtsdp"]
    text = Page(pages("kept_out", "en")).text
    assert f"on average the error of a site falls by {fall:.1f} against training alone" in text
    assert f"Mean absolute error {table['fedtsdp']:.1f}" in text
    assert f"Less error than training alone +{fall:.1f}" in text


def test_sites_that_join_later_are_told_apart(
    results: Get, pages: Callable[[str, str], str]
) -> None:
    last = results("newcomers").runs[0].summary["newcomers"]["last"]
    for lang, start in (
        ("en", "4 sites joined in round 9 only"),
        ("ja", "4拠点はラウンド9からの参加"),
    ):
        text = Page(pages("newcomers", lang)).text
        assert start in text
        assert f"{100 * last['accuracy_mean']:.1f}%" in text
    assert "3 sites took no part in the training" in Page(pages("kept_out", "en")).text
    assert "Sites that join later" not in Page(pages("many", "en")).text


def test_a_chart_marks_the_drift(pages: Callable[[str, str], str]) -> None:
    assert pages("regression", "en").count('class="drift"') == 2  # one per setting
    assert 'class="drift"' not in pages("many", "en")
