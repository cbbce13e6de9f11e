"""The two halves of a step of expectation-maximisation, as ``training._mixture`` describes them, without waiting for Python."""

import math

import numpy as np

from ._functions import called_from_python, inner
from ._product import vector_width
from ._vector import exponential, larger, load, logarithm, store


@inner
def _scatter_about(means, sums, n_pairs, scatter):
    """Sums of products of deviations from a component's mean, from sums about zero: the lower triangle, or the diagonal."""
    n_features = len(means)
    squares, entries = sums[n_pairs:], sums[n_pairs + n_features :]
    mass, pair = entries[n_features], 0
    for i in range(n_features):
        # Sums of squares less squares of sums, which standardised rows can bear.
        away = entries[i] - mass * means[i]
        scatter[i, i] = squares[i] - (entries[i] + away) * means[i]
        if n_pairs > 0:
            for j in range(i + 1, n_features):
                scatter[j, i] = sums[pair] - entries[j] * means[i] - means[j] * away
                pair += 1


@inner
def _inverse_cholesky_factor(covariance, inverse):
    """Inverse of the lower factor of a covariance, which is factorised in place."""
    n_features = len(covariance)
    for j in range(n_features):
        for i in range(j, n_features):
            rest = covariance[i, j]
            for k in range(j):
                rest -= covariance[i, k] * covariance[j, k]
            covariance[i, j] = math.sqrt(rest) if i == j else rest / covariance[j, j]
    for j in range(n_features):
        inverse[j, j] = 1.0 / covariance[j, j]
        for i in range(j + 1, n_features):
            rest = 0.0
            for k in range(j, i):
                rest -= covariance[i, k] * inverse[k, j]
            inverse[i, j] = rest / covariance[i, i]


@inner
def _coefficients_of_distance(means, factor, n_pairs, coefficients):
    """Of |P (z - mu)|^2 = z' A z - 2 (A mu)' z + mu' A mu with A = P'P, for the statistics of z."""
    n_features, constant, pair = len(means), 0.0, 0
    squares, entries = coefficients[n_pairs:], coefficients[n_pairs + n_features :]
    entries[:] = 0.0
    for i in range(n_features):
        for j in range(i, n_features if n_pairs > 0 else i + 1):
            precision = 0.0
            for k in range(j, n_features if n_pairs > 0 else j + 1):
                precision += factor[k, i] * factor[k, j]
            if i == j:
                squares[i] = precision
            else:
                coefficients[pair] = 2.0 * precision
                pair += 1
                entries[j] -= 2.0 * precision * means[i]
            entries[i] -= 2.0 * precision * means[j]
    for i in range(n_features):
        constant -= 0.5 * entries[i] * means[i]
    entries[n_features] = constant


@called_from_python
def maximise(sums, n_pairs, n, centre, prior_rows, diagonal_share, min_variance, means, factors, coefficients):
    """Find each component's mean, what makes it spherical, and how distances from it follow from the statistics of rows.

    Statistics are those of ``SplitRows``. Without pairs, covariances are diagonal.
    """
    n_components, n_features = means.shape
    scatter = np.zeros((n_components, n_features, n_features))
    prior = np.zeros((n_features, n_features))
    for c in range(n_components):
        entries = sums[c, n_pairs + n_features :]
        for i in range(n_features):
            # A hundredth of a row at the centre, so that an empty component has a mean.
            means[c, i] = (entries[i] + 0.01 * centre[i]) / (entries[n_features] + 0.01)
        _scatter_about(means[c], sums[c], n_pairs, scatter[c])
        prior += scatter[c]
    for i in range(n_features):
        for j in range(i + 1):
            prior[i, j] *= (1.0 if i == j else 1.0 - diagonal_share) / n.sum()
    for c in range(n_components):
        covariance = scatter[c]
        for i in range(n_features):
            for j in range(i + 1):
                if math.isinf(prior_rows):
                    covariance[i, j] = prior[i, j]
                else:
                    covariance[i, j] = (covariance[i, j] + prior_rows * prior[i, j]) / (n[c] + prior_rows)
            covariance[i, i] += min_variance
        if n_pairs > 0:
            _inverse_cholesky_factor(covariance, factors[c])
        else:
            for i in range(n_features):
                factors[c, i, i] = 1.0 / math.sqrt(covariance[i, i])
        _coefficients_of_distance(means[c], factors[c], n_pairs, coefficients[c])


