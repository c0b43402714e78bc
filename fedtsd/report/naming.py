"""Names for settings and methods, from what differs between the configs of the runs at hand."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fedtsd.report.dealing import SAID, partition_label
from fedtsd.report.style import dataset_label

Facts = Mapping[str, Any]

# First words of the config keys that make a setting; of the rest, those in IDLE make no difference.
SETTING = (
    "dataset", "partition", "shift", "drift", "public", "split", "model", "cohort", "rounds",
    "data",
)  # fmt: skip
# Engine and device are among those: they name a cell of their own, but no other setting. What a
# severity means, the knobs that it sets tell.
IDLE = (
    "resume", "checkpoint_every", "eval_every", "device", "engine", "tracker", "seed", "severity",
)  # fmt: skip
IDLE_KEYS = ("data.root", "dataset.source", "evaluation.local_run", "method.label", "method.family")


def setting_names(configs: Mapping[Path, Facts]) -> dict[Path, str]:
    """Name each run's setting: its partition, its data set if there are several, then details."""
    several = len({dataset_label(config) for config in configs.values()}) > 1
    base = {}
    for place, config in configs.items():
        words = [partition_label(config)]
        if several or not words[0]:
            words.insert(0, dataset_label(config))
        base[place] = ", ".join(word for word in words if word) or "setting"
    details = _details(base, configs, setting=True)
    return {place: ", ".join([base[place], *details[place]]) for place in configs}


def variant_words(configs: Mapping[Path, Facts]) -> dict[Path, list[str]]:
    """Return the words that tell runs of one method apart: the policies' keys that differ."""
    names = {
        place: str((config.get("method") or {}).get("name")) for place, config in configs.items()
    }
    return _details(names, configs, setting=False)


def _details(
    names: Mapping[Path, str], configs: Mapping[Path, Facts], setting: bool
) -> dict[Path, list[str]]:
    """Return `key=value` words that tell runs of one name apart."""
    flat = {place: dict(_flat(config)) for place, config in configs.items()}
    alike: dict[str, list[Path]] = {}
    for place, name in names.items():
        alike.setdefault(name, []).append(place)
    words: dict[Path, list[str]] = {}
    for places in alike.values():
        keys = _differing([flat[place] for place in places], setting)
        for place in places:
            words[place] = [
                _worded(flat[place], key, whole=setting) for key in keys if key in flat[place]
            ]
    return words


def _differing(flats: list[Mapping[str, str]], setting: bool) -> list[str]:
    """Return the keys that have more than one value: those of settings, or those of methods."""
    keys = [
        key
        for key in sorted({key for flat in flats for key in flat})
        if key.split(".")[0] not in IDLE
        and key not in (("dataset.name", *SAID) if setting else ())
        and key not in IDLE_KEYS
        and (key.split(".")[0] in SETTING) == setting
        and len({flat.get(key) for flat in flats}) > 1
    ]
    # Another policy has other keys: its name says enough. Phases repeat epochs and proximal.
    kinds = {key.removesuffix("._target_") for key in keys if key.endswith("._target_")}
    told = [key for key in keys if key.endswith("._target_") or _tells(key, kinds, flats)]
    repeated = {"training.epochs", "training.proximal"} & set(told)
    return [key for key in told if not (repeated and key == "training.phases")]


def _tells(key: str, kinds: Iterable[str], flats: list[Mapping[str, str]]) -> bool:
    """Return whether a key differs between runs that have the same policies around it."""
    around = [f"{kind}._target_" for kind in kinds if key.startswith(f"{kind}.")]
    values: dict[tuple[str | None, ...], set[str | None]] = {}
    for flat in flats:
        values.setdefault(tuple(map(flat.get, around)), set()).add(flat.get(key))
    return any(len(found) > 1 for found in values.values())


def _worded(flat: Mapping[str, str], key: str, whole: bool) -> str:
    """Return `key=value`; the key whole or, where its group goes without saying, its last word."""
    value = flat[key].strip('"')
    if key.endswith("._target_"):
        return f"{key.split('.')[-2]}={value.rpartition('.')[2]}"
    return f"{key if whole else key.rpartition('.')[2]}={value}"


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield dotted keys and values; a list is one value."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, json.dumps(node)
