"""From overrides on the command line to checked configs; Hydra composes, errors become one line."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fedtsd.catalogue import GROUPS, conf_dir, options
from fedtsd.config import Config, parse
from fedtsd.data.files import fingerprint
from fedtsd.errors import ConfigError
from fedtsd.messages import HEADED
from fedtsd.schema import unknown
from fedtsd.summary import check_local_run

EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit"}
"""Launchers that come with an extra of this package."""

IDLE_KEYS = ("resume", "checkpoint_every", "tracker", "data", "severity")
"""Config keys that change nothing about a run's results: severity shows in the knobs it sets."""

SEVERITIES = ("default", "iid", "mild", "moderate", "severe", "extreme")
LEVELS = "_severity_"
"""The key under which a config file says its knob's value at each severity."""


def named_after(path: str | None, otherwise: str) -> str:
    """Return the name of people's own data: that of their file or folder, without its ending."""
    name = Path(path).name.split(".")[0] if path else otherwise
    return re.sub(r"[^\w-]+", "_", name) or otherwise


OmegaConf.register_new_resolver("named_after", named_after, replace=True)


def composed(overrides: list[str]) -> DictConfig:
    """Compose a config. Raises ConfigError with one line for a wrong group, key or value."""
    GlobalHydra.instance().clear()
    for override in parsed(overrides):
        group, value = override.key_or_group, override.value()
        if group not in GROUPS or override.is_delete() or override.is_sweep_override():
            continue
        if value is None:
            raise ConfigError(f"{group}: null cannot be chosen; leave it out, or write ~{group}")
        names = value if isinstance(value, list) else [value]
        if not all(isinstance(name, str) for name in names):  # Hydra does not say which group
            raise ConfigError(unknown(str(value), options(group), f"{group}:"))
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("train", overrides)
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        raise explain(error) from error


def check(cfg: DictConfig) -> Config:
    """Return the typed config, after all checks that need no training."""
    resolved = resolve(cfg)
    if resolved["severity"] not in ("default", "iid") and not _follows_severity(cfg):
        raise ConfigError(
            f"severity: {resolved['severity']} changes nothing here: partition, sizes, shift and "
            "drift have no knob for it, or it is set by hand"
        )
    config = parse(resolved)
    if config.evaluation.local_run is not None:
        check_local_run(Path(config.evaluation.local_run), resolved)
    return config


def resolve(cfg: DictConfig) -> dict[str, Any]:
    """Return the config as plain containers, its interpolations resolved, knobs set by severity."""
    if cfg.severity not in SEVERITIES:
        raise ConfigError(unknown(str(cfg.severity), SEVERITIES, "severity:"))
    try:
        resolved = OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise explain(error) from error
    plain: dict[str, Any] = _without_levels(resolved)
    return plain


def as_yaml(cfg: DictConfig) -> str:
    """Return the resolved config as the text of a YAML file."""
    return OmegaConf.to_yaml(OmegaConf.create(resolve(cfg)))


def _without_levels(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _without_levels(v) for key, v in node.items() if key != LEVELS}
    return [_without_levels(item) for item in node] if isinstance(node, list) else node


def _follows_severity(node: Any) -> bool:
    """Return whether some value of the config refers to its levels of severity."""
    plain = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else node
    if isinstance(plain, dict):
        return any(_follows_severity(v) for key, v in plain.items() if key != LEVELS)
    return isinstance(plain, str) and LEVELS in plain


def key_of(resolved: Mapping[str, Any]) -> str:
    """Return eight hex digits that name the run of a resolved config: equal results, equal key.

    People's own files count by what they are, so that a run on changed data is another run. A part
    that is null does not count, nor what is null of a head: runs keep their key when one is added
    that is null in them. Nor does how heads are fitted, where no stage has one.
    """
    kept = {k: v for k, v in resolved.items() if k not in IDLE_KEYS and v is not None}
    kept["engine"] = _without_workers(kept["engine"])
    evaluation = kept["evaluation"]
    head = {k: v for k, v in evaluation["head"].items() if v is not None}
    headed = {"head": head} if set(HEADED) & set(evaluation["stages"]) else {}
    kept["evaluation"] = {k: v for k, v in evaluation.items() if k != "head"} | headed
    files = sorted(files_of(kept).values())
    return digest([kept, files] if files else kept)


