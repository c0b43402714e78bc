"""Carrying out one experiment: build its parts, run the loop, write what it leaves behind."""

import copy
import dataclasses
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from fedtsd.channel import Channel
from fedtsd.clients.engine import ClientSide, choose_device
from fedtsd.clustering.policy import Origin
from fedtsd.config import Config
from fedtsd.data.federation import Federation
from fedtsd.experiment import Experiment, RunState
from fedtsd.faults import UnreliableEngine
from fedtsd.messages import Engine
from fedtsd.minimum import with_minimum
from fedtsd.models import initialise, layers_of, tensors_of
from fedtsd.modules import LogPrior
from fedtsd.observer import Observer
from fedtsd.precision import Precision
from fedtsd.prior import NoPrior
from fedtsd.records import (
    assignment_rows,
    model_rows,
    sums_rows,
    write_partition,
    write_schema,
    write_similarity,
)
from fedtsd.run_folder import RunFolder
from fedtsd.run_log import describe
from fedtsd.score import score_of_task
from fedtsd.seeding import torch_rng
from fedtsd.server import start_state
from fedtsd.summary import summarise
from fedtsd.training import NUM_BINS

if TYPE_CHECKING:
    from fedtsd.accountant import Account

log = logging.getLogger(__name__)


def build(config: Config, federation: Federation) -> Experiment:
    """Build all parts from the config; the same seed gives the same parts."""
    model = config.model.build(federation.input_shape, federation.num_outputs)
    if not isinstance(config.prior, NoPrior):
        model.add_module("prior", LogPrior(federation.num_outputs))
    initialise(model, torch_rng(config.seed, "model"))
    initial = tensors_of(model)
    layers = layers_of(model, config.personalization.separates)
    may_keep = config.personalization.may_keep(layers)
    keeps = frozenset(
        name for layer, kept in zip(layers, may_keep, strict=True) if kept for name in layer.tensors
    )
    side = ClientSide(
        federation,
        model,
        keeps | config.solver.private(initial).keys(),
        config.training,
        config.seed,
        choose_device(config.device),
        Precision(config.precision),
        config.cohort.size or federation.num_clients,
        config.solver,
        config.attack,
        frozenset(np.flatnonzero(config.attackers(federation.num_clients)).tolist()),
    )
    engine: Engine = config.engine.build(side)
    if config.faults is not None:
        engine = UnreliableEngine(engine, config.faults, side)
    crossing = config.solver.crossing(initial)
    shapes = {name: tensor.shape for name, tensor in {**initial, **crossing}.items()}
    channel = Channel(engine, shapes, NUM_BINS if federation.regression else federation.num_outputs)
    personal = config.personalization.start(federation.num_clients, layers)
    origin = Origin(partial(_initial_model, config, model), federation.groups)
    server = start_state(origin.model(0), personal, federation.newcomers)
    server = dataclasses.replace(server, prior=config.prior.start(federation.num_clients))
    server = with_minimum(server, config.min_aggregated)
    server = config.clustering.start(server, origin)
    start = RunState(0, server, engine.state_dict())
    public = len(federation.public)
    account = account_of(config, federation)
    return Experiment(config, layers, public, bool(crossing), engine, channel, start, account)


def account_of(config: Config, federation: Federation) -> "Account | None":
    """Return what a private run spends; None if nothing is private.

    Raises ConfigError if the budget does not last for a round.
    """
    if config.mechanism is None:
        return None
    from fedtsd.accountant import open_account  # lazily: it comes with an extra

    return open_account(config, federation, config.mechanism)


def _initial_model(config: Config, model: nn.Sequential, number: int) -> dict[str, Tensor]:
    """Return the tensors of initial model `number`, and what the solver sends beside them.

    Number 0 is the network that clients start from.
    """
    fresh = copy.deepcopy(model)
    initialise(fresh, torch_rng(config.seed, "model", *([number] if number else [])))
    tensors = {name: tensor.detach() for name, tensor in tensors_of(fresh).items()}
    return {**tensors, **config.solver.crossing(tensors)}


def execute(
    config: Config,
    federation: Federation,
    folder: RunFolder,
    observers: Sequence[Observer] = (),
) -> None:
    """Run an experiment in its folder from its last checkpoint on, or from the start.

    Observers are told of every round and see nothing else. However the run ends, short of a kill,
    tables hold no half of a round.
    """
    experiment = build(config, federation)
    saved = folder.load_checkpoint()
    state = RunState.from_state_dict(saved) if saved else experiment.start
    experiment.engine.load_state_dict(state.clients)
    folder.rewind(state.round if saved else -1, score_of_task(federation.regression))
    if not saved:
        folder.append("assignments", assignment_rows(0, state.server))
        folder.append("exchanged", sums_rows(federation))
    write_partition(folder, federation)
    write_schema(folder, config.dataset)
    initial = experiment.start.server.centres[0]
    folder.write_json("model", list(model_rows(experiment.layers, initial)))
    account = experiment.account
    for line in describe(config, federation, experiment.layers):
        log.info("%s", line)
    for line in account.described() if account is not None else ():
        log.info("%s", line)
    with ExitStack() as stack:
        stack.push(lambda error, *_: folder.cut() if error else None)
        stack.callback(experiment.engine.close)
        # A sum split over threads has other bits, so the server's algebra has one thread too.
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        for observer in observers:
            observer.start(state.round)
            stack.callback(observer.stop)
        server = experiment.run(folder, state, observers)
    write_similarity(folder, federation, server)
    summary = summarise(folder.path, config, federation, experiment.layers)
    summary["privacy"] = None if account is None else account.summary()
    folder.write_json("summary", summary)
