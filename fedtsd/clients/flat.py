"""The tensors of a model in one vector: one copy sends them, one row holds a client's.

Weights of 2-d convolutions lie channels last inside the vector, as the fast kernels of CPUs read
them. A vector is meant for one machine: what crosses the door are named tensors in plain layout.

Shapes: D all elements of a model.
"""

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fedtsd.models import tensors_of


class Layout:
    """Where each tensor of a model lies in a float32 vector [D].

    names: in the order of the state dict. shapes: by name, as in the model.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Lay `tensors` out one after the other; raises ValueError if one is not float32."""
        self.names = tuple(tensors)
        self.shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        self.slices: dict[str, slice] = {}
        self.size = 0
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32:
                raise ValueError(f"{name}: must be float32, got {tensor.dtype}")
            self.slices[name] = slice(self.size, self.size + tensor.numel())
            self.size += tensor.numel()

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """Return all tensors as views of `vector` [D]: writing to one writes to the other."""
        return {name: self._view(vector, name) for name in self.names}

    @torch.no_grad()
    def write(self, vector: Tensor, tensors: Mapping[str, Tensor]) -> None:
        """Copy some or all tensors into `vector` [D]."""
        for name, tensor in tensors.items():
            self._view(vector, name).copy_(tensor)

    @torch.no_grad()
    def read(self, vector: Tensor, names: Iterable[str]) -> dict[str, Tensor]:
        """Return copies of the named tensors of `vector` [D], contiguous."""
        return {
            name: self._view(vector, name).clone(memory_format=torch.contiguous_format)
            for name in names
        }

    def _view(self, vector: Tensor, name: str) -> Tensor:
        shape, part = self.shapes[name], vector[self.slices[name]]
        if len(shape) != 4:
            return part.view(shape)
        outputs, inputs, height, width = shape
        return part.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


class FlatModel:
    """A copy of a model whose tensors are views of one vector.

    module: computes with `vector` [D]; writing to the vector changes the model. layout: what lies
    where in it. The vector may be moved to shared memory in place (`share_memory_`).
    """

    def __init__(self, model: nn.Module) -> None:
        self.module = copy.deepcopy(model)
        tensors = tensors_of(self.module)
        self.layout = Layout(tensors)
        device = next(iter(tensors.values())).device if tensors else None
        self.vector = torch.empty(self.layout.size, device=device)
        self.layout.write(self.vector, tensors)
        for name, view in self.layout.views(self.vector).items():
            tensors[name].data = view
