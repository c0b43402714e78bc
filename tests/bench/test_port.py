from typing import Any

import pytest

from fedtsd.bench.clock import Clock
from fedtsd.bench.port import Closed, Finished, Pacer


class Script:
    """A parent whose orders are known beforehand; it keeps what it is told."""

    def __init__(self, *orders: dict[str, Any]) -> None:
        self._orders = list(orders)
        self.told: list[dict[str, Any]] = []

    def say(self, report: dict[str, Any]) -> None:
        self.told.append(report)

    def listen(self) -> dict[str, Any]:
        if not self._orders:
            raise Closed
        return self._orders.pop(0)


def pacer(script: Script) -> Pacer:
    return Pacer(script, Clock(), {"device": "cpu"})  # type: ignore[arg-type]


def test_rounds_run_as_ordered_and_are_counted() -> None:
    script, steps = Script({"rounds": 3}, {"rounds": 1}), iter([10, 20, 30, 40, 50])
    with pytest.raises(Closed):
        pacer(script).pace(lambda: next(steps))
    ready, first, second = script.told
    assert ready == {"ready": True, "device": "cpu"}
    assert (first["samples"], second["samples"]) == (60, 40)
    assert first["seconds"] > 0
    assert next(steps) == 50  # nothing ran that was not ordered


def test_only_what_is_ordered_is_on_the_clock() -> None:
    clock, script = Clock(), Script({"rounds": 1})
    with clock.stage("train"):  # before the first order: start-up
        pass
    with pytest.raises(Closed):
        Pacer(script, clock, {}).pace(lambda: 1)  # type: ignore[arg-type]
    assert script.told[1]["split"] == {}


def test_an_order_to_finish_ends_the_rounds() -> None:
    script = Script({"rounds": 1}, {"finish": True})
    with pytest.raises(Finished):
        pacer(script).pace(lambda: 7)
    assert script.told[-1]["samples"] == 7
