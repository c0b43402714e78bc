import pytest
import torch

from fedtsd.precision import Precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match="must be one of fp32, tf32, bf16, got 'fp16'"):
        Precision("fp16")


def test_tf32_needs_cuda() -> None:
    with pytest.raises(ValueError, match="tf32 needs device=cuda, got cpu"):
        Precision("tf32").check(CPU)
    for name, device in (("tf32", CUDA), ("bf16", CPU), ("bf16", CUDA), ("fp32", CPU)):
        Precision(name).check(device)


@pytest.mark.parametrize(("name", "kind"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_have_the_precision_asked_for(name, kind) -> None:
    weight = torch.ones(2, 2)
    with Precision(name).autocast(CPU):
        assert (weight @ weight).dtype == kind
    assert (weight @ weight).dtype == torch.float32


def test_a_weight_may_change_inside() -> None:
    layer = torch.nn.Linear(1, 1, bias=False)
    with Precision("bf16").autocast(CPU):
        for value in (1.0, 2.0):
            with torch.no_grad():
                layer.weight.fill_(value)
            assert layer(torch.ones(1, 1)).item() == value


@pytest.mark.parametrize(("name", "expected"), [("fp32", "ieee"), ("tf32", "tf32")])
def test_cuda_multiplies_as_asked_and_only_inside(name, expected) -> None:
    kinds = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [kind.fp32_precision for kind in kinds]
    with Precision(name).autocast(CUDA):
        inside = [kind.fp32_precision for kind in kinds]
    assert inside == [expected] * 2
    assert [kind.fp32_precision for kind in kinds] == before
