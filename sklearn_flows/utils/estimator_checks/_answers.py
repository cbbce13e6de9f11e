"""What every check does: make rows, fit a copy of the estimator, ask it everything it can answer, compare answers."""

import re
import warnings
from contextlib import contextmanager
from inspect import signature

import numpy as np
from sklearn.base import clone


def rows(n_samples=60, seed=0):
    """Correlated normal rows in two columns.

    Parameters
    ----------
    n_samples : int, default=60
        Number of rows.
    seed : int, default=0
        Seed of the draw.

    Returns
    -------
    ndarray of shape (n_samples, 2)
        The rows.
    """
    Z = np.random.RandomState(seed).normal(size=(n_samples, 2))
    return Z @ np.array([[1.5, 0.6], [0.0, 0.8]]) + [2.0, -1.0]


def takes(estimator, method, parameter):
    """Whether the estimator has a method with a parameter of that name.

    Parameters
    ----------
    estimator : estimator object
        The estimator.
    method, parameter : str
        Their names.

    Returns
    -------
    bool
        True if it has.
    """
    return hasattr(estimator, method) and parameter in signature(getattr(estimator, method)).parameters


def seeded(estimator_orig, **parameters):
    """Clone an estimator and set all its seeds to integers, so that nothing in it may vary.

    Parameters
    ----------
    estimator_orig : estimator object
        The estimator; left as it is.
    **parameters : object
        Parameters to set in the clone.

    Returns
    -------
    estimator object
        The unfitted clone.
    """
    estimator = clone(estimator_orig)
    seeds = {key: 0 for key in estimator.get_params() if key == "random_state" or key.endswith("__random_state")}
    return estimator.set_params(**seeds, **parameters)


def fit_quietly(estimator, X, **fit_params):
    """Fit without warnings: on the few rows of a check many are in place.

    Parameters
    ----------
    estimator : estimator object
        Fitted in place.
    X : array-like or data frame
        The rows.
    **fit_params : object
        Further arguments of ``fit``.

    Returns
    -------
    estimator object
        The same estimator.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(X, **fit_params)


def fitted(estimator_orig, X, **fit_params):
    """Fit a seeded clone.

    Parameters
    ----------
    estimator_orig : estimator object
        The estimator; left as it is.
    X : array-like or data frame
        The rows.
    **fit_params : object
        Further arguments of ``fit``.

    Returns
    -------
    estimator object
        The fitted clone.
    """
    return fit_quietly(seeded(estimator_orig), X, **fit_params)


def answers(estimator, X):
    """Ask a fitted estimator everything it can answer about rows.

    Parameters
    ----------
    estimator : estimator object
        The fitted estimator.
    X : array-like or data frame
        The rows.

    Returns
    -------
    dict of str to ndarray
        One entry for each method that the estimator has.
    """
    out = {"score_samples": np.asarray(estimator.score_samples(X))}
    if hasattr(estimator, "score"):
        out["score"] = np.asarray(estimator.score(X))
    if hasattr(estimator, "transform"):
        out["transform"] = np.asarray(estimator.transform(X))
    if hasattr(estimator, "transform") and hasattr(estimator, "inverse_transform"):
        out["inverse_transform"] = np.asarray(estimator.inverse_transform(out["transform"]))
    if takes(estimator, "sample", "random_state"):
        out["sample"] = np.asarray(estimator.sample(5, random_state=0))
    return out


def assert_same_answers(actual, expected, claim, rtol=0.0):
    """Compare what two estimators answered.

    Parameters
    ----------
    actual, expected : dict of str to ndarray
        Results of ``answers``.
    claim : str
        What should have held, for the message.
    rtol : float, default=0.0
        Largest difference as a share of the largest value of the answer; zero asks for the same bits.
    """
    for method, value in expected.items():
        message = f"{claim}, but {method} differs."
        if rtol:
            np.testing.assert_allclose(actual[method], value, rtol=0, atol=rtol * np.abs(value).max(), err_msg=message)
        else:
            np.testing.assert_array_equal(actual[method], value, err_msg=message)


@contextmanager
def must_raise(errors, match, claim):
    """Require that the block raises.

    Parameters
    ----------
    errors : exception class or tuple of them
        What it must raise.
    match : str
        Regular expression to be found in the message.
    claim : str
        What should have held, for the message.
    """
    raised = None
    try:
        yield
    except Exception as error:
        raised = error
    if raised is None:
        raise AssertionError(f"{claim}; nothing was raised.")
    if not isinstance(raised, errors):
        raise AssertionError(f"{claim}; it raised {raised!r} instead.") from raised
    if not re.search(match, str(raised)):
        raise AssertionError(f"{claim}; the error should say {match!r}, but says: {raised}") from raised
