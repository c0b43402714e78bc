"""Small runs of any method: what some cannot do without, in their overrides and in their data."""

import dataclasses
from collections.abc import Callable

import numpy as np
from torch import Tensor

from fedtsd.data.federation import ClientData, Federation, Split

MLP = ("model.hidden=[8]",)
NORMALISED = ("model=lenet", "model.norm=batch")


def small(method: str, num_clients: int) -> tuple[str, ...]:
    """Return the overrides of a method's run with few clients and a small model."""
    overrides, _ = NEEDS.get(method, (MLP, None))
    return (
        f"method={method}", f"partition.num_clients={num_clients}", "similarity.public_batch=20",
        *overrides,
    )  # fmt: skip


def fit(federation: Federation, method: str) -> Federation:
    """Return a federation of vectors as the method can use it."""
    _, change = NEEDS.get(method, (MLP, None))
    return federation if change is None else change(federation)


def grouped(federation: Federation) -> Federation:
    """Call the even and the odd clients two planted groups."""
    return dataclasses.replace(federation, groups=np.arange(federation.num_clients) % 2)


def painted(federation: Federation) -> Federation:
    """Make images of vectors: each feature an even map of 8 x 8 pixels."""

    def split(old: Split) -> Split:
        return Split(_maps(old.inputs), old.labels, old.unit)

    clients = tuple(ClientData(split(c.train), split(c.val), split(c.test))
                    for c in federation.clients)  # fmt: skip
    return dataclasses.replace(federation, clients=clients, public=_maps(federation.public))


def _maps(inputs: Tensor) -> Tensor:
    return inputs[:, :, None, None].expand(-1, -1, 8, 8).contiguous()


NEEDS: dict[str, tuple[tuple[str, ...], Callable[[Federation], Federation] | None]] = {
    "fedadam": ((*MLP, "aggregation.lr=0.1"), None),  # its steps are made for many rounds
    "fedbn": (NORMALISED, painted),
    "oracle": ((*MLP, "partition=label_groups", "partition.num_groups=2"), grouped),
}
"""By method: the overrides of its model, and what is done to the federation."""
