"""What there is, read from the first comment line of each config file; imports nothing heavy."""

import re
from pathlib import Path

GROUPS = (
    "method",
    "dataset",
    "partition",
    "sizes",
    "shift",
    "drift",
    "attack",
    "faults",
    "public",
    "model",
    "clustering",
    "personalization",
    "aggregation",
    "robust",
    "coding",
    "solver",
    "prior",
    "engine",
    "tracker",
    "experiment",
)

EXAMPLES = """\
Examples
  fedtsd train                                             FedTSDP on digits, under a minute
  fedtsd train method=fedavg dataset=fashion_mnist         another method, another data set
  fedtsd train partition.alpha=0.1 seed=1 rounds=50        more skew, another seed, longer
  fedtsd train partition=pathological model=lenet          two classes per client, LeNet
  fedtsd train -m method=fedavg,fedper,fedtsdp seed=0,1,2  a sweep of nine runs
  fedtsd train resume=outputs/2026-01-31/09-00-00-fedtsdp  continue a run that was stopped
"""


def conf_dir() -> Path:
    """Return the folder of the config files: inside the installed package, or the checkout."""
    installed = Path(__file__).resolve().parent / "conf"
    return installed if installed.is_dir() else installed.parent.parent / "conf"


def options(group: str) -> dict[str, str]:
    """Return the options of a config group and what each is."""
    return {path.stem: summary_of(path) for path in sorted((conf_dir() / group).glob("*.yaml"))}


def summary_of(path: Path) -> str:
    """Return the first comment line of a config file that says something."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and not line.startswith("# @package"):
            return line[2:].strip()
    return ""


def describe_methods() -> str:
    """One line per method."""
    return _table(options("method"))


def describe_train() -> str:
    """The help of `fedtsd train`: groups with their options, keys with their defaults, examples."""
    lines = ["usage: fedtsd train [GROUP=OPTION ...] [KEY=VALUE ...] [-m]", "", "Groups"]
    defaults = dict(re.findall(r"^  - (\w+): (\w+)$", _train_yaml(), flags=re.MULTILINE))
    for group in GROUPS:
        names = [f"[{name}]" if name == defaults.get(group) else name for name in options(group)]
        lines.append(f"  {group:<16} {' '.join(names)}")
    lines += [
        "",
        "Keys (of every run; a group adds its own, see --cfg job)",
        *_keys(),
        "",
        EXAMPLES,
    ]
    return "\n".join(lines)


def _keys() -> list[str]:
    """Return the commented keys of train.yaml as it stands, from the first key on."""
    body = _train_yaml().split("\n\n", 1)[1].split("\nhydra:", 1)[0]
    return [f"  {line}" for line in body.strip().splitlines()]


def _train_yaml() -> str:
    return (conf_dir() / "train.yaml").read_text(encoding="utf-8")


def _table(rows: dict[str, str]) -> str:
    width = max(map(len, rows))
    return "".join(f"{name:<{width}}  {text}\n" for name, text in rows.items())
