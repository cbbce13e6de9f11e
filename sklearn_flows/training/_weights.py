"""With which weights densities make the likeliest mixture."""

import numpy as np
import numpy.typing as npt

# Steps of expectation-maximisation, and the change of a weight that ends them.
MAX_STEPS = 1000
TOLERANCE = 1e-6


def mixture_weights(
    log_densities: npt.NDArray[np.floating], weight: npt.NDArray[np.floating], rows_beforehand: float = 0.1
) -> npt.NDArray[np.float64]:
    """Weights with which densities make the likeliest mixture, by expectation-maximisation [1]_.

    Parameters
    ----------
    log_densities : ndarray of shape (n_densities, n_samples)
        Log-density of each row under each, fitted without it.
    weight : ndarray of shape (n_samples,)
        Weights of the rows, one in the mean.
    rows_beforehand : float, default=0.1
        Rows that each density counts for before any is seen: just enough that none gets a weight of zero, however few the rows
        are. A whole row for each of eight would cost a mixture a twentieth of what it could give 150 rows.

    Returns
    -------
    ndarray of shape (n_densities,)
        Weights, which sum to one.

    References
    ----------
    .. [1] Smyth and Wolpert, "Linearly Combining Density Estimators via Stacking", Machine Learning 36, 1999.
    """
    n_densities = len(log_densities)
    share = np.full(n_densities, 1 / n_densities)
    # A row that no density thinks possible says nothing about them.
    highest = log_densities.max(axis=0)
    densities = np.exp(log_densities - np.where(np.isfinite(highest), highest, 0))
    for _ in range(MAX_STEPS):
        responsibility = share[:, None] * densities
        responsibility *= weight / np.maximum(responsibility.sum(axis=0), np.finfo(np.float64).tiny)
        before, share = share, responsibility.sum(axis=1) + rows_beforehand
        share /= share.sum()
        if np.abs(share - before).max() < TOLERANCE:
            break
    return share
