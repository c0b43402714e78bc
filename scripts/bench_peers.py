"""Time public simulators on the workloads of `fedtsd bench`, each over central in the same run.

Run: python scripts/bench_peers.py [--workloads W1,W2,W3] [--peers fedlab,pfl,...] [--json FILE]

Every peer gets an environment of its own under the user's cache folder, made with uv from the
package index, and one core. What cannot be installed or run is reported as such.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from platformdirs import user_cache_dir

from fedtsd.bench.central import pooled
from fedtsd.bench.measure import start_central
from fedtsd.bench.memory import Peak
from fedtsd.bench.statistics import Spread, ratios
from fedtsd.bench.table import print_table, stdout
from fedtsd.bench.worker import Measured, Worker, WorkerFailed
from fedtsd.compose import check, composed
from fedtsd.loading import load_federation

HERE = Path(__file__).parent / "peers"
TORCH = "torch==2.15.0"  # that of fedtsd, so that only the simulators differ
PEERS = {
    "fedlab": ["fedlab==1.3.0", TORCH],
    "pfl": ["pfl[pytorch]==0.6.0", TORCH],
    "flwr": ["flwr[simulation]==1.42.0", TORCH],
    "fedjax": ["fedjax==0.0.17", "dm-haiku==0.0.12", "jax==0.4.30"],  # those of its time
}
MODELS = {"W1": "cnn", "W2": "cnn", "W3": "mlp"}
COLUMNS = ("workload", "peer", "samples/s", "× central", "min–max", "start s", "MB")


@dataclass
class Peer:
    """A peer that is being measured."""

    name: str
    worker: Worker
    peak: Peak
    rounds: int = 1
    measured: list[Measured] = field(default_factory=list)
    error: str = ""

    def warm_up(self, seconds: float) -> None:
        with self.peak:
            self.worker.run(1)
            self.rounds = max(1, round(seconds * self.worker.run(1).rounds_per_second))

    def measure(self) -> None:
        self.measured.append(self.worker.run(self.rounds))

    def attempt(self, step, *args) -> None:
        try:
            if not self.error:
                step(*args)
        except WorkerFailed as error:
            self.error = str(error)


def main() -> int:
    """Measure and print; return 1 if a peer failed."""
    options = read_options()
    rows, results = [], []
    for workload in options.workloads.split(","):
        for result in measure(workload, options):
            results.append(result)
            rows.append(cells(result))
    print_table(stdout(), "Peers on one core", COLUMNS, rows, names=2)
    failed = [result for result in results if result["error"]]
    for result in failed:
        say(f"{result['workload']} {result['peer']} failed: {result['error']}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return int(bool(failed))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workloads", default=",".join(MODELS))
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--cache", type=Path, default=Path(user_cache_dir("fedtsd"), "peers"))
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def measure(workload: str, options: argparse.Namespace) -> list[dict]:
    """Measure central and the peers in turn on one workload."""
    overrides = [f"experiment=bench_{workload.lower()}"]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fedtsd-peers-")))
        write_workload(overrides, MODELS[workload], folder)
        central, count = start_central(overrides, options.seconds, stack)
        peers, failed = [], []
        for name in options.peers.split(","):
            say(f"{workload}: {name}")
            try:
                command = [install(name, options.cache), str(HERE / f"run_{name}.py"), str(folder)]
            except subprocess.CalledProcessError as error:
                failed.append(row(workload, name, "no environment: " + last_line(error.stderr)))
                continue
            worker = Worker(command)
            stack.callback(worker.close)
            peers.append(Peer(name, worker, Peak(worker.pid)))
            peers[-1].attempt(peers[-1].warm_up, options.seconds)
        references = [central.run(count)]
        for _ in range(options.repetitions):
            for peer in peers:
                peer.attempt(peer.measure)
            references.append(central.run(count))
    return failed + [row_of(workload, peer, references) for peer in peers]


def row(workload: str, name: str, error: str, **found) -> dict:
    return {"workload": workload, "peer": name, "error": error, **found}


def row_of(workload: str, peer: Peer, central: list[Measured]) -> dict:
    if peer.error:
        return row(workload, peer.name, peer.error)
    rates = [m.samples_per_second for m in peer.measured]
    ratio = Spread.of(ratios(rates, [m.samples_per_second for m in central])).plain()
    rate = Spread.of(rates).median
    start, memory = peer.worker.start_up, peer.peak.num_bytes
    found = {"samples_per_second": rate, "ratio": ratio, "start_up_seconds": start}
    return row(workload, peer.name, "", **found, peak_rss_bytes=memory)


def cells(result: dict) -> list[str]:
    names = [result["workload"], result["peer"]]
    if result["error"]:
        return [*names, "failed", "", "", "", ""]
    ratio = result["ratio"]
    return [
        *names,
        f"{result['samples_per_second']:,.0f}",
        f"{ratio['median']:.2f}",
        f"{ratio['min']:.2f}–{ratio['max']:.2f}",
        f"{result['start_up_seconds']:.1f}",
        f"{result['peak_rss_bytes'] / 1e6:,.0f}",
    ]


def write_workload(overrides: list[str], model: str, folder: Path) -> None:
    """Write what the peers read: samples by client, and what to do with them."""
    config = check(composed(overrides))
    federation = load_federation(config)
    sizes = [len(federation.data_of(c, 1).train) for c in range(federation.num_clients)]
    inputs, labels = pooled(federation)
    np.save(folder / "inputs.npy", inputs.numpy())
    np.save(folder / "labels.npy", labels.numpy())
    np.save(folder / "ends.npy", np.cumsum(sizes))
    work = {
        "cohort": config.cohort.size or federation.num_clients,
        "batch_size": config.training.batch_size,
        "lr": config.training.lr,
        "model": model,
    }
    (folder / "workload.json").write_text(json.dumps(work))


def install(name: str, cache: Path) -> str:
    """Return the Python of a peer's environment, which is made if it is not there."""
    place = cache / name
    python = place / "bin/python"
    if not (place / "ready").exists():
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        for command in (
            ["uv", "venv", "--quiet", "--clear", "--python", version, str(place)],
            ["uv", "pip", "install", "--quiet", "--python", str(python), *PEERS[name]],
        ):
            subprocess.run(command, check=True, capture_output=True, text=True)
        (place / "ready").touch()
    return str(python)


def last_line(text: str) -> str:
    return ([line for line in text.splitlines() if line.strip()] or ["?"])[-1].strip()


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