@inner
def _logs_at_centres(shares, factors, df, result):
    n_features = factors.shape[1]
    for c in range(len(shares)):
        result[c] = math.log(shares[c])
        for i in range(n_features):
            result[c] += math.log(factors[c, i, i])
        if math.isinf(df[c]):
            result[c] -= 0.5 * n_features * math.log(2 * math.pi)
        else:
            result[c] += math.lgamma((df[c] + n_features) / 2) - math.lgamma(df[c] / 2)
            result[c] -= 0.5 * n_features * math.log(math.pi * df[c])


@inner
def _log_density(distances, row, log_at_centre, df, n_features, work):
    """Log-density of as many rows as a vector holds; their components' shares go to ``work``."""
    width = vector_width(distances)
    n_components, n_rows = len(log_at_centre), len(distances) // len(log_at_centre)
    highest = load(distances, row) * 0.0 - np.inf
    for c in range(n_components):
        distance = larger(0.0, load(distances, c * n_rows + row))  # a difference of large numbers may round below
        if math.isinf(df[c]):
            log_joint = log_at_centre[c] - 0.5 * distance
        else:
            log_joint = log_at_centre[c] - 0.5 * (df[c] + n_features) * logarithm(1.0 + distance / df[c])
        highest = larger(log_joint, highest)
        store(work, c * width, log_joint)
    total = highest * 0.0
    for c in range(n_components):
        likelihood = exponential(load(work, c * width) - highest)
        total = total + likelihood
        store(work, c * width, likelihood)
    for c in range(n_components):
        store(work, c * width, load(work, c * width) / total)
    return highest + logarithm(total)


@called_from_python
def expect(distances, shares, factors, df, weight, log_density, responsibility, weighted, n):
    """Log-density of all rows, and of the first ones, which have weights, the components that they belong to.

    ``distances`` are squared ones of each component from all rows, one component after the other, as are ``responsibility`` and
    ``weighted``: what rows count for in the next moments. ``n`` gets how many rows a component has.
    """
    n_components, n_rows, n_fitted = len(shares), len(log_density), len(weight)
    n_features, width = factors.shape[1], vector_width(distances)
    log_at_centre, work = np.empty(n_components), np.empty(n_components * width)
    _logs_at_centres(shares, factors, df, log_at_centre)
    for first in range(0, n_rows, width):
        row = min(first, n_rows - width)  # the last vector overlaps the one before
        store(log_density, row, _log_density(distances, row, log_at_centre, df, n_features, work))
        for c in range(n_components):
            if row + width <= n_fitted:
                store(responsibility, c * n_fitted + row, load(work, c * width))
            else:
                for lane in range(n_fitted - row):
                    responsibility[c * n_fitted + row + lane] = work[c * width + lane]
    for c in range(n_components):
        # Slices, for loops from zero, of which the compiler makes vectors.
        mine, counts = responsibility[c * n_fitted : (c + 1) * n_fitted], weighted[c * n_fitted : (c + 1) * n_fitted]
        distance, total = distances[c * n_rows : (c + 1) * n_rows], 0.0
        for row in range(n_fitted):
            counts[row] = mine[row] * weight[row]
        for row in range(n_fitted):
            total += counts[row]
        n[c] = total
        if not math.isinf(df[c]):
            for row in range(n_fitted):
                counts[row] *= (df[c] + n_features) / (df[c] + max(distance[row], 0.0))
