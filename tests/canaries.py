"""Secrets of clients, and a search for them in whatever crosses the door or is written.

A secret is a run of numbers, and has got out where so many of them in a row (a window) are found:
in a tensor of any type, in the bytes of one, between plain numbers, or written out in a text.
Numbers that were known before the secret was made are none: what a personal layer never changed,
or what a client sent while the layer was still shared.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from fedtsd.clients.engine import ClientSide, EngineSpec
from fedtsd.clients.log_prior import log_prior
from fedtsd.data.federation import ClientData, Federation, Split
from fedtsd.messages import Engine, Reply, Request, Train

SAMPLE, LABELS, COUNTS, PRIOR = "sample", "labels", "label counts", "log prior"
PERSONAL, HEAD = "personal layer", "residual head"
WIDTH = 4
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Secret:
    """Numbers [n] that nobody but the client may have, from message number `since` on."""

    kind: str
    client: int
    values: np.ndarray
    since: int = 0
    width: int = WIDTH

    def windows(self) -> Iterator[tuple[float, ...]]:
        values = self.values.reshape(-1).astype(np.float64)
        for window in np.lib.stride_tricks.sliding_window_view(values, self.width):
            if len(np.unique(window)) > 2:  # zeros and ones are everywhere
                yield tuple(window.tolist())


@dataclass
class Watch:
    """All that crossed, as streams of numbers, and all that must not."""

    streams: list[np.ndarray] = field(default_factory=list)
    secrets: list[Secret] = field(default_factory=list)

    def note(self, kind: str, client: int, values: Tensor | np.ndarray, width: int = WIDTH) -> None:
        values = np.asarray(values.detach() if isinstance(values, Tensor) else values).reshape(-1)
        if len(values) < width:
            return
        since = len(self.streams)
        self.secrets.append(Secret(kind, client, values, since, width))
        if values.dtype == np.float64:  # it may cross as what models are made of
            self.secrets.append(Secret(kind, client, values.astype(np.float32), since, width))

    def escaped(self) -> set[tuple[str, int]]:
        """Return the kinds and the clients of secrets that crossed."""
        return self._pass(iter(self.streams))[0]

    def kept(self) -> "Wanted":
        """Return the windows that are secret still."""
        return self._pass(iter(self.streams))[1]

    def _pass(self, streams: Iterator[np.ndarray]) -> tuple[set[tuple[str, int]], "Wanted"]:
        wanted, out = Wanted.of(self.secrets), set()
        for number, stream in enumerate(streams):
            for window in wanted.found_in(stream):
                for secret in wanted.owners[window]:
                    if secret.since <= number:
                        out.add((secret.kind, secret.client))
                wanted.owners[window] = [s for s in wanted.owners[window] if s.since <= number]
        return out, wanted


@dataclass
class Wanted:
    """Whose secret a window is."""

    owners: dict[tuple[float, ...], list[Secret]]

    @classmethod
    def of(cls, secrets: Iterable[Secret]) -> "Wanted":
        owners = defaultdict(list)
        for secret in secrets:
            for window in secret.windows():
                owners[window].append(secret)
        return cls(owners)

    def kinds(self) -> set[str]:
        return {secret.kind for secrets in self.owners.values() for secret in secrets}

    def found_in(self, stream: np.ndarray) -> set[tuple[float, ...]]:
        found = set()
        for width in {len(window) for window in self.owners}:
            firsts = [window[0] for window in self.owners if len(window) == width]
            for start in np.flatnonzero(np.isin(stream, firsts)):
                window = tuple(stream[start : start + width].tolist())
                if window in self.owners:
                    found.add(window)
        return found

    def kinds_in(self, stream: np.ndarray) -> set[str]:
        return {secret.kind for w in self.found_in(stream) for secret in self.owners[w]}


def stream_of(message: Any) -> np.ndarray:
    """Return all numbers in a message, float64, in the order of its fields."""
    parts = list(_numbers(message))
    return np.concatenate(parts) if parts else np.zeros(0)


def _numbers(node: Any) -> Iterator[np.ndarray]:
    if node is None:
        return
    if isinstance(node, Tensor):
        flat = node.detach().cpu().reshape(-1).contiguous()
        yield flat.double().numpy()
        if not flat.is_floating_point():
            yield from _numbers(flat.numpy().tobytes())
    elif isinstance(node, np.ndarray):
        yield from _numbers(torch.from_numpy(np.ascontiguousarray(node)))
    elif isinstance(node, bool | int | float):
        yield np.array([float(node)])
    elif isinstance(node, bytes):
        for kind in (np.uint8, np.float32, np.float64):
            whole = len(node) - len(node) % np.dtype(kind).itemsize
            with np.errstate(invalid="ignore"):
                yield np.frombuffer(node[:whole], dtype=kind).astype(np.float64)
    elif isinstance(node, str):
        yield np.array([float(word) for word in NUMBER.findall(node)])
    elif dataclasses.is_dataclass(node):
        for one in dataclasses.fields(node):
            yield from _numbers(getattr(node, one.name))
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _numbers(key)
            yield from _numbers(value)
    elif isinstance(node, tuple | list | set | frozenset):
        for item in node:
            yield from _numbers(item)
    else:  # nothing may cross unsearched
        raise TypeError(f"cannot look into {type(node).__name__}")


def stream_of_file(path: Path) -> np.ndarray:
    """Return all numbers in a file of a run."""
    if path.suffix == ".safetensors":
        return stream_of(load_file(path))
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return stream_of(dict(arrays))
    return stream_of(path.read_text())


def planted(federation: Federation, watch: Watch, num_labels: int = 16) -> Federation:
    """Plant samples and a pattern of labels in every client's training data, and watch them."""
    clients = []
    for client in range(federation.num_clients):
        rng = np.random.default_rng([7, client])
        data = federation.clients[client]
        train = _planted(data.train, rng, num_labels)
        for row in train.inputs[:3]:
            watch.note(SAMPLE, client, row)
        watch.note(LABELS, client, train.labels[:num_labels], width=num_labels)
        watch.note(LABELS, client, train.labels, width=num_labels)
        counts = torch.bincount(train.labels, minlength=len(federation.classes))
        watch.note(COUNTS, client, counts, width=len(federation.classes))
        watch.note(PRIOR, client, log_prior(train.labels, len(federation.classes)))
        others = _planted(data.val, rng, 0), _planted(data.test, rng, 0)
        for split in others:
            watch.note(SAMPLE, client, split.inputs[0])
        clients.append(ClientData(train, *others))
    return dataclasses.replace(federation, clients=tuple(clients))


