"""What a shard's clients keep, on disk: a log from which a shard that died begins again.

Every change gets the next number and a file of its own. A change counts only once the driver has
had the reply; so a reader says up to which change it wants, and what came after that is forgotten.

Shapes: n clients that keep something.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fedtsd.checkpoint import read_checkpoint, write_checkpoint

State = Mapping[str, Tensor]
"""What `Engine.state_dict` returns: `client` int64 [n], sorted, and tensors [n, ...] by name."""


class ShardLog:
    """Changes 1, 2, ... of what a shard's clients keep, as files in one folder.

    A file holds either the whole state or just the rows that changed. A whole one is written when
    the rows since the last one are as many as a whole would have, so that the folder never holds
    more than three times the state, and a change costs no more than twice its own size.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows_since_whole = 0

    def write(self, change: int, state: State, clients: Tensor | None) -> None:
        """Write a change, whose state is `state`; `clients` int64 are those that changed.

        None means all. The changes before `change` are taken as accepted.
        """
        self._forget(change - 1)
        rows = len(state["client"]) if clients is None else len(clients)
        whole = clients is None or self._rows_since_whole + rows >= len(state["client"])
        if clients is not None and not whole:
            state = rows_of(state, torch.isin(state["client"], clients))
        self._rows_since_whole = 0 if whole else self._rows_since_whole + rows
        write_checkpoint(self._folder / _name(change, whole), dict(state))

    def read(self, change: int) -> State | None:
        """Return the state after a change; None if its files are not here.

        Raises RunFolderError if one of them is damaged.
        """
        files = self._files()
        needed = _needed(files, change)
        if not needed or max(needed) != change:
            return None
        read = [read_checkpoint(files[number]) for number in needed]
        self._rows_since_whole = sum(len(state["client"]) for state in read[1:])
        return merged(read)

    def _forget(self, accepted: int) -> None:
        """Remove what was never accepted, and what a whole state has replaced."""
        files = self._files()
        for number in files.keys() - set(_needed(files, accepted)):
            files[number].unlink(missing_ok=True)

    def _files(self) -> dict[int, Path]:
        return {int(path.name[:8]): path for path in self._folder.glob("[0-9]*.safetensors")}


def rows_of(state: State, chosen: Tensor) -> State:
    """Return the rows of a state that a mask bool [n] chooses."""
    return {name: tensor[chosen] for name, tensor in state.items()}


def merged(states: Sequence[State]) -> State:
    """Return one state of several; where a client is in more than one, the last holds."""
    clients = torch.cat([state["client"] for state in states])
    last = {client: row for row, client in enumerate(clients.tolist())}
    order = torch.tensor([last[client] for client in sorted(last)], dtype=torch.int64)
    return {name: torch.cat([state[name] for state in states])[order] for name in states[0]}


def _name(change: int, whole: bool) -> str:
    return f"{change:08d}-{'whole' if whole else 'rows'}.safetensors"


def _needed(files: Mapping[int, Path], change: int) -> list[int]:
    """Return the numbers of the files that make the state after a change, in order."""
    numbers = sorted(number for number in files if number <= change)
    wholes = [number for number in numbers if files[number].name.endswith("-whole.safetensors")]
    return [number for number in numbers if wholes and number >= wholes[-1]]
