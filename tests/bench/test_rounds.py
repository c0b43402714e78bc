from fedtsd.bench.clock import Clock
from fedtsd.bench.rounds import costs, timed_config, timed_experiment
from fedtsd.execution import build
from fedtsd.run_folder import RunFolder
from tests.runs import table


def test_timers_change_nothing(toy, config, tmp_path) -> None:
    cfg = config("engine=sequential", "method=fedtsdp", "rounds=3", "device=cpu")
    clock = Clock()
    plain = build(cfg, toy(4))
    timed = timed_experiment(build(timed_config(cfg, clock), toy(4)), clock)
    found = []
    for name, experiment in (("plain", plain), ("timed", timed)):
        folder = RunFolder.create(tmp_path / name, "x: 0\n")
        experiment.run(folder, experiment.start)
        found.append(table(tmp_path / name, "rounds").drop(columns="seconds"))
    assert found[0].equals(found[1])
    assert len(found[0]) == 3
    stages = clock.take()
    assert {"train", "cluster", "aggregate"} <= set(stages)


def test_what_is_no_part_of_rounds_is_timed_at_the_end(toy, config, tmp_path) -> None:
    cfg = timed_config(config("engine=sequential", "rounds=2", "device=cpu"), Clock())
    experiment = build(cfg, toy(3))
    folder = RunFolder.create(tmp_path / "run", "x: 0\n")
    server = experiment.run(folder, experiment.start)
    assert cfg.aggregation.last["update"] is server
    found = costs(experiment, folder)
    assert set(found) == {"evaluate", "checkpoint"}
    assert min(found.values()) > 0
