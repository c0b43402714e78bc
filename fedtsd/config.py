"""From a composed config to typed values, with every error found before work starts.

A node with `_target_` becomes an instance of that dataclass; the dataclass is the schema (its
fields and types), the YAML file holds the defaults. Errors are one line: path, value, what is
legal.
"""

import dataclasses
import difflib
import importlib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from fedtsd.aggregation import Aggregation
from fedtsd.clients.engine import EngineSpec
from fedtsd.clustering.policy import Clustering
from fedtsd.data.dataset import Dataset
from fedtsd.data.federation import Shares
from fedtsd.data.partition import Partition
from fedtsd.errors import ConfigError
from fedtsd.messages import STAGES
from fedtsd.models import ModelSpec, layers_of
from fedtsd.personalization import Personalization
from fedtsd.similarity import Similarity
from fedtsd.training import Training

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class Method:
    """The name of a composition: a column of the tables, never a branch in the code."""

    name: str


@dataclass(frozen=True)
class Cohort:
    """How many clients take part in a round; null means all."""

    size: int | None


@dataclass(frozen=True)
class DataPlace:
    """Where data sets are kept; null means the user's cache folder, or $FEDTSD_DATA."""

    root: str | None


@dataclass(frozen=True)
class Evaluation:
    """Which stages are evaluated (the last one is served) and what to compare with.

    local_run: the folder of a finished run of method=local on the same clients, or null.
    """

    stages: tuple[str, ...]
    tuning_epochs: int
    local_run: str | None

    def __post_init__(self) -> None:
        if not self.stages or any(stage not in STAGES for stage in self.stages):
            raise ValueError(
                f"stages: must be one or more of {', '.join(STAGES)}, got {list(self.stages)}"
            )
        if self.tuning_epochs < 0:
            raise ValueError(f"tuning_epochs: must be at least 0, got {self.tuning_epochs}")


@dataclass(frozen=True)
class Config:
    """Everything one run is made of."""

    method: Method
    dataset: Dataset
    partition: Partition
    split: Shares
    model: ModelSpec
    clustering: Clustering
    personalization: Personalization
    aggregation: Aggregation
    engine: EngineSpec
    similarity: Similarity
    training: Training
    evaluation: Evaluation
    cohort: Cohort
    data: DataPlace
    seed: int
    rounds: int
    eval_every: int
    checkpoint_every: int
    device: str
    resume: str | None

    def __post_init__(self) -> None:
        for name in ("rounds", "eval_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed: must be at least 0, got {self.seed}")
        if self.device not in DEVICES:
            raise ValueError(f"device: must be one of {', '.join(DEVICES)}, got {self.device!r}")
        self._check_together()

    def _check_together(self) -> None:
        """Find contradictions between parts; the model is built once to count its layers."""
        clients, size = self.partition.num_clients, self.cohort.size
        if size is not None and not 1 <= size <= clients:
            raise ValueError(
                f"cohort.size: must be null or 1 to partition.num_clients ({clients}), got {size}"
            )
        facts, public = self.dataset.facts, self.dataset.public_size
        if not 1 <= public < facts.num_samples:
            raise ValueError(
                f"dataset.public_size: must be 1 to {facts.num_samples - 1}, got {public}"
            )
        num_classes = len(facts.classes)
        _under("partition", self.partition.check, facts.num_samples - public, num_classes)
        if self.reads_outputs and self.similarity.public_batch > public:
            raise ValueError(
                f"similarity.public_batch: must be at most dataset.public_size ({public}), "
                f"got {self.similarity.public_batch}"
            )
        model = _under("model", self.model.build, facts.shape, num_classes)
        _under("personalization", self.personalization.check, len(layers_of(model)))

    @property
    def reads_outputs(self) -> bool:
        """Whether any policy needs the clients' outputs on public samples."""
        return self.clustering.uses_outputs or self.personalization.uses_outputs


def parse(composed: Any) -> Config:
    """Turn a composed config (plain containers, interpolations resolved) into a `Config`.

    Raises ConfigError with one line that names the key, the value and what is legal.
    """
    config: Config = _convert(composed, Config, "")
    return config


def unknown(name: str, legal: Iterable[str], what: str) -> str:
    """Return one line about a name that is not legal, with the nearest one that is."""
    names = sorted(set(legal))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"legal: {', '.join(names)}"
    return f"{what} {name!r} is unknown; {hint}"


def _convert(value: Any, expected: Any, path: str) -> Any:
    """Convert a plain value to the expected type, naming the path if it does not fit."""
    if isinstance(value, Mapping) and "_target_" in value:
        return _build(value, _locate(value["_target_"], path), path)
    if dataclasses.is_dataclass(expected):
        return _build(_mapping(value, path), expected, path)
    if get_origin(expected) in (Union, types.UnionType):
        inner = next(kind for kind in get_args(expected) if kind is not type(None))
        return None if value is None else _convert(value, inner, path)
    if get_origin(expected) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{path}: must be a list such as [1, 2], got {value!r}")
        inner = get_args(expected)[0]
        return tuple(_convert(item, inner, f"{path}[{i}]") for i, item in enumerate(value))
    return _scalar(value, expected, path)


def _scalar(value: Any, expected: Any, path: str) -> Any:
    if expected is float and isinstance(value, int | float) and not isinstance(value, bool):
        if math.isnan(value):
            raise ConfigError(f"{path}: must be a number, got nan")
        return float(value)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if expected not in names:
        raise ConfigError(f"{path}: needs a _target_, got {value!r}")
    if type(value) is not expected:
        raise ConfigError(f"{path}: must be {names[expected]}, got {value!r}")
    return value


def _build(node: Mapping[str, Any], cls: Any, path: str) -> Any:
    hints = typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]
    given = {str(key): value for key, value in node.items() if key != "_target_"}
    for key in given:
        if key not in fields:
            raise ConfigError(unknown(_join(path, key), [_join(path, f) for f in fields], "key"))
    if missing := [name for name in fields if name not in given]:
        raise ConfigError(f"{_join(path, missing[0])}: is missing")
    values = {key: _convert(value, hints[key], _join(path, key)) for key, value in given.items()}
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(_join(path, str(error))) from error


def _locate(target: Any, path: str) -> Any:
    module, _, name = str(target).rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{path}._target_: {target!r} cannot be imported: {error}") from error
    if not dataclasses.is_dataclass(cls):
        raise ConfigError(f"{path}._target_: {target!r} is not a dataclass")
    return cls


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: must be a group of keys, got {value!r}")
    return value


def _under(path: str, check: Any, *args: Any) -> Any:
    """Call a part's own check; its error gets the part's path in front."""
    try:
        return check(*args)
    except ValueError as error:
        raise ValueError(f"{path}.{error}") from error


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
