"""The Gaussian that comes close to an unnormalised density: what a flow that is fitted to such a density starts from."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

# From points, shape (n_points, n_features), to their log-densities and the gradients of these.
Score = Callable[[Tensor], tuple[Tensor, Tensor]]

# Draws that judge a Gaussian along the way to the mode; they are the same for all, so that differences are exact.
N_JUDGES = 64
MAX_STEPS_TO_MODE = 500
# Steps and draws that improve the best of them, and the largest relative change of location or scale in a step.
N_STEPS = 200
MIN_DRAWS = 64
MAX_CHANGE = 0.5
# How often steps that met a density that isn't finite are taken back before that is told.
MAX_RETREATS = 8


class NotFiniteError(RuntimeError):
    """A log-density, or its gradient, isn't finite where it is needed; ``point`` is one of these places."""

    def __init__(self, point: Tensor) -> None:
        super().__init__("the log-density, or its gradient, isn't finite")
        self.point = point.detach().cpu()


def first_not_finite(x: Tensor, log_density: Tensor, gradient: Tensor) -> Tensor | None:
    """Find a point whose log-density or gradient isn't finite.

    Parameters
    ----------
    x : Tensor of shape (n_points, n_features)
        The points.
    log_density, gradient : Tensor of shape (n_points,), Tensor of shape (n_points, n_features)
        What a score function says of them.

    Returns
    -------
    Tensor of shape (n_features,) or None
        The first such point, or None if there is none.
    """
    bad = ~(log_density.isfinite() & gradient.isfinite().all(dim=-1))
    return x[bad][0] if bool(bad.any()) else None


