"""What clients keep to themselves between rounds.

Shapes: N clients, p numbers in the tensors that may be personal, n clients that keep something.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from fedtsd.server import Tensors
from fedtsd.shared import DiskRows, shared_tensor


class ClientStore:
    """The personal tensors of N clients: a sparse map [N, p] that forked processes share.

    A client that has not trained yet keeps the initial model.
    """

    def __init__(self, initial: Tensors, keeps: frozenset[str], num_clients: int) -> None:
        self._shapes = {name: initial[name].shape for name in sorted(keeps)}
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        parts = [initial[name].detach().cpu().flatten() for name in self._shapes]
        self._sizes = sizes
        self._initial = torch.cat(parts) if parts else torch.zeros(0)
        self._rows = DiskRows(num_clients, sum(sizes))
        self._has = shared_tensor((num_clients,), torch.bool)

    def get(self, client: int) -> dict[str, Tensor]:
        """Return what the client keeps; the tensors change with the next `put`."""
        return self._views(self._rows.tensor[client] if self._has[client] else self._initial)

    @torch.no_grad()
    def put(self, client: int, model: Tensors) -> None:
        """Keep the client's tensors of `model` that may be personal.

        Raises StorageError if there is no space for them.
        """
        if not self._shapes:
            return
        if not self._has[client]:
            self._rows.reserve(client)
        for name, place in self._views(self._rows.tensor[client]).items():
            place.copy_(model[name])
        self._has[client] = True

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of all that is kept: `client` int64 [n], and each tensor [n, ...]."""
        clients = torch.nonzero(self._has).flatten()
        columns = torch.split(self._rows.tensor, self._sizes, dim=1)
        tensors = {
            name: part.index_select(0, clients).view(len(clients), *shape)
            for (name, shape), part in zip(self._shapes.items(), columns, strict=True)
        }
        return {"client": clients, **tensors}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` returned."""
        self._has.zero_()
        for i, client in enumerate(state["client"].tolist()):
            self.put(client, {name: state[name][i] for name in self._shapes})

    def _views(self, row: Tensor) -> dict[str, Tensor]:
        parts = torch.split(row, self._sizes)
        named = zip(self._shapes.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in named}
