"""Queries of a mixture of conditional flows with equal shares, in the space of encoded targets."""

import math

import numpy as np
import torch

from ..distributions import normal_score

# Normal scores at which the quantile function is evaluated for a mean: the trapezoidal rule between them. Splines have a
# continuous derivative only, so that its error is about 1e-4 standard deviations.
SCORES = torch.linspace(-8, 8, 129, dtype=torch.float64)
# Steps of the search for a quantile, and the error of its normal score that ends it.
MAX_STEPS = 100
SCORE_TOLERANCE = 1e-10


def log_density(flows, z, context):
    """Log-density of encoded targets.

    Parameters
    ----------
    flows : list of Flow
        The components.
    z : Tensor of shape (n_samples, n_targets)
        Encoded targets.
    context : Tensor of shape (n_samples, n_context)
        Encoded features.

    Returns
    -------
    Tensor of shape (n_samples,)
        Log-densities in nats.
    """
    return torch.stack([flow.log_prob(z, context) for flow in flows]).logsumexp(dim=0) - math.log(len(flows))


def quantiles_at_scores(flow, context):
    """Quantiles of one flow over a single target at ``SCORES``.

    Parameters
    ----------
    flow : Flow
        The flow.
    context : Tensor of shape (n_samples, n_context)
        Encoded features.

    Returns
    -------
    Tensor of shape (n_samples, n_scores)
        Encoded quantiles.
    """
    z = SCORES.repeat(len(context)).unsqueeze(-1)
    return flow.from_latent(z, context.repeat_interleave(len(SCORES), dim=0)).reshape(len(context), len(SCORES))


def score_weights():
    """Weights of the values at ``SCORES`` in a mean, which sum to one."""
    density = np.exp(-0.5 * np.square(SCORES.numpy()))
    return density / density.sum()


def quantile(flows, score, context):
    """Quantile of the mixture over a single target.

    The quantiles of the components bracket it; between them false position finds it, in normal scores, in which distribution
    functions are nearly linear.

    Parameters
    ----------
    flows : list of Flow
        The components.
    score : float
        Normal score of the quantile: the standard normal's quantile of the same probability.
    context : Tensor of shape (n_samples, n_context)
        Encoded features.

    Returns
    -------
    Tensor of shape (n_samples,)
        Encoded quantiles.
    """
    log_shares = torch.full((len(flows), 1), -math.log(len(flows)), dtype=torch.float64)

    def excess(z):
        scores = torch.stack([flow.to_latent(z.unsqueeze(-1), context).squeeze(-1) for flow in flows])
        return normal_score(log_shares, scores) - score

    latent = torch.full((len(context), 1), score, dtype=torch.float64)
    brackets = torch.stack([flow.from_latent(latent, context).squeeze(-1) for flow in flows])
    low, high = brackets.amin(dim=0), brackets.amax(dim=0)
    below, above = excess(low), excess(high)
    z, error = low, below
    for step in range(MAX_STEPS):
        done = (error.abs() <= SCORE_TOLERANCE) | (high <= low)
        if done.all():
            break
        # False position can creep along one side: every third step halves the bracket.
        share = below / (below - above) if step % 3 < 2 else torch.full_like(z, 0.5)
        candidate = low + (high - low) * share.nan_to_num(0.5).clamp(0, 1)
        # A row that is done stays as it is: its answer doesn't depend on the others.
        z = torch.where(done, z, candidate)
        error = torch.where(done, error, excess(z))
        is_below = error < 0
        low, below = torch.where(is_below, z, low), torch.where(is_below, error, below)
        high, above = torch.where(is_below, high, z), torch.where(is_below, above, error)
    return z
