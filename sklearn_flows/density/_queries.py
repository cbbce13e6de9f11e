"""What queries of all densities share."""

from numbers import Integral

import numpy as np

from ..utils._sklearn import check_sample_weight

FLOAT_DTYPES = [np.float64, np.float32]


class MeanScoreMixin:
    """``score`` of a density: the mean of ``score_samples``."""

    def score(self, X, y=None, sample_weight=None):
        """Compute the mean log-density of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the mean.

        Returns
        -------
        float
            Mean of ``score_samples(X)``, in nats.
        """
        log_density = self.score_samples(X)
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
