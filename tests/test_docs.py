"""Commands and names in the documents are true."""

import re
from pathlib import Path

import pytest

from fedtsd.catalogue import EXAMPLES, options
from fedtsd.compose import cells, check, composed

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
TEXTS = {page.name: page.read_text() for page in PAGES} | {"examples": EXAMPLES}


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


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_train_command_is_legal(command: str) -> None:
    overrides = [word for word in command.split() if word != "-m"]
    if not any(word.startswith("resume=") for word in overrides):
        for cell in cells(overrides):
            check(composed(cell))


def test_commands_were_found() -> None:
    assert len(set(commands())) > 12


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
