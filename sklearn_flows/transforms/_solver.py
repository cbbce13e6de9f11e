"""Ordinary differential equations for many rows at once, none of which depends on the others."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchdiffeq import odeint

# What a row tries first, as a share of the whole way.
FIRST_STEP = 0.25
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

    torchdiffeq takes the steps and estimates their errors, but it would choose one step for the whole batch: a row's solution
    would, within the tolerance, depend on the other rows. Here a row takes the steps that its own error asks for ([2]_,
    section II.4), and leaves the computation when it has arrived. For that, time runs from 0 to 1 in each step of each row.

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
    n_evaluations = torch.zeros(len(y), dtype=torch.int64, device=y.device)
    if not len(y):
        return y, n_evaluations
    is_finite = y.isfinite().all(dim=-1)
    if not bool(is_finite.all()):
        raise StepLimitError(f"{int((~is_finite).sum())} row(s) start at values that aren't finite")
    length = t_end - t_start
    rows = torch.arange(len(y), device=y.device)
    # Shares of the way.
    elapsed = y.new_zeros(len(y))
    step = y.new_full((len(y),), FIRST_STEP)
    smallest = 16 * torch.finfo(y.dtype).eps
    arrived: list[tuple[Tensor, Tensor]] = []
    for _ in range(max_steps):
        is_last = step >= 1 - elapsed
        step = torch.where(is_last, 1 - elapsed, step)
        end, error = _step(derivative, y, t_start + length * elapsed, length * step, rows, n_evaluations, rtol, atol)
        accepted = error <= 1
        y = torch.where(accepted[:, None], end, y)
        elapsed = torch.where(accepted, elapsed + step, elapsed)
        step = step * (SAFETY * error.clamp_min(1e-10) ** -0.2).clamp(MIN_FACTOR, MAX_FACTOR)
        is_done = accepted & is_last
        if bool(is_done.any()):
            arrived.append((rows[is_done], y[is_done]))
            goes_on = ~is_done
            rows, y, elapsed, step = (a[goes_on] for a in (rows, y, elapsed, step))
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


def _step(
    derivative: Derivative,
    y: Tensor,
    t: Tensor,
    step: Tensor,
    rows: Tensor,
    n_evaluations: Tensor,
    rtol: float,
    atol: float,
) -> tuple[Tensor, Tensor]:
    """One step of torchdiffeq for each row, from its own time and of its own size: its end, and its error by the tolerance."""
    errors: list[Tensor] = []

    def in_own_time(share: Tensor, y: Tensor) -> Tensor:
        n_evaluations[rows] += 1
        return step[:, None] * derivative(y, t + share * step, rows)

    def keep_error(ratios: Tensor) -> Tensor:
        # The library judges a step by a norm of its errors. It gets none to object to: rows are judged one by one.
        errors.append(ratios.detach().abs().amax(dim=-1))
        return ratios.new_zeros(())

    whole_way = torch.tensor([0.0, 1.0], dtype=y.dtype, device=y.device)
    options = {"first_step": 1.0, "norm": keep_error}
    end = odeint(in_own_time, y, whole_way, rtol=rtol, atol=atol, method="dopri5", options=options)[-1]
    (error,) = errors
    return end, torch.where(end.isfinite().all(dim=-1), error, torch.inf)
