"""The monotone rational-quadratic spline of neural spline flows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ._elementwise import Transformer

# Smallest bin (as a share of the box) and smallest derivative at a knot: both keep the spline strictly monotone
# and its inverse well-conditioned, in float32 too.
MIN_BIN = 1e-3
MIN_DERIVATIVE = 1e-3


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
    # The offset makes a raw value of zero a derivative of one.
    offset = math.log(math.expm1(1 - MIN_DERIVATIVE))
    derivatives = MIN_DERIVATIVE + F.softplus(raw_derivatives + offset)
    return widths, heights, F.pad(derivatives, (1, 1), value=1.0)


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
    # Points in the tails are moved onto the box, so that the branch not taken below stays finite in value and gradient.
    position = (x.clamp(-tail_bound, tail_bound) + tail_bound) / (2 * tail_bound)

    ends_x, ends_y = widths.cumsum(dim=-1), heights.cumsum(dim=-1)
    searched = ends_y if inverse else ends_x
    k = (position.unsqueeze(-1) >= searched[..., :-1]).sum(dim=-1, keepdim=True)

    def at_bin(values: Tensor) -> Tensor:
        return values.gather(-1, k).squeeze(-1)

    w, h = at_bin(widths), at_bin(heights)
    x_k, y_k = at_bin(ends_x) - w, at_bin(ends_y) - h
    d_left, d_right = at_bin(derivatives[..., :-1]), at_bin(derivatives[..., 1:])
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
        return rational_quadratic_spline(x, *spline_knots(parameters, self.n_bins), self.tail_bound)

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return rational_quadratic_spline(z, *spline_knots(parameters, self.n_bins), self.tail_bound, inverse=True)
