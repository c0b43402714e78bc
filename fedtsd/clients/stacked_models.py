"""Models side by side: each tensor of the model once, with one row per client.

Shapes: C clients side by side, R rows there is room for, M models of a request, Y classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedtsd.messages import ClientRequest
from fedtsd.models import tensors_of
from fedtsd.modules import LogPrior
from fedtsd.server import Tensors


@dataclass(frozen=True)
class Rows:
    """C models and what their training needs beside them; every tensor is [C, ...].

    tensors: parameters and buffers by state-dict name. velocity: the momentum of parameters.
    received: parameters as they were before training. moves: bool [C], whether a client's
    training moves the tensor. offsets: what clients add to their logits [C, Y] (`LogPrior`), by the
    name of its buffer: an input like the batch, never sent.
    """

    tensors: dict[str, Tensor]
    velocity: dict[str, Tensor]
    received: dict[str, Tensor]
    moves: dict[str, Tensor]
    offsets: dict[str, Tensor]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """All that a run of the models needs beside samples."""
        return self.tensors | self.offsets

    def first(self, count: int) -> "Rows":
        """Return the first `count` models, as views."""
        return Rows(*({name: t[:count] for name, t in part.items()} for part in self._parts))

    def chosen(self, rows: Tensor) -> "Rows":
        """Return copies of the models at these rows."""
        return Rows(*({name: t[rows] for name, t in part.items()} for part in self._parts))

    def put(self, rows: Tensor, trained: "Rows") -> None:
        """Write models back that were taken out by `chosen` and trained."""
        for mine, other in ((self.tensors, trained.tensors), (self.velocity, trained.velocity)):
            for name, tensor in mine.items():
                tensor[rows] = other[name]

    @property
    def _parts(self) -> tuple[dict[str, Tensor], ...]:
        return self.tensors, self.velocity, self.received, self.moves, self.offsets


class Stack:
    """Room for R models, taken once: the tensors stay where they are, as CUDA graphs need it."""

    def __init__(self, model: nn.Module, rows: int, device: torch.device) -> None:
        self.parameters = tuple(name for name, _ in model.named_parameters())
        self._rows = rows
        self._device = device
        tensors = {name: self._room(t.shape) for name, t in tensors_of(model).items()}
        moves = {name: self._room((), torch.bool) for name in self.parameters}
        offsets = {
            f"{name}.offset": self._room(module.offset.shape)
            for name, module in model.named_modules()
            if isinstance(module, LogPrior)
        }
        self.rows = Rows(tensors, {}, {}, moves, offsets)

    @torch.no_grad()
    def lay_out(
        self, models: Tensors, rows: Sequence[ClientRequest], kept: Sequence[Tensors]
    ) -> None:
        """Give each client the model it was sent, under the personal layers that it keeps.

        models: all of the request's, by name [M, ...]. kept: what each client keeps.
        """
        which = torch.tensor([row.model for row in rows], device=self._device)
        for name, place in self.rows.tensors.items():
            torch.index_select(models[name], 0, which, out=place[: len(rows)])
            own = [i for i, row in enumerate(rows) if name in row.personal]
            if own:
                values = torch.stack([kept[i][name] for i in own]).to(self._device)
                place[torch.tensor(own, device=self._device)] = values

    @torch.no_grad()
    def shift(self, offsets: Tensor) -> None:
        """Say what each client adds to its logits [C, Y], if the model has a place for it."""
        for place in self.rows.offsets.values():
            place[: len(offsets)] = offsets

    @torch.no_grad()
    def remember(self) -> None:
        """Keep the parameters as they are now, for the proximal term."""
        for name in self.parameters:
            tensor = self.rows.tensors[name]
            self._beside(self.rows.received, name).copy_(tensor)

    @torch.no_grad()
    def begin(self, moves: Mapping[str, Sequence[bool]], momentum: bool) -> None:
        """Prepare a phase, with momentum from zero.

        moves: whether each client's training moves a parameter, by name [C].
        """
        rows = self.rows
        for name, moving in moves.items():
            rows.moves[name][: len(moving)] = torch.tensor(moving, device=self._device)
            if momentum:
                self._beside(rows.velocity, name).zero_()

    def _beside(self, held: dict[str, Tensor], name: str) -> Tensor:
        """Return the room for what goes with a parameter, taken when it is first needed."""
        if name not in held:
            held[name] = torch.zeros_like(self.rows.tensors[name])
        return held[name]

    def _room(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(self._rows, *shape, dtype=dtype, device=self._device)
