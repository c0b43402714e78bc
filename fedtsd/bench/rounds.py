"""The child that runs an experiment as `fedtsd train` does: whole rounds, its folder included."""

import dataclasses
import time
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from fedtsd.bench.clock import Clock, Timed
from fedtsd.bench.port import Finished, Pacer, Port
from fedtsd.compose import as_yaml, check, composed
from fedtsd.config import Config
from fedtsd.execution import build
from fedtsd.experiment import Experiment, RunState
from fedtsd.loading import load_federation
from fedtsd.run_folder import RunFolder

POLICIES = {
    "clustering": {"assign": "cluster"},
    "personalization": {"adapt": "cluster"},
    "similarity": {
        "choose_public": "cluster",
        "measure_outputs": "cluster",
        "measure_updates": "cluster",
    },
    "aggregation": {"update": "aggregate"},
}
"""The stage that each method of a part of the config counts for."""
CHANNEL = {"exchange": "train"}
FOLDER = {"append": "write"}


def serve_rounds(port: Port, place: str, overrides: list[str]) -> None:
    """Build the experiment of these overrides and run its rounds as ordered."""
    clock, cfg = Clock(), composed(overrides)
    config = timed_config(check(cfg), clock)
    federation = load_federation(config)
    folder = RunFolder.create(Path(place), as_yaml(cfg))
    experiment = timed_experiment(build(config, federation), clock)
    pacer = Pacer(port, clock, {})
    with closing(experiment.engine):
        try:
            pacer.start(0)
            experiment.run(cast(RunFolder, Timed(folder, FOLDER, clock)), experiment.start, [pacer])
        except Finished:
            port.say(costs(experiment, folder))
            port.listen()


def timed_config(config: Config, clock: Clock) -> Config:
    """Return the config with its policies in timers."""
    timed: dict[str, Any] = {
        name: Timed(getattr(config, name), stages, clock) for name, stages in POLICIES.items()
    }
    return dataclasses.replace(config, **timed)


def timed_experiment(experiment: Experiment, clock: Clock) -> Experiment:
    """Return the experiment with its channel in timers."""
    channel: Any = Timed(experiment.channel, CHANNEL, clock)
    return dataclasses.replace(experiment, channel=channel)


def costs(experiment: Experiment, folder: RunFolder) -> dict[str, float]:
    """Return the seconds of one evaluation and of one checkpoint, of the state that was reached.

    How often they come is a choice of each run, so they are no part of the rounds.
    """
    server = cast(Timed, experiment.config.aggregation).last["update"]
    started = time.perf_counter()
    experiment.evaluate(server, 1)
    evaluated = time.perf_counter()
    state = RunState(1, server, experiment.engine.state_dict())
    folder.save_checkpoint(1, state.state_dict())
    return {"evaluate": evaluated - started, "checkpoint": time.perf_counter() - evaluated}
