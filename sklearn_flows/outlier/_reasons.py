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
    order : ndarray of shape (n_samples, n_features)
        When each column got its new value, counted from 0; -1 for those that kept theirs.
    """
    repaired, order = X.copy(), np.full(X.shape, -1)
    scores = score_samples(X)
    active = np.flatnonzero(scores < typical_score)
    for step in range(X.shape[1]):
        gains = np.full((len(active), X.shape[1]), -np.inf)
        best = repaired[active]
        for j in range(X.shape[1]):
            open_ = order[active, j] < 0
            if open_.any():
                value, score = _best_value(score_samples, repaired[active[open_]], j, values[j], discrete[j])
                best[open_, j] = value
                gains[open_, j] = score - scores[active[open_]]
        at, column = np.arange(len(active)), gains.argmax(axis=1)
        found = gains[at, column] >= MIN_GAIN
        at, column, active = at[found], column[found], active[found]
        repaired[active, column] = best[at, column]
        order[active, column] = step
        scores[active] += gains[at, column]
        active = active[scores[active] < typical_score]
        if len(active) == 0:
            break
    return repaired, order


def contributions(score_samples, X, repaired, order):
    """Divide the difference of two scores among columns.

    Brook's lemma [1]_: the difference of the log-densities of two rows is the sum of those of rows that differ in one column.
    Taken in the order in which columns were repaired and in its reverse, and averaged.

    Parameters
    ----------
    score_samples : callable
        From rows to scores.
    X, repaired, order : ndarray of shape (n_samples, n_features)
        The rows, and what ``repair`` made of them.

    Returns
    -------
    contributions : ndarray of shape (n_samples, n_features)
        What each column takes from the score.
    baseline : ndarray of shape (n_samples,)
        Scores of the repaired rows: less the sum of the contributions, these are the rows' scores.

    References
    ----------
    .. [1] Brook, "On the Distinction between the Conditional Probability and the Joint Probability Approaches in the
       Specification of Nearest-Neighbour Systems", Biometrika 51, 1964.
    """
    result = np.zeros(X.shape)
    n_steps = order.max(axis=1, initial=-1) + 1
    baseline = score_samples(repaired)
    given = score_samples(X)
    for reverse in (False, True):
        when = np.where(order >= 0, n_steps[:, None] - 1 - order, -1) if reverse else order
        before = given
        for step in range(n_steps.max(initial=0)):
            changed = (when >= 0) & (when <= step)
            last = n_steps == step + 1
            after = np.where(last, baseline, before)
            between = n_steps > step + 1
            if between.any():
                after[between] = score_samples(np.where(changed, repaired, X)[between])
            row, column = np.nonzero(when == step)
            result[row, column] += (after - before)[row] / 2
            before = after
    return result, baseline


def ordinary_ranges(score_samples, repaired, order, values, discrete):
    """Find the values of repaired columns that would have been ordinary, given the other columns as repaired.

    Parameters
    ----------
    score_samples : callable
        From rows to scores.
    repaired, order : ndarray of shape (n_samples, n_features)
        What ``repair`` made of the rows.
    values : list of ndarray
        Values of each column.
    discrete : ndarray of shape (n_features,), dtype bool
        Columns that hold only these values.

    Returns
    -------
    ndarray of shape (n_samples, n_features, 2)
        Ends of the region of highest conditional density that holds 95 %; NaN for columns that kept their values.
    """
    ranges = np.full((*order.shape, 2), np.nan)
    for j, candidates in enumerate(values):
        chosen = np.flatnonzero(order[:, j] >= 0)
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
            log_density = _scores_of_values(score_samples, rows, j, coarse)
            matters = log_density > log_density.max(axis=1, keepdims=True) - NEGLIGIBLE
            at, left = np.arange(len(rows)), matters.argmax(axis=1)
            right = coarse.shape[1] - 1 - matters[:, ::-1].argmax(axis=1)
            low, high = coarse[at, np.maximum(left - 1, 0)], coarse[at, np.minimum(right + 1, coarse.shape[1] - 1)]
            grid = np.linspace(low, high, N_VALUES_OF_RANGE, axis=1)
        log_density = _scores_of_values(score_samples, rows, j, grid)
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
