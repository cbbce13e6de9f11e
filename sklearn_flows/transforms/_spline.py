"""The monotone rational-quadratic spline of neural spline flows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .._fusion import call, is_fusing
from ._elementwise import Transformer

# Smallest bin (as a share of the box) and smallest derivative at a knot: both keep the spline strictly monotone
# and its inverse well-conditioned, in float32 too.
MIN_BIN = 1e-3
MIN_DERIVATIVE = 1e-3
# Added to raw derivatives: a raw value of zero is then a derivative of one.
DERIVATIVE_OFFSET = math.log(math.expm1(1 - MIN_DERIVATIVE))


def spline_knots(raw: Tensor, n_bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Constrain the raw parameters of a spline on the unit box.

    Parameters
    ----------
    raw : Tensor of shape (..., 3 * n_bins - 1)
        Unconstrained widths, heights and inner derivatives. Zeros give the identity.
    n_bins : int
        Number of bins K.

    Returns
    -------
    widths, heights : Tensor of shape (..., n_bins)
        Positive, each summing to one.
    derivatives : Tensor of shape (..., n_bins + 1)
        Positive; one at both ends, where the spline meets its linear tails.
    """
    raw_widths, raw_heights, raw_derivatives = torch.split(raw, [n_bins, n_bins, n_bins - 1], dim=-1)
    widths = MIN_BIN + (1 - MIN_BIN * n_bins) * raw_widths.softmax(dim=-1)
    heights = MIN_BIN + (1 - MIN_BIN * n_bins) * raw_heights.softmax(dim=-1)
    derivatives = MIN_DERIVATIVE + F.softplus(raw_derivatives + DERIVATIVE_OFFSET)
    return widths, heights, F.pad(derivatives, (1, 1), value=1.0)


def _in_unit_box(x: Tensor, tail_bound: float) -> Tensor:
    # Points in the tails are moved onto the box, so that the branch not taken for them stays finite.
    return (x.clamp(-tail_bound, tail_bound) + tail_bound) / (2 * tail_bound)


def _bin_of(
    position: Tensor, widths: Tensor, heights: Tensor, derivatives: Tensor, *, inverse: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Bin that holds a position on the horizontal axis, or on the vertical one if ``inverse``.

    Returns its number (with a last axis of one), where it starts on both axes, its width and height, and the derivatives at
    both its ends.
    """
    ends_x, ends_y = widths.cumsum(dim=-1), heights.cumsum(dim=-1)
    searched = ends_y if inverse else ends_x
    k = (position.unsqueeze(-1) >= searched[..., :-1]).sum(dim=-1, keepdim=True)

    def at_bin(values: Tensor) -> Tensor:
        return values.gather(-1, k).squeeze(-1)

    w, h = at_bin(widths), at_bin(heights)
    return k, at_bin(ends_x) - w, at_bin(ends_y) - h, w, h, at_bin(derivatives[..., :-1]), at_bin(derivatives[..., 1:])


def rational_quadratic_spline(
    x: Tensor, widths: Tensor, heights: Tensor, derivatives: Tensor, tail_bound: float, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Evaluate a monotone rational-quadratic spline with identity tails.

    Parameters
    ----------
    x : Tensor of shape (...)
        Arguments (of the inverse function if ``inverse``).
    widths, heights : Tensor of shape (..., n_bins)
        Bin sizes as shares of the box ``[-tail_bound, tail_bound]``, each summing to one.
    derivatives : Tensor of shape (..., n_bins + 1)
        Positive derivatives at the knots.
    tail_bound : float
        Half the side of the box; outside it the map is the identity.
    inverse : bool, default=False
        Whether to evaluate the inverse function.

    Returns
    -------
    y : Tensor of shape (...)
        Values.
    log_derivative : Tensor of shape (...)
        Logarithm of the derivative of ``y`` with respect to ``x``.

    References
    ----------
    .. [1] Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019: eq. 4 (value),
       eq. 5 (derivative), eqs. 6-8 (inverse).
    """
    inside = x.abs() <= tail_bound
    position = _in_unit_box(x, tail_bound)
    _, x_k, y_k, w, h, d_left, d_right = _bin_of(position, widths, heights, derivatives, inverse=inverse)
    s = h / w
    curvature = d_left + d_right - 2 * s

    if inverse:
        rise = (position - y_k).clamp(min=0)
        a = h * (s - d_left) + rise * curvature
        b = h * d_left - rise * curvature
        c = -s * rise
        # The root without cancellation (eq. 29 of the paper's appendix); rounding can push a zero discriminant below zero.
        xi = 2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())
    else:
        xi = (position - x_k) / w
    xi = xi.clamp(0, 1)  # knots are rounded sums: a point on a knot may fall outside its bin by an ulp

    xi_rest = xi * (1 - xi)
    denominator = s + curvature * xi_rest
    log_derivative = (
        2 * s.log() + (d_right * xi.square() + 2 * s * xi_rest + d_left * (1 - xi).square()).log() - 2 * denominator.log()
    )
    if inverse:
        value, log_derivative = x_k + w * xi, -log_derivative
    else:
        value = y_k + h * (s * xi.square() + d_left * xi_rest) / denominator
    y = torch.where(inside, value * (2 * tail_bound) - tail_bound, x)
    return y, torch.where(inside, log_derivative, torch.zeros_like(log_derivative))


