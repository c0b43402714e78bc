"""Measure what clustering costs the server, from 10 to 10,000 clients: seconds and peak memory.

Clients are made up: 5 groups, each with its own law of outputs on 200 public samples of 10 classes
and its own direction of updates. `exact` measures all pairs, `landmarks` compares everybody with
`similarity.landmarks` of them. Each cell runs in a process of its own, on one core; seconds are its
own work, whoever else is busy, and memory is what it takes at its peak on top of its input. A cell
is left out where the one before says that it would take longer than LIMIT seconds, or where updates
alone would take more than 3 GB.

Run: python scripts/cost_of_clustering.py [cost.csv]
"""

import dataclasses
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from fedtsd.clustering.hopkins import Hopkins
from fedtsd.clustering.similarity import cosines_of, js_divergence
from fedtsd.clustering.split import propose
from fedtsd.compose import check, composed
from fedtsd.config import Config
from fedtsd.messages import ClientReply, ClientRequest, Reply, Request, Train
from fedtsd.server import ServerState, start_state

CLIENTS = (10, 30, 100, 300, 1000, 3000, 10_000)
KINDS = ("exact", "landmarks")
GROUPS, SAMPLES, CLASSES, PUBLIC = 5, 200, 10, 1000
SMALL, WIDE = 20_000, 600_000  # parameters of a model
COHORT, ROUNDS = 100, 50
PARTIAL = f"round of {COHORT}"
LIMIT = 40.0
FITS = 3e9


def main() -> int:
    """Run all cells, print the tables of seconds and megabytes, and write them to a CSV file."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    rows = [row for step in STEPS for kind in KINDS for row in curve(step, kind)]
    table = pd.DataFrame(rows, columns=["step", "kind", "clients", "seconds", "megabytes"])
    if len(sys.argv) == 2:
        table.to_csv(sys.argv[1], index=False)
    for measure, digits in (("seconds", 3), ("megabytes", 0)):
        wide = table.pivot_table(measure, ["step", "kind"], "clients", sort=False)
        print(f"\n{measure}\n{wide.round(digits).to_string(na_rep='-')}")
    return 0


def curve(step: str, kind: str) -> list[tuple[str, str, int, float, float]]:
    """The cells of one step; `landmarks` only where there are more clients than landmarks."""
    rows: list[tuple[str, str, int, float, float]] = []
    few = settings().similarity.landmarks
    for clients in CLIENTS:
        if kind == "landmarks" and (clients <= few or step == PARTIAL):
            continue
        if rows and rows[-1][3] * (clients / rows[-1][2]) ** 2 > LIMIT:
            break
        if step == "updates 600k" and 4 * clients * WIDE > FITS:
            break
        rows.append((step, kind, clients, *cell(STEPS[step](clients, kind == "exact"))))
        print(*rows[-1], file=sys.stderr)
    return rows


def cell(run: Callable[[], int]) -> tuple[float, float]:
    """Seconds and megabytes of `run`, which tells how often it did the same."""
    fork = multiprocessing.get_context("fork")  # a child's peak memory starts from what is there
    reader, writer = fork.Pipe(duplex=False)
    child = fork.Process(target=measured, args=(run, writer))
    child.start()
    writer.close()
    seconds, megabytes = reader.recv()
    child.join()
    return seconds, megabytes


def measured(run: Callable[[], int], writer: Connection) -> None:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    repetitions = run()
    seconds = (time.process_time() - started) / repetitions
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    writer.send((seconds, (peak - before) / 1e3))


def settings() -> Config:
    """The method's own settings."""
    return check(composed(["method=fedtsdp"]))


def outputs_of(clients: int) -> np.ndarray:
    """Softmax outputs [N, B, Y]: the law of the client's group, and noise."""
    rng = np.random.default_rng(0)
    logits = 2 * rng.standard_normal((GROUPS, SAMPLES, CLASSES), dtype=np.float32)
    laws = logits[np.arange(clients) % GROUPS]
    laws += 0.5 * rng.standard_normal(laws.shape, dtype=np.float32)
    np.exp(laws, out=laws)
    laws /= laws.sum(axis=-1, keepdims=True)
    return laws


def updates_of(clients: int, parameters: int) -> np.ndarray:
    """Updates [N, D]: the direction of the client's group, and noise as long."""
    rng = np.random.default_rng(1)
    directions = rng.standard_normal((GROUPS, parameters), dtype=np.float32)
    updates = rng.standard_normal((clients, parameters), dtype=np.float32)
    for client, update in enumerate(updates):
        update += directions[client % GROUPS]
    return updates


