"""Shared by all tests: configs as users compose them, and a small federation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fedtsd.compose import check, composed
from fedtsd.config import Config
from fedtsd.data.federation import ClientData, Federation, Split


@pytest.fixture
def config() -> Callable[..., Config]:
    """Compose and parse a config from overrides."""

    def make(*overrides: str) -> Config:
        return check(composed(list(overrides)))

    return make


def gaussian_federation(
    num_clients: int, flipped: tuple[int, ...] = (), size: int = 40, seed: int = 0
) -> Federation:
    """Two Gaussian classes in the plane; clients in `flipped` have the labels exchanged."""
    rng = np.random.default_rng(seed)

    def split(client: int, n: int) -> Split:
        labels = rng.integers(0, 2, n)
        inputs = rng.normal(size=(n, 2)) + 2.0 * np.where(labels, 1, -1)[:, None]
        shown = 1 - labels if client in flipped else labels
        return Split(torch.tensor(inputs, dtype=torch.float32), torch.tensor(shown))

    clients = tuple(
        ClientData(split(c, size), split(c, 10), split(c, 30)) for c in range(num_clients)
    )
    public = torch.tensor(rng.normal(size=(60, 2)) * 2, dtype=torch.float32)
    return Federation(clients, public, ("a", "b"))


@pytest.fixture
def toy() -> Callable[..., Federation]:
    """Build a small federation."""
    return gaussian_federation


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
