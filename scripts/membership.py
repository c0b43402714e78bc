"""Measure what the server and other clients can tell of who was in a client's training data.

In each world a coin decides of every candidate whether its client trains on it; all else but the
order of samples is the same: clients, initial model, public samples. Attackers know the candidate
and its label, and have all other worlds to learn from. They see the models that a client sent, the
centres that it was sent, or only its outputs on public samples; in the last round, or of all rounds
in which they cross, as a mean.

The first table is of fedtsdp_clusters, which keeps nothing private; then of fedtsdp, and of fedtsdp
with two private layers on everybody, through which outputs pass. Intervals are of worlds and
candidates drawn anew.

Run: python scripts/membership.py [--worlds=N] [overrides of fedtsd train]
"""

import dataclasses
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from fedtsd.clients.engine import ClientSide, EngineSpec
from fedtsd.compose import check, composed
from fedtsd.config import Config
from fedtsd.data.federation import ClientData, Federation, Split
from fedtsd.execution import build
from fedtsd.loading import load_federation
from fedtsd.membership import auc, caught, interval, likelihood_ratios, linear_scores
from fedtsd.messages import Engine, Reply, Request, Train
from fedtsd.models import initialise
from fedtsd.run_folder import RunFolder
from fedtsd.seeding import numpy_rng, torch_rng
from fedtsd.server import Tensors

WORLDS, CANDIDATES, NEAREST = 64, 16, 5
SETTINGS = (
    "method=fedtsdp_clusters",
    "method=fedtsdp",
    "method=fedtsdp personalization=last personalization.layers=2",
)
ROUNDS = {"all": slice(None), "last": slice(-1, None)}
USUAL = ("partition.num_clients=10", "partition.alpha=1.0", "engine=sequential")


