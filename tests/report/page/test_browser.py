"""The page in a real browser: Debian's chromium with its driver, one session for all tests."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from fedtsd.report.cost import Site
from fedtsd.report.page import write_page
from fedtsd.report.page.answer import choose_roles, shown_run, verdicts
from fedtsd.report.page.build import main_answer
from fedtsd.report.page.costs import forecast
from fedtsd.report.page.words import Words
from fedtsd.report.results import Results
from tests.report.page.conftest import SITE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver on the path"
)

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-quic",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
PAGES = [("sweep", "en"), ("sweep", "ja"), ("holes", "en"), ("many", "ja")]
every_page = pytest.mark.parametrize(("name", "lang"), PAGES)

# Sorts every column of every table twice; gives the values a reader sees after each click.
SORT = """
const valueOf = (cell) => cell.hasAttribute("data-value")
  ? (cell.dataset.value === "" ? null : Number(cell.dataset.value)) : cell.textContent.trim();
return [...document.querySelectorAll("table.sortable")].map((table) =>
  [...table.tHead.rows[0].cells].map((head, column) => [1, 2].map(() => {
    head.querySelector("button").click();
    return [head.getAttribute("aria-sort"),
            table.tHead.querySelectorAll("[aria-sort]").length,
            [...table.tBodies[0].rows].map((row) => valueOf(row.cells[column]))];
  })));