def spline_gradients(
    x: Tensor, raw: Tensor, z_gradient: Tensor, log_derivative_gradient: Tensor, n_bins: int, tail_bound: float
) -> tuple[Tensor, Tensor]:
    """Carry gradients back through the spline, in closed form.

    Needs no intermediate result of the way forward: with some sixty of them for each scalar, memory traffic would cost more
    than the arithmetic.

    Parameters
    ----------
    x : Tensor of shape (...)
        Arguments of the spline.
    raw : Tensor of shape (..., 3 * n_bins - 1)
        Its unconstrained parameters.
    z_gradient, log_derivative_gradient : Tensor of shape (...)
        Gradients of a loss with respect to the value and the log-derivative.
    n_bins, tail_bound
        As in ``spline_knots`` and ``rational_quadratic_spline``.

    Returns
    -------
    x_gradient : Tensor of shape (...)
        Gradient with respect to ``x``.
    raw_gradient : Tensor of shape (..., 3 * n_bins - 1)
        Gradient with respect to ``raw``.
    """
    widths, heights, derivatives = spline_knots(raw, n_bins)
    inside = x.abs() <= tail_bound
    position = _in_unit_box(x, tail_bound)
    k, x_k, _, w, h, d_left, d_right = _bin_of(position, widths, heights, derivatives, inverse=False)
    xi = ((position - x_k) / w).clamp(0, 1)
    s = h / w
    rest, xi_left = xi * (1 - xi), 1 - xi
    curvature = d_left + d_right - 2 * s
    # value = y_k + h a / denominator, log-derivative = 2 log s + log(numerator) - 2 log(denominator)
    denominator = s + curvature * rest
    a = s * xi.square() + d_left * rest
    numerator = d_right * xi.square() + 2 * s * rest + d_left * xi_left.square()

    g_value = torch.where(inside, z_gradient * (2 * tail_bound), 0)
    g_log = torch.where(inside, log_derivative_gradient, 0)
    g_a = g_value * h / denominator
    g_denominator = -(g_a * a + 2 * g_log) / denominator
    g_numerator = g_log / numerator
    g_rest = g_a * d_left + g_denominator * curvature + 2 * g_numerator * s
    g_s = 2 * g_log / s + g_a * xi.square() + g_denominator * (1 - 2 * rest) + 2 * g_numerator * rest
    g_xi = 2 * xi * (g_a * s + g_numerator * d_right) - 2 * xi_left * g_numerator * d_left + g_rest * (1 - 2 * xi)
    g_d_left = (g_a + g_denominator) * rest + g_numerator * xi_left.square()
    g_d_right = g_denominator * rest + g_numerator * xi.square()
    g_w = -(g_xi * xi + g_s * s) / w
    g_h = g_value * a / denominator + g_s / w
    g_x_k = -g_xi / w

    number = torch.arange(n_bins, device=x.device)
    before, here = number < k, number == k

    def through_softmax(bins: Tensor, g_start: Tensor, g_size: Tensor) -> Tensor:
        free = bins - MIN_BIN  # the share that the softmax gives, times what is free to be shared
        g_bins = torch.where(before, g_start.unsqueeze(-1), 0) + torch.where(here, g_size.unsqueeze(-1), 0)
        mean = (free * g_bins).sum(dim=-1, keepdim=True) / (1 - MIN_BIN * n_bins)
        return free * (g_bins - mean)

    # The knot on the left of bin k is inner knot k - 1; the slope of the softplus is the logistic function.
    slope = (raw[..., 2 * n_bins :] + DERIVATIVE_OFFSET).sigmoid()
    g_knots = torch.where(number[1:] == k, g_d_left.unsqueeze(-1), 0) + torch.where(
        number[:-1] == k, g_d_right.unsqueeze(-1), 0
    )
    raw_gradient = torch.cat(
        [through_softmax(widths, g_x_k, g_w), through_softmax(heights, g_value, g_h), slope * g_knots], dim=-1
    )
    return torch.where(inside, -g_x_k / (2 * tail_bound), z_gradient), raw_gradient


