"""The reference engine: one client after the other, plain PyTorch. Other engines must agree."""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedtsd.clients import local
from fedtsd.clients.engine import ClientSide
from fedtsd.clients.store import ClientStore
from fedtsd.clients.workplace import Workplace, warm_up
from fedtsd.data.federation import Federation
from fedtsd.data.holdings import Split
from fedtsd.messages import ClientReply, Reply, Request, Train
from fedtsd.refusal import flaw_in_sum
from fedtsd.sums import Summing, summing_order, weight_of
from fedtsd.training import Phase


@dataclass(frozen=True)
class Sequential:
    """Settings. `threads` is fixed, not the machine's: sums split over threads change the bits."""

    threads: int

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads: must be at least 1, got {self.threads}")

    def check(self, device: torch.device) -> None:
        """Run on any device."""

    def build(self, side: ClientSide) -> "SequentialEngine":
        """Start the engine."""
        torch.set_num_threads(self.threads)
        return SequentialEngine(side)


class SequentialEngine:
    """Runs each row of a request at one workplace."""

    def __init__(
        self, side: ClientSide, data: Federation | None = None, store: ClientStore | None = None
    ) -> None:
        """data, store: where they are shared: the clients' data on the device, what they keep."""
        data = data or side.federation.to(side.device)
        model = copy.deepcopy(side.model).to(side.device)
        warm_up(model, data.public[:1])

        def fit(
            split: Split,
            phases: tuple[Phase, ...],
            personal: frozenset[str],
            rng: torch.Generator,
        ) -> int:
            settings = side.training, rng, side.precision
            return local.train(model, split, phases, personal, *settings)

        clients = side.federation.num_clients
        self._store = store or ClientStore(side.initial, side.keeps, clients)
        self._workplace = Workplace(side, data, self._store, model, fit)
        self._data = data

    def handle(self, request: Request) -> Reply:
        """Let every client of the request do its task."""
        if isinstance(request.task, Train):
            return self._train(request, request.task)
        rows = (self._workplace.work(request, row) for row in request.rows)
        return Reply(request.round, tuple(rows))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the personal tensors of all clients."""
        return self._store.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self._store.load_state_dict(state)

    def close(self) -> None:
        """Nothing was started."""

    def _train(self, request: Request, task: Train) -> Reply:
        """Let clients train in the order in which models are summed."""
        sizes = [self._data.num_training(client, request.round) for client in request.clients]
        sums = [Summing() for _ in request.models]
        replies: dict[int, ClientReply] = {}
        for position in summing_order(sizes):
            row = request.rows[position]
            reply = self._workplace.train(request, task, row)
            shared = {
                name: tensor.detach().cpu().clone()
                for name, tensor in (self._workplace.tensors | dict(reply.tensors)).items()
                if name not in row.personal
            }
            if task.sums is None:
                reply = dataclasses.replace(reply, tensors=shared)
            elif flaw := flaw_in_sum(reply.num_examples, shared):
                reply = dataclasses.replace(reply, flaw=flaw)
            else:
                sums[row.model].add(shared, weight_of(reply.num_examples, task.sums))
            replies[position] = reply
        rows = tuple(replies[position] for position in range(len(sizes)))
        return Reply(request.round, rows, tuple(s.result() for s in sums) if task.sums else None)
