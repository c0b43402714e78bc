"""One step of SGD of many models side by side: one kernel where there were C.

`torch.func.vmap` maps the forward pass over the rows of all tensors; each client's loss depends on
its own row alone, so one backward pass through the sum of losses gives every client's gradient.

Shapes: C clients side by side, B samples in a batch.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedtsd.clients.local import losses_of
from fedtsd.clients.stacked_batches import Batch
from fedtsd.clients.stacked_models import Rows
from fedtsd.precision import Precision
from fedtsd.training import Training


@dataclass(frozen=True)
class Plan:
    """What is the same in all steps of a phase.

    moving: the parameters that move on any client. proximal: mu. mixed: whether clients that train
    move different ones. still: whether some clients in the stack stand still.
    """

    moving: tuple[str, ...]
    proximal: float
    mixed: bool
    still: bool


class Step:
    """Trains models in place by one batch each."""

    def __init__(
        self, model: nn.Module, training: Training, precision: Precision, device: torch.device
    ) -> None:
        self._model = copy.deepcopy(model).to(device).train()
        self._parameters = {name for name, _ in model.named_parameters()}
        self._training = training
        self._device = device
        # Autocast does not reach convolutions under vmap: for bfloat16 we cast ourselves.
        self._half = precision.name == "bf16"
        self._precision = Precision("fp32") if self._half else precision

    def __call__(self, rows: Rows, batch: Batch, plan: Plan) -> None:
        """Take the step of C models, each on its own batch."""
        with self._precision.autocast(self._device):
            moving = {name: rows.tensors[name].detach().requires_grad_() for name in plan.moving}
            loss = self._loss({**rows.inputs, **moving}, batch)
            gradients = torch.autograd.grad(loss, list(moving.values()))
        self._update(rows, gradients, batch.active, plan)

    def _loss(self, tensors: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """Return the sum over clients of the mean loss of their real samples."""
        inputs = batch.inputs
        if self._half:
            inputs = inputs.bfloat16()
            tensors = {n: t.bfloat16() if n in self._parameters else t for n, t in tensors.items()}
        outputs = vmap(self._forward)({**tensors, **batch.masks}, inputs)
        losses = losses_of(outputs.float().flatten(0, 1), batch.labels.flatten())
        return (losses * batch.weights.flatten()).sum()

    def _forward(self, tensors: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        found: Tensor = functional_call(self._model, dict(tensors), (inputs,), tie_weights=False)
        return found

    @torch.no_grad()
    def _update(
        self, rows: Rows, gradients: tuple[Tensor, ...], active: Tensor, plan: Plan
    ) -> None:
        """Proximal term, clipping, weight decay, momentum: in the order of the reference."""
        training = self._training
        values = [rows.tensors[name] for name in plan.moving]
        if plan.proximal:
            away = torch._foreach_sub(values, [rows.received[name] for name in plan.moving])
            gradients = torch._foreach_add(gradients, away, alpha=plan.proximal)
        moves = _moves(rows, active, plan)
        if moves:
            pairs = zip(gradients, moves, strict=True)
            gradients = tuple(g.masked_fill(_along(~m, g), 0.0) for g, m in pairs)
        if training.max_grad_norm is not None:
            gradients = _clipped(gradients, training.max_grad_norm)
        if training.weight_decay:
            gradients = torch._foreach_add(gradients, values, alpha=training.weight_decay)
        if training.momentum:
            velocity = [rows.velocity[name] for name in plan.moving]
            torch._foreach_mul_(velocity, training.momentum)
            torch._foreach_add_(velocity, gradients)
            gradients = tuple(velocity)
        if not moves:
            torch._foreach_add_(values, gradients, alpha=-training.lr)
            return
        for value, gradient, moving in zip(values, gradients, moves, strict=True):
            value.addcmul_(gradient, _along(moving, gradient).float(), value=-training.lr)


def _moves(rows: Rows, active: Tensor, plan: Plan) -> list[Tensor]:
    """Return on which clients each moving tensor moves, bool [C]; nothing if all do."""
    if plan.mixed:
        return [rows.moves[name] & active for name in plan.moving]
    return [active] * len(plan.moving) if plan.still else []


def _clipped(gradients: tuple[Tensor, ...], longest: float) -> tuple[Tensor, ...]:
    """Scale each client's gradient, all tensors together, back to a length of `longest`."""
    squares = [gradient.flatten(1).square().sum(dim=1) for gradient in gradients]
    length = torch.stack(squares).sum(dim=0).sqrt()
    scale = torch.clamp(longest / (length + 1e-6), max=1.0)
    return tuple(gradient * _along(scale, gradient) for gradient in gradients)


def _along(per_client: Tensor, tensor: Tensor) -> Tensor:
    """Return [C] as [C, 1, ...], to go with a tensor [C, ...]."""
    return per_client.view(-1, *(1,) * (tensor.ndim - 1))
