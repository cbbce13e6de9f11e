"""Checks of what may come in: refused where it makes no sense, and else read without a difference, or a trace."""

import warnings

import numpy as np
import pandas as pd
import scipy.sparse
from sklearn.utils import get_tags

from ._answers import answers, assert_same_answers, fitted, must_raise, rows, seeded, takes


def check_density_query_validation(name, estimator_orig):
    """Check that queries refuse what ``fit`` refuses, and tables that aren't like the one fitted.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X = rows(20, seed=1)
    estimator = fitted(estimator_orig, rows())
    input_tags = get_tags(estimator).input_tags
    with_nan, with_inf = X.copy(), X.copy()
    with_nan[3, 1], with_inf[3, 1] = np.nan, -np.inf
    refused = {
        "infinity": (with_inf, ValueError, "(?i)inf"),
        "a single row without its second dimension": (X[0], ValueError, "Reshape your data"),
        "no rows": (X[:0], ValueError, "0 sample"),
        "a missing column": (X[:, :1], ValueError, "features"),
        "a further column": (np.column_stack([X, X[:, 0]]), ValueError, "features"),
        "complex numbers": (X + 1j * X, ValueError, "Complex data not supported"),
        "texts": (np.full(X.shape, "text", dtype=object), (ValueError, TypeError), ""),
    }
    if not input_tags.allow_nan:
        refused["NaN"] = (with_nan, ValueError, "NaN")
    if not input_tags.sparse:
        refused["sparse input"] = (scipy.sparse.csr_array(X), (ValueError, TypeError), "(?i)sparse")
    for method in ("score_samples", "score", "transform", "inverse_transform"):
        if not hasattr(estimator, method):
            continue
        for case, (X_refused, errors, match) in refused.items():
            with must_raise(errors, match, f"{name}.{method} must refuse {case}"):
                getattr(estimator, method)(X_refused)

    # Latents have no names, so inverse_transform isn't asked.
    frame = pd.DataFrame(X, columns=["a", "b"])
    named = fitted(estimator_orig, frame)
    renamed = {"renamed columns": frame.set_axis(["a", "c"], axis=1), "columns in another order": frame[["b", "a"]]}
    for method in ("score_samples", "score", "transform"):
        for case, frame_refused in renamed.items():
            if hasattr(named, method):
                with must_raise(ValueError, "feature names should match", f"{name}.{method} must refuse {case}"):
                    getattr(named, method)(frame_refused)


def check_density_dtypes(name, estimator_orig):
    """Check that float32 in gives float32 out, close to what float64 gives, and integers give float64.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    # Rounded first, so that both tables hold the same numbers.
    X, X_new = (X.astype(np.float32) for X in (rows(), rows(20, seed=1)))
    double, single = fitted(estimator_orig, X.astype(np.float64)), fitted(estimator_orig, X)
    expected = double.score_samples(X_new.astype(np.float64))
    assert expected.dtype == np.float64, f"{name}.score_samples must return float64 for float64, not {expected.dtype}."
    for scores, fitted_on in ((double.score_samples(X_new), "float64"), (single.score_samples(X_new), "float32")):
        assert scores.dtype == np.float32, f"{name}.score_samples must return float32 for float32, not {scores.dtype}."
        # scikit-learn's tolerance for LocalOutlierFactor
        message = f"{name} fitted on {fitted_on} must score float32 as it scores float64."
        np.testing.assert_allclose(scores, expected, rtol=0, atol=2e-4, err_msg=message)
    for method in ("transform", "inverse_transform"):
        if hasattr(double, method):
            dtype = np.asarray(getattr(double, method)(X_new)).dtype
            assert dtype == np.float32, f"{name}.{method} must return float32 for float32, not {dtype}."
    whole = np.round(X_new).astype(np.int64)
    scores = double.score_samples(whole)
    assert scores.dtype == np.float64, f"{name}.score_samples must return float64 for integers, not {scores.dtype}."
    message = f"{name}.score_samples must give the same for integers as for the same numbers as floats."
    np.testing.assert_array_equal(scores, double.score_samples(whole.astype(np.float64)), err_msg=message)


