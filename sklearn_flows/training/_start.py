"""Where training starts: a shrunk Gaussian, as a whitening map."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

Floats = npt.NDArray[np.float64]

# Directions of less than this share of a column's own variance are treated as having it: an exact linear dependency
# would otherwise ask for an infinite density.
MIN_EIGENVALUE = 1e-6
# Rows whose products are summed at once: bounds the memory, whatever the number of rows.
CHUNK = 2**12


def shrunk_covariance(Z: npt.NDArray[np.floating], weight: npt.NDArray[np.floating]) -> Floats:
    """Oracle approximating shrinkage of the weighted covariance of rows whose mean is known to be zero.

    Written here because scikit-learn's ``oas`` takes no weights.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_features)
        Rows, with a mean of about zero and a variance of about one in each column, of any float type.
    weight : ndarray of shape (n_samples,)
        Weights.

    Returns
    -------
    ndarray of shape (n_features, n_features)
        Positive-definite matrix.

    References
    ----------
    .. [1] Chen, Wiesel, Eldar and Hero, "Shrinkage Algorithms for MMSE Covariance Estimation", IEEE Transactions on
       Signal Processing 58(10), 2010, eq. 23.
    """
    share = weight.astype(np.float64)
    share /= share.sum()
    p = Z.shape[1]
    S: Floats = np.zeros((p, p))
    for start in range(0, len(Z), CHUNK):
        part = Z[start : start + CHUNK].astype(np.float64, copy=False)
        S += (part * share[start : start + CHUNK, None]).T @ part
    if p < 2:
        return S
    n = 1 / (share @ share)  # Kish's effective number of rows
    mean_variance = np.trace(S) / p
    sum_of_squares = np.square(S).sum()
    denominator = (n + 1 - 2 / p) * (sum_of_squares - np.trace(S) ** 2 / p)
    numerator = (1 - 2 / p) * sum_of_squares + np.trace(S) ** 2
    shrinkage = 1.0 if denominator <= 0 else min(1.0, numerator / denominator)
    shrunk: Floats = (1 - shrinkage) * S + shrinkage * mean_variance * np.eye(p)
    return shrunk


def whitening_matrix(Z: npt.NDArray[np.floating], weight: npt.NDArray[np.floating]) -> Floats:
    """Lower-triangular matrix that whitens the rows: the inverse Cholesky factor of their shrunk covariance.

    Being triangular it leaves the first column alone, and moves each column only by a linear function of those before.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_features)
        Rows, with a mean of about zero and a variance of about one in each column, of any float type.
    weight : ndarray of shape (n_samples,)
        Weights.

    Returns
    -------
    ndarray of shape (n_features, n_features)
        Lower triangular, with a positive diagonal.
    """
    p = Z.shape[1]
    covariance = shrunk_covariance(Z, weight) + MIN_EIGENVALUE * np.eye(p)
    cholesky = torch.as_tensor(np.linalg.cholesky(covariance))
    # torch's solver, because scipy's refuses a matrix of no columns before version 1.15.
    inverse: Floats = torch.linalg.solve_triangular(cholesky, torch.eye(p, dtype=torch.float64), upper=False).numpy()
    return inverse
