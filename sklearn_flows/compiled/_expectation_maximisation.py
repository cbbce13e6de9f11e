"""K-means and expectation-maximisation, as ``training._mixture`` describes them, without waiting for Python."""

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
    for i in range(n_features):
        entries[i] = 0.0
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


@inner
def _maximise(sums, n_pairs, n, centre, prior_rows, diagonal_share, min_variance, means, factors, coefficients):
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
    n_fitted = 0.0
    for c in range(n_components):
        n_fitted += n[c]
    for i in range(n_features):
        for j in range(i + 1):
            for c in range(n_components):
                prior[i, j] += scatter[c, i, j]
            prior[i, j] *= (1.0 if i == j else 1.0 - diagonal_share) / n_fitted
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


@inner
def _expect(distances, shares, factors, df, weight, log_density, responsibility, weighted, n):
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


@inner
def _copy(source, target):
    # What numba makes of an assignment of a whole array takes it seconds to compile.
    for i in range(len(source)):
        target[i] = source[i]


@called_from_python
def take_steps(
    of_fitted, of_judges, weight, share_of_judges, centre, n_pairs, prior_rows, diagonal_share, min_variance, df,
    patience, tolerance, n_steps, progress, n, weighted, responsibility,
    shares, means, factors, log_density_of_judges, leads_to_best,
):  # fmt: skip
    """Take steps of expectation-maximisation until the likelihood of the judges, or of all others, no longer rises.

    ``of_fitted`` and ``of_judges`` are the statistics of ``SplitRows``.
    ``progress``, the judges' likelihood at best, how many steps have been worse since, and the others' likelihood in the last
    step, goes on from call to call, as do ``n``, ``weighted`` and ``responsibility``. The other outputs tell of the best step.

    Gives whether the end is reached, or -1 if a covariance wasn't positive definite.
    """
    n_components, n_fitted = weighted.shape
    n_judges, total = len(share_of_judges), weight.sum()
    sums, n_rows = np.empty((n_components, len(of_fitted))), n_fitted + n_judges
    coefficients, distances = np.empty_like(sums), np.empty((n_components, n_rows))
    distances_of_fitted, distances_of_judges = np.empty((n_components, n_fitted)), np.empty((n_components, n_judges))
    current_means, current_factors = np.empty_like(means), np.zeros_like(factors)
    log_density, belongs = np.empty(n_rows), np.empty_like(responsibility)
    for _ in range(n_steps):
        np.dot(weighted, of_fitted.T, sums)
        current_shares = (n + 1) / (total + n_components)
        strengths = prior_rows, diagonal_share, min_variance
        _maximise(sums, n_pairs, n, centre, *strengths, current_means, current_factors, coefficients)
        if not math.isfinite(current_factors.sum()):
            return -1
        np.dot(coefficients, of_fitted, distances_of_fitted)
        np.dot(coefficients, of_judges, distances_of_judges)
        for c in range(n_components):
            _copy(distances_of_fitted[c], distances[c])
            _copy(distances_of_judges[c], distances[c, n_fitted:])
        outputs = belongs.reshape(-1), weighted.reshape(-1), n
        _expect(distances.reshape(-1), current_shares, current_factors, df, weight, log_density, *outputs)
        score = np.dot(share_of_judges, log_density[n_fitted:])
        progress[1] = 0.0 if score > progress[0] else progress[1] + 1.0
        if score > progress[0]:
            progress[0] = score
            _copy(log_density[n_fitted:], log_density_of_judges)
            _copy(current_shares, shares)
            for c in range(n_components):
                _copy(current_means[c], means[c])
                _copy(responsibility[c], leads_to_best[c])
                for i in range(means.shape[1]):
                    _copy(current_factors[c, i], factors[c, i])
        for c in range(n_components):
            _copy(belongs[c], responsibility[c])
        likelihood = np.dot(weight, log_density[:n_fitted]) / total
        if progress[1] >= patience or likelihood < progress[2] + tolerance:
            return 1
        progress[2] = likelihood
    return 0


@inner
def _squared_distances(centres, columns, squares, result):
    """Of all rows from each centre; by rounding they may be negative."""
    np.dot(centres, columns, result)
    for c in range(len(centres)):
        square, distance = 0.0, result[c]
        for j in range(len(columns)):
            square += centres[c, j] ** 2
        for i in range(len(squares)):
            distance[i] = squares[i] - 2.0 * distance[i] + square


@inner
def _drawn(weight, uniform):
    """A row, drawn by weights that may all be zero: then by chance."""
    total, n_rows = 0.0, len(weight)
    for i in range(n_rows):
        total += weight[i]
    if total <= 0.0:
        return int(uniform * n_rows)
    end = 0.0
    for i in range(n_rows):
        end += weight[i]
        if end > uniform * total:
            return i
    return n_rows - 1


@called_from_python
def first_groups(columns, weight, uniforms, n_steps, result):
    """Group rows, given as columns, by k-means after greedy k-means++, whose draws are those of uniform numbers.

    ``result`` gets one for the group that a row belongs to, zero for the others.
    """
    n_components, n_rows = result.shape
    n_drawn = (len(uniforms) - 1) // max(1, n_components - 1)
    centres, drawn = np.empty((n_components, len(columns))), np.empty((max(1, n_drawn), len(columns)))
    distances, squares = np.empty((len(drawn), n_rows)), np.zeros(n_rows)
    nearest, counts, group = np.empty(n_rows), weight.copy(), np.zeros(n_rows, dtype=np.int64)
    for i in range(n_rows):
        nearest[i] = np.inf
    for j in range(len(columns)):
        column = columns[j]
        for i in range(n_rows):
            squares[i] += column[i] ** 2
    for c in range(n_components):
        # Of the first centre there is one draw, which all are then.
        for k in range(len(drawn)):
            row = _drawn(counts, uniforms[1 + (c - 1) * n_drawn + k if c > 0 else 0])
            _copy(columns[:, row], drawn[k])
        _squared_distances(drawn, columns, squares, distances)
        least, best = np.inf, 0
        for k in range(len(drawn)):
            distance, loss = distances[k], 0.0
            for i in range(n_rows):
                distance[i] = min(max(distance[i], 0.0), nearest[i])
            for i in range(n_rows):
                loss += weight[i] * distance[i]
            if loss < least:
                least, best = loss, k
        _copy(drawn[best], centres[c])
        _copy(distances[best], nearest)
        for i in range(n_rows):
            counts[i] = weight[i] * nearest[i]
    for _ in range(n_steps):
        _squared_distances(centres, columns, squares, result)
        _copy(result[0], nearest)
        for i in range(n_rows):
            group[i] = 0
        for c in range(1, n_components):
            distance = result[c]
            for i in range(n_rows):
                is_nearer = distance[i] < nearest[i]
                nearest[i] = distance[i] if is_nearer else nearest[i]
                group[i] = c if is_nearer else group[i]
        sums, n = np.zeros_like(centres), np.zeros(n_components)
        for i in range(n_rows):
            n[group[i]] += weight[i]
        for j in range(len(columns)):
            column = columns[j]
            for i in range(n_rows):
                sums[group[i], j] += weight[i] * column[i]
        for c in range(n_components):
            if n[c] > 0.0:
                for j in range(len(columns)):
                    centres[c, j] = sums[c, j] / n[c]
    for c in range(n_components):
        for i in range(n_rows):
            result[c, i] = 1.0 if group[i] == c else 0.0
