"""A residual head: what a client adds to the logits of the model it serves, fitted on its own data.

It is convex to fit, costs one pass over the client's samples, and is fitted anew for whatever model
is served; it never leaves the client.

Shapes: n samples, B samples, F features, Y classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedtsd.clients.local import CHUNK
from fedtsd.clients.softmax_regression import fitted
from fedtsd.clustering.similarity import label_divergence
from fedtsd.data.holdings import Split
from fedtsd.training import Head


@dataclass(frozen=True)
class ResidualHead:
    """logits <- logits + ((features - centre) / spread) W + b.

    weights: float64 [F, Y]. bias: float64 [Y]. centre, spread: float64 [F], of the features on the
    client's training samples. All of them lie on the CPU.
    """

    weights: Tensor
    bias: Tensor
    centre: Tensor
    spread: Tensor

    def correct(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return corrected logits [B, Y] of samples with features [B, F] and logits [B, Y]."""
        scaled = (_exact(features) - self.centre) / self.spread
        return logits + (scaled @ self.weights + self.bias).to(logits)


@torch.no_grad()
def features_and_logits(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return what goes into the last dense layer [B, F], and the logits [B, Y]."""
    network.eval()
    children = list(network.children())
    last = max(i for i, child in enumerate(children) if isinstance(child, nn.Linear))
    body, end = nn.Sequential(*children[:last]), nn.Sequential(*children[last:])
    features = [body(chunk) for chunk in torch.split(inputs, CHUNK)]
    return torch.cat(features), torch.cat([end(chunk) for chunk in features])


def label_skew(labels: Tensor, num_classes: int) -> float:
    """Return the Jensen-Shannon divergence of a client's labels from the uniform law, in 0..1."""
    counts = torch.bincount(labels, minlength=num_classes).cpu().numpy()
    return float(label_divergence(np.stack([counts, np.ones(num_classes)]))[0, 1])


def fit_head(network: nn.Module, split: Split, head: Head) -> ResidualHead | None:
    """Fit a head to a client's training samples; None where its labels are not skewed, or where the
    model has diverged.

    Minimises summed cross-entropy + ridge / 2 ||W||^2 + bias_ridge / 2 ||b||^2 over W and b, from
    zero.
    """
    features, logits = features_and_logits(network, split.inputs)
    if label_skew(split.labels, logits.shape[1]) <= head.skew_above:
        return None
    x = _exact(features)
    if not (x.isfinite().all() and logits.isfinite().all()):
        return None
    centre, spread = x.mean(dim=0), x.std(dim=0, correction=0)
    constant = spread <= 1e-6 * max(1.0, x.abs().max().item())
    spread = spread.masked_fill(constant, 1.0)
    ridges = head.ridge / len(split), (head.bias_ridge or 0.0) / len(split)
    weights, bias = fitted((x - centre) / spread, _exact(logits), split.labels.cpu(), *ridges)
    return ResidualHead(weights, bias, centre, spread)


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()
