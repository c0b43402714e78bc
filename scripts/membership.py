"""Measure what the server and other clients can tell of who was in a client's training data.

In each world a coin decides of every candidate whether its client trains on it; all else but the
order of samples is the same: clients, initial model, public samples. Attackers know the candidate
and its label, and have all other worlds to learn from. They see the models that a client sent, the
centres that it was sent, or only its outputs on public samples; of all rounds, as a mean.

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
from collections.abc import Mapping, Sequence
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
from fedtsd.experiment import build, load_federation
from fedtsd.membership import auc, caught, interval, likelihood_ratios, linear_scores
from fedtsd.messages import Engine, Reply, Request, Train
from fedtsd.models import initialise
from fedtsd.run_folder import RunFolder
from fedtsd.seeding import numpy_rng, torch_rng

WORLDS, CANDIDATES, NEAREST = 64, 16, 5
SETTINGS = (
    "method=fedtsdp_clusters",
    "method=fedtsdp",
    "method=fedtsdp personalization=last personalization.layers=2",
)
USUAL = ("partition.num_clients=10", "partition.alpha=1.0", "engine=sequential")


@dataclass
class Seen:
    """What crossed the door in one world.

    outputs: by client, log probabilities [P, Y] of each round in which it told them. models: what
    each client sent. centres: what it was sent, but for the first round, which tells nothing.
    """

    outputs: defaultdict[int, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    models: defaultdict[int, list[Mapping[str, Tensor]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    centres: defaultdict[int, list[Mapping[str, Tensor]]] = field(
        default_factory=lambda: defaultdict(list)
    )


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
        worlds = lived(config, count)
        partly = np.isnan(worlds.own).mean()
        seconds = time.process_time() - started
        print(f"\n{setting}: {count} worlds, {worlds.inside[0].size} candidates, {seconds:.0f} s")
        print(f"clients that did not send all layers in all rounds: {partly:.0%}\n")
        print("| seen | attack | AUC | 95 % | found at 1 % false alarms |\n|---|---|---|---|---|")
        for (seen, attack), scores in attacks_on(worlds).items():
            print(f"| {seen} | {attack} | {told(scores, worlds.inside)} |")
        told_laws = laws_told(worlds, load_federation(config))
        print(f"\nlabel laws: correlation {told_laws:.2f} with a client's mean output")
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


def lived(config: Config, count: int) -> Worlds:
    """Run `count` worlds."""
    federation = load_federation(config)
    if config.similarity.public_batch < len(federation.public):
        raise SystemExit("similarity.public_batch: must be all public samples, to be compared")
    clients = [federation.data_of(c, 1) for c in range(federation.num_clients)]
    fewest = min(len(client.train) for client in clients)
    chosen = [
        numpy_rng(config.seed, "candidates", c).permutation(len(client.train))[
            : min(CANDIDATES, fewest // 2)
        ]
        for c, client in enumerate(clients)
    ]
    nearest = [
        torch.cdist(client.train.inputs[of].flatten(1), federation.public.flatten(1)).argsort(dim=1)
        for client, of in zip(clients, chosen, strict=True)
    ]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in Worlds.__annotations__}
    for world in range(count):
        rng = numpy_rng(config.seed, "world", world)
        inside = rng.integers(0, 2, (len(clients), len(chosen[0]))).astype(bool)
        taught = [
            without(client, of[~flags], rng)
            for client, of, flags in zip(clients, chosen, inside, strict=True)
        ]
        seen = seen_in(config, dataclasses.replace(federation, clients=tuple(taught)))
        parts["inside"].append(inside)
        rows = []
        for c, (client, of) in enumerate(zip(clients, chosen, strict=True)):
            inputs, labels = client.train.inputs[of], client.train.labels[of]
            outputs = torch.stack(seen.outputs[c]).mean(dim=0)
            near = outputs[nearest[c][:, :NEAREST]].log_softmax(dim=-1)  # [E, 5, Y]
            rows.append(
                {
                    "own": logits(config, federation, seen.models[c], inputs, labels),
                    "centre": logits(config, federation, seen.centres[c], inputs, labels),
                    "outputs": outputs.double().numpy(),
                    "near": np.stack([margin(near[:, i], labels) for i in range(NEAREST)]).mean(
                        axis=0
                    ),
                }
            )
        for name in rows[0]:
            parts[name].append(np.stack([row[name] for row in rows]))
    return Worlds(**{name: np.stack(arrays) for name, arrays in parts.items()})


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
    config: Config,
    federation: Federation,
    models: Sequence[Mapping[str, Tensor]],
    inputs: Tensor,
    labels: Tensor,
) -> np.ndarray:
    """Return the mean logit of each sample's label in some models [E], NaN if one is not whole."""
    network = config.model.build(federation.input_shape, federation.num_outputs)
    initialise(network, torch_rng(config.seed, "model"))
    if any(network.state_dict().keys() - model.keys() for model in models):
        return np.full(len(labels), np.nan)
    with torch.no_grad():
        outputs = [functional_call(network.eval(), dict(model), (inputs,)) for model in models]
    return np.mean([margin(one.log_softmax(dim=1), labels) for one in outputs], axis=0)


def margin(logs: Tensor, labels: Tensor) -> np.ndarray:
    """Return log p / (1 - p) [E] of labels [E], from log probabilities [E, Y]."""
    at = torch.nn.functional.one_hot(labels, logs.shape[1]).bool()
    own = logs[at].double()
    others = logs.double().masked_fill(at, -torch.inf).logsumexp(dim=1)
    return (own - others).numpy()


if __name__ == "__main__":
    sys.exit(main())
