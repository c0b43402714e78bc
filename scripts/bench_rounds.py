"""Time the rounds of each method on digits, side by side: only the ratios mean something.

Run: make bench
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

METHODS = ("fedavg", "fedper", "fedtsdp")
REPETITIONS = 3


def main() -> int:
    """Print the median seconds of a round (the first is left out) and the ratio to fedavg."""
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    with tempfile.TemporaryDirectory() as place:
        for repetition in range(REPETITIONS):
            for method in METHODS:
                folder = Path(place, f"{method}-{repetition}")
                overrides = [f"method={method}", "rounds=10", f"hydra.run.dir={folder}"]
                command = [sys.executable, "-m", "fedtsd", "train", *overrides]
                subprocess.run(command, check=True, capture_output=True)
                seconds[method] += pd.read_csv(folder / "rounds.csv")["seconds"].tolist()[1:]
    medians = {method: float(pd.Series(times).median()) for method, times in seconds.items()}
    for method, median in medians.items():
        print(f"{method:<10} {median:.3f} s/round  x {median / medians['fedavg']:.2f} of fedavg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
