"""Checks of what a fit makes of rows: their order, their weights, and tables that leave little to learn."""

import numpy as np

from ._answers import answers, assert_same_answers, fitted, must_raise, rows, takes


def check_density_row_order(name, estimator_orig):
    """Check that the order of the rows makes no difference to the model.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X, X_new = rows(), rows(20, seed=1)
    order = np.random.RandomState(2).permutation(len(X))
    weight = np.random.RandomState(3).uniform(1, 2, size=len(X))
    cases = [({}, {})]
    if takes(estimator_orig, "fit", "sample_weight"):
        cases.append(({"sample_weight": weight}, {"sample_weight": weight[order]}))
    for fit_params, fit_params_reordered in cases:
        expected = answers(fitted(estimator_orig, X, **fit_params), X_new)
        # A seed may pick rows by their place: KernelDensity's samples are perturbed training rows.
        expected.pop("sample", None)
        actual = answers(fitted(estimator_orig, X[order], **fit_params_reordered), X_new)
        assert_same_answers(actual, expected, f"The order of the rows must make no difference to {name}", rtol=1e-6)


def check_density_weights(name, estimator_orig):
    """Check that equal weights are none, whatever their size, and that senseless ones are refused.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X, X_new = rows(), rows(20, seed=1)
    unweighted = answers(fitted(estimator_orig, X), X_new)
    for weight in (None, np.ones(60), 3 * np.ones(60), [1] * 60):
        actual = answers(fitted(estimator_orig, X, sample_weight=weight), X_new)
        kind = "None" if weight is None else f"all {weight[0]}"
        assert_same_answers(actual, unweighted, f"{name} with sample_weight {kind} must be as without weights")
    tilted = np.where(X[:, 0] > 2, 5.0, 1.0)
    scores = fitted(estimator_orig, X, sample_weight=tilted).score_samples(X_new)
    assert not np.allclose(scores, unweighted["score_samples"]), f"Unequal weights must make a difference to {name}."
    refused = {
        "negative": np.r_[-1.0, np.ones(59)],
        "all zero": np.zeros(60),
        "NaN": np.r_[np.nan, np.ones(59)],
        "infinite": np.r_[np.inf, np.ones(59)],
        "too few": np.ones(59),
        "two-dimensional": np.ones((60, 2)),
    }
    for case, weight in refused.items():
        with must_raise(ValueError, "", f"{name}.fit must refuse weights that are {case}"):
            fitted(estimator_orig, X, sample_weight=weight)


def check_density_weights_are_repetitions(name, estimator_orig):
    """Check that a weight of two is a repeated row and a weight of zero a missing one.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X, X_new = rows(), rows(20, seed=1)
    rng = np.random.RandomState(2)
    repeats = {
        "Integer weights must be repeated rows to": rng.randint(1, 4, size=60),
        "Rows of weight zero must be missing rows to": rng.randint(0, 2, size=60),
    }
    for claim, weight in repeats.items():
        # Multiplying all weights by a constant has a check of its own, so only their ratios matter here.
        expected = answers(fitted(estimator_orig, np.repeat(X, weight, axis=0)), X_new)
        actual = answers(fitted(estimator_orig, X, sample_weight=weight), X_new)
        assert_same_answers(actual, expected, f"{claim} {name}", rtol=1e-6)


def check_density_y_ignored(name, estimator_orig):
    """Check that ``y``, there by convention only, makes no difference.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X, X_new = rows(), rows(20, seed=1)
    y, y_new = np.arange(1.0, 61.0), np.arange(1.0, 21.0)
    estimator = fitted(estimator_orig, X)
    with_y = fitted(estimator_orig, X, y=y)
    assert_same_answers(answers(with_y, X_new), answers(estimator, X_new), f"{name}.fit must not use y")
    if takes(estimator, "score", "y"):
        assert estimator.score(X_new, y_new) == estimator.score(X_new), f"{name}.score must not use y."


def check_density_degenerate(name, estimator_orig):
    """Check that difficult tables give finite scores and samples, or a ValueError that says why not.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    rng = np.random.RandomState(0)
    X = rows(40)
    tables = {
        "one column": X[:, :1],
        "a constant column": np.column_stack([X, np.full(40, 7.0)]),
        "a constant column of zeros": np.column_stack([np.zeros(40), X]),
        "rows that are all equal": np.full((40, 2), 3.0),
        "every row five times": np.repeat(X[:8], 5, axis=0),
        "a column that is a multiple of another": np.column_stack([X, 2 * X[:, 0]]),
        "a grid of integers": rng.randint(0, 4, size=(40, 3)),
        "two rows": X[:2],
        "more columns than rows": rng.normal(size=(10, 15)),
        "columns at 1e8 and 1e-8": X * [1e8, 1e-8],
        "values around 1e8": X + 1e8,
        "Cauchy columns": rng.standard_cauchy(size=(40, 2)),
    }
    for case, table in tables.items():
        try:
            estimator = fitted(estimator_orig, table)
        except ValueError as error:
            if not str(error):
                raise AssertionError(f"{name}.fit refuses {case} and doesn't say why.") from error
            continue
        scores = estimator.score_samples(table)
        assert np.isfinite(scores).all(), f"{name} fitted to {case} must score its rows, but gives {scores}."
        if takes(estimator, "sample", "random_state"):
            drawn = estimator.sample(20, random_state=0)
            assert np.isfinite(drawn).all(), f"{name} fitted to {case} must draw finite rows, but gives {drawn}."
