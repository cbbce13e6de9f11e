import numpy as np
import pytest
from sklearn.covariance import oas

from sklearn_flows.training import _start, whitening_matrix
from sklearn_flows.training._start import shrunk_covariance


def standardised(n_rows, n_features, weight=None, seed=0):
    rng = np.random.RandomState(seed)
    Z = rng.normal(size=(n_rows, n_features)) @ rng.normal(size=(n_features, n_features))
    Z -= np.average(Z, axis=0, weights=weight)
    return Z / np.sqrt(np.average(Z**2, axis=0, weights=weight))


def iterated_shrinkage(S, n):
    """Definition of the estimator: the limit of the oracle's iteration (eqs. 21 and 22 of the paper)."""
    p = len(S)
    target = np.trace(S) / p * np.eye(p)
    estimate = S
    for _ in range(100_000):
        cross, square = np.trace(estimate @ S), np.trace(estimate) ** 2
        rho = ((1 - 2 / p) * cross + square) / ((n + 1 - 2 / p) * cross + (1 - n / p) * square)
        previous, estimate = estimate, (1 - rho) * S + rho * target
        if np.abs(estimate - previous).max() < 1e-15:
            break
    return estimate


@pytest.mark.parametrize(("n_rows", "n_features"), [(200, 2), (50, 5), (8, 5), (20, 12)])
def test_covariance_is_the_limit_of_the_oracles_iteration(n_rows, n_features):
    Z = standardised(n_rows, n_features)
    expected = iterated_shrinkage(Z.T @ Z / n_rows, n_rows)
    np.testing.assert_allclose(shrunk_covariance(Z, np.ones(n_rows)), expected, atol=1e-9)


def test_covariance_agrees_with_scikit_learns_where_features_are_many():
    # scikit-learn leaves out a term of 2 / n_features.
    Z = standardised(500, 100)
    np.testing.assert_allclose(shrunk_covariance(Z, np.ones(500)), oas(Z, assume_centered=True)[0], atol=0.02)


def test_scale_of_the_weights_does_not_matter():
    weight = np.random.RandomState(1).exponential(size=40)
    Z = standardised(40, 3, weight)
    np.testing.assert_allclose(shrunk_covariance(Z, 7 * weight), shrunk_covariance(Z, weight), rtol=1e-12)


def test_rows_of_weight_zero_do_not_matter():
    weight = np.r_[np.ones(30), np.zeros(10)]
    Z = standardised(40, 3, weight)
    np.testing.assert_allclose(shrunk_covariance(Z, weight), shrunk_covariance(Z[:30], np.ones(30)), rtol=1e-12)


def test_weights_act_as_repetition_where_shrinkage_vanishes():
    # Unequal weights count as fewer effective rows than repetition would: the shrinkage differs, the covariance doesn't.
    weight = np.random.RandomState(1).randint(1, 4, size=20_000)
    Z = standardised(20_000, 3, weight)
    repeated = np.repeat(Z, weight, axis=0)
    expected = repeated.T @ repeated / len(repeated)
    np.testing.assert_allclose(shrunk_covariance(Z, weight.astype(float)), expected, atol=2e-3)


def test_fewer_effective_rows_shrink_more():
    Z = standardised(60, 3)
    even, uneven = np.ones(60), np.r_[np.full(10, 10.0), np.full(50, 0.1)]
    Z_uneven = Z - np.average(Z, axis=0, weights=uneven)
    S = (Z_uneven * uneven[:, None]).T @ Z_uneven / uneven.sum()
    share = shrunk_covariance(Z_uneven, uneven)[1, 0] / S[1, 0]
    assert share < shrunk_covariance(Z, even)[1, 0] / (Z.T @ Z / 60)[1, 0] < 1


@pytest.mark.parametrize(("n_rows", "n_features"), [(200, 1), (200, 4), (5, 8), (2, 3), (1, 2)])
def test_whitening_matrix_whitens_the_shrunk_covariance(n_rows, n_features):
    Z = standardised(n_rows, n_features) if n_rows > 1 else np.zeros((1, n_features))
    W = whitening_matrix(Z, np.ones(n_rows))
    assert (np.triu(W, 1) == 0).all()
    assert (np.diag(W) > 0).all()
    covariance = shrunk_covariance(Z, np.ones(n_rows)) + 1e-6 * np.eye(n_features)
    np.testing.assert_allclose(W @ covariance @ W.T, np.eye(n_features), atol=1e-8)


def test_whitened_rows_have_nearly_unit_covariance():
    weight = np.random.RandomState(1).uniform(0.5, 1.5, size=20_000)
    Z = standardised(20_000, 4, weight)
    whitened = Z @ whitening_matrix(Z, weight).T
    # What is left is the shrinkage, of the order 1e-4, amplified by the covariance's condition of some hundreds.
    np.testing.assert_allclose(np.cov(whitened.T, aweights=weight, bias=True), np.eye(4), atol=0.05)


def test_exactly_dependent_columns_give_a_finite_matrix():
    z = standardised(1000, 1)
    W = whitening_matrix(np.hstack([z, z, -z]), np.ones(1000))
    assert np.isfinite(W).all()
    assert np.abs(W).max() <= 1e3 * (1 + 1e-9)


def test_no_columns_need_no_whitening():
    assert whitening_matrix(np.empty((5, 0)), np.ones(5)).shape == (0, 0)


def test_covariance_is_summed_in_chunks_in_float64(monkeypatch):
    weight = np.random.RandomState(1).exponential(size=100)
    Z = standardised(100, 3, weight)
    expected = shrunk_covariance(Z, weight)
    monkeypatch.setattr(_start, "CHUNK", 7)
    np.testing.assert_allclose(shrunk_covariance(Z, weight), expected, rtol=1e-12)
    single = Z.astype(np.float32), weight.astype(np.float32)
    np.testing.assert_array_equal(shrunk_covariance(*single), shrunk_covariance(*(a.astype(np.float64) for a in single)))