def fit_gaussian(score: Score, n_features: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Fit a Gaussian :math:`\\mathcal N(\\mu, C C^\\top)` to an unnormalised density by the reverse KL divergence.

    First a quasi-Newton method climbs from the origin towards a mode. Each point of its path, with the inverse Hessian that the
    method has learned until then, is a Gaussian, and the one with the highest evidence lower bound is taken, as in Pathfinder
    [1]_: at the mode itself a skewed density, such as a funnel, may be narrow or unbounded. Then stochastic steps improve it:
    with draws :math:`x = \\mu + C u` and residuals :math:`r = C^\\top \\nabla \\log p(x) + u`,

    .. math:: \\mu \\leftarrow \\mu + \\rho\\, C\\, \\mathrm{E}[r], \\qquad
       C \\leftarrow C \\exp(\\tfrac{\\rho}{2}\\, \\mathrm{E}[r u^\\top + u r^\\top] / 2),

    natural-gradient steps on the square root of the covariance [2]_, with the entropy's gradient taken along the paths of the
    draws [3]_. They don't depend on the units of the features. Where the density is Gaussian, the residuals vanish at the
    solution, so there is no noise.

    Parameters
    ----------
    score : callable
        Gives log-densities and gradients of points in float64. It may give infinities and NaN; where these can't be avoided,
        ``NotFiniteError`` is raised.
    n_features : int
        Number of features.
    generator : torch.Generator
        Source of the draws, a generator of the CPU.
    device : torch.device
        Where the points are.

    Returns
    -------
    location : Tensor of shape (n_features,)
        The mean :math:`\\mu`, in float64.
    scale : Tensor of shape (n_features, n_features)
        Lower-triangular root :math:`C` of the covariance, in float64.

    References
    ----------
    .. [1] Zhang, Carpenter, Gelman and Vehtari, "Pathfinder: Parallel Quasi-Newton Variational Inference", JMLR 23(306), 2022.
    .. [2] Glasmachers, Schaul, Sun, Wierstra and Schmidhuber, "Exponential Natural Evolution Strategies", GECCO 2010.
    .. [3] Roeder, Wu and Duvenaud, "Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational
       Inference", NeurIPS 2017.
    """

    def draw(n: int) -> Tensor:
        half = torch.randn(-(-n // 2), n_features, generator=generator, dtype=torch.float64)
        return torch.cat([half, -half]).to(device)

    location, scale = _best_on_path(score, n_features, draw(N_JUDGES))
    n_draws, change, n_retreats, step = max(MIN_DRAWS, 2 * n_features), MAX_CHANGE, 0, 0
    before = location, scale
    while step < N_STEPS:
        u = draw(n_draws)
        x = location + u @ scale.T
        log_density, gradient = score(x)
        bad = first_not_finite(x, log_density, gradient)
        if bad is not None:
            n_retreats += 1
            if n_retreats > MAX_RETREATS:
                raise NotFiniteError(bad)
            # Where the last step came from all was well, or was not: then a smaller Gaussian around it.
            change /= 2
            location, scale = before[0], before[1] / 2
            before = location, scale
            continue
        residual = gradient @ scale + u
        moment = residual.T @ u / len(u)
        # Large steps first, then small ones, which average the draws.
        rate = change * min(1.0, 5 * (1 - step / N_STEPS))
        shift, turn = _at_most_one(residual.mean(dim=0)), _at_most_one((moment + moment.T) / 2)
        before = location, scale
        location = location + rate * scale @ shift
        scale = scale @ torch.linalg.matrix_exp(rate / 2 * turn)
        step += 1
    lower: Tensor = torch.linalg.cholesky(scale @ scale.T)
    return location, lower


def _at_most_one(a: Tensor) -> Tensor:
    bounded: Tensor = a / a.norm().clamp(min=1)
    return bounded


def _best_on_path(score: Score, n_features: int, u: Tensor) -> tuple[Tensor, Tensor]:
    """The Gaussian with the highest evidence lower bound along the path to a mode, as mean and root of the covariance."""
    device = u.device
    points: list[NDArray[np.float64]] = []
    slopes: list[NDArray[np.float64]] = []

    def minus_log_density(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        log_density, gradient = score(torch.as_tensor(point, device=device)[None])
        value, slope = -log_density.item(), -gradient[0].cpu().numpy()
        # The line search turns back where it meets something that isn't finite.
        return (value, slope) if math.isfinite(value) and np.isfinite(slope).all() else (1e300, np.zeros(n_features))

    def keep(point: NDArray[np.float64]) -> None:
        points.append(point.copy())
        slopes.append(minus_log_density(point)[1])

    origin = np.zeros(n_features)
    keep(origin)
    minimize(minus_log_density, origin, jac=True, method="L-BFGS-B", callback=keep, options={"maxiter": MAX_STEPS_TO_MODE})

    best, best_bound, bad = None, -math.inf, u[0]
    hessian_inverse, is_first = np.eye(n_features), True
    for k, point in enumerate(points):
        if k > 0:
            s, y = point - points[k - 1], slopes[k] - slopes[k - 1]
            if s @ y <= 1e-12 * np.linalg.norm(s) * np.linalg.norm(y):
                continue
            if is_first:
                hessian_inverse, is_first = s @ y / (y @ y) * np.eye(n_features), False
            # The update of Broyden, Fletcher, Goldfarb and Shanno.
            turn = np.eye(n_features) - np.outer(s, y) / (s @ y)
            hessian_inverse = turn @ hessian_inverse @ turn.T + np.outer(s, s) / (s @ y)
        scale, failed = torch.linalg.cholesky_ex(torch.as_tensor(hessian_inverse, device=device))
        if failed or not bool(scale.isfinite().all()):
            continue
        location = torch.as_tensor(point, device=device)
        x = location + u @ scale.T
        log_density, gradient = score(x)
        not_finite = first_not_finite(x, log_density, gradient)
        if not_finite is not None:
            bad = not_finite
            continue
        bound = (log_density.mean() + scale.diagonal().log().sum()).item()
        if bound > best_bound:
            best, best_bound = (location, scale), bound
    if best is None:
        raise NotFiniteError(bad)
    return best
