"""What a search is asked to do: its options, its space, its folder; checked before any run."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override

from fedtsd.catalogue import conf_dir
from fedtsd.compose import composed, digest, key_of, parsed, resolve
from fedtsd.config import Config
from fedtsd.disk import write_atomically
from fedtsd.errors import ConfigError, InputError
from fedtsd.loading import load_arrays
from fedtsd.schema import convert
from fedtsd.score import Score, score_of_task
from fedtsd.search.space import Axis, space_of, with_texts


@dataclass(frozen=True)
class SearchOptions:
    """How a search is done; conf/search.yaml has the defaults."""

    trials: int
    seeds: tuple[int, ...]
    sampler_seed: int
    startup_trials: int
    max_failures: int
    timeout: float | None
    name: str | None
    folder: str

    def __post_init__(self) -> None:
        for name, least in (("trials", 1), ("startup_trials", 1), ("max_failures", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}, got {getattr(self, name)}")
        if self.sampler_seed < 0:
            raise ValueError(f"sampler_seed: must be at least 0, got {self.sampler_seed}")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"seeds: must be different whole numbers from 0 on, got {list(self.seeds)}"
            )
        if self.timeout is not None and self.timeout <= 0:
            raise ValueError(f"timeout: must be null or above 0, got {self.timeout}")
        if self.name is not None and (self.name in ("", ".", "..") or "/" in self.name):
            raise ValueError(f"name: must be the name of a folder, got {self.name!r}")


@dataclass(frozen=True)
class Plan:
    """A search whose input was checked.

    definition: what makes it this search and no other. score: what all of its runs are scored by.
    """

    options: SearchOptions
    fixed: list[str]
    axes: list[Axis]
    definition: dict[str, Any]
    folder: Path
    score: Score


def plan_search(args: Sequence[str]) -> Plan:
    """Check everything that can be checked before the first run; load the data."""
    if flags := [arg for arg in args if arg.startswith("-")]:
        raise ConfigError(f"search: takes overrides alone, got {flags[0]}")
    if importlib.util.find_spec("optuna") is None:
        raise InputError("search: needs optuna; get it with: pip install 'fedtsd[search]'")
    given = parsed(list(args))
    own = [override for override in given if _is_own(override)]
    rest = [override for override in given if not _is_own(override)]
    options = read_options(own)
    swept = sorted((o for o in rest if o.is_sweep_override()), key=lambda o: o.get_key_element())
    fixed = [str(o.input_line) for o in rest if not o.is_sweep_override()]
    axes, configs = space_of(fixed, swept)
    for config in configs:
        load_arrays(config)
    first = composed(with_texts(fixed, {axis.key: axis.probes()[0] for axis in axes}))
    definition = _definition(options, fixed, swept, resolve(first))
    folder = _folder(options, axes, definition)
    return Plan(options, fixed, axes, definition, folder, _score(configs))


def _score(configs: Sequence[Config]) -> Score:
    """What all configs are scored by; raises ConfigError where they differ."""
    scores = {score_of_task(config.dataset.facts.regression) for config in configs}
    if len(scores) > 1:
        raise ConfigError("dataset: a search compares runs of one kind, got classes and regression")
    return scores.pop()


def read_options(overrides: Sequence[Override]) -> SearchOptions:
    """Return the options with these overrides applied to the defaults."""
    values: dict[str, Any] = yaml.safe_load((conf_dir() / "search.yaml").read_text())
    for override in overrides:
        values[override.key_or_group.removeprefix("search.")] = _value(override)
    options: SearchOptions = convert(values, SearchOptions, "search")
    return options


def write_definition(plan: Plan) -> None:
    """Write search.yaml; raise InputError if it is there and tells of another search."""
    path = plan.folder / "search.yaml"
    if not path.is_file():
        write_atomically(path, yaml.safe_dump(plan.definition, sort_keys=False).encode())
        return
    there = _same(yaml.safe_load(path.read_text()))
    for key, value in _same(plan.definition).items():
        if there.get(key) != value:
            raise InputError(
                f"search.name: {plan.folder} holds another search, "
                f"its {key} is {there.get(key)} instead of {value}"
            )


def _definition(
    options: SearchOptions, fixed: list[str], swept: Sequence[Override], first: dict[str, Any]
) -> dict[str, Any]:
    """Return what two commands must share to be one search; `first` is a resolved config."""
    return {
        "searched": {o.get_key_element(): _typed(o) for o in swept},
        "fixed": fixed,
        "config": key_of(first),
        "seeds": list(options.seeds),
        "sampler_seed": options.sampler_seed,
        "startup_trials": options.startup_trials,
    }


def _folder(options: SearchOptions, axes: Sequence[Axis], definition: dict[str, Any]) -> Path:
    words = [axis.key.rpartition(".")[2].lstrip("+") for axis in axes]
    name = options.name or "-".join([*words, digest(_same(definition))])
    return Path(options.folder) / name


def _same(definition: dict[str, Any]) -> dict[str, Any]:
    """Leave out the fixed overrides as they were typed: `config` says what they come to."""
    return {key: value for key, value in definition.items() if key != "fixed"}


def _is_own(override: Override) -> bool:
    return override.key_or_group.startswith("search.")


def _value(override: Override) -> Any:
    """Return a value of the search's own; `a,b` is a list as well as `[a,b]`."""
    value = override.value()
    if override.is_sweep_override():
        return getattr(value, "list", _typed(override))
    return value


def _typed(override: Override) -> str:
    """Return the value as it was typed."""
    return str(override.input_line).partition("=")[2]
