"""The yardstick: a plain centralized loop over the same samples, same model, same batch size.

One thread, `nn.Module`, `torch.optim.SGD`, batches gathered at random from one float tensor in
memory; no DataLoader, no federation, none of what makes our engines fast.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedtsd.bench.clock import Clock
from fedtsd.bench.port import Pacer, Port
from fedtsd.clients.engine import choose_device
from fedtsd.compose import check, composed
from fedtsd.config import Config
from fedtsd.data.federation import Federation
from fedtsd.loading import load_federation
from fedtsd.seeding import torch_rng

STEPS = 20
"""Steps that count as a round."""


def serve_central(port: Port, overrides: list[str]) -> None:
    """Train on the samples of all clients, in steps as ordered."""
    torch.set_num_threads(1)
    config = check(composed(overrides))
    device = choose_device(config.device)
    federation = load_federation(config)
    model = config.model.build(federation.input_shape, federation.num_outputs).to(device)
    inputs, labels = (part.to(device) for part in pooled(federation))
    del federation
    size = config.training.batch_size
    facts = {
        "flops_per_sample": training_flops(model, inputs[:size], labels[:size]) / size,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "device": device.type,
    }
    Pacer(port, Clock(), facts).pace(steps_of(config, model, inputs, labels))


def pooled(federation: Federation) -> tuple[Tensor, Tensor]:
    """Return the training inputs [n, ...] and labels [n] of all clients."""
    splits = [federation.data_of(c, 1).train for c in range(federation.num_clients)]
    inputs = torch.cat([split.inputs for split in splits])
    return inputs, torch.cat([split.labels for split in splits])


def steps_of(config: Config, model: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], int]:
    """Return a function that makes STEPS steps of SGD and returns the samples it used."""
    training = config.training
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training.lr,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )
    batches = orders(len(labels), training.batch_size, inputs.device)

    def steps() -> int:
        used = 0
        for _ in range(STEPS):
            chosen = next(batches)
            optimizer.zero_grad()
            torch.autograd.backward(loss_of(model(inputs[chosen]), labels[chosen]))
            optimizer.step()
            used += len(chosen)
        if inputs.is_cuda:
            torch.cuda.synchronize()
        return used

    return steps


def orders(count: int, size: int, device: torch.device) -> Iterator[Tensor]:
    """Yield whole batches of sample indices for ever, epoch after epoch in a random order."""
    rng = torch_rng(0, "bench")
    while True:
        order = torch.randperm(count, generator=rng).to(device)
        yield from torch.split(order[: count - count % size or None], size)


def loss_of(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy, in regression the mean squared error."""
    if labels.is_floating_point():
        return nn.functional.mse_loss(outputs.squeeze(1), labels)
    return nn.functional.cross_entropy(outputs, labels)


def training_flops(model: nn.Module, inputs: Tensor, labels: Tensor) -> int:
    """Return the floating point operations of one step: products of matrices and convolutions.

    A multiplication and an addition count as two, forward and backward; what is elementwise counts
    nothing (torch.utils.flop_counter).
    """
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(loss_of(model(inputs), labels))
    model.zero_grad()
    flops: int = counter.get_total_flops()
    return flops
