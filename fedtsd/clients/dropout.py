"""What a client drops in training: masks from a stream of its own, the same in every engine.

Shapes: B batch.
"""

import torch
from torch import Tensor, nn

from fedtsd.modules import Dropout
from fedtsd.seeding import torch_rng


class Masks:
    """The masks of one client's training, drawn batch by batch.

    A stream beside `rng`, from which the client's batches come: it starts anew with every training
    and takes nothing from it, so that a model without dropout sees the same batches.
    """

    def __init__(self, model: nn.Module, rng: torch.Generator) -> None:
        found = {name: m for name, m in model.named_modules() if isinstance(m, Dropout)}
        self._layers = found
        self._rng = torch_rng(rng.initial_seed(), "dropout") if found else None

    def draw(self, batch_size: int) -> dict[str, Tensor]:
        """Return the masks [B, width] of the next batch by the name of their buffer, on the CPU."""
        return {
            f"{name}.mask": torch.empty(batch_size, layer.width)
            .bernoulli_(1 - layer.rate, generator=self._rng)
            .div_(1 - layer.rate)
            for name, layer in self._layers.items()
        }

    def set(self, batch_size: int) -> None:
        """Draw the masks of the next batch of B samples and put them into the model.

        In place where the size is that of the batch before: whoever holds the buffer sees them.
        """
        if not self._layers:
            return
        for name, mask in self.draw(batch_size).items():
            layer = self._layers[name.removesuffix(".mask")]
            if layer.mask.shape == mask.shape:
                layer.mask.copy_(mask)
            else:
                layer.mask = mask.to(layer.mask.device)
