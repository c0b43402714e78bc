"""Compare the methods on digits over the severities: one sweep, then one table of accuracies.

Run: make figures, or python scripts/compare_methods.py [HYDRA OVERRIDES]
"""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd

METHODS = "local,fedavg,fedper,fedtsdp"
SEVERITIES = "iid,moderate,severe"


def main() -> int:
    """Sweep, then print the mean accuracy of the last round, in percent, by method and severity."""
    command = [sys.executable, "-m", "fedtsd", "train", "-m"]
    overrides = [f"method={METHODS}", f"severity={SEVERITIES}", "rounds=20", *sys.argv[1:]]
    done = subprocess.run([*command, *overrides], stdout=subprocess.PIPE, text=True, check=False)
    rows = [row_of(Path(line)) for line in done.stdout.splitlines() if Path(line).is_dir()]
    if rows:
        table = pd.DataFrame(rows).pivot_table("accuracy", "method", "partition").round(1)
        print(table.to_string())
    return done.returncode


def row_of(folder: Path) -> dict[str, object]:
    """Read one run: its method, its partition and its accuracy in percent."""
    import yaml

    summary = json.loads((folder / "summary.json").read_text())
    partition = yaml.safe_load((folder / "config.yaml").read_text())["partition"]
    name = partition["_target_"].rpartition(".")[2]
    return {
        "method": summary["method"],
        "partition": f"{name} {partition.get('alpha', '')}".strip(),
        "accuracy": 100 * summary["last"]["accuracy_mean"],
    }


if __name__ == "__main__":
    sys.exit(main())
