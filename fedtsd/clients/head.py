"""A residual head: what a client adds to the logits of the model it serves, fitted on its own data.

It is convex to fit, costs one pass over the client's samples, and is fitted anew for whatever model
is served; it never leaves the client.

Shapes: n samples, B samples, F features, Y classes.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedtsd.clients.local import CHUNK
from fedtsd.data.holdings import Split
from fedtsd.training import Head

MOST_ITERATIONS = 100


@dataclass(frozen=True)
class ResidualHead:
    """logits <- logits + ((features - centre) / spread) W + b.

    weights: float64 [F, Y]. bias: float64 [Y]. centre, spread: float64 [F], of the features on the
    client's training samples.
    """

    weights: np.ndarray
    bias: np.ndarray
    centre: np.ndarray
    spread: np.ndarray

    def correct(self, features: Tensor, logits: Tensor) -> Tensor:
        """Return corrected logits [B, Y] of samples with features [B, F] and logits [B, Y]."""
        scaled = (_numbers(features) - self.centre) / self.spread
        correction = torch.from_numpy(scaled @ self.weights + self.bias)
        return logits + correction.to(logits)


@torch.no_grad()
def features_and_logits(network: nn.Module, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return what goes into the last dense layer [B, F], and the logits [B, Y]."""
    network.eval()
    children = list(network.children())
    last = max(i for i, child in enumerate(children) if isinstance(child, nn.Linear))
    features, logits = [], []
    for chunk in torch.split(inputs, CHUNK):
        for child in children[:last]:
            chunk = child(chunk)
        features.append(chunk.clone())
        for child in children[last:]:
            chunk = child(chunk)
        logits.append(chunk)
    return torch.cat(features), torch.cat(logits)


def label_skew(labels: Tensor, num_classes: int) -> float:
    """Return the Jensen-Shannon divergence of a client's labels from the uniform law, in 0..1."""
    law = torch.bincount(labels, minlength=num_classes).double().cpu().numpy()
    law = law / law.sum()
    uniform = np.full(num_classes, 1 / num_classes)
    mean = (law + uniform) / 2
    held = law > 0
    first = (law[held] * np.log(law[held] / mean[held])).sum()
    second = (uniform * np.log(uniform / mean)).sum()
    return float((first + second) / 2 / math.log(2))


def fit_head(network: nn.Module, split: Split, head: Head) -> ResidualHead | None:
    """Fit a head to a client's training samples; None where its labels are not skewed.

    Minimises mean cross-entropy + ridge / 2 ||W||^2 over W and b, from zero, by L-BFGS.
    """
    # Imported where it is needed: most runs start faster without it.
    from scipy.optimize import minimize

    features, logits = features_and_logits(network, split.inputs)
    classes = logits.shape[1]
    if label_skew(split.labels, classes) <= head.skew_above:
        return None
    x, z = _numbers(features), _numbers(logits)
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 1e-6 * max(1.0, float(np.abs(x).max())), spread, 1.0)
    x = (x - centre) / spread
    truth = np.eye(classes)[split.labels.cpu().numpy()]
    width = x.shape[1]

    def loss(vector: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = vector[: width * classes].reshape(width, classes), vector[-classes:]
        shifted = z + x @ weights + bias
        shifted = shifted - shifted.max(axis=1, keepdims=True)
        log_total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        residual = (np.exp(shifted - log_total) - truth) / len(x)
        value = -(truth * (shifted - log_total)).sum() / len(x)
        value += head.ridge / 2 * float((weights**2).sum())
        slope = np.concatenate([(x.T @ residual + head.ridge * weights).ravel(), residual.sum(0)])
        return float(value), slope

    start = np.zeros((width + 1) * classes)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MOST_ITERATIONS}
    ).x
    weights, bias = found[: width * classes].reshape(width, classes), found[-classes:]
    return ResidualHead(weights, bias, centre, spread)


def _numbers(tensor: Tensor) -> np.ndarray:
    return np.asarray(tensor.detach().cpu().double().numpy())
