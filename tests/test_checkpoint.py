import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fedtsd.checkpoint import FORMAT, read_checkpoint, write_checkpoint
from fedtsd.errors import RunFolderError

SHARED = torch.arange(4.0)
STATE = {
    "round": 7,
    "centres": [{"w": SHARED}, {"w": SHARED, "b": torch.tensor([0.1])}],
    "clients": {3: {"head": torch.ones(2)}, 11: {}},
    "memory": {"nan": np.array([[np.nan, 0.1]]), "bool": np.array([True, False])},
    "nothing": None,
}


def test_what_is_written_is_read(tmp_path) -> None:
    write_checkpoint(tmp_path / "c", STATE)
    state = read_checkpoint(tmp_path / "c")
    assert list(state) == list(STATE)
    assert state["round"] == 7
    assert list(state["clients"]) == [3, 11]  # keys stay numbers
    assert torch.equal(state["centres"][1]["w"], SHARED)
    assert isinstance(state["memory"]["nan"], np.ndarray)
    assert np.array_equal(state["memory"]["nan"], STATE["memory"]["nan"], equal_nan=True)
    assert state["memory"]["bool"].dtype == bool
    assert state["nothing"] is None


def test_every_flipped_bit_is_found(tmp_path) -> None:
    path = tmp_path / "c"
    write_checkpoint(path, STATE)
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(path.read_bytes()):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)
                with pytest.raises(RunFolderError):
                    read_checkpoint(path)
            os.pwrite(file.fileno(), bytes([byte]), place)
    assert read_checkpoint(path)["round"] == 7


def test_lost_and_swapped_blocks_are_found(tmp_path) -> None:
    """What a disk does: a block of zeros, a block of another file, a block twice."""
    path = tmp_path / "c"
    write_checkpoint(path, {"w": torch.arange(4096.0)})
    content = path.read_bytes()
    for start in range(0, len(content) - 512, 512):
        for block in (bytes(512), os.urandom(512), content[start + 512 : start + 1024]):
            path.write_bytes(content[:start] + block + content[start + 512 :])
            with pytest.raises(RunFolderError):
                read_checkpoint(path)


class Malice:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("save", ["pickle", "torch", "numpy"])
def test_nothing_is_executed_that_lies_in_a_checkpoints_place(save: str, tmp_path) -> None:
    trap, path = Malice(tmp_path / "executed"), tmp_path / "c"
    if save == "pickle":
        path.write_bytes(pickle.dumps({"round": 1, "server": trap}))
    elif save == "torch":
        torch.save({"round": 1, "server": trap}, path)
    else:
        np.savez(tmp_path / "c.npz", np.array([trap], dtype=object))
        (tmp_path / "c.npz").rename(path)
    with pytest.raises(RunFolderError, match="the checkpoint cannot be read"):
        read_checkpoint(path)
    assert not (tmp_path / "executed").exists()
    content = path.read_bytes()
    if save == "pickle":  # the trap works
        pickle.loads(content)  # noqa: S301
        assert (tmp_path / "executed").exists()


def test_a_file_of_another_version_or_without_checksum_is_refused(tmp_path) -> None:
    for metadata in ({}, {"format": "fedtsd-checkpoint-1"}):
        save_file({"w": SHARED}, tmp_path / "c", metadata)
        with pytest.raises(RunFolderError, match="not a checkpoint of this version"):
            read_checkpoint(tmp_path / "c")
    save_file({"w": SHARED}, tmp_path / "c", {"format": FORMAT, "structure": "{}"})
    with pytest.raises(RunFolderError, match="its checksum does not match"):
        read_checkpoint(tmp_path / "c")


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_cut_file_is_found(tmp_path, size: int) -> None:
    path = tmp_path / "c"
    write_checkpoint(path, STATE)
    os.truncate(path, size if size >= 0 else path.stat().st_size - 1)
    with pytest.raises(RunFolderError, match="checkpoint"):
        read_checkpoint(path)


def test_objects_are_refused(tmp_path) -> None:
    with pytest.raises(TypeError, match="cannot hold object"):
        write_checkpoint(tmp_path / "c", {"x": object()})


def test_what_was_read_can_be_written_again(tmp_path) -> None:
    zeros = np.zeros(3, dtype=np.int64)
    state = {"a": zeros, "b": zeros, "c": zeros[:2], "w": SHARED, "v": SHARED}
    write_checkpoint(tmp_path / "1", state)
    write_checkpoint(tmp_path / "2", read_checkpoint(tmp_path / "1"))
    again = read_checkpoint(tmp_path / "2")
    assert all(np.array_equal(again[name], state[name]) for name in "abc")
    assert torch.equal(again["v"], SHARED)
