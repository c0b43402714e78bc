"""The one door between server and clients: it checks every reply, and counts what crosses.

Shapes: N clients, C cohort, B public samples of a round, Y classes.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from fedtsd.errors import PrivacyError, ProtocolError
from fedtsd.messages import (
    ClientReply,
    ClientRequest,
    Describe,
    Engine,
    Halve,
    Incident,
    Probe,
    Reply,
    Request,
    Train,
    place_of,
)
from fedtsd.refusal import (
    flaw_of_losses,
    flaw_of_model,
    flaw_of_noise,
    flaw_of_outputs,
    flaw_of_subspace,
    flaw_of_weight,
)
from fedtsd.sums import Sums, weight_of
from fedtsd.traffic import Traffic, traffic_of

MOST_NAMED = 5
"""Tensors that are named in a refusal."""


class Channel:
    """The only way from the server to the clients.

    shapes: the shape of every tensor of the model, by name.
    num_classes: Y, the width of outputs on public samples.
    """

    def __init__(self, engine: Engine, shapes: Mapping[str, torch.Size], num_classes: int) -> None:
        self._engine = engine
        self._shapes = dict(shapes)
        self._num_classes = num_classes
        self._traffic = Traffic()

    def exchange(self, request: Request) -> Reply:
        """Send a request, count both and return what can be taken of the reply.

        A client's answer that is anything else than what was asked for is an incident of the reply
        and has no row in it. Raises PrivacyError if an answer holds personal layers, ProtocolError
        if a sum is not of the clients that it should be of, or a mere look goes wrong: both are
        defects of the clients' side of a simulation.
        """
        reply = self._engine.handle(request)
        heard, refused = self._sorted(request, reply)
        if request.is_look and refused:
            raise ProtocolError(f"{place_of(request, refused[0].client)}: {refused[0].reason}")
        taken = Reply(
            request.round,
            tuple(heard[client] for client in request.clients if client in heard),
            self._sums(request, reply, heard),
            (*reply.incidents, *refused),
            reply.simulated_seconds,
        )
        if not request.is_look:
            self._traffic = self._traffic.with_more(traffic_of(request, reply))
        return taken

    def drain(self) -> Traffic:
        """Return what was counted since the last call."""
        traffic, self._traffic = self._traffic, Traffic()
        return traffic

    def _sorted(
        self, request: Request, reply: Reply
    ) -> tuple[dict[int, ClientReply], list[Incident]]:
        """Return the answers that can be taken, by client, and what happened to others."""
        asked = {row.client: row for row in request.rows}
        heard: dict[int, ClientReply] = {}
        incidents: list[Incident] = []
        disputed = set()
        for row in reply.rows:
            if row.client in heard or row.client in disputed:
                if row.client in heard and _same(heard[row.client], row):
                    incidents.append(Incident(row.client, "duplicated", "came twice, taken once"))
                    continue
                heard.pop(row.client, None)  # who of them is the client cannot be told
                disputed.add(row.client)
                incidents.append(_refused(row, "two different replies in its name"))
            elif flaw := self._flaw(request, reply, asked.get(row.client), row):
                incidents.append(_refused(row, flaw))
            else:
                heard[row.client] = row
        known = {row.client for row in reply.rows} | {i.client for i in reply.incidents}
        incidents += [Incident(c, "lost", "no reply came") for c in asked if c not in known]
        return heard, incidents

    def _flaw(
        self, request: Request, reply: Reply, asked: ClientRequest | None, row: ClientReply
    ) -> str | None:
        """Say why an answer is refused; None if it can be taken."""
        if asked is None:
            return "was not asked"
        if reply.round != request.round:
            return f"a reply of round {reply.round} came in round {request.round}"
        if leaked := sorted(asked.personal & row.tensors.keys()):
            where = place_of(request, row.client)
            raise PrivacyError(f"{where}: personal tensors in the reply: {', '.join(leaked)}")
        return (
            row.flaw
            or flaw_of_weight(row.num_examples)
            or self._flaw_of_tensors(request, asked, row)
            or self._flaw_of_answers(request, asked, row)
        )

    def _flaw_of_tensors(
        self, request: Request, asked: ClientRequest, row: ClientReply
    ) -> str | None:
        expected = set()
        if isinstance(request.task, Train) and request.task.sums is None:
            expected = self._shapes.keys() - asked.personal
        if row.tensors.keys() != expected:
            odd = sorted(row.tensors.keys() ^ expected)[:MOST_NAMED]
            # A client may call a tensor anything, and this goes into the log.
            named = (name if name in self._shapes else ascii(name[:80]) for name in odd)
            return f"not the tensors that were asked for: {', '.join(named)}"
        for name, tensor in row.tensors.items():
            if flaw := self._misfit(name, tensor, torch.float32):
                return flaw
        return flaw_of_model(row.tensors)

    def _misfit(self, name: str, tensor: Tensor, dtype: torch.dtype) -> str | None:
        if tensor.shape == self._shapes[name] and tensor.dtype == dtype:
            return None
        return (
            f"{name} is {tensor.dtype} {tuple(tensor.shape)}, "
            f"must be {dtype} {tuple(self._shapes[name])}"
        )

    def _flaw_of_answers(
        self, request: Request, asked: ClientRequest, row: ClientReply
    ) -> str | None:
        """Say what is wrong with whatever is not a model."""
        task = request.task
        public = task.public_for(asked) if isinstance(task, Train) else None
        if (row.outputs is None) != (public is None):
            return "outputs on public samples were not as asked for"
        if (row.subspace is None) != (not isinstance(task, Describe)):
            return "directions of the data were not as asked for"
        if (row.noise is None) != (not isinstance(task, Halve)):
            return "a divergence of two models was not as asked for"
        flaw = flaw_of_losses(row.losses, len(request.models) if isinstance(task, Probe) else 0)
        if row.outputs is not None and public is not None:
            flaw = flaw or flaw_of_outputs(row.outputs, (len(public), self._num_classes))
        if row.subspace is not None and isinstance(task, Describe):
            flaw = flaw or flaw_of_subspace(row.subspace, task.vectors)
        if row.noise is not None:
            flaw = flaw or flaw_of_noise(row.noise)
        return flaw

    def _sums(
        self, request: Request, reply: Reply, heard: Mapping[int, ClientReply]
    ) -> tuple[Sums, ...] | None:
        """Return the sums, checked: of just those who were heard and share a tensor, weighted."""
        weighting = request.task.sums if isinstance(request.task, Train) else None
        if (reply.sums is None) != (weighting is None):
            raise ProtocolError(f"round {request.round}: sums of models were not as asked for")
        if reply.sums is None or weighting is None:
            return None
        if len(reply.sums) != len(request.models):
            raise ProtocolError(f"{len(request.models)} sums were asked for, got {len(reply.sums)}")
        expected: list[dict[str, float]] = [defaultdict(float) for _ in reply.sums]
        for asked in request.rows:
            if asked.client not in heard:
                continue
            for name in self._shapes.keys() - asked.personal:
                weight = weight_of(heard[asked.client].num_examples, weighting)
                expected[asked.model][name] += weight
        for model, (found, weights) in enumerate(zip(reply.sums, expected, strict=True)):
            where = f"round {request.round}, sum {model}"
            if leaked := sorted(found.weights.keys() - weights.keys()):
                raise PrivacyError(f"{where}: tensors that nobody shares: {', '.join(leaked)}")
            if found.weights != weights or found.tensors.keys() != weights.keys():
                raise ProtocolError(f"{where}: is not of the clients that were asked")
            for name, tensor in found.tensors.items():
                flaw = self._misfit(name, tensor, torch.float64)
                if flaw or not torch.isfinite(tensor).all():
                    raise ProtocolError(f"{where}: {flaw or f'{name} is not finite'}")
        return reply.sums


def _refused(row: ClientReply, reason: str) -> Incident:
    return Incident(row.client, "refused", reason)


def _same(one: ClientReply, other: ClientReply) -> bool:
    """Return whether two answers are equal, bit for bit."""
    if one is other:
        return True
    if one.tensors.keys() != other.tensors.keys():
        return False
    pairs: list[tuple[Tensor | None, Tensor | None]]
    pairs = [(one.tensors[name], other.tensors[name]) for name in one.tensors]
    pairs += [(one.outputs, other.outputs), (one.subspace, other.subspace)]
    bare = [
        dataclasses.replace(row, tensors={}, outputs=None, subspace=None) for row in (one, other)
    ]
    return bare[0] == bare[1] and all(
        a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in pairs
    )
