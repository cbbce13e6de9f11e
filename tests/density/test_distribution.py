"""The fitted model is a probability distribution, and the one that was asked for."""

import numpy as np
import pytest
from scipy.integrate import cumulative_trapezoid, trapezoid
from sklearn.datasets import make_moons
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

MEAN = np.array([100.0, -3.0, 0.02])
COVARIANCE = np.array([[400.0, 9.0, 0.01], [9.0, 1.0, -0.001], [0.01, -0.001, 1e-4]])
ENTROPY = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * COVARIANCE)[1]


@pytest.fixture(scope="module")
def two_humps():
    rng = np.random.RandomState(0)
    return 300 + 25 * np.concatenate([rng.normal(-2, 0.5, 200), rng.normal(1.5, 1, 200)])[:, None]


@pytest.fixture(scope="module")
def on_two_humps(make_density, two_humps):
    return make_density(max_iter=40, learning_rate=1e-2).fit(two_humps)


@pytest.fixture(scope="module")
def gaussian():
    return np.random.RandomState(0).multivariate_normal(MEAN, COVARIANCE, size=3000)


@pytest.fixture(scope="module")
def on_gaussian(make_density, gaussian):
    return make_density().fit(gaussian)


def stretched_axis(x, n_nodes, reach):
    """Nodes that are dense within the data and reach ``reach`` standard deviations out."""
    t = np.linspace(-np.arcsinh(reach), np.arcsinh(reach), n_nodes)
    return x.mean() + x.std() * np.sinh(t)


def test_a_density_in_one_dimension_integrates_to_one(on_two_humps, two_humps):
    x = stretched_axis(two_humps, 20_001, 1000)
    density = np.exp(on_two_humps.score_samples(x[:, None]))
    assert trapezoid(density, x) == pytest.approx(1, abs=1e-3)


def test_a_spline_flow_learns_humps_that_an_affine_one_cannot(on_two_humps):
    between, on_the_first, on_the_second = on_two_humps.score_samples([[285.0], [250.0], [337.5]])
    # An affine map of a single column stays a Gaussian.
    assert (between < min(on_the_first, on_the_second)) == hasattr(on_two_humps, "n_bins")


def test_a_density_in_two_dimensions_integrates_to_one(make_density):
    X = make_moons(300, noise=0.15, random_state=0)[0] * [1e3, 1e-2]
    fitted = make_density(max_iter=40, learning_rate=1e-2).fit(X)
    x, y = (stretched_axis(column, 401, 100) for column in X.T)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(fitted.score_samples(grid)).reshape(401, 401)
    assert trapezoid(trapezoid(density, y), x) == pytest.approx(1, abs=1e-3)


def test_a_density_with_a_constant_column_integrates_to_one(make_density):
    X = np.column_stack([np.random.RandomState(0).randn(100), np.full(100, 20.0)])
    fitted = make_density().fit(X)
    x, y = stretched_axis(X[:, 0], 201, 20), 20 + np.linspace(-0.2, 0.2, 201)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp(fitted.score_samples(grid)).reshape(201, 201)
    assert trapezoid(trapezoid(density, y), x) == pytest.approx(1, abs=1e-3)


def test_samples_follow_the_density(on_two_humps, two_humps):
    x = stretched_axis(two_humps, 20_001, 1000)
    cumulative = cumulative_trapezoid(np.exp(on_two_humps.score_samples(x[:, None])), x, initial=0)
    drawn = np.sort(on_two_humps.sample(20_000, random_state=0)[:, 0])
    distance = np.abs(np.interp(drawn, x, cumulative) - (np.arange(20_000) + 0.5) / 20_000).max()
    # Kolmogorov's distance exceeds 2 / sqrt(n) in one of 1,500 draws.
    assert distance < 2 / np.sqrt(20_000)


def test_the_mean_log_density_of_samples_of_a_fitted_gaussian_is_minus_its_entropy(on_gaussian):
    scores = on_gaussian.score_samples(on_gaussian.sample(20_000, random_state=0))
    # The error of the mean is (d / 2n)^0.5 = 0.009; the rest is for the 3,000 rows that were fitted.
    assert scores.mean() == pytest.approx(-ENTROPY, abs=0.1)


def test_held_out_rows_of_a_gaussian_score_minus_its_entropy(on_gaussian):
    X = np.random.RandomState(1).multivariate_normal(MEAN, COVARIANCE, size=20_000)
    assert on_gaussian.score(X) == pytest.approx(-ENTROPY, abs=0.1)


def auc_of_a_two_sample_test(drawn, real):
    X, y = np.vstack([drawn, real]), np.repeat([0, 1], [len(drawn), len(real)])
    classifier = make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression())
    # Folds are drawn in strides so that both kinds are in each.
    order = np.random.RandomState(0).permutation(len(y))
    probability = cross_val_predict(classifier, X[order], y[order], cv=3, method="predict_proba")[:, 1]
    return roc_auc_score(y[order], probability)


def test_a_classifier_cannot_tell_samples_from_a_gaussian_apart(on_gaussian):
    drawn = on_gaussian.sample(3000, random_state=0)
    real = np.random.RandomState(1).multivariate_normal(MEAN, COVARIANCE, size=3000)
    # The AUC of guessing has a standard error of 0.0075.
    assert abs(auc_of_a_two_sample_test(drawn, real) - 0.5) < 0.04


def test_the_classifier_can_tell_a_wrong_gaussian_apart(gaussian):
    wrong = np.random.RandomState(1).multivariate_normal(MEAN, np.diag(np.diag(COVARIANCE)), size=3000)
    assert auc_of_a_two_sample_test(wrong, gaussian) > 0.6


def test_latents_of_the_model_s_samples_are_standard_normal(on_gaussian):
    Z = on_gaussian.transform(on_gaussian.sample(20_000, random_state=0))
    # Four standard errors of a mean, and of a variance.
    np.testing.assert_allclose(Z.mean(axis=0), 0, atol=4 / np.sqrt(20_000))
    np.testing.assert_allclose(np.cov(Z.T), np.eye(3), atol=4 * np.sqrt(2 / 20_000))
