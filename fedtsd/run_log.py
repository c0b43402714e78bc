"""What a run says of itself in its log: what is about to run, and what changed in a round."""

import logging

import numpy as np

from fedtsd.config import Config
from fedtsd.data.federation import Federation
from fedtsd.data.skew import skew_of
from fedtsd.models import Layer
from fedtsd.server import ServerState

log = logging.getLogger(__name__)


def log_changes(before: ServerState, after: ServerState, round: int) -> None:
    """Say in the log when clusters or personal layers changed, and whose layers fell."""
    if (after.assignment_round == round).any():
        groups = [after.members(cluster).tolist() for cluster in range(len(after.centres))]
        log.info("round %d: clusters are now %s", round, groups)
    was, now = before.personal.sum(axis=1), after.personal.sum(axis=1)
    if not np.array_equal(was, now):
        log.info("round %d: personal layers per client are now %s", round, now.tolist())
    for client in np.flatnonzero(now < was):
        log.info(
            "round %d: client %d keeps %d layers instead of %d; the rest restart from its cluster",
            round, client, now[client], was[client],
        )  # fmt: skip


def describe(config: Config, federation: Federation, layers: tuple[Layer, ...]) -> list[str]:
    """Return lines about what is about to run: parts, skew, what to know of the data."""
    sizes = federation.label_counts("train").sum(axis=1)
    first = (
        f"{config.method.name} on {config.dataset.name}: {len(sizes)} clients with "
        f"{sizes.min()} to {sizes.max()} training samples, {len(layers)} layers, "
        f"{len(federation.public)} public samples"
    )
    notes = [f"data: {note}" for note in federation.notes]
    if config.attack is not None:
        lying = np.flatnonzero(config.attackers(federation.num_clients))
        kind = type(config.attack).__name__
        victim = config.attack.victim(federation.num_clients, config.seed)
        whom = "" if victim is None else f" on client {victim}"
        notes.append(f"attack: {kind}{whom} by clients {lying.tolist()}, who are in no score")
    return [first, f"skew: {skew_of(federation).in_words(federation.regression)}", *notes]