def _without_workers(engine: Any) -> Any:
    """Leave out how many processes share the work: results do not depend on it."""
    if not isinstance(engine, Mapping):
        return engine
    return {key: _without_workers(value) for key, value in engine.items() if key != "workers"}


def files_of(resolved: Mapping[str, Any]) -> dict[str, str]:
    """Return the files and folders of people's own data that a config names: what each is now."""
    return {path: fingerprint(Path(path)) for path in _paths(resolved)}


def _paths(node: Any) -> Iterator[str]:
    """Yield the files and folders of people's own data that a config names."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "path" and isinstance(value, str) and Path(value).exists():
                yield value
            yield from _paths(value)


def digest(content: Any) -> str:
    """Return eight hex digits of plain containers, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


def parsed(overrides: list[str]) -> list[Override]:
    """Parse overrides with Hydra's grammar. Raises ConfigError with one line."""
    try:
        return OverridesParser.create().parse_overrides(overrides)
    except HydraException as error:
        raise explain(error) from error


def cells(overrides: list[str]) -> list[list[str]]:
    """Return the overrides of every run of a sweep; one list where nothing is swept.

    The first swept key changes slowest. Raises ConfigError for a range without steps.
    """
    choices = []
    for override in parsed(overrides):
        if not override.is_sweep_override():
            choices.append([override.input_line or ""])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            raise ConfigError(
                f"{override.input_line}: a range without steps cannot be swept; "
                "give values, or search it with fedtsd search"
            )
    return [list(cell) for cell in itertools.product(*choices)]


def last_given(overrides: list[str]) -> list[str]:
    """Return the overrides with only the last one of each key, in the place of its first."""
    kept = {override.get_key_element(): str(override.input_line) for override in parsed(overrides)}
    return list(kept.values())


def swept_keys(overrides: list[str]) -> list[str]:
    """Return the keys that have several values, in their order."""
    return [str(o.key_or_group) for o in parsed(overrides) if o.is_sweep_override()]


def explain(error: Exception) -> ConfigError:
    """Turn an error of Hydra or OmegaConf into one line, with the nearest legal name if any."""
    text = str(error)
    found = re.search(r"Could not find '([\w/]+)/([^'/]+)'", text)
    if isinstance(error, MissingConfigException) and found:
        group, option = found.groups()
        if group == "hydra/launcher" and option in EXTRAS:
            extra = EXTRAS[option]
            return ConfigError(f"{group}: {option} needs: pip install 'fedtsd[{extra}]'")
        legal = ("basic", *EXTRAS) if group == "hydra/launcher" else options(group)
        return ConfigError(unknown(option, legal, f"{group}:"))
    if found := re.search(r"Could not override '([^']+)'", text):
        key = found[1].split("@")[0]
        return ConfigError(unknown(key, legal_keys(), "key"))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith("LexerNoViableAlt"):
        key, _, value = lines[0].partition(": ")[2].partition("=")
        return ConfigError(f"{key}: {value!r} needs quotes, written as '{key}=\"{value}\"'")
    # Hydra's first line may only say that the next one says it.
    told = [line for line in lines if not line.endswith(":")] or lines
    return ConfigError(told[0] if told else type(error).__name__)


def legal_keys() -> set[str]:
    """Return all group names and, flattened, the keys of the default config."""
    found = set(GROUPS)

    def walk(node: Any, path: str) -> None:
        for key, value in node.items():
            if key != "_target_":
                found.add(f"{path}{key}")
            if isinstance(value, dict):
                walk(value, f"{path}{key}.")

    walk(OmegaConf.to_container(composed([]), resolve=False), "")
    return found
