import json
from pathlib import Path

import pytest
import yaml

from fedtsd.bench.plan import USAGE, WORKLOADS, read_plan
from fedtsd.catalogue import conf_dir
from fedtsd.cli import main
from fedtsd.compose import check, composed
from fedtsd.errors import ConfigError
from fedtsd.models import layers_of

SEQUENTIAL = ["--engines", "sequential"]


def test_every_engine_meets_every_method_with_its_own_overrides() -> None:
    plan = read_plan(
        ["--workloads", "W3", "--engines", "sequential,parallel:engine.workers=1;precision=bf16",
         "--methods", "fedavg,fedtsdp", "device=cpu"]
    )  # fmt: skip
    found = [v.overrides for v in plan.variants("W3")]
    base = ["experiment=bench_w3", "device=cpu"]
    parallel = ["engine=parallel", "engine.workers=1", "precision=bf16"]
    assert found == [
        [*base, "method=fedavg", "engine=sequential"],
        [*base, "method=fedtsdp", "engine=sequential"],
        [*base, "method=fedavg", *parallel],
        [*base, "method=fedtsdp", *parallel],
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--workloads", "W1,lenet"], "workload 'lenet' is unknown; did you mean LeNet?"),
        (["--engines", "sequental"], "engine 'sequental' is unknown; did you mean sequential?"),
        (["--methods", "fedavgg"], "method 'fedavgg' is unknown; did you mean fedavg?"),
        (["--methods", ","], "--methods: must name one or more of"),
        (["--repetitions", "0"], "--repetitions: must be at least 1, got 0"),
        (["--seconds", "-1"], "--seconds: must be above 0, got -1.0"),
        (["--repetitions", "many"], "--repetitions: invalid int value: 'many'"),
        (["--workload", "W1"], "unrecognized arguments: --workload"),
        (["--json", "nowhere/b.json"], "--json: there is no folder"),
        (["--markdown", "absent.md"], "--markdown: absent.md must hold the lines"),
        (["--engines", "sequential:engine.workrs=2"], "key 'engine.workrs' is unknown"),
        (["rouds=3"], "key 'rouds' is unknown; did you mean rounds?"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(args, message, outputs, capsys) -> None:
    defaults = ["--workloads", "digits", *SEQUENTIAL, "--methods", "fedavg"]
    assert main(["bench", *defaults, *args]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_help_names_every_workload(capsys) -> None:
    assert main(["bench", "--help"]) == 0
    told = capsys.readouterr().out
    assert told == USAGE
    assert all(name in told for name in WORKLOADS)


@pytest.mark.parametrize(
    ("workload", "clients", "cohort", "batch", "parameters"),
    [
        ("W1", 100, 10, 32, 582_026),
        ("W2", 100, None, 32, 582_026),
        ("W3", 1000, 100, 10, 199_210),
        ("LeNet", 100, 10, 32, 136_886),
        ("ResNet8", 100, 10, 32, 308_266),
    ],
)
def test_recipes_are_the_workloads(workload, clients, cohort, batch, parameters) -> None:
    plan = read_plan(["--workloads", workload, *SEQUENTIAL])
    cfg = check(composed(plan.variants(workload)[0].overrides))
    facts = cfg.dataset.facts
    model = cfg.model.build(facts.shape, facts.num_outputs)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert (cfg.partition.clients_of(facts), cfg.cohort.size) == (clients, cohort)
    training = cfg.training
    assert (training.epochs, training.batch_size, training.lr) == (1, batch, 0.01)
    assert (training.momentum, training.max_grad_norm, cfg.partition.alpha) == (0.0, None, 0.1)
    assert len(layers_of(model)) >= 3


def test_samples_of_the_workloads_are_those_of_the_official_training_sets() -> None:
    # 70,000 pictures less 1,000 public ones, 13 % for testing; W3: 66 less 9 %.
    recipes = {name: conf_dir() / f"experiment/bench_{name}.yaml" for name in ("w1", "w3")}
    read = {name: yaml.safe_load(path.read_text()) for name, path in recipes.items()}
    assert round(69_000 * (1 - read["w1"]["split"]["test"]), -2) == 60_000
    each = read["w3"]["partition"]["samples_per_client"]
    assert each - round(each * read["w3"]["split"]["test"]) == 60


def test_a_plan_without_names_is_refused() -> None:
    with pytest.raises(ConfigError, match="--workloads: must name one or more of W1"):
        read_plan(["--workloads", "", *SEQUENTIAL])


def test_the_documents_name_every_workload() -> None:
    page = Path(__file__).parents[2] / "docs/performance.md"
    text = page.read_text()
    assert all(f"| `{name}` |" in text for name in WORKLOADS), json.dumps(list(WORKLOADS))
