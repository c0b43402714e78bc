"""Checkpoints: one literal of tensors and plain containers in one safetensors file, no pickle.

The file is written beside its place, flushed to disk and moved there, so that a kill leaves either
the old file or the new one. A checksum over structure and tensors finds damage on reading.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from fedtsd.disk import replacing
from fedtsd.errors import RunFolderError, StorageError

FORMAT = "fedtsd-checkpoint-2"


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (nested dicts and lists of tensors, arrays, numbers, strings) atomically.

    Raises StorageError where the disk refuses it; an old file at `path` stays.
    """
    tensors: dict[str, torch.Tensor] = {}
    structure = json.dumps(_pack(state, tensors, {}))
    metadata = {"format": FORMAT, "structure": structure, "sha256": _digest(structure, tensors)}
    with replacing(path) as beside:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            save_file(tensors, beside, metadata)
        except SafetensorError as error:  # its own word for an OSError
            raise StorageError(f"{path}: {error}") from error


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote.

    Raises RunFolderError if the file is damaged or is not one of ours.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunFolderError(f"{path}: the checkpoint cannot be read: {error}") from error
    if metadata.get("format") != FORMAT:
        raise RunFolderError(f"{path}: not a checkpoint of this version of fedtsd")
    structure = metadata.get("structure", "")
    if metadata.get("sha256") != _digest(structure, tensors):
        raise RunFolderError(f"{path}: the checkpoint is damaged: its checksum does not match")
    state: dict[str, Any] = _unpack(json.loads(structure), tensors)
    return state


def _pack(value: Any, tensors: dict[str, torch.Tensor], seen: dict[int, str]) -> Any:
    """Replace tensors by their names; the same object is stored once. Keys keep their type."""
    if isinstance(value, dict):
        return {"dict": [[key, _pack(item, tensors, seen)] for key, item in value.items()]}
    if isinstance(value, list):
        return {"list": [_pack(item, tensors, seen) for item in value]}
    if isinstance(value, torch.Tensor | np.ndarray):
        if id(value) not in seen:
            kind = "tensor" if isinstance(value, torch.Tensor) else "array"
            seen[id(value)] = f"{kind}{len(tensors):06d}"
            as_tensor = torch.as_tensor(np.array(value) if kind == "array" else value)
            tensors[seen[id(value)]] = as_tensor.detach().cpu().contiguous()
        return {"tensor": seen[id(value)]}
    if isinstance(value, int | float | str | bool) or value is None:
        return {"value": value}
    raise TypeError(f"a checkpoint cannot hold {type(value).__name__}")


def _unpack(packed: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    ((kind, value),) = packed.items()
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in value}
    if kind == "list":
        return [_unpack(item, tensors) for item in value]
    if kind == "tensor":
        # Arrays are copied: two names of one array must not share memory when saved again.
        return tensors[value].numpy().copy() if value.startswith("array") else tensors[value]
    return value


def _digest(structure: str, tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(structure.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()
