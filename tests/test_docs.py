"""Commands and names in the documents are true."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from fedtsd.catalogue import EXAMPLES, options
from fedtsd.compose import SEVERITIES, cells, check, composed
from fedtsd.inspect_data import show_data
from fedtsd.report.command import read_options
from fedtsd.report.figures import FIGURES, RESULT_FIGURES
from fedtsd.report.page import LANGUAGES
from fedtsd.report.paper import read_plan
from fedtsd.search.plan import plan_search
from fedtsd.sweep import sweep_folder
from tests.own import write_pictures

ROOT = Path(__file__).parent.parent
GALLERY = ROOT / "docs/gallery/README.md"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    GALLERY,
    ROOT / "CONTRIBUTING.md",
]
TEXTS = {str(page.relative_to(ROOT / "docs")): page.read_text() for page in PAGES[1:-1]} | {
    "README.md": PAGES[0].read_text(),
    "CONTRIBUTING.md": PAGES[-1].read_text(),
    "examples": EXAMPLES,
}


def commands() -> list[str]:
    found = []
    for text in TEXTS.values():
        found += re.findall(r"^ *fedtsd train(.*)$", text, flags=re.MULTILINE)
    recipes = [path.read_text() for path in (ROOT / "conf/experiment").glob("*.yaml")]
    found += [
        c for text in recipes for c in re.findall(r"Run: fedtsd train(.*)$", text, re.MULTILINE)
    ]
    # In the examples of the help a description follows after two spaces.
    return [re.split(r"  +|#", command)[0].strip() for command in found]


def lines(command: str) -> list[str]:
    found = []
    for text in TEXTS.values():
        found += re.findall(rf"^ *fedtsd {command} (.*)$", text, flags=re.MULTILINE)
    return [line.split(" # ")[0].strip() for line in found]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder with the example sites that the documents speak of."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("clinics", "patients"):
        command = [sys.executable, str(ROOT / "scripts/example_sites.py"), name, f"data/{name}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    write_pictures(folder / "data/shops", per_class=40)  # the real ones would have to be fetched
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("FEDTSD_DATA", str(folder / "kept"))
        yield folder


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_train_command_is_legal(command: str, place: Path) -> None:
    overrides = [word for word in command.split() if word != "-m"]
    if not any(word.startswith("resume=") for word in overrides):
        for cell in cells(overrides):
            assert check(composed(cell)).rounds >= 1


def test_commands_were_found() -> None:
    assert len(set(commands())) > 30
    assert len(set(lines("data show"))) >= 3


@pytest.mark.parametrize("line", sorted(set(lines("data show"))))
def test_every_data_set_can_be_shown(line: str, place: Path) -> None:
    assert "skew: label laws JS" in show_data(line.split())


def test_the_table_of_severities_has_the_knobs_of_the_configs() -> None:
    rows = re.findall(
        r"^\| `(\w+)=(\w+)` \| (\w+) \| (\w+) (\S+) \|", TEXTS["data.md"], re.MULTILINE
    )
    seen = set()
    for group, option, severity, key, value in rows:
        node = yaml.safe_load((ROOT / f"conf/{group}/{option}.yaml").read_text())
        assert "_severity_" in node[key]
        level = node["_severity_"][severity]
        assert value == ("null" if level is None else f"{level:g}")
        seen.add((group, option, severity))
    expected = {
        (group, option, severity)
        for group in ("partition", "sizes", "shift")
        for option in options(group)
        if "_severity_" in (ROOT / f"conf/{group}/{option}.yaml").read_text()
        for severity in SEVERITIES[1:]
    }
    assert seen == expected


@pytest.mark.parametrize("group", ["partition", "sizes", "shift", "drift", "public"])
def test_every_way_to_deal_data_is_documented(group: str) -> None:
    for option in options(group):
        assert f"`{option}`" in TEXTS["data.md"] or f"{group}={option}`" in TEXTS["data.md"]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for text in TEXTS.values():
        for target in re.findall(r"^make (\w+)", text, flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), link


def test_every_method_is_documented() -> None:
    for method in options("method"):
        assert f"| `{method}` |" in TEXTS["methods.md"]


def test_makefile_explains_its_targets() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in ["help", "setup", "demo", "test", "lint", "format", "figures", "bench", "clean"]:
        assert re.search(rf"^{target}:.*## \w", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("line", sorted(set(lines("report"))))
def test_every_report_command_is_legal(line: str) -> None:
    assert read_options([word for word in line.split() if "=" in word]).lang in LANGUAGES


@pytest.mark.parametrize("line", sorted(set(lines("figures"))))
def test_every_figures_command_is_legal(line: str) -> None:
    plan = read_plan()
    for word in line.split():
        key, _, value = word.partition("=")
        if key == "profile":
            assert value in plan["profiles"]
        elif key == "figure":
            assert value in {**plan["across"], **plan["single"]}
        else:
            assert word.isupper()  # FOLDER


@pytest.mark.parametrize("line", sorted(set(lines("search"))))
def test_every_search_command_is_legal(line: str) -> None:
    assert plan_search(shlex.split(line)).axes


def test_commands_of_every_kind_were_found() -> None:
    assert all(len(set(lines(command))) >= 3 for command in ("report", "figures"))


def test_the_readme_knows_the_folder_of_its_sweep() -> None:
    sweep, folder = re.search(
        r"^fedtsd train -m (.*)\nfedtsd report (.*)$", TEXTS["README.md"], re.MULTILINE
    ).groups()
    assert str(sweep_folder(sweep.split(), [])) == folder


def test_every_figure_and_key_of_a_report_is_documented() -> None:
    page = TEXTS["reports.md"]
    for name in {**FIGURES, **RESULT_FIGURES}:
        assert f"| `{name}` |" in page
    for key in yaml.safe_load((ROOT / "conf/report.yaml").read_text()):
        assert f"report.{key}" in page


def test_the_gallery_is_small_and_shows_every_figure_of_the_paper() -> None:
    files = [path for path in GALLERY.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 5e6
    plan = read_plan()
    for name in {**plan["across"], **plan["single"]}:
        assert f"(paper/{name}.png)" in TEXTS["gallery/README.md"]