@dataclass
class Seen:
    """What crossed the door in one world.

    outputs: by client, log probabilities [P, Y] of each round in which it told them. models: what
    each client sent. centres: what it was sent, but for the first round, which tells nothing.
    """

    outputs: defaultdict[int, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    models: defaultdict[int, list[Tensors]] = field(default_factory=lambda: defaultdict(list))
    centres: defaultdict[int, list[Tensors]] = field(default_factory=lambda: defaultdict(list))

    def of(
        self, client: int, rounds: slice
    ) -> tuple[Sequence[Tensor], Sequence[Tensors], Sequence[Tensors]]:
        """Return outputs, models and centres of one client in some of its rounds."""
        parts = self.outputs, self.models, self.centres
        return tuple(part[client][rounds] for part in parts)  # type: ignore[return-value]


@dataclass(frozen=True)
class Candidates:
    """E training samples of one client.

    places: int64 [E], among its training samples. nearest: int64 [E, NEAREST] public samples.
    """

    places: np.ndarray
    inputs: Tensor
    labels: Tensor
    nearest: Tensor


@dataclass(frozen=True)
class Overheard:
    """An engine at whose door somebody listens."""

    inner: EngineSpec
    seen: Seen

    def check(self, device: torch.device) -> None:
        self.inner.check(device)

    def build(self, side: ClientSide) -> "OverheardEngine":
        return OverheardEngine(self.inner.build(side), self.seen)


class OverheardEngine:
    """Passes everything on."""

    def __init__(self, inner: Engine, seen: Seen) -> None:
        self._inner, self._seen = inner, seen
        self.state_dict, self.load_state_dict = inner.state_dict, inner.load_state_dict
        self.close = inner.close

    def handle(self, request: Request) -> Reply:
        reply = self._inner.handle(request)
        if isinstance(request.task, Train) and request.task.public is not None:
            for asked, row in zip(request.rows, reply.rows, strict=True):
                self._seen.models[row.client].append(row.tensors)
                if request.round > 1:
                    self._seen.centres[row.client].append(request.sent(asked))
                if row.outputs is not None:
                    self._seen.outputs[row.client].append(row.outputs.clamp_min(1e-7).log())
        return reply


@dataclass(frozen=True)
class Worlds:
    """What was seen of C clients in W worlds, E candidates each: float64 but for `inside`.

    inside: [W, C, E]. own, centre: [W, C, E], logit of a candidate's label in the models that its
    client sent and in those it was sent; NaN where one did not cross whole. outputs: [W, C, P, Y].
    near: [W, C, E], the same logit on the public samples that are nearest to a candidate.
    """

    inside: np.ndarray
    own: np.ndarray
    centre: np.ndarray
    outputs: np.ndarray
    near: np.ndarray


def main() -> int:
    """Run all worlds and print the tables."""
    torch.set_num_threads(1)
    given = [word for word in sys.argv[1:] if not word.startswith("--worlds=")]
    counts = [int(word[9:]) for word in sys.argv[1:] if word.startswith("--worlds=")]
    count = counts[-1] if counts else WORLDS
    for setting in SETTINGS:
        started = time.process_time()
        config = check(composed([*setting.split(), *USUAL, *given]))
        found = lived(config, count)
        whole = found["all"]
        partly, seconds = np.isnan(whole.own).mean(), time.process_time() - started
        print(f"\n{setting}: {count} worlds, {whole.inside[0].size} candidates, {seconds:.0f} s")
        print(f"clients that did not send all layers in all rounds: {partly:.0%}")
        laws = laws_told(whole, load_federation(config))
        print(f"label laws: correlation {laws:.2f} with a client's mean output\n")
        print("| seen | rounds | attack | AUC | 95 % | found at 1 % false alarms |")
        print("|---|---|---|---|---|---|")
        for rounds, worlds in found.items():
            for (seen, attack), scores in attacks_on(worlds).items():
                print(f"| {seen} | {rounds} | {attack} | {told(scores, worlds.inside)} |")
    return 0


def told(scores: np.ndarray, inside: np.ndarray) -> str:
    """Return the cells of one row: scores and inside [W, C, E]."""
    scores, inside = (array.reshape(len(array), -1) for array in (scores, inside))
    low, high = interval(auc, scores, inside, numpy_rng(0, "bootstrap"))
    found = caught(scores, inside)
    return f"{auc(scores, inside):.3f} | {low:.3f} to {high:.3f} | {100 * found:.1f} %"


def laws_told(worlds: Worlds, federation: Federation) -> float:
    """Return how the clients' shares of classes [C, Y] correlate with their mean outputs.

    Of the first world, over all clients and classes, and on public samples that are alike for all.
    """
    counts = federation.label_counts("train").astype(float)
    laws = counts / counts.sum(axis=1, keepdims=True)
    outputs = np.exp(worlds.outputs[0])
    means = (outputs / outputs.sum(axis=-1, keepdims=True)).mean(axis=1)
    return float(np.corrcoef(laws.reshape(-1), means.reshape(-1))[0, 1])


def attacks_on(worlds: Worlds) -> dict[tuple[str, str], np.ndarray]:
    """Return the scores [W, C, E] of each attack, by what it sees and its name."""
    shape, inside = worlds.inside.shape, worlds.inside.reshape(len(worlds.inside), -1)
    found = {}
    for name, seen in (("models sent", worlds.own), ("centres", worlds.centre)):
        if not np.isnan(seen).any():
            flat = seen.reshape(inside.shape)
            found[name, "threshold"] = seen
            found[name, "likelihood ratio"] = likelihood_ratios(flat, inside).reshape(shape)
    near = likelihood_ratios(worlds.near.reshape(inside.shape), inside)
    found["outputs", f"likelihood ratio, {NEAREST} nearest"] = near.reshape(shape)
    linear = [
        linear_scores(worlds.outputs[:, c].reshape(len(inside), -1), worlds.inside[:, c])
        for c in range(shape[1])
    ]
    found["outputs", "linear"] = np.stack(linear, axis=1)
    return found


def lived(config: Config, count: int) -> dict[str, Worlds]:
    """Run `count` worlds; return what is seen in which rounds, by the keys of ROUNDS."""
    federation = load_federation(config)
    if config.similarity.public_batch < len(federation.public):
        raise SystemExit("similarity.public_batch: must be all public samples, to be compared")
    candidates = candidates_of(federation, config.seed)
    parts: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in ROUNDS}
    for world in range(count):
        rng = numpy_rng(config.seed, "world", world)
        inside = rng.integers(0, 2, (len(candidates), len(candidates[0].places))).astype(bool)
        clients = tuple(
            without(federation.data_of(c, 1), known.places[~flags], rng)
            for c, (known, flags) in enumerate(zip(candidates, inside, strict=True))
        )
        seen = seen_in(config, dataclasses.replace(federation, clients=clients))
        for name, rounds in ROUNDS.items():
            rows = [
                told_of(config, federation, known, seen.of(c, rounds))
                for c, known in enumerate(candidates)
            ]
            found = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
            parts[name].append({"inside": inside, **found})
    return {
        name: Worlds(**{key: np.stack([one[key] for one in found]) for key in found[0]})
        for name, found in parts.items()
    }