def check_density_input_layouts(name, estimator_orig):
    """Check that it doesn't matter how a table lies in memory.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    layouts = {
        "a read-only array": _read_only,
        "a Fortran-ordered array": np.asfortranarray,
        "a view with negative strides": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
        "every second column of a wider array": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
        "an array of foreign byte order": lambda X: X.astype(X.dtype.newbyteorder()),
        "an array of objects": lambda X: X.astype(object),
        "a list of lists": lambda X: X.tolist(),
    }
    X, X_new = rows(), rows(20, seed=1)
    expected = answers(fitted(estimator_orig, X), X_new)
    for layout, lay in layouts.items():
        claim = f"{name} must take {layout}"
        try:
            actual = answers(fitted(estimator_orig, lay(X)), lay(X_new))
        except Exception as error:
            raise AssertionError(f"{claim}; it raised {error!r}.") from error
        assert_same_answers(actual, expected, f"{claim} like any other array", rtol=1e-10)


def _read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def check_density_inputs_unmodified(name, estimator_orig):
    """Check that neither ``fit`` nor a query writes to what it is given.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X, X_new, weight = rows(), rows(20, seed=1), np.random.RandomState(2).uniform(1, 2, size=60)
    X_before, X_new_before, weight_before = X.copy(), X_new.copy(), weight.copy()
    weighted_fit = {"sample_weight": weight} if takes(estimator_orig, "fit", "sample_weight") else {}
    estimator = fitted(estimator_orig, X, **weighted_fit)
    np.testing.assert_array_equal(X, X_before, err_msg=f"{name}.fit must not write to X.")
    np.testing.assert_array_equal(weight, weight_before, err_msg=f"{name}.fit must not write to sample_weight.")
    for method in ("score_samples", "score", "transform", "inverse_transform"):
        if hasattr(estimator, method):
            getattr(estimator, method)(X_new)
            np.testing.assert_array_equal(X_new, X_new_before, err_msg=f"{name}.{method} must not write to X.")
    if takes(estimator, "score", "sample_weight"):
        estimator.score(X, sample_weight=weight)
        np.testing.assert_array_equal(weight, weight_before, err_msg=f"{name}.score must not write to sample_weight.")


def check_density_frames(name, estimator_orig):
    """Check that data frames of pandas, and of polars if installed, give what arrays give, whatever their index.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X, X_new = rows(), rows(20, seed=1)
    rng = np.random.RandomState(2)
    index, weight = rng.permutation(60), rng.uniform(1, 2, size=60)
    expected = answers(fitted(estimator_orig, X), X_new)
    frame = pd.DataFrame(X, columns=["b", "a"], index=index)
    frames = {"pandas": (frame, pd.DataFrame(X_new, columns=["b", "a"]))}
    try:
        import polars
    except ImportError:
        pass
    else:
        frames["polars"] = tuple(polars.DataFrame({"b": values[:, 0], "a": values[:, 1]}) for values in (X, X_new))
    for library, (train, new) in frames.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Names are there in fit and in queries: a warning that they are missing comes from the estimator itself.
            warnings.filterwarnings("error", message=".*feature names", category=UserWarning)
            actual = answers(seeded(estimator_orig).fit(train), new)
        assert_same_answers(actual, expected, f"{name} must give the same for a frame of {library} as for an array", rtol=1e-10)
    if takes(estimator_orig, "fit", "sample_weight"):
        # An index that pandas would align with, were it asked to.
        series = pd.Series(weight, index=rng.permutation(60))
        actual = answers(fitted(estimator_orig, frame, sample_weight=series), frames["pandas"][1])
        expected = answers(fitted(estimator_orig, X, sample_weight=weight), X_new)
        assert_same_answers(actual, expected, f"{name}.fit must take weights of pandas by position", rtol=1e-10)
