"""What a private run may not contain, because the account does not cover it.

Client level: only what the aggregate releases of all clients together is private, so nobody may
read a single client. Example level: only weights trained by DP-SGD are private, and whatever is
made of them; so nothing else may be made of a client's samples that the server, or the steps of
training, depend on. docs/privacy.md goes through the policies.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from fedtsd.clustering.one import OneCluster
from fedtsd.models import STATISTICS, Layer
from fedtsd.prior import NoPrior
from fedtsd.privacy import Mechanism

if TYPE_CHECKING:
    from fedtsd.config import Config


def check_private(config: "Config", mechanism: Mechanism, layers: Sequence[Layer]) -> None:
    """Raise ValueError with one line that names the first field that breaks a rule."""
    if config.dataset.facts.regression:
        raise ValueError(
            "dataset: the target is a number, standardised by sums that clients send as they are, "
            f"which privacy at {mechanism.level} level does not cover; must have classes"
        )
    if config.faults is not None:
        raise ValueError(
            "faults: the account is of cohorts that all answer, drawn from all clients; must be "
            "null where a run is private"
        )
    rules = _client_level if mechanism.level == "client" else _example_level
    for broken in rules(config, layers):
        raise ValueError(broken)


def _client_level(config: "Config", layers: Sequence[Layer]) -> Iterator[str]:
    because = "and aggregation=client_dp protects only what all clients release together"
    if isinstance(config.solver, Mechanism):
        yield (
            "solver._target_: a run has one level of privacy, and aggregation=client_dp is one; "
            "set solver=sgd, or aggregation=mean"
        )
    if not isinstance(config.clustering, OneCluster):
        kind = type(config.clustering).__name__
        yield f"clustering._target_: {kind} goes by single clients, {because}; set clustering=one"
    if config.personalization.uses_outputs:
        kind = type(config.personalization).__name__
        yield (
            f"personalization._target_: {kind} reads each client's outputs, {because}; choose "
            "personal layers that are fixed"
        )
    if config.prior.uses_outputs:
        kind = type(config.prior).__name__
        yield (
            f"prior._target_: {kind} reads each client's outputs, {because}; set prior=none or "
            "prior=everybody"
        )
    if config.coding is not None and config.coding.uses_outputs:
        yield f"coding: reads each client's outputs, {because}; set coding=none"
    if config.dataset.standardise == "moments":
        yield (
            f"dataset.standardise: moments are sums that clients send as they are, {because}; set "
            "public, site or none"
        )
    personal = config.personalization.start(1, layers)[0]
    if any(_counts(layer) for layer, kept in zip(layers, personal, strict=True) if not kept):
        yield (
            "model.norm: batch shares running statistics, which noise would spoil; set "
            "model.norm=group, or personalization=normalisation"
        )


def _example_level(config: "Config", layers: Sequence[Layer]) -> Iterator[str]:
    because = "which solver=dp_sgd does not cover"
    if config.clustering.asks:
        kind = type(config.clustering).__name__
        yield (
            f"clustering._target_: {kind} asks for losses on training data or for its directions, "
            f"{because}; set clustering=one, cfl, fedgroup or fesem"
        )
    if config.cohort.join_round is not None and not isinstance(config.clustering, OneCluster):
        yield (
            f"cohort.join_round: who joins tells losses on its training data, {because}; must be "
            f"null, or set clustering=one, got {config.cohort.join_round}"
        )
    for name in ("personalization", "prior"):
        if getattr(config, name).measures_noise:
            yield (
                f"{name}.noise_floor: is measured with models that are trained without noise, "
                f"{because}; must be a number in [0, 1), got null"
            )
    if not isinstance(config.prior, NoPrior):
        yield (
            "prior._target_: a log prior puts the law of a client's labels into every gradient, "
            f"{because}; set prior=none"
        )
    if config.dataset.standardise in ("moments", "site"):
        yield (
            "dataset.standardise: moments of a client's samples move all of them, "
            f"{because}; must be public or none, got {config.dataset.standardise}"
        )
    if any(map(_counts, layers)):
        yield f"model.norm: batch mixes the samples of a batch, {because}; set model.norm=group"
    if config.precision == "bf16":
        yield "precision: Opacus takes gradients in fp32; must be fp32 or tf32, got bf16"


def _counts(layer: Layer) -> bool:
    """Return whether a layer has running statistics, as BatchNorm does."""
    return any(name.rpartition(".")[2] in STATISTICS for name in layer.tensors)
