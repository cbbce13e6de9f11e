"""Scores: what is asked of each density about a row, and how the answers become one number, the higher the more normal."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# An answer is at least this, so that means, differences and variances of those for impossible rows are finite.
LOWEST_ANSWER = -1e100


class Score(NamedTuple):
    """A kind of score.

    Attributes
    ----------
    ask : callable
        From a fitted density and rows to its answers, ndarray of shape (n_samples,).
    combine : callable
        From the answers of several densities, ndarray of shape (n_densities, n_samples), and the typical answer of each, which
        only some need, ndarray of shape (n_densities,), to scores, ndarray of shape (n_samples,).
    """

    ask: Callable
    combine: Callable


def log_densities(density, X):
    """Log-densities of rows.

    Parameters
    ----------
    density : estimator object
        A fitted density.
    X : ndarray of shape (n_samples, n_features)
        The rows.

    Returns
    -------
    ndarray of shape (n_samples,)
        Log-densities, finite.
    """
    return np.maximum(density.score_samples(X), LOWEST_ANSWER)


def _log_densities_of_latents(density, X):
    """Up to a constant, and finite: minus half the squared norm of what should be standard normal."""
    squared_norm = np.square(np.asarray(density.transform(X))).sum(axis=1)
    # Latents so far out that they can't be represented may be NaN.
    return np.maximum(-0.5 * np.where(np.isnan(squared_norm), np.inf, squared_norm), LOWEST_ANSWER)


def _mean(answers, typical):
    return answers.mean(axis=0)


def _mean_closeness(answers, typical):
    return -np.abs(answers - typical[:, None]).mean(axis=0)


def _mean_less_variance(answers, typical):
    return answers.mean(axis=0) - answers.var(axis=0)


SCORES = {
    "log_density": Score(log_densities, _mean),
    "typicality": Score(log_densities, _mean_closeness),
    "latent": Score(_log_densities_of_latents, _mean),
    "waic": Score(log_densities, _mean_less_variance),
}
