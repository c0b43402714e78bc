"""What a method promises: what stays on a client, what leaves it, what trains, what is served.

Read from the config alone, before any data: the tests hold each promise against what crossed the
door (`fedtsd methods NAME` prints it).
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedtsd.catalogue import options
from fedtsd.compose import check, composed
from fedtsd.config import Config
from fedtsd.errors import ConfigError
from fedtsd.messages import HEADED, Describe, Probe
from fedtsd.models import Layer, layers_of, tensors_of
from fedtsd.prior import NoPrior
from fedtsd.schema import unknown
from fedtsd.server import start_state
from fedtsd.traffic import (
    SENT_LOSSES,
    SENT_NOISE,
    SENT_OUTPUTS,
    SENT_PUBLIC,
    SENT_SUBSPACE,
    SENT_SUMS,
)

ALL_MODELS = "the models of all clusters"
NOT_KNOWN = "of a client not known yet when clusters are made"
AS_ONE = "clusters that differ in the numbers of their classes alone, as one"
SHARED_UNTIL = "each shared until the policy makes it a client's own"


@dataclass(frozen=True)
class Contract:
    """The promise of a composition of policies for one model.

    shared: layers that all clients send in every round. adaptive: layers that a client sends until
    the policy makes them its own. private: layers that never leave a client. kept: what its solver
    keeps besides, such as a twin. up, down: what crosses beside layers, as `exchanged.csv` names
    it. at_times: what crosses, either way, only where it must. matches_coding: whether clusters
    that differ in their coding alone are averaged as one. phases: what trains, in order. still:
    layers that no phase trains. served: the stage that is reported.
    """

    shared: tuple[str, ...]
    adaptive: tuple[str, ...]
    private: tuple[str, ...]
    kept: tuple[str, ...]
    up: tuple[str, ...]
    down: tuple[str, ...]
    at_times: tuple[str, ...]
    matches_coding: bool
    phases: tuple[str, ...]
    still: tuple[str, ...]
    served: str

    def lines(self) -> list[str]:
        """Return one line per promise, as people read it."""
        told = {
            "shared": _words(self.shared),
            "adaptive": _words([*self.adaptive, *[SHARED_UNTIL] * bool(self.adaptive)]),
            "private": _words([*self.private, *self.kept]),
            "sent up": _words([*_layers(self.shared), *self.up]),
            "sent down": _words([*_layers(self.shared), *self.down]),
            "at times": _words([*self.at_times, *[NOT_KNOWN] * bool(self.at_times)]),
            "averaged": AS_ONE if self.matches_coding else "",
            "trains": ", then ".join(self.phases),
            "never": _words(self.still),
            "served": self.served,
        }
        return [f"  {key:<10} {value}" for key, value in told.items() if value]


def contract_of(config: Config) -> Contract:
    """Return what a config promises."""
    model = config.sketch()
    tensors = tensors_of(model)
    layers = layers_of(model, config.personalization.separates)
    at_start = config.personalization.start(1, layers)[0]
    may_keep = config.personalization.may_keep(layers)
    crossing = tuple(sorted(config.solver.crossing(tensors)))
    up, down = list(crossing), list(crossing)
    target_is_standardised = config.dataset.facts.regression
    if config.dataset.standardise == "moments" or target_is_standardised:
        up.append(SENT_SUMS)
        down.append(SENT_SUMS)
    if config.reads_outputs:
        up.append(SENT_OUTPUTS)
        down.append(SENT_PUBLIC)
    if config.personalization.measures_noise or config.prior.measures_noise:
        up.append(SENT_NOISE)
    # Two clients stand for any: what is asked does not depend on who they are. There are two
    # clusters, as some ask only when there is something to choose.
    server = start_state(tensors, np.zeros((2, len(layers)), dtype=bool))
    server = dataclasses.replace(server, centres=server.centres * 2)
    question = config.clustering.question(server, np.arange(2), 1, look=False)
    if question is not None and isinstance(question.task, Probe):
        up.append(SENT_LOSSES)
        down.append(ALL_MODELS)
    if question is not None and isinstance(question.task, Describe):
        up.append(SENT_SUBSPACE)
    asks_some = config.clustering.asks and question is None
    solver = {name.split("/")[0] for name in config.solver.private(tensors)}
    prior = [] if isinstance(config.prior, NoPrior) else ["log prior of its labels"]
    heads = ["residual head"] if config.evaluation.stages[-1] in HEADED else []
    return Contract(
        shared=_names(layers, ~may_keep),
        adaptive=_names(layers, may_keep & ~at_start),
        private=_names(layers, at_start),
        kept=(*sorted(solver), *prior, *heads),
        up=tuple(up),
        down=tuple(down),
        at_times=(SENT_LOSSES, ALL_MODELS) if asks_some else (),
        matches_coding=config.coding is not None and config.coding.uses_outputs,
        phases=_phases(config),
        still=_names(layers, ~_moving(config, at_start)),
        served=config.evaluation.stages[-1],
    )


def describe_method(name: str, overrides: Sequence[str]) -> str:
    """Return what a method promises, as text.

    Raises ConfigError if there is no such method, or it does not go with the overrides.
    """
    if name not in options("method"):
        raise ConfigError(unknown(name, options("method"), "method"))
    config = check(composed([f"method={name}", *overrides]))
    heading = [f"{config.method.label}: {config.method.family}", f"  {options('method')[name]}"]
    return "\n".join([*heading, *contract_of(config).lines()]) + "\n"


def _phases(config: Config) -> tuple[str, ...]:
    by = "" if config.solver.plain else f" by {type(config.solver).__name__}"
    if not config.solver.phased:
        return (f"all layers{by}",)
    return tuple(
        f"{phase.layers} layers{by}, {phase.epochs} epochs"
        + (f", pulled back by {phase.proximal:g}" if phase.proximal else "")
        for phase in config.training.phases
    )


def _moving(config: Config, personal: np.ndarray) -> np.ndarray:
    """Return which layers, bool [L], some phase trains on a client with these personal layers."""
    sets = {"all": np.ones_like(personal), "personal": personal, "shared": ~personal}
    phases = config.training.phases if config.solver.phased else ()
    moving = [sets[phase.layers] for phase in phases if phase.epochs]
    others = np.full_like(personal, not config.solver.phased)
    return np.asarray(np.any([*moving, others], axis=0))


def _names(layers: Iterable[Layer], chosen: np.ndarray) -> tuple[str, ...]:
    return tuple(layer.name for layer, wanted in zip(layers, chosen, strict=True) if wanted)


def _layers(shared: tuple[str, ...]) -> list[str]:
    return ["shared layers"] if shared else []


def _words(names: Iterable[str]) -> str:
    return ", ".join(names)
