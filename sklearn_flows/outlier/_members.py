"""What the densities of a detector are fitted to."""

import numpy as np

from ..density import MixtureDensity
from ..encoding import grid_step, is_constant, is_discrete
from ..utils._random import set_random_states

# Rows that a density of the package's own choice is fitted to, at most. Few rows keep a group of outliers from having a
# component of its own, and make fits fast; what each doesn't see, others do.
MAX_DEFAULT_ROWS = 1_000
# Columns that each of them sees, at most, unless some would be seen by none: the time of a fit grows with their square, and a
# mean over random subspaces is as good.
MAX_DEFAULT_COLUMNS = 40


def default_kinds():
    """The package's own choice for detection.

    Mixtures follow groups and bent manifolds: one over columns as they are, where values far out are farthest, and one over
    columns whose heavy tails are bent, as outliers among the training rows would stretch the columns. A single component can't
    follow a group of outliers. Strong priors keep narrow components from following a few of them; and without a background rows
    far out count for what they are.

    Returns
    -------
    list of MixtureDensity
        The kinds of densities.
    """
    kinds = [{}, {"margins": "bent"}, {"n_components": 1, "margins": "bent"}]
    return [MixtureDensity(**kind, min_prior_rows=0.5, background=False, combine=False) for kind in kinds]


def grid_steps(rows):
    """Distances between neighbouring values of discrete columns.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        The table.

    Returns
    -------
    ndarray of shape (n_features,)
        Median distance between values next to each other; zero for columns that aren't discrete.
    """
    return np.array([grid_step(x) if is_discrete(x) and not is_constant(x) else 0.0 for x in rows.T])


def draw_features(n_features, width, n_members, rng):
    """Draw which columns each density sees: each column about as often as the others.

    Parameters
    ----------
    n_features : int
        Number of columns.
    width : int
        Number of columns that a density sees.
    n_members : int
        Number of densities.
    rng : RandomState instance
        Source of the draws.

    Returns
    -------
    list of ndarray
        Ascending indices for each density.
    """
    if width >= n_features:
        return [np.arange(n_features)] * n_members
    n_seen = np.zeros(n_features, dtype=int)
    features = []
    for _ in range(n_members):
        # Those seen least so far, ties in random order.
        chosen = np.lexsort((rng.random_sample(n_features), n_seen))[:width]
        n_seen[chosen] += 1
        features.append(np.sort(chosen))
    return features


def in_support(scores, seen, support_fraction):
    """Choose rows that score highest.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
        Scores of all rows.
    seen : ndarray of shape (n_samples,), dtype bool
        Which rows to choose from.
    support_fraction : float
        Share of them to choose; those that score as the last of these are chosen too.

    Returns
    -------
    ndarray of shape (n_samples,), dtype bool
        Which are chosen.
    """
    ascending = np.sort(scores[seen])
    return seen & (scores >= ascending[-int(np.ceil(support_fraction * len(ascending)))])


def fit_member(member, rows, features, steps, max_rows, rng):
    """Fit a density to some of the rows, blurred where their columns are discrete.

    Parameters
    ----------
    member : estimator object
        The density, which is fitted in place.
    rows : ndarray of shape (n_samples, n_features)
        Rows that it may see.
    features : ndarray of int
        Columns that it sees.
    steps : ndarray of shape (n_features,)
        Width of the uniform noise that each column gets.
    max_rows : int
        Number of rows to fit to, at most.
    rng : RandomState instance
        Source of the choice, of the noise and of the density's own randomness.
    """
    set_random_states(member, rng)
    chosen = rows[np.ix_(rng.permutation(len(rows))[:max_rows], features)]
    if steps.any():
        chosen += steps[features] * (rng.random_sample(chosen.shape) - 0.5)
    member.fit(chosen)
