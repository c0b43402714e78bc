"""Clients whose classes look alike and come in unlike shares: what log priors and heads are for."""

import numpy as np
import torch

from fedtsd.data.federation import ClientData, Federation, Split

CENTRES = np.array([[2.0, 0.0], [-1.0, 1.5], [-1.0, -1.5]])


def skewed_federation(num_clients: int, size: int = 30, seed: int = 0) -> Federation:
    """Three Gaussian classes in the plane; a client has mostly one, some of another, one not."""
    rng = np.random.default_rng(seed)

    def split(client: int, n: int) -> Split:
        labels = (rng.choice(2, n, p=(0.8, 0.2)) + client) % 3
        inputs = rng.normal(size=(n, 2)) + CENTRES[labels]
        return Split(torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels))

    clients = tuple(
        ClientData(split(c, size + 7 * c), split(c, 6), split(c, 25)) for c in range(num_clients)
    )
    public = torch.tensor(rng.normal(size=(40, 2)) * 2, dtype=torch.float32)
    return Federation(clients, public, ("a", "b", "c"))