def candidates_of(federation: Federation, seed: int) -> list[Candidates]:
    """Choose candidates among the training samples of each client, as many of each."""
    clients = [federation.data_of(c, 1).train for c in range(federation.num_clients)]
    count = min(CANDIDATES, min(map(len, clients)) // 2)
    found = []
    for c, train in enumerate(clients):
        places = numpy_rng(seed, "candidates", c).permutation(len(train))[:count]
        inputs = train.inputs[places]
        apart = torch.cdist(inputs.flatten(1), federation.public.flatten(1))
        nearest = apart.argsort(dim=1)[:, :NEAREST]
        found.append(Candidates(places, inputs, train.labels[places], nearest))
    return found


def told_of(
    config: Config,
    federation: Federation,
    known: Candidates,
    seen: tuple[Sequence[Tensor], Sequence[Tensors], Sequence[Tensors]],
) -> dict[str, np.ndarray]:
    """Return what one client's outputs, models and centres say, by the fields of `Worlds`."""
    told, models, centres = seen
    outputs = torch.stack(list(told)).mean(dim=0)
    near = outputs[known.nearest].log_softmax(dim=-1)  # [E, NEAREST, Y]
    margins = [margin(near[:, i], known.labels) for i in range(NEAREST)]
    return {
        "own": logits(config, federation, models, known),
        "centre": logits(config, federation, centres, known),
        "outputs": outputs.double().numpy(),
        "near": np.mean(margins, axis=0),
    }


def without(client: ClientData, left_out: np.ndarray, rng: np.random.Generator) -> ClientData:
    """Return a client without some of its training samples, the others in a new order."""
    kept = torch.from_numpy(rng.permutation(np.setdiff1d(np.arange(len(client.train)), left_out)))
    split = Split(client.train.inputs[kept], client.train.labels[kept], client.train.unit)
    return dataclasses.replace(client, train=split)


def seen_in(config: Config, federation: Federation) -> Seen:
    """Run a world and return what crossed."""
    seen = Seen()
    engine = Overheard(config.engine, seen)
    config = dataclasses.replace(
        config, engine=engine, eval_every=config.rounds, checkpoint_every=config.rounds
    )
    experiment = build(config, federation)
    with tempfile.TemporaryDirectory() as place:
        experiment.run(RunFolder.create(Path(place) / "run", ""), experiment.start)
    experiment.engine.close()
    return seen


def logits(
    config: Config, federation: Federation, models: Sequence[Tensors], known: Candidates
) -> np.ndarray:
    """Return the mean logit of each candidate's label in models [E], NaN if one is not whole."""
    network = config.model.build(federation.input_shape, federation.num_outputs)
    initialise(network, torch_rng(config.seed, "model"))
    if any(network.state_dict().keys() - model.keys() for model in models):
        return np.full(len(known.labels), np.nan)
    with torch.no_grad():
        found = [functional_call(network.eval(), dict(model), (known.inputs,)) for model in models]
    return np.mean([margin(one.log_softmax(dim=1), known.labels) for one in found], axis=0)


def margin(logs: Tensor, labels: Tensor) -> np.ndarray:
    """Return log p / (1 - p) [E] of labels [E], from log probabilities [E, Y]."""
    at = torch.nn.functional.one_hot(labels, logs.shape[1]).bool()
    own = logs[at].double()
    others = logs.double().masked_fill(at, -torch.inf).logsumexp(dim=1)
    return (own - others).numpy()


if __name__ == "__main__":
    sys.exit(main())
