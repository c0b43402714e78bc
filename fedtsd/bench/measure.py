"""Measuring a workload: the yardstick and every engine in turn, one at work at a time."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedtsd.bench.clock import STAGES
from fedtsd.bench.memory import Peak
from fedtsd.bench.plan import Variant
from fedtsd.bench.statistics import Spread, ratios
from fedtsd.bench.worker import Measured, Worker, WorkerFailed, child

ENDLESS = 10**9
WARM_UP = 2
"""Rounds before the first measurement: FedTSDP reads what it measures from round 2 on."""
ALLOCATOR = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Settings of the environment that the yardstick does without."""
Say = Callable[[str], None]


@dataclass
class Runner:
    """A child that runs an experiment, and what is known of it so far."""

    variant: Variant
    worker: Worker
    rounds: int = 1
    first_round: float = 0.0
    peak_bytes: int = 0
    apart: Mapping[str, float] = field(default_factory=dict)
    measured: list[Measured] = field(default_factory=list)
    error: str | None = None

    def warm_up(self, seconds: float) -> None:
        """Start the run; choose how many rounds fill so many seconds."""
        with self.watch_memory():
            self.worker.wait_until_ready()
            self.first_round = self.worker.run(1).seconds
            last = [self.worker.run(1) for _ in range(WARM_UP - 1)][-1]
        self.rounds = max(1, round(seconds / last.seconds))

    def measure(self) -> None:
        """Measure some rounds."""
        self.measured.append(self.worker.run(self.rounds))

    def finish(self) -> None:
        """Measure what is no part of rounds: an evaluation, a checkpoint. This ends the run."""
        with self.watch_memory():
            self.apart = self.worker.finish()

    @contextmanager
    def watch_memory(self) -> Iterator[None]:
        """Note the peak of the memory; never while something is timed that counts."""
        with Peak(self.worker.pid) as peak:
            yield
        self.peak_bytes = max(self.peak_bytes, peak.num_bytes)

    def attempt(self, step: Callable[..., None], *args: Any) -> None:
        """Take a step unless one before it has failed; remember if it fails."""
        if self.error is None:
            try:
                step(*args)
            except WorkerFailed as error:
                self.error = str(error)

    def row(self, central: Sequence[Measured], share: float) -> dict[str, Any]:
        """Return the row of the results. share: of the machine's peak that one sample/s takes."""
        names = {
            "workload": self.variant.workload,
            "engine": self.variant.engine,
            "method": self.variant.method,
        }
        if self.error is not None:
            return {**names, "error": self.error}
        rates = [m.samples_per_second for m in self.measured]
        rate = Spread.of(rates).median
        return {
            **names,
            "ratio": Spread.of(ratios(rates, [m.samples_per_second for m in central])).plain(),
            "samples_per_second": rate,
            "rounds_per_second": Spread.of([m.rounds_per_second for m in self.measured]).median,
            "start_up_seconds": self.worker.start_up,
            "first_round_seconds": self.first_round,
            "peak_rss_bytes": self.peak_bytes,
            "share_of_peak": rate * share,
            "split": {**split_of(self.measured), **self.apart},
        }


def split_of(measured: Sequence[Measured]) -> dict[str, float]:
    """Return the mean seconds of a round by stage; `rest` is what no stage has."""
    rounds = sum(m.rounds for m in measured)
    split = {name: sum(m.split.get(name, 0.0) for m in measured) / rounds for name in STAGES}
    total = sum(m.seconds for m in measured) / rounds
    return {**split, "rest": total - sum(split.values()), "round": total}


def measure_workload(
    variants: Sequence[Variant], repetitions: int, seconds: float, peak: float, say: Say
) -> dict[str, Any]:
    """Measure a workload; return `central`, what the yardstick did, and `rows`, one per variant.

    Central goes before, between and after the repetitions, so that each engine is compared with the
    two that lie around it. A variant that fails is a row with its error. peak: operations per
    second of the machine.
    """
    workload, common = variants[0].workload, variants[0].common
    with ExitStack() as stack:
        say(f"{workload}: central")
        central, count = start_central(common, seconds, stack)
        runners = []
        for variant in variants:
            say(f"{workload}: {variant.engine} {variant.method}, warming up")
            runners.append(start(variant, stack))
            runners[-1].attempt(runners[-1].warm_up, seconds)
        references = [central.run(count)]
        for repetition in range(1, repetitions + 1):
            for runner in runners:
                say(f"{workload}: {runner.variant.engine} {runner.variant.method}, {repetition}")
                runner.attempt(runner.measure)
            references.append(central.run(count))
        for runner in runners:
            runner.attempt(runner.finish)
    share = central.facts["flops_per_sample"] / peak
    return {
        "central": central_row(workload, references, central.facts, share),
        "rows": [runner.row(references, share) for runner in runners],
    }


def central_row(
    workload: str, measured: Sequence[Measured], facts: dict[str, Any], share: float
) -> dict[str, Any]:
    """Return what the yardstick did, with the numbers that the shares of the peak come from."""
    rate = Spread.of([m.samples_per_second for m in measured])
    return {
        "workload": workload,
        "samples_per_second": rate.median,
        "spread": rate.plain(),
        "flops_per_sample": facts["flops_per_sample"],
        "num_parameters": facts["num_parameters"],
        "share_of_peak": rate.median * share,
    }


def start_central(overrides: Sequence[str], seconds: float, stack: ExitStack) -> tuple[Worker, int]:
    """Start the yardstick; return it and how many of its rounds fill so many seconds."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(ALLOCATOR)}
    worker = Worker(child("central", *overrides), env)
    stack.callback(worker.close)
    worker.run(2)
    return worker, max(1, round(seconds * worker.run(2).rounds_per_second))


def start(variant: Variant, stack: ExitStack) -> Runner:
    """Start the child of a variant, in a run folder that is gone afterwards."""
    place = stack.enter_context(tempfile.TemporaryDirectory(prefix="fedtsd-bench-"))
    pace = [f"{key}={ENDLESS}" for key in ("rounds", "eval_every", "checkpoint_every")]
    worker = Worker(child("rounds", str(Path(place, "run")), *variant.overrides, *pace))
    stack.callback(worker.close)
    return Runner(variant, worker)
