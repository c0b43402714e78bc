"""What a client tells of its data where subspaces are compared (PACFL)."""

import torch
from torch import Tensor

from fedtsd.data.holdings import Split

# A singular value below this share of the largest is rounding error: its vector means nothing.
_NO_SIZE = 1e-6


def data_subspace(split: Split, count: int) -> Tensor:
    """Return leading left singular vectors of a client's samples, float32 [D, v], orthonormal.

    The matrix has one column per sample, as the network sees it, not centred (Vahidian et al. 2023,
    algorithm 1). v is `count`, or less where samples do not span as much. D: features of a sample.
    """
    samples = split.inputs.flatten(1).double().cpu()
    vectors, values, _ = torch.linalg.svd(samples.t(), full_matrices=False)
    spans = values[:count] > _NO_SIZE * values[0]
    subspace: Tensor = vectors[:, :count][:, spans].float().contiguous()
    return subspace
