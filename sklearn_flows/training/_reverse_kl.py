"""The training loop of variational inference: a flow and an unnormalised density in; the same flow, trained, out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .._workspace import Workspace
from ..flows import Flow
from ._gaussian_fit import NotFiniteError, Score, first_not_finite
from ._loop import AVERAGED_STEPS, MAX_ROLLBACKS, StopReason
from ._optim import AdamW, FlatParameters, MovingAverage, warmup_cosine

# Steps after which the weights are kept as those to go back to.
STEPS_BETWEEN_SNAPSHOTS = 50


@dataclass
class ReverseKLResult:
    """What training saw; the transform itself holds the weights it kept.

    Attributes
    ----------
    loss_curve : list of float
        Estimate of the negative evidence lower bound in each step, from the step's own draws.
    stop_reason : str
        Why training ended.
    """

    loss_curve: list[float] = field(default_factory=list)
    stop_reason: StopReason = "max_iter"


def fit_reverse_kl(
    mirror: Flow,
    score: Score,
    location: Tensor,
    scale: Tensor,
    *,
    max_iter: int,
    batch_size: int,
    learning_rate: float,
    generator: torch.Generator,
    on_step_end: Callable[[ReverseKLResult], None] | None = None,
) -> ReverseKLResult:
    """Fit a flow to an unnormalised density by minimising the reverse Kullback-Leibler divergence.

    The loss is :math:`\\mathrm E[\\log q(x) - \\log p(x)]` over draws :math:`x = \\mu + C\\, g(z)` of the flow, and its
    gradient goes through the draws (reparametrisation) [1]_ (eq. 15). AdamW with warm-up and a cosine schedule; kept is the
    moving average of the weights. Where draws reach places at which the log-density isn't finite, training goes back some steps
    and on at half the rate. ``KeyboardInterrupt`` ends training, and keeps what has been reached.

    Parameters
    ----------
    mirror : Flow
        Its transform is :math:`g`, from latents to points: the flow to fit, the other way round. Trained in place.
    score : callable
        Gives log-densities and gradients of points in float64.
    location, scale : Tensor of shape (n_features,), Tensor of shape (n_features, n_features)
        The affine map :math:`\\mu`, :math:`C` after the flow, in float64; it isn't trained.
    max_iter : int
        Number of steps.
    batch_size : int
        Number of draws in each step.
    learning_rate : float
        Peak of the schedule.
    generator : torch.Generator
        Source of the draws, a generator of the CPU.
    on_step_end : callable or None
        Called with the result so far.

    Returns
    -------
    ReverseKLResult
        Curve and the reason for stopping.

    Raises
    ------
    NotFiniteError
        If no step size tried keeps the draws where the log-density is finite.

    References
    ----------
    .. [1] Rezende and Mohamed, "Variational Inference with Normalizing Flows", ICML 2015.
    """
    parameters = FlatParameters(mirror)
    optimiser, workspace = AdamW(parameters, weight_decay=0.0), Workspace()
    result = ReverseKLResult()
    constant = scale.diagonal().log().sum() + 0.5 * len(location) * (1 + math.log(2 * math.pi))
    average = MovingAverage(parameters.values, AVERAGED_STEPS)
    snapshot = average.values.clone()
    step_scale, n_rollbacks = 1.0, 0
    try:
        while len(result.loss_curve) < max_iter:
            step = len(result.loss_curve)
            z = mirror.base.sample(batch_size, generator)
            with workspace.round():
                u, log_det = mirror.transform.forward(z)
                x = location + u.detach().double() @ scale.T
                log_density, gradient = score(x)
                bad = first_not_finite(x, log_density, gradient)
                if bad is None:
                    # The gradient of this is that of the bound: the score enters as a constant.
                    torch.autograd.backward(-((gradient @ scale).to(u) * u).sum(dim=-1).mean() - log_det.mean())
            if bad is not None:
                n_rollbacks += 1
                if n_rollbacks > MAX_ROLLBACKS:
                    raise NotFiniteError(bad)
                step_scale /= 2
                parameters.values.copy_(snapshot)
                average.start_again(snapshot)
                optimiser.reset()
                continue
            # E[-log q] = E[-log p(z)] + E[log_det] + log|C|; the first term is known, and its estimate would only add noise.
            result.loss_curve.append(-(log_density.mean() + log_det.detach().mean() + constant).item())
            optimiser.step(step_scale * learning_rate * warmup_cosine(step, max_iter))
            average.add(parameters.values)
            if step % STEPS_BETWEEN_SNAPSHOTS == 0:
                snapshot.copy_(average.values)
            if on_step_end is not None:
                on_step_end(result)
    except KeyboardInterrupt:
        result.stop_reason = "interrupted"
    parameters.values.copy_(average.values)
    return result
