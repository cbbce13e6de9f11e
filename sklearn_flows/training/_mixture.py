"""Where training starts, where rows come in groups: a regularised Gaussian mixture."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# What is tried: numbers of components, doubled until two in a row bring nothing; rows that the prior of a component's
# covariance counts for, in units of the dimension (infinity: all share one covariance); how far that covariance is drawn to its
# diagonal.
MAX_COMPONENTS = 64
PRIOR_ROWS = (1.0, 5.0, math.inf)
DIAGONAL_SHARES = (0.003, 0.03, 0.2)
# A component needs this many rows, or the number isn't tried.
ROWS_PER_COMPONENT = 5
# Added to all variances, in units of those of the columns.
MIN_VARIANCE = 1e-4
MAX_EM_STEPS = 60
PATIENCE = 5
TOLERANCE = 1e-4
KMEANS_STEPS = 10
# Rows that a mixture is fitted to, at most, and the number from which on strong priors aren't tried: they would lose.
MAX_ROWS = 5_000
FEW_ROWS = 600


class Mixture(NamedTuple):
    """A Gaussian mixture.

    Attributes
    ----------
    shares : ndarray of shape (n_components,)
        Weights, which sum to one.
    means : ndarray of shape (n_components, n_features)
        Means.
    precisions_cholesky : ndarray of shape (n_components, n_features, n_features)
        Lower-triangular matrices that whiten the components.
    """

    shares: Floats
    means: Floats
    precisions_cholesky: Floats

    def log_joint(self, Z: Floats) -> Floats:
        """Log-density of each row under each component, its share included, shape (n_components, n_samples)."""
        n_features = Z.shape[1]
        whitened = self.precisions_cholesky @ Z.T - (self.precisions_cholesky @ self.means[:, :, None])
        log_det = np.log(np.diagonal(self.precisions_cholesky, axis1=1, axis2=2)).sum(axis=1)
        constant = np.log(self.shares) + log_det - 0.5 * n_features * math.log(2 * math.pi)
        result: Floats = constant[:, None] - 0.5 * np.square(whitened).sum(axis=1)
        return result

    def log_density(self, Z: Floats) -> Floats:
        """Log-density of each row."""
        result: Floats = np.logaddexp.reduce(self.log_joint(Z), axis=0)
        return result


def _kmeans(Z: Floats, weight: Floats, n_components: int, rng: np.random.RandomState) -> npt.NDArray[np.intp]:
    """Group of each row, by k-means after k-means++."""
    centres = Z[[_draw(weight, rng)]]
    distance = np.square(Z - centres[0]).sum(axis=1)
    for _ in range(n_components - 1):
        centres = np.vstack([centres, Z[_draw(weight * distance, rng)]])
        distance = np.minimum(distance, np.square(Z - centres[-1]).sum(axis=1))
    for _ in range(KMEANS_STEPS):
        group = (np.square(centres).sum(axis=1) - 2 * Z @ centres.T).argmin(axis=1)
        members = (group == np.arange(n_components)[:, None]) * weight
        n = members.sum(axis=1, keepdims=True)
        centres = np.where(n > 0, members @ Z / np.maximum(n, 1e-300), centres)
    result: npt.NDArray[np.intp] = group
    return result


def _draw(weight: Floats, rng: np.random.RandomState) -> int:
    ends = np.cumsum(weight)
    if ends[-1] <= 0:  # as many centres as there are places
        return int(rng.randint(len(weight)))
    return min(int(np.searchsorted(ends, rng.random_sample() * ends[-1], side="right")), len(weight) - 1)


def fit_mixture(
    Z: Floats,
    weight: Floats,
    Z_val: Floats,
    weight_val: Floats,
    n_components: int,
    prior_rows: float,
    diagonal_share: float,
    rng: np.random.RandomState,
) -> tuple[Mixture, float]:
    """Fit a mixture by expectation-maximisation, as long as the likelihood of other rows rises.

    The covariance of a component is drawn to the mean covariance within components, as an inverse-Wishart prior does [1]_, and
    that mean covariance to its diagonal.

    Parameters
    ----------
    Z, Z_val : ndarray of shape (n_samples, n_features)
        Rows to fit and to watch.
    weight, weight_val : ndarray of shape (n_samples,)
        Their weights.
    n_components : int
        Number of components.
    prior_rows : float
        How many rows the prior of a covariance counts for.
    diagonal_share : float
        How far the mean covariance is drawn to its diagonal.
    rng : numpy.random.RandomState
        Source of the first groups.

    Returns
    -------
    mixture : Mixture
        The best one on the way.
    score : float
        Mean log-likelihood of the rows to watch.

    References
    ----------
    .. [1] Fraley and Raftery, "Bayesian Regularization for Normal Mixture Estimation and Model-Based Clustering", Journal of
       Classification 24, 2007.
    """
    n_rows, n_features = Z.shape
    total = weight.sum()
    centre = weight @ Z / total
    identity = np.eye(n_features)
    group = _kmeans(Z, weight, n_components, rng) if n_components > 1 else np.zeros(n_rows, dtype=np.intp)
    responsibility = (group == np.arange(n_components)[:, None]).astype(np.float64)
    best, best_score, n_worse, last = None, -math.inf, 0, -math.inf
    for _ in range(MAX_EM_STEPS):
        weighted = responsibility * weight
        n = weighted.sum(axis=1)
        shares = (n + 1) / (total + n_components)
        # A hundredth of a row at the centre, so that an empty component has a mean.
        means = (weighted @ Z + 0.01 * centre) / (n + 0.01)[:, None]
        scatter = np.stack([(w[:, None] * (Z - mean)).T @ (Z - mean) for w, mean in zip(weighted, means, strict=True)])
        within = scatter.sum(axis=0) / total
        prior = (1 - diagonal_share) * within + diagonal_share * np.diag(np.diag(within)) + MIN_VARIANCE * identity
        if math.isinf(prior_rows):
            covariances = np.repeat(prior[None], n_components, axis=0)
        else:
            covariances = (scatter + prior_rows * prior) / (n + prior_rows)[:, None, None]
        mixture = Mixture(shares, means, np.linalg.inv(np.linalg.cholesky(covariances)))
        score = float(weight_val @ mixture.log_density(Z_val) / weight_val.sum())
        n_worse = 0 if score > best_score else n_worse + 1
        if n_worse == 0:
            best, best_score = mixture, score
        log_joint = mixture.log_joint(Z)
        log_density = np.logaddexp.reduce(log_joint, axis=0)
        responsibility = np.exp(log_joint - log_density)
        current = float(weight @ log_density / total)
        if n_worse >= PATIENCE or current < last + TOLERANCE:
            break
        last = current
    assert best is not None
    return best, best_score


def _at_most(
    Z: npt.NDArray[np.floating], weight: npt.NDArray[np.floating], rng: np.random.RandomState
) -> tuple[Floats, Floats]:
    chosen = rng.permutation(len(Z))[:MAX_ROWS]
    return Z[chosen].astype(np.float64), weight[chosen].astype(np.float64)


def choose_mixture(
    Z: npt.NDArray[np.floating],
    weight: npt.NDArray[np.floating],
    Z_val: npt.NDArray[np.floating],
    weight_val: npt.NDArray[np.floating],
    rng: np.random.RandomState,
) -> tuple[Mixture, float]:
    """Fit mixtures of several sizes and strengths of the prior, and choose the one that other rows like best.

    Parameters
    ----------
    Z, Z_val : ndarray of shape (n_samples, n_features)
        Standardised rows to fit, and to choose by.
    weight, weight_val : ndarray of shape (n_samples,)
        Their weights.
    rng : numpy.random.RandomState
        Source of the first groups.

    Returns
    -------
    mixture : Mixture
        The best one; it may have a single component.
    score : float
        Mean log-likelihood of the rows to choose by.
    """
    rows, w = _at_most(Z, weight, rng)
    rows_val, w_val = _at_most(Z_val, weight_val, rng)
    most = min(MAX_COMPONENTS, max(1, len(rows) // ROWS_PER_COMPONENT))
    few = len(rows) <= FEW_ROWS
    best, best_score = None, -math.inf
    for diagonal_share in DIAGONAL_SHARES if few else DIAGONAL_SHARES[:2]:
        for prior in PRIOR_ROWS if few else PRIOR_ROWS[:1]:
            n_components, best_of_ladder, n_worse = 1, -math.inf, 0
            while n_components <= most and n_worse < 2:
                seed = np.random.RandomState(rng.randint(np.iinfo(np.int32).max))
                prior_rows = prior * (rows.shape[1] + 2)
                mixture, score = fit_mixture(rows, w, rows_val, w_val, n_components, prior_rows, diagonal_share, seed)
                n_worse = 0 if score > best_of_ladder else n_worse + 1
                best_of_ladder = max(score, best_of_ladder)
                if score > best_score:
                    best, best_score = mixture, score
                n_components *= 2
    assert best is not None
    return best, best_score
