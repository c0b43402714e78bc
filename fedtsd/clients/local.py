"""One client: its local training, its outputs and its evaluation, in plain PyTorch."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from fedtsd.data.federation import ClientData, Split
from fedtsd.messages import Evaluation
from fedtsd.training import Phase, Training

CHUNK = 1024
"""Samples per forward pass when nothing is trained; bounds the memory, not the result."""


def train(
    model: nn.Module,
    split: Split,
    phases: Iterable[Phase],
    personal: frozenset[str],
    training: Training,
    rng: torch.Generator,
) -> int:
    """Train `model` in place through all phases; return the number of samples processed.

    Each phase starts a fresh SGD with momentum, as clients keep no optimiser between rounds.
    """
    model.train()
    received = {name: p.detach().clone() for name, p in model.named_parameters()}
    processed = 0
    for phase in phases:
        moving = {
            name: p
            for name, p in model.named_parameters()
            if phase.layers == "all" or (name in personal) == (phase.layers == "personal")
        }
        if not moving or not phase.epochs:
            continue
        for name, p in model.named_parameters():
            p.requires_grad_(name in moving)
        optimizer = torch.optim.SGD(
            moving.values(),
            lr=training.lr,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
        )
        for _ in range(phase.epochs):
            for inputs, labels in batches(split, training.batch_size, rng):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(inputs), labels)
                if phase.proximal:
                    loss = loss + phase.proximal / 2 * _squared_distance(moving, received)
                torch.autograd.backward(loss)
                if training.max_grad_norm is not None:
                    nn.utils.clip_grad_norm_(moving.values(), training.max_grad_norm)
                optimizer.step()
                processed += len(labels)
    return processed


def batches(split: Split, size: int, rng: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch in a random order; the last batch may be smaller."""
    order = torch.randperm(len(split), generator=rng).to(split.labels.device)
    for chosen in torch.split(order, size):
        yield split.inputs[chosen], split.labels[chosen]


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the logits [B, Y] of `inputs` [B, ...]."""
    model.eval()
    return torch.cat([model(chunk) for chunk in torch.split(inputs, CHUNK)])


def public_outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the softmax outputs [B, Y] on public samples, on the CPU."""
    return torch.softmax(predict(model, inputs), dim=1).cpu()


def evaluate(model: nn.Module, data: ClientData, stage: str) -> list[Evaluation]:
    """Return one evaluation for each of the splits val and test that has samples."""
    found = []
    for name, split in (("val", data.val), ("test", data.test)):
        if not len(split):
            continue
        logits = predict(model, split.inputs)
        accuracy = (logits.argmax(dim=1) == split.labels).double().mean().item()
        loss = nn.functional.cross_entropy(logits, split.labels).item()
        found.append(Evaluation(stage, name, accuracy, loss, len(split)))
    return found


def _squared_distance(moving: dict[str, nn.Parameter], received: dict[str, Tensor]) -> Tensor:
    return torch.stack([(p - received[name]).square().sum() for name, p in moving.items()]).sum()