def _spline(x: Tensor, raw: Tensor, n_bins: int, tail_bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
    return rational_quadratic_spline(x, *spline_knots(raw, n_bins), tail_bound, inverse=inverse)


class _Spline(torch.autograd.Function):
    """The spline as one step of the tape, which keeps only its raw parameters and its argument."""

    @staticmethod
    def forward(x: Tensor, raw: Tensor, n_bins: int, tail_bound: float, inverse: bool) -> tuple[Tensor, Tensor]:
        settings = {"n_bins": n_bins, "tail_bound": tail_bound, "inverse": inverse}
        result: tuple[Tensor, Tensor] = call(_spline, x, raw, fused=is_fusing(), **settings)
        return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, raw, n_bins, tail_bound, ctx.inverse = inputs
        ctx.settings = {"n_bins": n_bins, "tail_bound": tail_bound, "fused": is_fusing()}
        y, log_derivative = output
        # Of the inverse function, the argument of the spline is the result.
        ctx.save_for_backward(y if ctx.inverse else x, raw, log_derivative if ctx.inverse else None)
        ctx.set_materialize_grads(True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, raw, inverse_log_derivative = ctx.saved_tensors
        g_y, g_log_derivative = gradients

        def gradients_of(g_z: Tensor, g_log: Tensor) -> tuple[Tensor, Tensor]:
            result: tuple[Tensor, Tensor] = call(spline_gradients, x, raw, g_z, g_log, **ctx.settings)
            return result

        if not ctx.inverse:
            return *gradients_of(g_y, g_log_derivative), None, None, None
        # Implicit differentiation of z = f(x, raw), where the second result is -log f'(x, raw): what reaches x, directly
        # and through the log-derivative, goes on to z by 1 / f', and to the parameters as if z had the opposite gradient.
        through_log, _ = gradients_of(torch.zeros_like(g_y), -g_log_derivative)
        g_z = (g_y + through_log) * inverse_log_derivative.exp()
        _, g_raw = gradients_of(-g_z, -g_log_derivative)
        return g_z, g_raw, None, None, None


@dataclass(frozen=True)
class RationalQuadraticSpline(Transformer):
    """Monotone rational-quadratic spline with identity tails [1]_.

    Parameters
    ----------
    n_bins : int, default=8
        Number of bins K.
    tail_bound : float, default=5.0
        The spline acts on ``[-tail_bound, tail_bound]``; outside it is the identity.

    References
    ----------
    .. [1] Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019.
    """

    n_bins: int = 8
    tail_bound: float = 5.0

    @property
    def n_parameters(self) -> int:
        return 3 * self.n_bins - 1

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply(x, parameters, inverse=False)

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self._apply(z, parameters, inverse=True)

    def _apply(self, x: Tensor, parameters: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = _Spline.apply(x, parameters, self.n_bins, self.tail_bound, inverse)
        return result