def _planted(split: Split, rng: np.random.Generator, num_labels: int) -> Split:
    inputs, labels = split.inputs.clone(), split.labels.clone()
    few = min(3, len(inputs))
    inputs[:few] = torch.from_numpy(rng.normal(size=inputs[:few].shape)).float()
    labels[:num_labels] = torch.from_numpy(rng.integers(0, 10, num_labels))
    return Split(inputs, labels, split.unit)


class Watched:
    """An engine all of whose messages are watched, with a spy behind the door if there is one.

    It notes what clients keep after they trained, as nobody but a test could.
    """

    def __init__(self, inner: Engine, watch: Watch) -> None:
        self._inner, self._watch = inner, watch
        self.load_state_dict, self.close = inner.load_state_dict, inner.close
        self.state_dict = inner.state_dict

    def handle(self, request: Request) -> Reply:
        self._watch.streams.append(stream_of(request))
        reply = self._inner.handle(request)
        if isinstance(request.task, Train):
            self._note(request)
        self._watch.streams.append(stream_of(reply))
        return reply

    def _note(self, request: Request) -> None:
        kept = self.state_dict()
        place = {client: i for i, client in enumerate(kept["client"].tolist())}
        models = request.models[0]
        for row in request.rows:
            solver = kept.keys() - models.keys() - {"client"}
            names = row.personal | {name for name in solver if not name.startswith(TOLD)}
            for name in names if row.client in place else ():
                self._watch.note(PERSONAL, row.client, kept[name][place[row.client]])


TOLD = ("scaffold/", "ala/")
"""What solvers keep that is no secret: SCAFFOLD's variate is the sum of the changes that were sent,
FedALA's own top layers are those that were sent last."""


@dataclass(frozen=True)
class WatchedSpec:
    """The spec of an engine that is watched; leak: what is put between its clients and the door."""

    inner: EngineSpec
    watch: Watch
    leak: Any = None

    def check(self, device: torch.device) -> None:
        self.inner.check(device)

    def build(self, side: ClientSide) -> Watched:
        engine = self.inner.build(side)
        return Watched(engine if self.leak is None else self.leak(engine), self.watch)
