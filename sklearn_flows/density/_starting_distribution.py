"""Distributions that flows start from, fitted to encoded rows."""

import math
import time

import numpy as np
import torch

from .._parallel import for_each
from ..distributions import StudentMixture
from ..training import choose_mixture, whitening_matrix
from ..utils._random import draw_seed
from ..utils._threads import one_blas_thread, one_thread
from ._defaults import COPIES_FOR_MIXTURE, MIN_ROWS_FOR_MIXTURES, N_PARTS
from ._teacher import N_MIXTURES

# Rows, in units of the dimension, that the weakest prior of a mixture counts for. Where some components are far narrower than
# others, the steps that suit one don't suit the other, and flows usually learn less than they gain by it.
MIN_PRIOR_ROWS = 0.5


def whitening_map(rows):
    """The lower-triangular map that whitens rows by their shrunk covariance.

    Parameters
    ----------
    rows : Rows
        The rows, on any device.

    Returns
    -------
    Tensor of shape (n_features, n_features)
        The map, on the CPU.
    """
    return torch.as_tensor(whitening_matrix(*_on_the_host(rows)))


def fit_base(base, train, validation, rng, n_copies, min_prior_rows=MIN_PRIOR_ROWS, until=math.inf):
    """The whitening map of encoded rows, and the distribution of what it gives that training starts from.

    With more than one, rows are noisy copies of images. The distribution is then not the mean of several mixtures, which would
    take longer than the flow, but one of two copies; and a copy counts only as its share of a row against the priors of the
    components, since the copies of an image say nearly the same.

    Parameters
    ----------
    base : {"normal", "student", "mixture"}
        Kind of the distribution.
    train, validation : Rows, Rows or None
        Encoded rows to fit, and to choose by. Without the latter the distribution is a Gaussian.
    rng : numpy.random.RandomState
        Source of parts and of where components begin.
    n_copies : int
        How many rows are copies of one image; 1 for tables.
    min_prior_rows : float, default=0.5
        Rows, in units of the dimension, that the prior of a component's covariance counts for at least.
    until : float, default=infinity
        When ``time.perf_counter()`` says so, the best distribution so far must do.

    Returns
    -------
    whitening, distribution : Tensor of shape (n_features, n_features), StudentMixture or None
        The map, and what its images follow; None is the standard normal distribution.
    """
    whitening = whitening_map(train)
    if base == "normal" or validation is None or not train.values.shape[1]:
        return whitening, None
    if base == "mixture" and n_copies == 1 and len(train.values) > MIN_ROWS_FOR_MIXTURES:
        start = _fit_mixtures(*_on_the_host(train), rng, min_prior_rows, until)
    else:
        n_components = 1 if base == "student" else None
        with one_thread():
            values, weight = _on_the_host(train)
            n = len(values) // n_copies * min(n_copies, COPIES_FOR_MIXTURE)
            mixture, _ = choose_mixture(
                values[:n],
                weight[:n] / n_copies,
                *_on_the_host(validation),
                rng,
                n_components,
                min_prior_rows=min_prior_rows,
                until=until,
            )
        start = _as_distribution(mixture)
    if start.n_components == 1 and start.df.isinf().all():
        return start.precisions_cholesky[0].double(), None
    return whitening, as_whitened(start, whitening)


def _fit_mixtures(values, weight, rng, min_prior_rows, until):
    """The mean of mixtures, each chosen by a tenth of the rows that it doesn't see, and ready in time, but for the first."""
    part = rng.permutation(len(values)) % N_PARTS
    seeds = [draw_seed(rng) for _ in range(N_MIXTURES)]
    mixtures = [None] * N_MIXTURES

    def fit(k):
        if k > 0 and time.perf_counter() > until:
            return
        seen, judges = part != k, part == k
        with one_thread():
            mixture, _ = choose_mixture(
                values[seen],
                weight[seen],
                values[judges],
                weight[judges],
                np.random.RandomState(seeds[k]),
                min_prior_rows=min_prior_rows,
                until=until,
            )
        if k == 0 or time.perf_counter() <= until:
            mixtures[k] = _as_distribution(mixture)

    with one_blas_thread():
        for_each(fit, N_MIXTURES, torch.get_num_threads())
    return StudentMixture.mean_of([mixture for mixture in mixtures if mixture is not None])


def _as_distribution(mixture):
    return StudentMixture(*(torch.as_tensor(array) for array in mixture[:3]), mixture.df)


def as_whitened(base, whitening):
    """A mixture as the whitened columns see it: P (z - mu) = P W^-1 (W z - W mu).

    Parameters
    ----------
    base : StudentMixture
        The mixture over the columns.
    whitening : Tensor of shape (n_features, n_features)
        Lower-triangular map of the columns.

    Returns
    -------
    StudentMixture
        The mixture over their images.
    """
    precisions_cholesky = torch.linalg.solve_triangular(
        whitening, base.precisions_cholesky.to(whitening), upper=False, left=False
    )
    return StudentMixture(base.log_shares.exp(), base.means.to(whitening) @ whitening.T, precisions_cholesky, base.df)


def _on_the_host(rows):
    return rows.values.numpy(force=True), rows.weight.numpy(force=True)
