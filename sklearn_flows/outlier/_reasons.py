"""Which columns make a row an outlier, and which values would not have."""

import numpy as np

# Values of a column that are tried, at most: quantiles of the training rows.
N_VALUES = 24
# Values between the neighbours of the best of them, tried for columns that aren't discrete.
N_BETWEEN = 9
# Values for the conditional density that a range is taken from.
N_VALUES_OF_RANGE = 64
# Probability of the values in a range.
COVERAGE = 0.95
# Values whose conditional density is by so many nats under the highest are beyond the range.
NEGLIGIBLE = 8.0
# Nats that another value of a column must gain, or the column has no part in the surprise.
MIN_GAIN = 1.0
# Numbers in memory at once.
MAX_SCALARS = 2**21


def typical_values(rows, discrete):
    """Values of each column that stand for all it may hold.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        The table.
    discrete : ndarray of shape (n_features,), dtype bool
        Columns that hold nothing between their values.

    Returns
    -------
    list of ndarray
        Ascending values of each column.
    """
    shares = np.linspace(0, 1, N_VALUES)
    return [
        np.unique(np.quantile(x, shares, method="nearest" if is_discrete else "linear"))
        for x, is_discrete in zip(rows.T, discrete, strict=True)
    ]


def repair(score_samples, X, values, discrete, typical_score):
    """Give columns of each row other values, the one that gains most first, until the row is typical.

    The gains divide the difference of the scores of the repaired row and of the row itself: as in Brook's lemma [1]_ it is the
    sum of differences between rows that differ in one column, whatever the score.

    Parameters
    ----------
    score_samples : callable
        From rows to scores.
    X : ndarray of shape (n_samples, n_features)
        The rows.
    values : list of ndarray
        Values to try for each column.
    discrete : ndarray of shape (n_features,), dtype bool
        Columns for which only these values are tried.
    typical_score : float
        Score from which on a row needs no other values.

    Returns
    -------
    repaired : ndarray of shape (n_samples, n_features)
        The rows with their new values.
    contributions : ndarray of shape (n_samples, n_features)
        What the new value of each column gained; zero for those that kept theirs.
    scores : ndarray of shape (n_samples,)
        Scores of the repaired rows.

    References
    ----------
    .. [1] Brook, "On the Distinction between the Conditional Probability and the Joint Probability Approaches in the
       Specification of Nearest-Neighbour Systems", Biometrika 51, 1964.
    """
    repaired, contributions = X.copy(), np.zeros(X.shape)
    scores = score_samples(X)
    active = np.flatnonzero(scores < typical_score)
    for _ in range(X.shape[1]):
        best, best_scores = repaired[active], np.full((len(active), X.shape[1]), -np.inf)
        for j in range(X.shape[1]):
            open_ = contributions[active, j] == 0
            if open_.any():
                best[open_, j], best_scores[open_, j] = _best_value(
                    score_samples, repaired[active[open_]], j, values[j], discrete[j]
                )
        at, column = np.arange(len(active)), best_scores.argmax(axis=1)
        gains = best_scores[at, column] - scores[active]
        found = gains >= MIN_GAIN
        at, column, active = at[found], column[found], active[found]
        repaired[active, column] = best[at, column]
        contributions[active, column] = gains[found]
        scores[active] = best_scores[at, column]
        active = active[scores[active] < typical_score]
        if len(active) == 0:
            break
    return repaired, contributions, scores


