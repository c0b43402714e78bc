import os

import numpy as np
import pytest
import torch

from fedtsd.checkpoint import read_checkpoint, write_checkpoint
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


def test_any_flipped_bit_is_found(tmp_path) -> None:
    path = tmp_path / "c"
    write_checkpoint(path, STATE)
    content = path.read_bytes()
    for place in range(8, len(content), 37):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with pytest.raises(RunFolderError):
            read_checkpoint(path)


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
