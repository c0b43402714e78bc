import pytest
import torch

from fedtsd.clients.store import ClientStore
from fedtsd.errors import StorageError
from fedtsd.shared import DiskRows

INITIAL = {"head": torch.ones(2), "body": torch.zeros(2), "norm": torch.zeros(1, 1)}


def store(*keeps: str) -> ClientStore:
    return ClientStore(INITIAL, frozenset(keeps), num_clients=7)


def test_a_new_client_keeps_the_initial_model() -> None:
    kept = store("head")
    assert kept.get(5)["head"].tolist() == [1.0, 1.0]
    assert kept.state_dict()["client"].tolist() == []


def test_only_what_may_be_personal_is_kept() -> None:
    kept = store("head", "norm")
    kept.put(5, {**INITIAL, "head": torch.tensor([3.0, 4.0]), "norm": torch.tensor([[9.0]])})
    assert {name: t.flatten().tolist() for name, t in kept.get(5).items()} == {
        "head": [3.0, 4.0],
        "norm": [9.0],
    }
    assert kept.get(4)["head"].tolist() == [1.0, 1.0]


def test_a_snapshot_stays_what_it_was_and_comes_back() -> None:
    kept = store("head")
    for client, value in ((5, 3.0), (2, 8.0)):
        kept.put(client, {**INITIAL, "head": torch.full((2,), value)})
    saved = kept.state_dict()
    assert saved["client"].tolist() == [2, 5]
    kept.put(5, {**INITIAL, "head": torch.full((2,), 9.0)})
    kept.put(1, INITIAL)
    assert saved["head"].tolist() == [[8.0, 8.0], [3.0, 3.0]]
    kept.load_state_dict(saved)
    assert kept.get(5)["head"].tolist() == [3.0, 3.0]
    assert kept.state_dict()["client"].tolist() == [2, 5]


def test_nothing_is_kept_where_nothing_may_be() -> None:
    kept = store()
    kept.put(3, INITIAL)
    assert kept.get(3) == {}
    assert kept.state_dict().keys() == {"client"}
    kept.load_state_dict(kept.state_dict())


def test_a_full_disk_is_said_before_anything_is_written(monkeypatch) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    kept = store("head")
    kept.put(0, INITIAL)
    monkeypatch.setattr("os.posix_fallocate", refuse)
    kept.put(0, {**INITIAL, "head": torch.full((2,), 5.0)})  # its place is there already
    with pytest.raises(StorageError, match=r"no space for what clients keep.*TMPDIR"):
        kept.put(1, INITIAL)
    assert kept.state_dict()["client"].tolist() == [0]


def test_only_rows_that_are_written_take_space() -> None:
    rows = DiskRows(10_000, 25_000)
    rows.reserve(9_999)
    rows.tensor[9_999] = 1.0
    assert rows.tensor.nbytes == 10**9
    assert rows.num_bytes < 10**6
    assert rows.tensor[9_998:].sum() == 25_000
