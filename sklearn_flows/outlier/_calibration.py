"""From scores to error rates that are held whatever the densities are worth."""

import numpy as np

# With so many rows in a part, one is enough: its p-values are valid without a factor.
MIN_ROWS_FOR_SPLIT = 1_000


def conformal_p_values(calibration_scores, scores):
    """Share of calibration rows whose score is as low as a row's, the row itself counted.

    Parameters
    ----------
    calibration_scores : list of ndarray of shape (n_rows_of_part,)
        For each part, ascending scores of its rows under densities that haven't seen them.
    scores : ndarray of shape (n_parts, n_samples)
        Scores of the rows in question under the same densities.

    Returns
    -------
    ndarray of shape (n_samples,)
        P-values, in (0, 1].
    """
    if len(calibration_scores[0]) >= MIN_ROWS_FOR_SPLIT:
        calibration_scores, scores = calibration_scores[:1], scores[:1]
    as_low = sum(np.searchsorted(part, s, side="right") for part, s in zip(calibration_scores, scores, strict=True))
    return (1 + as_low) / (1 + sum(len(part) for part in calibration_scores))


def benjamini_hochberg(p_values, alpha):
    """Choose hypotheses to reject such that a share of at most ``alpha`` is rejected wrongly, in the mean [1]_.

    Parameters
    ----------
    p_values : ndarray of shape (n_samples,)
        Their p-values.
    alpha : float
        The false discovery rate.

    Returns
    -------
    ndarray of shape (n_samples,), dtype bool
        Which are rejected.

    References
    ----------
    .. [1] Benjamini and Hochberg, "Controlling the False Discovery Rate", Journal of the Royal Statistical Society B 57, 1995.
    """
    ordered = np.sort(p_values)
    passes = np.flatnonzero(ordered <= alpha * np.arange(1, len(ordered) + 1) / len(ordered))
    return p_values <= (ordered[passes[-1]] if passes.size else -1.0)
