"""Densities that are fitted to all parts of a table but one, and judged by that one."""

from contextlib import nullcontext
from copy import copy
from inspect import signature

import numpy as np
import torch
from joblib import effective_n_jobs
from sklearn import config_context, get_config
from sklearn.utils.validation import has_fit_parameter

from ._parallel import for_each
from .encoding import discrete_columns_warned_about
from .training import DivergedError
from .utils._random import MAX_SEED
from .utils._threads import one_blas_thread


def in_threads(function, n, n_jobs):
    """Call a function of a number for all numbers below ``n``, with the scikit-learn settings of the calling thread.

    Parameters
    ----------
    function : callable
        What to call.
    n : int
        How often.
    n_jobs : int or None
        Calls at the same time, as in joblib; None means as many as torch has threads.
    """
    config = get_config()

    def call(i):
        with config_context(**config):  # which other threads don't inherit
            function(i)

    n_threads = torch.get_num_threads() if n_jobs is None else effective_n_jobs(n_jobs)
    with one_blas_thread() if n_threads > 1 else nullcontext():
        for_each(call, n, n_threads)


def fit_members(members, left_out, rows, weight, part, n_given, n_jobs=None, verbose=0, may_diverge=False, n_in_turn=1):
    """Fit densities to parts of a table.

    Parameters
    ----------
    members : list of estimator objects
        Densities, not fitted yet; they are fitted in place.
    left_out : sequence of int
        The part that each doesn't see. It stops when that part's likelihood no longer rises, if its ``fit`` has a parameter
        ``X_val``.
    rows, weight : ndarray of shape (n_samples, n_features), ndarray of shape (n_samples,)
        Canonical rows and their weights.
    part : ndarray of shape (n_samples,)
        Part of each row.
    n_given : int
        Number of rows that the user gave: equal ones are repeated again for members that know no weights.
    n_jobs : int, default=None
        Members that are fitted at the same time, in threads, as in joblib; None means as many as torch has threads.
    verbose : int, default=0
        Whether to tell of each member that it is fitted.
    may_diverge : bool, default=False
        Whether to go on without members whose training diverges; they stay as they are, not fitted.
    n_in_turn : int, default=1
        How many of the first members one thread fits in turn: such as compute with small arrays of numpy, and in several
        threads would only wait for each other.

    Raises
    ------
    KeyboardInterrupt
        If the user interrupts one.
    """
    counts = np.rint(weight * n_given / len(rows)).astype(int)

    def fit(i):
        member = members[i]
        kept = part != left_out[i]
        if not kept.any():  # a single part: nothing to leave out
            kept = ~kept
        takes_weights = has_fit_parameter(member, "sample_weight")
        arguments = {"sample_weight": weight[kept]} if takes_weights else {}
        if not kept.all() and has_fit_parameter(member, "X_val"):
            arguments |= {"X_val": rows[~kept]}
            if has_fit_parameter(member, "sample_weight_val"):
                arguments |= {"sample_weight_val": weight[~kept]}
        try:
            member.fit(rows[kept] if takes_weights else np.repeat(rows[kept], counts[kept], axis=0), **arguments)
        except DivergedError:
            if not may_diverge:
                raise
            return
        if getattr(member, "stop_reason_", None) == "interrupted":  # a flow keeps its best, but the others should not go on
            raise KeyboardInterrupt
        if verbose:
            print(f"[{type(member).__name__}] member {i + 1} of {len(members)} is fitted")

    def fit_in_turn(task):
        for i in range(n_in_turn) if task == 0 else [n_in_turn - 1 + task]:
            fit(i)

    with discrete_columns_warned_about():
        in_threads(fit_in_turn, len(members) - n_in_turn + 1, n_jobs)


def draw(estimator, n_samples, seed):
    """Draw rows from a fitted density, this package's or scikit-learn's.

    Parameters
    ----------
    estimator : estimator object
        A fitted density.
    n_samples : int
        Number of rows.
    seed : int
        Seed of the draw.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        The rows.
    """
    if "random_state" in signature(estimator.sample).parameters:
        rows = estimator.sample(n_samples, random_state=seed)
    else:  # GaussianMixture draws with a parameter of the estimator
        estimator = copy(estimator)
        estimator.random_state = seed
        rows = estimator.sample(n_samples)
    return rows[0] if isinstance(rows, tuple) else rows  # GaussianMixture tells the components too


def draw_from_mixture(estimators, shares, n_samples, rng):
    """Draw rows, each from a density that is drawn too.

    Parameters
    ----------
    estimators : list of estimator objects
        Fitted densities.
    shares : ndarray of shape (n_densities,)
        Their weights, which sum to one.
    n_samples : int
        Number of rows.
    rng : numpy.random.RandomState
        Source of the draws.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        The rows, float64.
    """
    which = rng.choice(len(estimators), size=n_samples, p=shares)
    rows = np.empty((n_samples, estimators[0].n_features_in_))
    seeds = [rng.randint(MAX_SEED) for _ in estimators]

    def draw_from_one(k):
        mine = which == k
        if mine.any():
            rows[mine] = draw(estimators[k], int(mine.sum()), seeds[k])

    in_threads(draw_from_one, len(estimators), None)
    return rows
