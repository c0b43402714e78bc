from collections.abc import Iterator
from dataclasses import dataclass

from fedtsd.bench.clock import Clock, Timed


def clock_at(*times: float) -> Clock:
    ticks: Iterator[float] = iter(times)
    return Clock(lambda: next(ticks))


def test_a_nested_stage_takes_its_time_from_the_outer_one() -> None:
    clock = clock_at(0, 2, 5, 9)
    with clock.stage("outer"), clock.stage("inner"):
        pass
    # outer 0-2 and 5-9, inner 2-5
    assert clock.take() == {"outer": 6, "inner": 3}


def test_what_lies_between_stages_counts_for_none() -> None:
    clock = clock_at(0, 1, 7, 9)
    for _ in range(2):
        with clock.stage("train"):
            pass
    assert clock.take() == {"train": 3}
    assert clock.take() == {}


@dataclass(frozen=True)
class Part:
    size: int

    def work(self, more: int, times: int = 1) -> int:
        return (self.size + more) * times

    def rest(self) -> str:
        return "untimed"


def test_a_timed_part_does_the_same_and_only_named_methods_are_timed() -> None:
    clock = clock_at(0, 4)
    timed = Timed(Part(1), {"work": "train"}, clock)
    assert (timed.size, timed.rest(), timed.work(2, times=3)) == (1, "untimed", 9)
    assert clock.take() == {"train": 4}


def test_a_stage_that_fails_is_closed() -> None:
    clock = clock_at(0, 1, 2, 3)
    timed = Timed(Part(1), {"work": "train"}, clock)
    try:
        timed.work("no number")
    except TypeError:
        with clock.stage("write"):
            pass
    assert clock.take() == {"train": 1, "write": 1}
