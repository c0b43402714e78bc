from pathlib import Path

import pytest

from fedtsd.catalogue import options
from fedtsd.cli import main
from fedtsd.compose import cells, check, composed, last_given
from fedtsd.report.figures import FIGURES, RESULT_FIGURES
from fedtsd.report.paper import _draw, _judged, read_plan, recipe_overrides
from fedtsd.report.results import Results
from fedtsd.sweep import _recipe
from tests.report.runs import write_sweep
from tests.report.small import small

ROOT = Path(__file__).parents[2]
PLAN = read_plan()
SOURCES = {**PLAN["across"], **PLAN["single"]}
RECIPES = sorted({recipe for recipes in SOURCES.values() for recipe in recipes})


def test_the_plan_names_figures_and_recipes_that_exist() -> None:
    assert PLAN["about"] in options("method")
    assert set(PLAN["across"]) <= set(RESULT_FIGURES)
    assert set(PLAN["single"]) <= set(FIGURES)
    assert set(RECIPES) | set(PLAN["tables"]) <= set(options("experiment"))
    for changes in PLAN["profiles"].values():
        assert set(changes) <= {"every", *RECIPES}


def test_every_figure_across_runs_is_in_the_paper() -> None:
    assert set(PLAN["across"]) == set(RESULT_FIGURES)


@pytest.mark.parametrize("profile", PLAN["profiles"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_legal_in_every_profile(recipe: str, profile: str) -> None:
    overrides = recipe_overrides(recipe, PLAN, profile)
    overrides = last_given([*_recipe([], overrides), *overrides])
    found = cells(overrides)
    assert len(found) > 1
    seen: set[str] = set()
    for cell in found:  # each value once is enough, and takes a tenth of the time
        if not seen.issuperset(cell):
            check(composed(cell))
            seen.update(cell)


def test_every_figure_has_its_script_and_every_script_its_figure() -> None:
    scripts = {path.stem.removeprefix("figure_") for path in ROOT.glob("scripts/figure_*.py")}
    assert scripts == set(SOURCES)
    for name in scripts:
        text = (ROOT / f"scripts/figure_{name}.py").read_text()
        assert f'"figure={name}"' in text


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Results:
    adaptive = {"personalization": {"_target_": "fedtsd.personalization.Adaptive"}}
    return Results.read([write_sweep(tmp_path_factory.mktemp("sweep"), changes=adaptive)])


SMALL = [
    "dataset=digits", "~dataset.pool", "model=mlp", "model.hidden=[8]", "rounds=5", "seed=0",
    "partition.num_clients=8", "partition.samples_per_client=60", "hydra/launcher=basic",
]  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_every_figure_is_drawn_from_a_sweep_of_three_methods(name: str, sweep, tmp_path) -> None:
    drawn = _draw(name, sweep, "fedtsdp", tmp_path)
    assert [path.name for path in drawn] == [f"{name}.pdf", f"{name}.png"]


def test_figures_are_about_the_papers_method_beside_our_best_variant() -> None:
    scores = {"fedavg": {"s": [0.9]}, "fedtsdp_full": {"s": [0.8]}}
    assert _judged(small({**scores, "fedtsdp": {"s": [0.5]}}), PLAN["about"]) == "fedtsdp"
    assert _judged(small(scores), PLAN["about"]) == "fedtsdp_full"  # what a user chose to run


def test_figures_run_what_is_missing_and_draw(outputs: Path, capsys) -> None:
    args = ["figures", "figure=alluvial,partition", "method=fedtsdp", *SMALL]
    assert main(args) == 0
    first = capsys.readouterr()
    files = [f"outputs/figures/quick/figures/{name}" for name in ("alluvial", "partition")]
    assert first.out.splitlines() == [f"{f}.{kind}" for f in files for kind in ("pdf", "png")]
    assert "1 cell: 0 done before, 1 to run" in first.err
    assert main(args) == 0
    assert "1 cell: 1 done before, 0 to run" in capsys.readouterr().err


def test_a_failed_cell_is_named(outputs: Path, capsys) -> None:
    args = ["figures", "figure=rounds", "method=fedavg", "severity=iid", "training.lr=1e30", *SMALL]
    assert main(args) == 2
    assert "not every cell is done, see summary.csv there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["profile=quik"], "profile 'quik' is unknown; did you mean quick?"),
        (["figure=severty"], "figure 'severty' is unknown; did you mean severity?"),
        (["figure=severity", "sed=1"], "key 'sed' is unknown; did you mean seed?"),
        (["nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_one_line(args: list[str], message: str, outputs: Path, capsys) -> None:
    assert main(["figures", *args]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert list(outputs.iterdir()) == []


def test_help_says_both_forms(capsys) -> None:
    assert main(["figures", "--help"]) == 0
    text = capsys.readouterr().out
    assert "fedtsd figures FOLDER" in text
    assert "profile=quick|full" in text
