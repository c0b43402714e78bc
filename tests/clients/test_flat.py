import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedtsd.clients.flat import FlatModel, Layout
from fedtsd.models import ResNet8, tensors_of

SHAPES = st.lists(st.lists(st.integers(1, 4), max_size=4).map(tuple), min_size=1, max_size=5).map(
    lambda shapes: {f"t{i}": shape for i, shape in enumerate(shapes)}
)


def numbered(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    found, start = {}, 0
    for name, shape in shapes.items():
        size = torch.Size(shape).numel()
        found[name] = torch.arange(start, start + size, dtype=torch.float32).view(shape)
        start += size
    return found


@given(SHAPES)
def test_what_is_written_is_read_and_fills_the_vector(shapes) -> None:
    tensors = numbered(shapes)
    layout = Layout(tensors)
    vector = torch.full((layout.size,), torch.nan)
    layout.write(vector, tensors)
    assert sorted(vector.tolist()) == list(range(layout.size))
    read = layout.read(vector, reversed(layout.names))
    assert list(read) == list(layout.names)[::-1]
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)
    assert all(tensor.is_contiguous() for tensor in read.values())


def test_weights_of_convolutions_lie_channels_last() -> None:
    weight = torch.arange(2 * 3 * 1 * 2, dtype=torch.float32).view(2, 3, 1, 2)
    layout = Layout({"weight": weight, "bias": torch.tensor([-1.0, -2.0])})
    vector = torch.empty(layout.size)
    layout.write(vector, {"weight": weight, "bias": torch.tensor([-1.0, -2.0])})
    # Output 0: at each of two places, the values of the three inputs; then output 1.
    assert vector.tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11, -1, -2]
    assert layout.views(vector)["weight"].is_contiguous(memory_format=torch.channels_last)


def test_views_and_vector_are_the_same_memory() -> None:
    layout = Layout({"a": torch.zeros(2), "b": torch.zeros(3)})
    vector = torch.zeros(5)
    layout.views(vector)["b"].fill_(7)
    assert vector.tolist() == [0, 0, 7, 7, 7]


def test_what_was_read_does_not_change_with_the_vector() -> None:
    layout = Layout({"a": torch.zeros(2)})
    vector = torch.zeros(2)
    read = layout.read(vector, ["a"])
    vector.fill_(1)
    assert read["a"].tolist() == [0, 0]


def test_a_subset_may_be_written() -> None:
    layout = Layout({"a": torch.zeros(2), "b": torch.zeros(1)})
    vector = torch.zeros(3)
    layout.write(vector, {"b": torch.tensor([5.0])})
    assert vector.tolist() == [0, 0, 5]


def test_other_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a: must be float32, got torch\.float64"):
        Layout({"a": torch.zeros(2, dtype=torch.float64)})


def test_a_flat_model_computes_with_its_vector() -> None:
    model = ResNet8(8, 4, "batch").build((3, 8, 8), 10)
    flat = FlatModel(model)
    inputs = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model.eval()(inputs)
        torch.testing.assert_close(flat.module.eval()(inputs), expected)
        flat.vector.zero_()
        assert flat.module(inputs).tolist() == [[0.0] * 10] * 4
        torch.testing.assert_close(model(inputs), expected)  # the model given is left alone


def test_a_flat_model_holds_running_statistics_too() -> None:
    flat = FlatModel(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert flat.layout.names == (
        *("0.weight", "0.bias", "1.weight", "1.bias"),
        *("1.running_mean", "1.running_var"),
    )
    flat.module(torch.ones(4, 2))
    views = flat.layout.views(flat.vector)
    assert views["1.running_mean"].abs().sum() > 0
    for name, tensor in tensors_of(flat.module).items():
        assert tensor.data_ptr() == views[name].data_ptr()


def test_a_flat_model_moves_to_shared_memory() -> None:
    flat = FlatModel(nn.Sequential(nn.Linear(1, 1)))
    flat.vector.share_memory_()
    flat.vector.fill_(3)
    assert flat.module(torch.ones(1, 1)).item() == 6
