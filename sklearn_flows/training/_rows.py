"""Rows as a set: the canonical form that makes a fit independent of row order and exact in integer weights."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]


def canonical_rows(X: Floats, sample_weight: npt.NDArray[np.float64]) -> tuple[Floats, npt.NDArray[np.float64]]:
    """Merge equal rows, drop rows of weight zero and sort the rest by content.

    The order is lexicographic, so it doesn't change when columns are rescaled by positive factors or shifted.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        Finite rows.
    sample_weight : ndarray of shape (n_samples,)
        Non-negative weights, at least one of them positive.

    Returns
    -------
    rows : ndarray of shape (n_distinct, n_features)
        The distinct rows of positive weight, sorted.
    weight : ndarray of shape (n_distinct,)
        The sum of the weights of each, scaled to a mean of one.
    """
    if not sample_weight.all():
        X, sample_weight = X[sample_weight > 0], sample_weight[sample_weight > 0]
    order, starts_group = _lexicographic_order(X)
    if starts_group.all():
        rows, weight = X[order], sample_weight[order]
    else:
        starts = np.flatnonzero(starts_group)
        weight = sample_weight[order]
        if np.ptp(weight) > 0:
            # A float sum depends on its order, and that of equal rows is arbitrary: sum them in the order of their weights.
            weight = weight[np.lexsort((weight, np.cumsum(starts_group)))]
        weight = np.add.reduceat(weight, starts)
        rows = X[order[starts]]
    rows += 0.0  # -0.0 becomes 0.0: they are equal and must not decide anything
    # By the sum, not the mean: a quotient of sums rounds the same for weights of 1 and of 3.
    return rows, weight / weight.sum() * len(weight)


def _lexicographic_order(X: Floats) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Order of the rows, and for each place in it whether its row differs from the one before."""
    order = np.argsort(X[:, 0])
    starts_group = _differs_from_previous(X[order, 0])
    for column in X.T[1:]:
        # Only rows that tie in all columns so far are looked at again: on continuous tables next to none.
        tied = np.flatnonzero(~starts_group | ~np.append(starts_group[1:], True))
        if tied.size == 0:
            break
        rows, group = order[tied], np.cumsum(starts_group[tied])
        values = column[rows]
        within = np.lexsort((values, group))
        order[tied] = rows[within]
        starts_group[tied] |= _differs_from_previous(values[within])
    return order, starts_group


def _differs_from_previous(values: Floats) -> npt.NDArray[np.bool_]:
    return np.append(True, values[1:] != values[:-1])


def split_off(n_rows: int, fraction: float, rng: np.random.RandomState) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Draw which rows to hold out for validation.

    Parameters
    ----------
    n_rows : int
        Number of rows, at least two.
    fraction : float
        Share to hold out; at least one row is, and at least one is left.
    rng : numpy.random.RandomState
        Source of the draw.

    Returns
    -------
    kept, held_out : ndarray of int
        Indices, in random order.
    """
    shuffled = rng.permutation(n_rows)
    n_held_out = min(max(1, int(np.ceil(fraction * n_rows))), n_rows - 1)
    return shuffled[n_held_out:], shuffled[:n_held_out]
