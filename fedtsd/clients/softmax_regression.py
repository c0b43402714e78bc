"""Softmax regression beside given logits, by Newton's method: a few milliseconds for a client.

Steps are damped by the gradient (Mishchenko 2023), so that logits which are certain and wrong,
where the loss has no curvature, are no obstacle.

PyTorch, not SciPy: its number of threads is fixed, so the bits are those of any engine, and
processes have nothing more to import.

Shapes: n samples, F features, D principal directions of them and a constant, Y classes. Classes
come first: sums over them are then sums of rows, which are fast.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

TOLERANCE = 1e-4
"""The largest entry of the gradient where a fit ends. Without a penalty no finite bias is best for
a class without samples: its bias ends where the class has this mean probability on the samples
there are."""
MOST_STEPS = 100
"""Of Newton; ten are usual."""
MOST_INNER_STEPS = 50
"""Of conjugate gradients, per step of Newton; six are usual."""
INNER_TOLERANCE = 0.1
"""How much of the gradient, in the norm of the preconditioner, a Newton step may leave."""
DAMPING = 0.1
"""Of the largest entry of the gradient: added to the curvature of the loss in the logits."""
MOST_HALVINGS = 30


def fitted(
    x: Tensor, logits: Tensor, labels: Tensor, ridge: float, bias_ridge: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return weights W [F, Y] and a bias b [Y] to add x W + b to the logits.

    They minimise the mean cross-entropy + ridge / 2 ||W||^2 + bias_ridge / 2 ||b||^2, from zero.

    x: float64 [n, F], centred. logits: float64 [n, Y]. labels: int64 [n].
    """
    variances, span = _principal(x)
    design = torch.cat([(x @ span).T, torch.ones(1, len(x), dtype=x.dtype)])
    problem = _Problem(
        design,
        logits.T.contiguous(),
        one_hot(labels, logits.shape[1]).T.to(x),
        torch.cat([variances, torch.ones(1, dtype=x.dtype)]),
        torch.cat([torch.full_like(variances, ridge), torch.full((1,), bias_ridge).to(x)]),
    )
    found = problem.minimum()
    return span @ found[:, :-1].T, found[:, -1]


def _principal(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the variances [D - 1] of the principal directions of x [n, F], and those [F, D - 1].

    The weights lie in their span. From the smaller of two Gram matrices.
    """
    wide = x.shape[1] > x.shape[0]
    variances, vectors = torch.linalg.eigh((x @ x.T if wide else x.T @ x) / len(x))
    real = variances > 1e-10 * float(variances[-1])
    variances, vectors = variances[real], vectors[:, real]
    return variances, (x.T @ vectors) / (len(x) * variances).sqrt() if wide else vectors


@dataclass(frozen=True)
class _Problem:
    """The loss of parameters [Y, D].

    design: [D, n], uncorrelated rows, the constant last. logits: [Y, n]. truth: [Y, n], one-hot.
    variances, ridge: of each row of the design [D].
    """

    design: Tensor
    logits: Tensor
    truth: Tensor
    variances: Tensor
    ridge: Tensor

    def minimum(self) -> Tensor:
        """Return the parameters, by Newton's method with conjugate gradients and backtracking."""
        found, outputs = torch.zeros(len(self.truth), len(self.design)).double(), self.logits
        loss = self._loss(found, outputs)
        for _ in range(MOST_STEPS):
            share = torch.softmax(outputs, dim=0)
            gradient = self._back(share - self.truth) + self.ridge * found
            if gradient.abs().max() <= TOLERANCE:
                break
            step = self._newton(share, gradient)
            along, slope = step @ self.design, (gradient * step).sum()
            for halvings in range(MOST_HALVINGS):
                size = 0.5**halvings
                lower = self._loss(found + size * step, outputs + size * along)
                if lower <= loss + 1e-4 * size * slope:
                    break
            else:  # what is left to gain is below the rounding
                return found
            found, outputs, loss = found + size * step, outputs + size * along, lower
        return found

    def _loss(self, parameters: Tensor, outputs: Tensor) -> Tensor:
        entropy = torch.logsumexp(outputs, dim=0) - (self.truth * outputs).sum(dim=0)
        penalty = (self.ridge * parameters.square()).sum() / 2
        found: Tensor = entropy.mean() + penalty
        return found

    def _back(self, residual: Tensor) -> Tensor:
        """Map a gradient of outputs [Y, n] to that of parameters [Y, D]."""
        return residual @ self.design.T / self.design.shape[1]

    def _newton(self, share: Tensor, gradient: Tensor) -> Tensor:
        """Return about - Hessian^-1 gradient; `share` [Y, n] are the probabilities.

        The Hessian is nearly the product of the features' variances and the mean covariance of the
        classes, both diagonal in known bases: with that as preconditioner few steps suffice.
        """
        covariance = share.mean(dim=1).diag() - share @ share.T / share.shape[1]
        values, basis = torch.linalg.eigh(covariance)
        damping = self.ridge + DAMPING * gradient.abs().max() * self.variances
        curvature = values.clamp(min=0)[:, None] * self.variances + damping

        def solved(residual: Tensor) -> Tensor:
            found: Tensor = basis @ ((basis.T @ residual) / curvature)
            return found

        step, residual = torch.zeros_like(gradient), -gradient
        direction = towards = solved(residual)
        left = first = (residual * towards).sum()
        for _ in range(MOST_INNER_STEPS):
            along = share * (direction @ self.design)
            bent = self._back(along - share * along.sum(dim=0)) + damping * direction
            size = left / (direction * bent).sum()
            step, residual = step + size * direction, residual - size * bent
            towards = solved(residual)
            now = (residual * towards).sum()
            if now <= INNER_TOLERANCE**2 * first:
                break
            direction, left = towards + (now / left) * direction, now
        return step
