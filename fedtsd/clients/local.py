"""One client: its local training, its outputs and its evaluation, in plain PyTorch."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from fedtsd.clients.dropout import Masks
from fedtsd.data.holdings import ClientData, Split
from fedtsd.messages import Evaluation
from fedtsd.precision import Precision
from fedtsd.training import BIN_REACH, BIN_WIDTH, NUM_BINS, Phase, Training

CHUNK = 1024
"""Samples per forward pass when nothing is trained; bounds the memory, not the result."""


def train(
    model: nn.Module,
    split: Split,
    phases: Iterable[Phase],
    personal: frozenset[str],
    training: Training,
    rng: torch.Generator,
    precision: Precision,
) -> int:
    """Train `model` in place through all phases; return the number of samples processed.

    Each phase starts a fresh SGD with momentum, as clients keep no optimiser between rounds.
    """
    model.train()
    masks = Masks(model, rng)
    received = {name: p.detach().clone() for name, p in model.named_parameters()}
    processed = 0
    for phase in phases:
        moving = {name: p for name, p in model.named_parameters() if phase.moves(name, personal)}
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
                masks.set(len(labels))
                with precision.autocast(inputs.device):
                    loss = loss_of(model(inputs), labels)
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


def public_outputs(model: nn.Module, inputs: Tensor, regression: bool) -> Tensor:
    """Return what a client tells of its outputs on public samples, on the CPU."""
    return probabilities(predict(model, inputs), regression).cpu()


def probabilities(outputs: Tensor, regression: bool) -> Tensor:
    """Return the softmax [B, Y] of logits [B, Y]; in regression, bins [B, NUM_BINS] of values."""
    return bin_probabilities(outputs) if regression else torch.softmax(outputs, dim=1)


def loss_of(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy; where labels are values to predict, the mean squared error."""
    return _loss(outputs, labels, "mean")


def losses_of(outputs: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each sample [B]."""
    return _loss(outputs, labels, "none")


def _loss(outputs: Tensor, labels: Tensor, reduction: str) -> Tensor:
    if labels.is_floating_point():
        return nn.functional.mse_loss(outputs.squeeze(1), labels, reduction=reduction)
    return nn.functional.cross_entropy(outputs, labels, reduction=reduction)


def bin_probabilities(values: Tensor) -> Tensor:
    """Return how likely each of the bins is around predicted values [B, 1], as [B, NUM_BINS].

    Gaussians of standard deviation BIN_WIDTH, in standard deviations of the target. So predictions
    of a regression can be compared by Jensen-Shannon divergence like those of a classifier.
    """
    edges = torch.linspace(-1, 1, NUM_BINS - 1, device=values.device) * BIN_REACH
    below = torch.special.ndtr((edges[None, :] - values) / BIN_WIDTH)
    ends = torch.zeros_like(values), torch.ones_like(values)
    return torch.diff(torch.cat([ends[0], below, ends[1]], dim=1), dim=1)


def mean_loss(model: nn.Module, split: Split) -> float:
    """Return the mean loss on a split."""
    return loss_of(predict(model, split.inputs), split.labels).item()


def evaluate(model: nn.Module, data: ClientData, stage: str) -> list[Evaluation]:
    """Return one evaluation for each of the splits val and test that has samples."""
    splits = evaluated_splits(data)
    outputs = {name: predict(model, split.inputs) for name, split in splits.items()}
    return evaluations_of(outputs, splits, stage)


def evaluated_splits(data: ClientData) -> dict[str, Split]:
    """Return those of the splits val and test that have samples."""
    splits = {"val": data.val, "test": data.test}
    return {name: split for name, split in splits.items() if len(split)}


def evaluations_of(
    outputs: Mapping[str, Tensor], splits: Mapping[str, Split], stage: str
) -> list[Evaluation]:
    """Return the evaluation of each split from a model's outputs on it."""
    found = []
    for name, split in splits.items():
        loss = loss_of(outputs[name], split.labels).item()
        scores = {**scores_of(outputs[name], split), "loss": loss}
        found.append(Evaluation(stage, name, scores, len(split)))
    return found


def scores_of(outputs: Tensor, split: Split) -> dict[str, float]:
    """Return the accuracy; in regression, mean absolute and root mean square error."""
    if not split.labels.is_floating_point():
        return {"accuracy": (outputs.argmax(dim=1) == split.labels).double().mean().item()}
    errors = split.unit * (outputs.squeeze(1) - split.labels).double()
    return {"mae": errors.abs().mean().item(), "rmse": errors.square().mean().sqrt().item()}


def _squared_distance(moving: dict[str, nn.Parameter], received: dict[str, Tensor]) -> Tensor:
    return torch.stack([(p - received[name]).square().sum() for name, p in moving.items()]).sum()
