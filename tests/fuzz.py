"""Random overrides, good and bad: each ends in a built experiment or in one line.

    python -m tests.fuzz COUNT SEED

prints each case that ended otherwise, and how many ended how.
"""

import contextlib
import io
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any
from unittest import mock

import yaml
from omegaconf import DictConfig

from fedtsd import launch
from fedtsd.catalogue import GROUPS, conf_dir, options
from fedtsd.cli import main
from fedtsd.clients.ray_engine import Ray
from fedtsd.compose import check as launch_check
from fedtsd.config import Config
from fedtsd.data.images import ImageSet
from fedtsd.errors import DataError
from fedtsd.execution import build

ODD = [
    "-1", "0", "1", "2", "7", "1000000000000", "-1000000000000", "1e308", "1e-308", "-0.5", "0.5",
    "1.5", "nan", "inf", "-inf", "null", "true", "false", "", "''", "text", "'two words'",
    "'\u00e9\u4e2d'", "[]", "[1,2]", "[0]", "[-1]", "[1000000000000]", "[[1]]", "[null]", "{}",
    "{a:1}", "???", "'???'", "${nothing.here}", "${seed}", "${oc.env:NOTHING_LIKE_IT}", "/nowhere",
    ".", "a,b", "1,2", "range(3)", "[1", "{a", "a;b", "=", "9" * 400, "x" * 5000,
]  # fmt: skip
WHOLE = [
    "=", "", " ", "seed", "~seed", "~dataset", "~nothing", "+seed=1", "++seed=1", "+new=1",
    "++new.one=1", "+training.new=1", "dataset@other=digits", "~training.lr", "hydra.nothing=1",
    "hydra/nothing=1", "+method=fedavg", "method@model=fedavg", "seed=1 rounds=2", "--seed=1",
    "a.b.c=1", "..=1", "@=1",
]  # fmt: skip


@cache
def keys_of(group: str, option: str) -> dict[str, Any]:
    """Return the keys of a config file, flattened, and their values."""
    text = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")
    prefix = "" if group in ("method", "experiment") or not group else f"{group}."
    found: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        for key, value in node.items():
            if key not in ("defaults", "hydra", "resume"):
                found[f"{path}{key}"] = value
                if isinstance(value, dict):
                    walk(value, f"{path}{key}.")

    walk(yaml.safe_load(text) or {}, prefix)
    return found


def draw(rng: random.Random) -> list[str]:
    """Draw up to five overrides of any groups and keys; about half of their values are legal."""
    chosen: list[str] = []
    keys = keys_of("", "train")
    for group in rng.sample(GROUPS, rng.choice((0, 1, 1, 2))):
        option = rng.choice(list(options(group)))
        chosen.append(f"{group}={option}")
        keys = keys | keys_of(group, option)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        key = rng.choice(list(keys))
        if rng.random() < 0.6 and chosen:
            key = rng.choice([k for k in keys if k not in keys_of("", "train")] or [key])
        known = [v for k, v in keys.items() if k.rpartition(".")[2] == key.rpartition(".")[2]]
        value = rng.choice(ODD) if rng.random() < 0.6 else written(rng.choice(known))
        chosen.append(f"{key}={value}")
    if rng.random() < 0.1:
        chosen.append(rng.choice(WHOLE))
    if rng.random() < 0.1:  # a slip of the pen
        place = rng.randrange(len(chosen)) if chosen else None
        if place is not None and len(chosen[place]) > 1:
            letter = rng.randrange(len(chosen[place]))
            chosen[place] = chosen[place][:letter] + chosen[place][letter + 1 :]
    return chosen


def written(value: Any) -> str:
    """Write a value as an override has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(written, value)) + "]"
    return str(value) if not isinstance(value, str) or value.isidentifier() else f'"{value}"'


def attempt(overrides: list[str]) -> tuple[int, str]:
    """Go the way of `fedtsd train` up to the built experiment: exit code and what was said."""

    checked: list[Config] = []

    def check(cfg: DictConfig) -> Config:
        checked.append(launch_check(cfg))
        return checked[-1]

    def built(**_: Any) -> Any:
        federation = launch._ready(checked[-1])
        if not isinstance(checked[-1].engine, Ray):  # that one would start a cluster
            build(checked[-1], federation).engine.close()
        return lambda _: lambda: None

    said = io.StringIO()
    with (
        mock.patch.object(launch.SIGNALS, "listen"),
        mock.patch.object(ImageSet, "fetch", _not_fetched),
        mock.patch.object(launch, "check", check),
        mock.patch.object(launch.hydra, "main", built),
        contextlib.redirect_stderr(said),
    ):
        code = main(["train", *overrides])
    return code, said.getvalue()


def _not_fetched(*_: Any) -> None:
    raise DataError("data sets are not fetched here")


def judged(overrides: list[str]) -> str:
    """Return built, refused, help or, with the reason, wrong."""
    try:
        code, said = attempt(overrides)
    except (Exception, SystemExit) as error:
        trace = traceback.extract_tb(error.__traceback__)
        ours = [f"{f.filename}:{f.lineno}" for f in trace if "/fedtsd/" in f.filename]
        return f"wrong: {type(error).__name__}: {str(error)[:150]!r} {ours[-3:]}"
    if code == 0:
        return "built"
    if code == 2 and said.startswith("fedtsd: ") and said.count("\n") == 1:
        return "refused"
    return f"wrong: exit code {code}, {said[:300]!r}"


def fuzz(count: int, seed: int) -> Iterator[tuple[str, list[str]]]:
    """Judge random overrides; yield each verdict and what it is of."""
    rng = random.Random(seed)
    for _ in range(count):
        overrides = draw(rng)
        yield judged(overrides), overrides


if __name__ == "__main__":
    os.environ["FEDTSD_DATA"] = tempfile.mkdtemp()
    counts: Counter[str] = Counter()
    for verdict, overrides in fuzz(*map(int, sys.argv[1:])):
        counts[verdict.partition(":")[0]] += 1
        if verdict.startswith("wrong"):
            sys.stdout.write(f"{[o[:80] for o in overrides]} {verdict}\n")
            sys.stdout.flush()
    sys.stdout.write(f"{dict(counts)}\n")
