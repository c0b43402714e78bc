"""How unlike the clients of a federation are."""

import dataclasses

import numpy as np

from fedtsd.data.federation import Federation
from fedtsd.data.holdings import Holdings
from fedtsd.skew import Skew, counts_skew

LOOKED_AT = 100
"""Clients whose samples are compared with and without the shift; evenly spaced by id."""


def skew_of(federation: Federation) -> Skew:
    """Return the skew of the clients' training data, as the run starts."""
    skew = counts_skew(federation.label_counts("train"))
    moved = (0.0, 0.0)
    if isinstance(federation.clients, Holdings):
        count = min(LOOKED_AT, federation.num_clients)
        chosen = np.linspace(0, federation.num_clients - 1, count).round().astype(np.int64)
        found = np.array([federation.clients.moved(i) for i in np.unique(chosen).tolist()])
        moved = (float(np.sqrt(np.mean(found[:, 0] ** 2))), float(found[:, 1].mean()))
    return dataclasses.replace(skew, input_shift=moved[0], label_shift=moved[1])
