"""Every random draw comes from here, derived from (seed, purpose, round, client, ...).

There is no generator whose state must be saved: the draw for round 7 of client 3 is the same
whether the run was resumed, ran in parallel, or skipped the clients before it.
"""

import hashlib

import numpy as np
import torch


def derive(seed: int, purpose: str, *keys: int) -> int:
    """Return a 63-bit seed for one purpose; different arguments give unrelated seeds."""
    text = repr((int(seed), purpose, tuple(int(key) for key in keys)))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_rng(seed: int, purpose: str, *keys: int) -> np.random.Generator:
    """Return the NumPy generator of one purpose."""
    return np.random.default_rng(derive(seed, purpose, *keys))


def torch_rng(seed: int, purpose: str, *keys: int) -> torch.Generator:
    """Return the torch generator (on the CPU, so that devices agree) of one purpose."""
    return torch.Generator().manual_seed(derive(seed, purpose, *keys))
