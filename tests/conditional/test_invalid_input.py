"""What can't be fitted or queried is refused with a word about it, and nothing that was fitted is lost."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

from sklearn_flows import ConditionalFlowDensity
from sklearn_flows.training import _loop

SMALL = {"n_transforms": 1, "hidden_layer_sizes": (8,), "max_iter": 3, "n_estimators": 2, "random_state": 0}
X = np.random.RandomState(0).randn(30, 4)
Y = np.random.RandomState(1).randn(30, 2)


@pytest.fixture(scope="module")
def fitted():
    with pytest.warns(ConvergenceWarning):
        return ConditionalFlowDensity(**SMALL).fit(X, Y)


def with_value(value):
    y = np.arange(30.0).astype(object)
    y[3] = value
    return y


BAD_TARGETS = {
    "none": (None, ValueError, "requires y to be passed, but the target y is None"),
    "NaN": (with_value(np.nan).astype(float), ValueError, "Input y contains NaN"),
    "inf": (with_value(np.inf).astype(float), ValueError, "Input y contains infinity"),
    "string": (with_value("red"), ValueError, "could not convert string to float: 'red'"),
    "complex": (np.full(30, 1j), ValueError, "Complex data not supported"),
    "sparse": (scipy.sparse.csr_matrix(np.ones((30, 1))), TypeError, "Sparse targets are not supported"),
    "another length": (np.arange(29.0), ValueError, "inconsistent numbers of samples"),
    "three dimensions": (np.zeros((30, 2, 2)), ValueError, "dim 3"),
    "no columns": (np.empty((30, 0)), ValueError, r"0 feature\(s\) \(shape=\(30, 0\)\)"),
    "a number": (3.0, TypeError, "scalar"),
}


@pytest.mark.parametrize("name", BAD_TARGETS)
def test_bad_targets_are_refused_and_nothing_is_lost(name, fitted):
    y, error, message = BAD_TARGETS[name]
    flows = fitted.flows_
    with pytest.raises(error, match=message):
        fitted.fit(X, y)
    assert fitted.flows_ is flows
    if y is not None:
        with pytest.raises(error, match=message):
            fitted.log_prob(X, y)
    assert fitted.predict(X).shape == (30, 2)


def test_features_and_targets_of_another_width_are_refused(fitted):
    for ask in (fitted.predict, fitted.predict_quantiles, fitted.sample_y, lambda X: fitted.log_prob(X, Y)):
        with pytest.raises(ValueError, match="X has 3 features, but ConditionalFlowDensity is expecting 4 features as input"):
            ask(X[:, :3])
        with pytest.raises(ValueError, match="NaN"):
            ask(np.full_like(X, np.nan))
    with pytest.raises(ValueError, match="y has 1 columns, but ConditionalFlowDensity was fitted to targets of 2 columns"):
        fitted.log_prob(X, Y[:, 0])
    with pytest.raises(ValueError, match="y has 3 columns"):
        fitted.score(X, np.zeros((30, 3)))


@pytest.mark.parametrize("quantiles", [0.5, [], [0.0], [0.5, 1.0], [-0.1], [np.nan], [[0.1, 0.9]]])
def test_quantiles_must_be_a_sequence_of_numbers_between_zero_and_one(fitted, quantiles):
    with pytest.raises(ValueError, match="quantiles must be a sequence of numbers between 0 and 1, both excluded"):
        fitted.predict_quantiles(X, quantiles)


@pytest.mark.parametrize("n_samples", [0, -1, 2.0, "3", True])
def test_the_number_of_draws_must_be_positive(fitted, n_samples):
    with pytest.raises(ValueError, match="Invalid value for 'n_samples'"):
        fitted.sample_y(X, n_samples)


def test_queries_before_fit_are_refused():
    density = ConditionalFlowDensity()
    asks = [density.predict, density.predict_quantiles, density.sample_y]
    for ask in [*asks, lambda X: density.log_prob(X, Y), lambda X: density.score(X, Y)]:
        with pytest.raises(NotFittedError):
            ask(X)


@pytest.mark.parametrize(
    "parameter",
    [{"n_estimators": 0}, {"margins": "crooked"}, {"activation": "sine"}, {"validation_fraction": 1.0}, {"tail_bound": 0.0}],
)
def test_bad_parameters_are_refused(parameter):
    with pytest.raises(
        InvalidParameterError, match=f"The '{next(iter(parameter))}' parameter of ConditionalFlowDensity must be"
    ):
        ConditionalFlowDensity(**parameter).fit(X, Y)
    with pytest.raises(ValueError, match="hidden_layer_sizes must hold integers"):
        ConditionalFlowDensity(hidden_layer_sizes=(8, 0)).fit(X, Y)
    with pytest.raises(ValueError, match="'device' parameter"):
        ConditionalFlowDensity(device="abacus").fit(X, Y)


def test_divergence_names_the_target_that_is_furthest_out(monkeypatch):
    monkeypatch.setattr(_loop, "MAX_ROLLBACKS", 0)
    y = Y.copy()
    y[0, 1] = 1e3
    with pytest.raises(ValueError, match=r"(?s)Training of ConditionalFlowDensity diverged.*is 'y1': transform it"):
        ConditionalFlowDensity(**{**SMALL, "learning_rate": 1e30, "margins": "linear"}).fit(X, y)


def test_discrete_targets_are_warned_about():
    with pytest.warns(UserWarning, match=r"not meaningful for discrete columns: 'y0' \(2 distinct values in 30 rows\)"):
        ConditionalFlowDensity(**{**SMALL, "max_iter": "auto"}).fit(X, np.arange(30) % 2)


def test_an_interrupted_fit_keeps_the_flows_so_far(monkeypatch):
    schedule, n_steps_taken = _loop.warmup_cosine, 0

    def interrupted(step, n_steps):
        nonlocal n_steps_taken
        n_steps_taken += 1
        if n_steps_taken == 5:  # of three epochs of one batch: in the middle of the second flow
            raise KeyboardInterrupt
        return schedule(step, n_steps)

    monkeypatch.setattr(_loop, "warmup_cosine", interrupted)
    density = ConditionalFlowDensity(**{**SMALL, "n_estimators": 4, "n_jobs": 1})
    with pytest.warns(UserWarning, match="interrupted by the user with 2 of 4 flows begun; the best so far is kept"):
        density.fit(X, Y)
    assert density.n_estimators_ == len(density.flows_) == 2
    assert density.stop_reasons_ == ["max_iter", "interrupted"]
    assert np.isfinite(density.log_prob(X, Y)).all()
