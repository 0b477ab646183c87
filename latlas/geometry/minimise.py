"""L-BFGS for many small problems at once, each with its own history and its own step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

#: steps that the curvature is read from; halvings of a step before a row is given up
MEMORY, HALVINGS = 12, 30


def minimise(function: Callable[[Tensor, Tensor], Tensor], x: Tensor,
             precondition: Callable[[Tensor, Tensor], Tensor], *, tolerance: float = 1e-11,
             iterations: int = 300) -> tuple[Tensor, Tensor]:
    """Least values of independent functions f_i, by L-BFGS (Nocedal & Wright 2006, algorithm 7.4).

    A row ends when gᵀHg, twice what Newton's method expects to gain, is below ``tolerance`` times
    its value; rows that have ended are no longer computed.

    Args:
        function: of x (n, k) and the numbers (n,) of its rows, to values (n,).
        x: (m, k) where to begin.
        precondition: gradients (n, k) and row numbers to H g (n, k), H about the inverse Hessian.
    Returns:
        x (m, k), and the gain that was still expected (m,), in units of the value.
    """
    best, expected = x.clone(), torch.zeros(len(x), dtype=x.dtype)
    rows = torch.arange(len(x))
    value, grad = _with_gradient(function, x, rows)
    history: list[tuple[Tensor, Tensor, Tensor]] = []  # steps, changes of gradient, 1 / (s·y)
    scale = torch.ones_like(value)
    for _ in range(iterations):
        q, shares = grad, []
        for s, y, rho in reversed(history):
            shares.append(rho * _dot(s, q))
            q = q - shares[-1][:, None] * y
        q = precondition(q, rows) * scale[:, None]
        for (s, y, rho), share in zip(history, reversed(shares), strict=True):
            q = q + (share - rho * _dot(y, q))[:, None] * s
        slope = -_dot(grad, q)
        best[rows], expected[rows] = x, -slope / 2
        alive = -slope > tolerance * value.abs()
        if not bool(alive.any()):
            break
        if not bool(alive.all()):
            rows, x, value, grad, q, slope, scale = (
                t[alive] for t in (rows, x, value, grad, q, slope, scale))
            history = [(s[alive], y[alive], rho[alive]) for s, y, rho in history]
        step, size = -q, torch.ones_like(value)
        for _ in range(HALVINGS):
            after, grad_after = _with_gradient(function, x + size[:, None] * step, rows)
            # rounding hides gains below it
            fine = after <= value + 1e-4 * size * slope + 1e-14 * value.abs()
            if bool(fine.all()):
                break
            size = torch.where(fine, size, size / 2)
        else:
            size = size * fine
            after, grad_after = _with_gradient(function, x + size[:, None] * step, rows)
        s, y = size[:, None] * step, grad_after - grad
        curvature = _dot(s, y)
        usable = curvature > 1e-12 * s.norm(dim=1) * y.norm(dim=1)
        rho = torch.where(usable, 1 / curvature, 0)
        inverse = _dot(y, precondition(y, rows))
        scale = torch.where(usable & (inverse > 0), curvature / inverse, scale)
        history = [*history, (s, y, rho)][-MEMORY:]
        x, value, grad = x + s, after, grad_after
        if not bool((size > 0).any()):
            best[rows] = x
            break
    return best, expected


def _with_gradient(function: Callable[[Tensor, Tensor], Tensor], x: Tensor,
                   rows: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = function(leaf, rows)
        grad, = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), grad


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)