def chosen(clients: int, exact: bool) -> np.ndarray | None:
    """Positions of the landmarks, if there are any."""
    few = settings().similarity.landmarks
    return None if exact else np.sort(np.random.default_rng(2).permutation(clients)[:few])


def outputs(clients: int, exact: bool) -> Callable[[], int]:
    laws, landmarks = outputs_of(clients), chosen(clients, exact)
    return lambda: len(js_divergence(laws, landmarks)) // 2


def updates(parameters: int) -> Callable[[int, bool], Callable[[], int]]:
    def prepared(clients: int, exact: bool) -> Callable[[], int]:
        rows, landmarks = updates_of(clients, parameters), chosen(clients, exact)
        models, sent = [[row] for row in rows], [np.zeros(parameters)]
        return lambda: bool(len(cosines_of(models, sent, landmarks)))

    return prepared


def distance_of(clients: int, exact: bool) -> np.ndarray:
    """Distances between the points that are tested: three groups of them in 20 dimensions."""
    count = clients if exact else settings().similarity.landmarks
    rng = np.random.default_rng(3)
    points = rng.standard_normal((count, 20)) + 3 * np.eye(20)[np.arange(count) % 3]
    squares = (points**2).sum(axis=1)
    distance = np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0)
    np.fill_diagonal(distance, 0)
    return np.sqrt(distance, out=distance)


def proposal(clients: int, exact: bool) -> Callable[[], int]:
    distance = distance_of(clients, exact)
    return lambda: bool(propose(distance))


def hopkins(clients: int, exact: bool) -> Callable[[], int]:
    distance = distance_of(clients, exact)
    test: Hopkins = settings().clustering.hopkins  # type: ignore[attr-defined]
    return lambda: bool(test.test(distance, np.random.default_rng(4)))


def rounds(cohort: int | None, repetitions: int) -> Callable[[int, bool], Callable[[], int]]:
    """Rounds from the sixth on: measuring, both tests, personal layers; D = 20,000."""

    def prepared(clients: int, exact: bool) -> Callable[[], int]:
        config, size = settings(), min(cohort or clients, clients)
        similarity = dataclasses.replace(
            config.similarity,
            exact_up_to=clients if exact else config.similarity.landmarks,
            landmarks=min(clients, config.similarity.landmarks),
        )
        config = dataclasses.replace(config, similarity=similarity)
        laws, moves = outputs_of(clients), updates_of(size, SMALL)
        model = {"body": torch.zeros(SMALL), "head": torch.zeros(1)}
        server = start_state(model, np.zeros((clients, 2), dtype=bool))

        def run() -> int:
            state = server
            for round in range(6, 6 + repetitions):
                who = np.random.default_rng(round).choice(clients, size, replace=False)
                state = one_round(config, state, round, np.sort(who), laws, moves)
            return repetitions

        return run

    return prepared


def one_round(
    config: Config,
    server: ServerState,
    round: int,
    cohort: np.ndarray,
    laws: np.ndarray,
    moves: np.ndarray,
) -> ServerState:
    """What the server does with the answers of a round, but for the new centres."""
    public = torch.arange(SAMPLES, dtype=torch.int32)
    asked, answers = [], []
    for client, move in zip(cohort.tolist(), moves, strict=True):
        asked.append(ClientRequest(client, int(server.assignment[client]), frozenset()))
        tensors = {"body": torch.from_numpy(move), "head": torch.zeros(1)}
        answers.append(ClientReply(client, tensors, 1, outputs=torch.from_numpy(laws[client])))
    request = Request(round, Train((), public, None), server.centres, tuple(asked))
    reply = Reply(round, tuple(answers))
    server = config.similarity.measure_outputs(server, request, reply, public, PUBLIC)
    server = config.similarity.measure_updates(server, request, reply)
    server = config.clustering.assign(server, round, np.random.default_rng(round))
    return config.personalization.adapt(server, round)


STEPS: dict[str, Callable[[int, bool], Callable[[], int]]] = {
    "outputs": outputs,
    "updates 20k": updates(SMALL),
    "updates 600k": updates(WIDE),
    "proposal": proposal,
    "hopkins": hopkins,
    "round of all": rounds(None, 2),
    PARTIAL: rounds(COHORT, ROUNDS),
}


if __name__ == "__main__":
    sys.exit(main())
