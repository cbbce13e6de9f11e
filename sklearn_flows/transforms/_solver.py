"""Solvers of ordinary differential equations for many rows at once, none of which depends on the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# The method of Dormand and Prince: stages, the solution of order five, and its difference from the embedded one of order four.
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
# The next step is the one that the error allows for, a bit less, and within these bounds.
SAFETY = 0.9
MIN_FACTOR, MAX_FACTOR = 0.2, 5.0

# From points (n, k), times (n,) and the numbers of the rows (n,) to derivatives (n, k).
Derivative = Callable[[Tensor, Tensor, Tensor], Tensor]


class StepLimitError(RuntimeError):
    """Some rows need more steps, or smaller ones, than there may be."""


def solve_adaptively(
    derivative: Derivative, y: Tensor, t_start: float, t_end: float, *, rtol: float, atol: float, max_steps: int
) -> tuple[Tensor, Tensor]:
    """Solve :math:`dy / dt = f(y, t)` by the method of Dormand and Prince [1]_, each row with steps of its own.

    With one step for the whole batch a row's solution would, within the tolerance, depend on the other rows, and the most
    difficult row would set the step of all. Here a row takes the steps that its own error asks for ([2]_, section II.4), and
    leaves the computation when it has arrived.

    Parameters
    ----------
    derivative : callable
        The function :math:`f`; called with points, a time for each, and the numbers of the rows that they belong to.
    y : Tensor of shape (n_samples, n_components)
        Where rows are at ``t_start``.
    t_start, t_end : float
        Times, in any order.
    rtol, atol : float
        A step's error in each component is at most ``atol`` plus ``rtol`` times the component.
    max_steps : int
        Number of steps that a row may try.

    Returns
    -------
    y : Tensor of shape (n_samples, n_components)
        Where rows are at ``t_end``. Gradients go through the solution, not through the choice of steps.
    n_evaluations : Tensor of shape (n_samples,)
        How often the derivative of each row was computed.

    Raises
    ------
    StepLimitError
        If a row doesn't arrive.

    References
    ----------
    .. [1] Dormand and Prince, "A Family of Embedded Runge-Kutta Formulae", Journal of Computational and Applied Mathematics
       6(1), 1980.
    .. [2] Hairer, Nørsett and Wanner, "Solving Ordinary Differential Equations I", 2nd edition, Springer, 1993.
    """
    if not len(y):
        return y, y.new_zeros(0, dtype=torch.int64)
    sign = 1.0 if t_end >= t_start else -1.0
    length = abs(t_end - t_start)
    rows = torch.arange(len(y), device=y.device)
    elapsed = torch.zeros_like(y[:, 0])

    def at(y: Tensor, elapsed: Tensor) -> Tensor:
        return sign * derivative(y, t_start + sign * elapsed, rows)

    def scaled(error: Tensor, size: Tensor) -> Tensor:
        return (error.detach().abs() / (atol + rtol * size)).amax(dim=-1)

    slope = at(y, elapsed)
    step = _first_step(at, scaled, y, slope, length)
    n_evaluations = torch.full((len(y),), 2, device=y.device)
    arrived: list[tuple[Tensor, Tensor]] = []
    smallest = 16 * torch.finfo(y.dtype).eps * length
    for _ in range(max_steps):
        is_last = step >= (length - elapsed) * (1 - 1e-12)
        step = torch.where(is_last, length - elapsed, step)
        h = step[:, None]
        slopes = [slope]
        for node, weights in zip(NODES[1:], STAGES[1:], strict=True):
            stage = y + h * _weighted_sum(weights, slopes)
            slopes.append(at(stage, elapsed + node * step))
        n_evaluations[rows] += len(STAGES) - 1
        size = torch.maximum(y.detach().abs(), stage.detach().abs())
        error = scaled(h * _weighted_sum(ERROR, slopes), size)
        # What isn't finite fails the comparison.
        accepted = error <= 1
        factor = (SAFETY * error.clamp_min(1e-10) ** -0.2).clamp(MIN_FACTOR, MAX_FACTOR)
        factor = torch.where(accepted, factor, factor.nan_to_num(MIN_FACTOR).clamp_max(1.0))
        y = torch.where(accepted[:, None], stage, y)
        slope = torch.where(accepted[:, None], slopes[-1], slope)
        elapsed = torch.where(accepted, elapsed + step, elapsed)
        step = step * factor
        is_done = accepted & is_last
        if bool(is_done.any()):
            arrived.append((rows[is_done], y[is_done]))
            goes_on = ~is_done
            rows, y, slope, elapsed, step = (a[goes_on] for a in (rows, y, slope, elapsed, step))
            if not len(rows):
                break
        if bool((step < smallest).any()):
            raise StepLimitError(
                f"{int((step < smallest).sum())} row(s) would need steps that are smaller than rounding errors"
            )
    else:
        raise StepLimitError(f"{len(rows)} row(s) would need more than {max_steps} steps")
    numbers, ends = (torch.cat(parts) for parts in zip(*arrived, strict=True))
    return ends[numbers.argsort()], n_evaluations


def _weighted_sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        if weight:
            total = torch.add(total, slope, alpha=weight)
    return total


def _first_step(
    at: Callable[[Tensor, Tensor], Tensor], scaled: Callable[[Tensor, Tensor], Tensor], y: Tensor, slope: Tensor, length: float
) -> Tensor:
    """A step at which the method's error is about the tolerance, from two derivatives (Hairer et al., section II.4)."""
    with torch.no_grad():
        size = y.abs()
        steepness = scaled(slope, size)
        trial = 0.01 * (scaled(y, size) / steepness).nan_to_num(length, posinf=length).clamp(1e-6, length)
        change = scaled(at(y + trial[:, None] * slope, trial) - slope, size) / trial
        largest = torch.maximum(steepness, change)
        step = torch.where(largest > 1e-15, (0.01 / largest) ** 0.2, length).clamp_max(length)
        return torch.minimum(100 * trial, step).nan_to_num(1e-6).clamp_min(1e-6)


def solve_in_steps(derivative: Derivative, y: Tensor, t_start: float, t_end: float, n_steps: int) -> Tensor:
    """Solve :math:`dy / dt = f(y, t)` by the classical Runge-Kutta method in steps of equal size, the same for all rows.

    Parameters
    ----------
    derivative : callable
        The function :math:`f`, as in ``solve_adaptively``, but with one time for all rows.
    y : Tensor of shape (n_samples, n_components)
        Where rows are at ``t_start``.
    t_start, t_end : float
        Times, in any order.
    n_steps : int
        Number of steps, of four evaluations each.

    Returns
    -------
    Tensor of shape (n_samples, n_components)
        Where rows are at ``t_end``.
    """
    rows = torch.arange(len(y), device=y.device)
    h = (t_end - t_start) / n_steps
    for i in range(n_steps):
        begin, middle, end = (y.new_tensor([t_start + (i + share) * h]) for share in (0.0, 0.5, 1.0))
        k1 = derivative(y, begin, rows)
        k2 = derivative(y + h / 2 * k1, middle, rows)
        k3 = derivative(y + h / 2 * k2, middle, rows)
        k4 = derivative(y + h * k3, end, rows)
        y = y + h / 6 * (k1 + 2 * (k2 + k3) + k4)
    return y
