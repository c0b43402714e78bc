import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedtsd.clients import local
from fedtsd.clients.stacked_batches import Batches, Schedule
from fedtsd.data.federation import Split
from fedtsd.seeding import torch_rng


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(0, 3)), min_size=1, max_size=5),
    st.integers(1, 12),
)
def test_batches_are_those_of_the_reference(clients, batch_size) -> None:
    sizes = [size for size, _ in clients]
    epochs = [count for _, count in clients]
    splits = [
        Split(torch.arange(n)[:, None] + 100.0 * c, torch.arange(n)) for c, n in enumerate(sizes)
    ]
    rngs = [torch_rng(0, "train", 1, c) for c in range(len(sizes))]
    schedule = Schedule(sizes, epochs, batch_size, rngs)
    batches = Batches(splits, schedule, None)
    found = [[] for _ in sizes]
    for step in range(schedule.num_steps):
        count = schedule.still(step)
        batch = batches.at(step, slice(0, count), schedule.width)
        assert batch.active[-1]  # nobody stands still behind the last who trains
        assert batch.active.all() == schedule.all_train(step, count)
        for c in torch.nonzero(batch.active).flatten().tolist():
            size = batches.sizes_at(step)[c]
            assert batch.weights[c].tolist() == pytest.approx(
                [1 / size] * size + [0] * (schedule.width - size)
            )
            found[c].append((batch.inputs[c, :size].tolist(), batch.labels[c, :size].tolist()))
    for c, split in enumerate(splits):
        rng = torch_rng(0, "train", 1, c)
        expected = [
            (inputs.tolist(), labels.tolist())
            for _ in range(epochs[c])
            for inputs, labels in local.batches(split, batch_size, rng)
        ]
        assert found[c] == expected
