"""The one place that knows scikit-learn's private names and the differences between its versions."""

import numpy as np
from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import HasMethods, Interval, Options, StrOptions
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition
from sklearn.utils.validation import _check_sample_weight, _get_feature_names


class _NoCallbacks:
    """Stand-in for scikit-learn versions without callbacks."""

    def _init_callback_context(self, max_subtasks=0):
        return None


try:  # scikit-learn >= 1.9
    from sklearn.callback import CallbackSupportMixin
except ImportError:
    CallbackSupportMixin = _NoCallbacks


HAS_CALLBACKS = CallbackSupportMixin.__module__.startswith("sklearn.")

__all__ = [
    "HAS_CALLBACKS",
    "BaseComposition",
    "CallbackSupportMixin",
    "HasMethods",
    "Interval",
    "Options",
    "StrOptions",
    "check_sample_weight",
    "feature_names",
    "fit_context",
]


def check_sample_weight(sample_weight, X):
    """Validate weights: one non-negative number for each row, not all of them zero.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), a number or None
        Weights; None means ones.
    X : ndarray of shape (n_samples, n_features)
        The rows.

    Returns
    -------
    ndarray of shape (n_samples,)
        Weights in float64, scaled to a maximum between a half and one.
    """
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True, copy=True)
    if not weight.any():  # versions before 1.9 let this pass
        raise ValueError("Sample weights must contain at least one non-zero number.")
    # Only their ratios matter. A power of two is exact, and sums of weights like 1e308 stay finite.
    _, exponent = np.frexp(weight.max())
    return np.ldexp(weight, -exponent)


def feature_names(X, n_features):
    """Names of the columns for messages: those of a data frame, else ``x0``, ``x1``, …

    Parameters
    ----------
    X : array-like or data frame
        The table as the user gave it.
    n_features : int
        Number of columns.

    Returns
    -------
    list of str
        The names.
    """
    names = _get_feature_names(X)
    return [f"x{i}" for i in range(n_features)] if names is None else list(names)
