import logging
from dataclasses import dataclass

import pytest
import torch

from fedtsd.clients.auto import Auto
from fedtsd.clients.parallel import Parallel
from fedtsd.clients.stacked import Stacked


@dataclass(frozen=True)
class Named:
    """Stands for an engine: builds its own name."""

    name: str
    trouble: str = ""

    def check(self, device: torch.device) -> None:
        if self.trouble:
            raise ValueError(self.trouble)

    def build(self, side) -> str:
        return self.name


@dataclass(frozen=True)
class Side:
    device: torch.device


def test_the_default_is_chosen_by_the_device(config) -> None:
    engine = config().engine
    assert isinstance(engine, Auto)
    assert isinstance(engine.parallel, Parallel)
    assert isinstance(engine.stacked, Stacked)


@pytest.mark.parametrize(("device", "name"), [("cpu", "parallel"), ("cuda", "stacked")])
def test_the_log_says_which_and_why(device: str, name: str, caplog) -> None:
    auto = Auto(parallel=Named("parallel"), stacked=Named("stacked"))
    with caplog.at_level(logging.INFO, "fedtsd"):
        assert auto.build(Side(torch.device(device))) == name
    assert [r.message for r in caplog.records] == [f"engine: {name}, as the device is {device}"]


def test_only_the_chosen_one_must_be_able_to_run() -> None:
    auto = Auto(parallel=Named("parallel"), stacked=Named("stacked", "no GPU here"))
    auto.check(torch.device("cpu"))
    with pytest.raises(ValueError, match="no GPU here"):
        auto.check(torch.device("cuda"))
