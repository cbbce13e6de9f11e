import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from sklearn_flows.conditional._members import PENALTIES, held_out_rows, regression_start
from sklearn_flows.flows import conditional_spline_flow


@pytest.mark.parametrize("n_members", [1, 3, 10])
def test_members_leave_out_different_rows(n_members):
    order = np.random.RandomState(0).permutation(100)
    parts = [held_out_rows(k, n_members, order, 0.1) for k in range(n_members)]
    for kept, held_out in parts:
        assert len(held_out) == 10
        assert sorted([*kept, *held_out]) == list(range(100))
    assert len(set(np.concatenate([held_out for _, held_out in parts]))) == 10 * n_members


@pytest.mark.parametrize(("n_rows", "fraction", "n_held_out"), [(2, 0.1, 1), (3, 0.99, 2), (11, 0.1, 2)])
def test_at_least_one_row_is_held_out_and_one_is_left(n_rows, fraction, n_held_out):
    kept, held_out = held_out_rows(0, 2, np.arange(n_rows), fraction)
    assert (len(kept), len(held_out)) == (n_rows - n_held_out, n_held_out)


def leave_one_out(Z, C, weight, penalty):
    errors = np.empty_like(Z)
    for i in range(len(Z)):
        others = np.arange(len(Z)) != i
        ridge = Ridge(alpha=penalty).fit(C[others], Z[others], sample_weight=weight[others])
        errors[i] = Z[i] - ridge.predict(C[i : i + 1])
    return errors


@pytest.mark.parametrize(("n_rows", "n_context"), [(40, 3), (15, 30)])
def test_the_start_is_the_best_ridge_with_residuals_as_large_as_leave_one_out_errors(n_rows, n_context):
    rng = np.random.RandomState(0)
    C, weight = rng.randn(n_rows, n_context), rng.uniform(0.5, 2, n_rows)
    C = np.clip(C, -2, 2)
    Z = C[:, :2] @ [[1.0, -1.0], [0.3, 0.0]] + 0.3 * rng.randn(n_rows, 2)
    # As an encoding makes them. Where rows are few, centred ones follow from each other: that must not pass for prediction.
    C, Z = C - np.average(C, axis=0, weights=weight), Z - np.average(Z, axis=0, weights=weight)
    errors = [leave_one_out(Z, C, weight, penalty) for penalty in PENALTIES]
    best = int(np.argmin([weight @ np.square(e).mean(axis=1) for e in errors]))
    coefficients, intercept, whitening = regression_start(Z, C, weight)
    expected = Ridge(alpha=PENALTIES[best]).fit(C, Z, sample_weight=weight)
    np.testing.assert_allclose(coefficients, expected.coef_, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(intercept, expected.intercept_, rtol=1e-6, atol=1e-8)
    # Shrinkage of the covariance leaves its trace as it is.
    variance = weight @ np.square(errors[best]) / weight.sum()
    covariance = np.linalg.inv(whitening.T @ whitening)
    np.testing.assert_allclose(np.diag(covariance).sum(), variance.sum(), rtol=1e-3)


def test_a_flow_starts_as_that_regression(generator):
    regression = torch.tensor([[1.0, -2.0], [0.5, 0.0], [0.0, 3.0]])
    intercept = torch.tensor([1.0, 0.0, -2.0])
    whitening = torch.tensor([[2.0, 0.0, 0.0], [0.3, 1.0, 0.0], [-0.4, 0.2, 0.5]], dtype=torch.float64)
    flow = conditional_spline_flow(
        whitening,
        regression,
        intercept,
        n_transforms=3,
        hidden_layer_sizes=(6,),
        activation="relu",
        n_bins=4,
        tail_bound=3.0,
        generator=generator,
    ).double()
    x, c = (torch.randn(20, n, generator=generator, dtype=torch.float64) for n in (3, 2))
    normal = torch.distributions.MultivariateNormal(
        c @ regression.T.double() + intercept, precision_matrix=whitening.T @ whitening
    )
    torch.testing.assert_close(flow.log_prob(x, c), normal.log_prob(x), rtol=1e-5, atol=1e-5)