def ordinary_ranges(log_densities, repaired, is_repaired, values, discrete):
    """Find the values of repaired columns that would have been ordinary, given the other columns as repaired.

    Parameters
    ----------
    log_densities : callable
        From rows to log-densities, which needn't be normalised.
    repaired : ndarray of shape (n_samples, n_features)
        The rows with their new values.
    is_repaired : ndarray of shape (n_samples, n_features), dtype bool
        Where the values are new.
    values : list of ndarray
        Values of each column.
    discrete : ndarray of shape (n_features,), dtype bool
        Columns that hold only these values.

    Returns
    -------
    ndarray of shape (n_samples, n_features, 2)
        Ends of the region of highest conditional density that holds 95 %; NaN for columns that kept their values.
    """
    ranges = np.full((*repaired.shape, 2), np.nan)
    for j, candidates in enumerate(values):
        chosen = np.flatnonzero(is_repaired[:, j])
        if len(chosen) == 0:
            continue
        rows, centre = repaired[chosen], repaired[chosen, j]
        if discrete[j]:
            grid = np.repeat(candidates[None], len(rows), axis=0)
        else:
            # First where the density lies, then evenly there.
            low, high = _neighbours(candidates, centre)
            near = np.linspace(low, high, N_VALUES, axis=1)
            first, last = _neighbours(candidates, candidates[[0, -1]])
            coarse = np.sort(np.column_stack([near, np.repeat([[*candidates, first[0], last[1]]], len(rows), axis=0)]), axis=1)
            log_density = _scores_of_values(log_densities, rows, j, coarse)
            matters = log_density > log_density.max(axis=1, keepdims=True) - NEGLIGIBLE
            at, left = np.arange(len(rows)), matters.argmax(axis=1)
            right = coarse.shape[1] - 1 - matters[:, ::-1].argmax(axis=1)
            low, high = coarse[at, np.maximum(left - 1, 0)], coarse[at, np.minimum(right + 1, coarse.shape[1] - 1)]
            grid = np.linspace(low, high, N_VALUES_OF_RANGE, axis=1)
        log_density = _scores_of_values(log_densities, rows, j, grid)
        mass = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        mass /= mass.sum(axis=1, keepdims=True)
        by_density = np.argsort(-log_density, axis=1)
        so_far = np.cumsum(np.take_along_axis(mass, by_density, axis=1), axis=1)
        # Values until the coverage is reached, that one included.
        inside = np.zeros(grid.shape, dtype=bool)
        np.put_along_axis(inside, by_density, np.column_stack([np.ones(len(rows), bool), so_far[:, :-1] < COVERAGE]), axis=1)
        ranges[chosen, j, 0] = np.where(inside, grid, np.inf).min(axis=1)
        ranges[chosen, j, 1] = np.where(inside, grid, -np.inf).max(axis=1)
    return ranges


def _scores_of_values(score_samples, rows, j, grid):
    """Scores of the rows with each value of their line of ``grid`` in column ``j``."""
    n_values = grid.shape[1]
    result = np.empty(grid.shape)
    chunk = max(1, MAX_SCALARS // (n_values * rows.shape[1]))
    for start in range(0, len(rows), chunk):
        changed = np.repeat(rows[start : start + chunk], n_values, axis=0)
        changed[:, j] = grid[start : start + chunk].ravel()
        result[start : start + chunk] = score_samples(changed).reshape(-1, n_values)
    return result


def _best_value(score_samples, rows, j, candidates, is_discrete):
    """The value of column ``j`` with the highest score, for each row, and that score."""
    grid = np.repeat(candidates[None], len(rows), axis=0)
    scores = _scores_of_values(score_samples, rows, j, grid)
    if not is_discrete:
        at = np.take_along_axis(grid, scores.argmax(axis=1)[:, None], axis=1)[:, 0]
        between = np.linspace(*_neighbours(candidates, at), N_BETWEEN + 2, axis=1)[:, 1:-1]
        scores = np.column_stack([scores, _scores_of_values(score_samples, rows, j, between)])
        grid = np.column_stack([grid, between])
    best = scores.argmax(axis=1)[:, None]
    return np.take_along_axis(grid, best, axis=1)[:, 0], np.take_along_axis(scores, best, axis=1)[:, 0]


def _neighbours(candidates, value):
    """Candidates on both sides of each value, or one as far outside as the outermost are from each other."""
    padded = np.concatenate([[2 * candidates[0] - candidates[1]], candidates, [2 * candidates[-1] - candidates[-2]]])
    left = np.searchsorted(padded, value, side="left") - 1
    right = np.searchsorted(padded, value, side="right")
    return padded[np.maximum(left, 0)], padded[np.minimum(right, len(padded) - 1)]
