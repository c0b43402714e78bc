"""What a client tells of its data where subspaces are compared (PACFL)."""

import torch
from torch import Tensor

from fedtsd.data.holdings import Split


def data_subspace(split: Split, per_class: int) -> Tensor:
    """Return leading left singular vectors of a client's samples, float32 [D, v], orthonormal.

    Of the samples of each class at most `per_class`; then an orthonormal basis of all of them, as
    in PACFL (Vahidian et al. 2023). D: features of a sample.
    """
    inputs = split.inputs.flatten(1).double().cpu()
    labels = split.labels.cpu()
    # A regression has no classes: all samples are taken together.
    groups = [inputs]
    if not labels.is_floating_point():
        groups = [inputs[labels == label] for label in sorted(set(labels.tolist()))]
    vectors = [
        torch.linalg.svd(samples.t(), full_matrices=False)[0][:, :per_class] for samples in groups
    ]
    basis, values, _ = torch.linalg.svd(torch.cat(vectors, dim=1), full_matrices=False)
    independent: Tensor = basis[:, values > 1e-6 * values[0]]
    return independent.float().contiguous()