"""

# Finds texts with less contrast to their background than WCAG 2.1 AA asks for.
CONTRAST = """
const parse = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
const light = (c) => c.slice(0, 3).map((v) => v / 255)
  .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const ground = (e) => { for (; e; e = e.parentElement) {
  const c = parse(getComputedStyle(e).backgroundColor);
  if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
return [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility()
    && !e.classList.contains("in")
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
  .map((e) => { const style = getComputedStyle(e);
    const ink = parse(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.tagName, e.textContent.trim().slice(0, 40)]; })
  .filter(([ratio]) => ratio < 4.5);
"""


class Browser:
    """A session, and where the written pages are."""

    def __init__(self, driver: webdriver.Chrome, folder: Path, get: Callable[[str], Results]):
        self.driver = driver
        self._folder = folder
        self._results = get

    def open(self, name: str, lang: str, width: int = 1280) -> None:
        path = self._folder / name / f"report.{lang}.html"
        if not path.is_file():
            write_page(self._results(name), path.parent, lang, SITE)
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        self.driver.get(path.as_uri())

    def cdp(self, command: str, values: dict[str, Any]) -> Any:
        return self.driver.execute_cdp_cmd(command, values)

    def script(self, text: str) -> Any:
        return self.driver.execute_script(text)

    def requests(self) -> list[str]:
        """Addresses that a page of ours asked for since the last call."""
        found = [
            json.loads(row["message"])["message"] for row in self.driver.get_log("performance")
        ]
        return [
            row["params"]["request"]["url"]
            for row in found
            if row["method"] == "Network.requestWillBeSent"
            and row["params"]["documentURL"].startswith("file:")
        ]


@pytest.fixture(scope="module")
def browser(
    tmp_path_factory: pytest.TempPathFactory, results: Callable[[str], Results]
) -> Iterator[Browser]:
    root = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={root / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield Browser(driver, root, results)
    driver.quit()


@every_page
def test_a_page_loads_nothing_and_complains_of_nothing(
    browser: Browser, name: str, lang: str
) -> None:
    browser.requests()
    browser.open(name, lang)
    assert browser.driver.get_log("browser") == []
    asked = browser.requests()
    assert any(url.startswith("file:") for url in asked)
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert browser.script("return document.documentElement.lang") == lang
    assert browser.script("return document.querySelectorAll('h1').length") == 1


@every_page
def test_every_table_sorts_both_ways_with_gaps_last(browser: Browser, name: str, lang: str) -> None:
    browser.open(name, lang)
    tables = browser.script(SORT)
    assert len(tables) >= 6
    gaps = 0
    for columns in tables:
        for (up, one, rising), (down, two, falling) in columns:
            assert (up, down, one, two) == ("ascending", "descending", 1, 1)
            assert sorted(map(str, rising)) == sorted(map(str, falling))
            for values, reverse in ((rising, False), (falling, True)):
                known = [value for value in values if value is not None]
                assert values[: len(known)] == known  # what is missing comes last
                if all(isinstance(value, int | float) for value in known):
                    assert known == sorted(known, reverse=reverse)
                gaps += len(values) - len(known)
            texts = [value for value in rising if isinstance(value, str)]
            assert texts == [value for value in reversed(falling) if isinstance(value, str)] or (
                len(set(texts)) < len(texts)  # equal ones keep their order both ways
            )
    assert gaps > 0


def test_a_table_sorts_by_keyboard(browser: Browser) -> None:
    browser.open("many", "ja")
    button = browser.driver.find_element(By.CSS_SELECTOR, "#sites thead th:nth-child(2) button")
    button.send_keys(Keys.ENTER)
    head = browser.driver.find_element(By.CSS_SELECTOR, "#sites thead th:nth-child(2)")
    assert head.get_attribute("aria-sort") == "ascending"
    outline = browser.script("return getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px"  # the focus is seen


def shown_forecast(browser: Browser) -> list[tuple[list[float], list[str]]]:
    """The calculator's rows: values and texts."""
    rows = browser.script(
        "return [...document.querySelectorAll('#forecast tbody tr')].map((row) =>"
        " [...row.querySelectorAll('td')].map((c) => [Number(c.dataset.value), c.textContent]))"
    )
    return [([value for value, _ in row], [text for _, text in row]) for row in rows]


def enter(browser: Browser, **values: object) -> None:
    browser.script(
        f"const form = document.getElementById('calculator'), values = {json.dumps(values)};"
        "for (const name in values) form.elements[name].value = values[name];"
        "form.dispatchEvent(new Event('input'));"
    )


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_calculator_agrees_with_python(
    browser: Browser, results: Callable[[str], Results], lang: str
) -> None:
    found = results("many")
    roles = choose_roles(found)
    run = shown_run(found, roles, main_answer(verdicts(found, roles)).setting)
    twins = found.find(setting=run.setting, seed=run.seed)
    browser.open("many", lang)
    static = shown_forecast(browser)
    enter(browser)  # nothing changed
    assert [texts for _, texts in shown_forecast(browser)] == [texts for _, texts in static]
    for upload, download, slowdown, rounds in (
        (10, 50, 4, 8), (0.05, 2, 1, 8), (1000, 0.01, 20.5, 3), (1, 1, 1000, 500), (8, 8, 1e-3, 1),
    ):  # fmt: skip
        enter(browser, upload=upload, download=download, slowdown=slowdown, rounds=rounds)
        for (values, texts), twin in zip(shown_forecast(browser), twins, strict=True):
            expected = forecast(twin.tables, Site(upload, download, slowdown), rounds)
            assert expected is not None
            assert values == pytest.approx(list(vars(expected).values()))
            words = Words(lang)
            kinds = ("time", "time", "bytes", "bytes")
            assert texts == [words.write(k, v) for k, v in zip(kinds, values, strict=True)]


def test_the_calculator_refuses_what_is_no_line(browser: Browser) -> None:
    browser.open("many", "en")
    problem = browser.driver.find_element(By.ID, "calculator-problem")
    before = shown_forecast(browser)
    assert not problem.is_displayed()
    for wrong in ({"upload": 0}, {"upload": 1, "rounds": 2.5}, {"rounds": ""}):
        enter(browser, **wrong)
        assert problem.is_displayed()
        assert shown_forecast(browser) == before
    enter(browser, upload=1, rounds=2)
    assert not problem.is_displayed()
    assert shown_forecast(browser) != before


@every_page
def test_a_phone_scrolls_in_one_direction(browser: Browser, name: str, lang: str) -> None:
    browser.open(name, lang, width=360)
    browser.script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert browser.script("return document.documentElement.scrollWidth") <= 360
    size = browser.script(
        "return parseFloat(getComputedStyle(document.querySelector('.chart .tick')).fontSize)"
        " * document.querySelector('.chart').getBoundingClientRect().width / 380"
    )
    assert size >= 9  # CSS pixels of the smallest text of a chart


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_background(browser: Browser, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.cdp("Emulation.setEmulatedMedia", {"media": "", "features": [feature]})
    browser.open("holes", "en")
    browser.script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    ground = browser.script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(int(c) for c in ground[4:-1].split(",")) > 380) == (scheme == "light")
    assert browser.script(CONTRAST) == []


def test_printed_pages_open_every_setting_and_leave_out_what_only_a_screen_needs(
    browser: Browser,
) -> None:
    browser.cdp("Emulation.setEmulatedMedia", {"media": "print", "features": []})
    browser.open("sweep", "en")
    shown = browser.script(
        "return ['nav', '#calculator', '#forecast', '#answer'].map((s) =>"
        " getComputedStyle(document.querySelector(s)).display !== 'none')"
    )
    assert shown == [False, False, True, True]
    assert browser.script("return getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)"
    )
    printed = browser.cdp("Page.printToPDF", {"preferCSSPageSize": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")
    assert browser.script("return document.querySelectorAll('details:not([open])').length") == 0
    browser.cdp("Emulation.setEmulatedMedia", {"media": "", "features": []})
