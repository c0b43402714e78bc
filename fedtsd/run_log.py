"""What a run says of itself in its log: what is about to run, and what changed in a round."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from fedtsd.coding import families_of
from fedtsd.config import Config
from fedtsd.data.federation import Federation
from fedtsd.data.skew import skew_of
from fedtsd.messages import INCIDENTS, Reply
from fedtsd.minimum import in_words
from fedtsd.models import Layer
from fedtsd.noise_floor import NOISE
from fedtsd.server import ServerState

log = logging.getLogger(__name__)


class _RunLog(logging.FileHandler):
    """A log that a full disk does not stop: the tables are what refuses to be incomplete."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Leave the line out."""

    def close(self) -> None:
        """Close the file, whether or not the last lines have a place."""
        with suppress(OSError):
            super().close()


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Send what the package logs to a file, and nowhere else, until the block ends."""
    handler = _RunLog(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("fedtsd")
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        handler.close()


def log_changes(before: ServerState, after: ServerState, round: int) -> None:
    """Say in the log when clusters or personal layers changed, and whose layers fell."""
    if (after.assignment_round == round).any():
        groups = [after.members(cluster).tolist() for cluster in range(len(after.centres))]
        log.info("round %d: clusters are now %s", round, groups)
    for family in families_of(after):
        if family.keys() not in [known.keys() for known in families_of(before)]:
            log.info(
                "round %d: clusters %s differ in their coding alone: averaged as one",
                round, ", ".join(map(str, sorted(family))),
            )  # fmt: skip
    if NOISE in after.memory and NOISE not in before.memory:
        log.info("round %d: the noise floor is %.3f", round, after.memory[NOISE][0])
    was, now = before.personal.sum(axis=1), after.personal.sum(axis=1)
    if not np.array_equal(was, now):
        log.info("round %d: personal layers per client are now %s", round, now.tolist())
    for client in np.flatnonzero(now < was):
        log.info(
            "round %d: client %d keeps %d layers instead of %d; the rest restart from its cluster",
            round, client, now[client], was[client],
        )  # fmt: skip


def log_incidents(reply: Reply, enough: bool) -> None:
    """Say in the log whose replies were refused and why, how many failed, what was not used."""
    for incident in reply.incidents:
        if incident.outcome == "refused":
            log.warning(
                "round %d, client %d: reply refused: %s",
                reply.round, incident.client, incident.reason,
            )  # fmt: skip
    counts = Counter(incident.outcome for incident in reply.incidents)
    others = [f"{counts[outcome]} {outcome}" for outcome in INCIDENTS[:-2] if counts[outcome]]
    if others:
        log.info("round %d: of the clients asked, %s", reply.round, ", ".join(others))
    if reply.withheld:
        log.info("round %d: too few to aggregate: %s", reply.round, in_words(reply.withheld))
    if not enough:
        log.warning("round %d: abandoned with %d replies", reply.round, len(reply.rows))


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
