"""What queries of all densities share."""

from numbers import Integral

import numpy as np

from ..utils._sklearn import check_sample_weight

FLOAT_DTYPES = [np.float64, np.float32]


def mean_log_density(log_density, sample_weight):
    """Weighted mean of log-densities.

    Parameters
    ----------
    log_density : ndarray of shape (n_samples,)
        Log-densities, minus infinity among them or not.
    sample_weight : array-like of shape (n_samples,) or None
        Weights; None means ones.

    Returns
    -------
    float
        The mean.
    """
    weight = check_sample_weight(sample_weight, log_density)
    # Rows of weight zero are absent: minus infinity times zero would not be.
    counts = weight > 0
    return float(np.average(log_density[counts].astype(np.float64, copy=False), weights=weight[counts]))


def check_n_samples(n_samples):
    """Raise an error unless it is a number of rows to draw.

    Parameters
    ----------
    n_samples : object
        What the user gave.
    """
    if not isinstance(n_samples, Integral) or isinstance(n_samples, bool) or n_samples < 1:
        raise ValueError(
            f"Invalid value for 'n_samples': {n_samples!r}. The number of rows to draw must be an integer of at least 1."
        )
