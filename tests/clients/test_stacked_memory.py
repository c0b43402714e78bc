import torch

from fedtsd.clients.stacked_memory import ON_CPU, bytes_per_client, clients_that_fit
from fedtsd.models import Mlp
from tests.clients.stacks import CPU, settings


def test_memory_per_client_by_hand() -> None:
    # 5 x 6 + 6 + 6 x 3 + 3 = 57 parameters, held 4 times and as momentum. Modules put out, per
    # sample, 5 (flatten), 6, 6 and 3 numbers: 20, for 8 samples, 4 times. Each has 4 bytes.
    model = Mlp((6,), 0.0).build((5,), 3)
    training = settings(momentum=0.9)
    assert bytes_per_client(model, (5,), training) == 4 * (5 * 57 + 4 * 8 * 20)


def test_a_stack_takes_half_of_the_free_memory(monkeypatch) -> None:
    model = Mlp((6,), 0.0).build((5,), 3)
    each = bytes_per_client(model, (5,), settings())
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (14 * each + 5, 99 * each))
    assert clients_that_fit(model, (5,), settings(), torch.device("cuda")) == 7
    assert clients_that_fit(model, (5,), settings(), CPU) == ON_CPU
