"""What must be true of a conditional density: it is one in each context, and its answers agree with each other."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.integrate import trapezoid
from sklearn.model_selection import GridSearchCV

from sklearn_flows import ConditionalFlowDensity

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SMALL = {"n_transforms": 1, "hidden_layer_sizes": (16,), "max_iter": 8, "n_estimators": 2, "random_state": 0}


def draw_linear_gaussian(n_rows, seed):
    """Two targets around linear functions of three features, with correlated normal noise."""
    rng = np.random.RandomState(seed)
    X = rng.randn(n_rows, 3)
    mean = X @ MATRIX.T + [1.0, -2.0]
    return X, mean + rng.multivariate_normal(np.zeros(2), COVARIANCE, n_rows), mean


MATRIX = np.array([[1.0, -0.5, 0.0], [0.3, 0.0, 2.0]])
COVARIANCE = np.array([[0.5, 0.3], [0.3, 0.8]])


def draw_bent(n_rows, seed):
    """One target whose location, scale and skewness depend on one feature of two."""
    rng = np.random.RandomState(seed)
    X = rng.uniform(-2, 2, (n_rows, 2))
    noise = np.where(X[:, 0] > 0, np.exp(rng.randn(n_rows)), rng.randn(n_rows))
    return X, np.sin(2 * X[:, 0]) + (0.2 + 0.1 * X[:, 0] ** 2) * noise


@pytest.fixture(scope="module")
def linear_gaussian():
    X, Y, _ = draw_linear_gaussian(3000, 0)
    return ConditionalFlowDensity(n_estimators=3, hidden_layer_sizes=(32,), random_state=0).fit(X, Y)


@pytest.fixture(scope="module")
def bent():
    X, y = draw_bent(1000, 0)
    return ConditionalFlowDensity(n_estimators=2, hidden_layer_sizes=(32, 32), random_state=0).fit(X, y)


@pytest.fixture(scope="module", params=[0, 1, 2], ids=["left", "middle", "right"])
def at(request):
    return np.array([[-1.5, 0.0], [0.2, 1.0], [1.7, -1.0]])[request.param : request.param + 1]


@pytest.fixture(scope="module")
def density_at(bent, at):
    """A grid of targets that holds nearly all the mass, and the density there."""
    y = np.linspace(*bent.predict_quantiles(at, [1e-6, 1 - 1e-6])[0], 20_001)
    return y, np.exp(bent.log_prob(np.repeat(at, len(y), axis=0), y))


def test_a_linear_gaussian_is_recovered(linear_gaussian):
    X, Y, mean = draw_linear_gaussian(500, 1)
    expected = stats.multivariate_normal(np.zeros(2), COVARIANCE).logpdf(Y - mean)
    log_prob = linear_gaussian.log_prob(X, Y)
    assert np.abs(log_prob - expected).mean() < 0.1
    assert abs(np.mean(expected - log_prob)) < 0.05
    sd = np.sqrt(np.diag(COVARIANCE))
    assert (np.sqrt(np.mean((linear_gaussian.predict(X) - mean) ** 2, axis=0)) < 0.12 * sd).all()
    low, high = np.moveaxis(linear_gaussian.predict_quantiles(X, stats.norm.cdf([-1, 1])), -1, 0)
    np.testing.assert_allclose(np.mean((high - low) / 2, axis=0), sd, rtol=0.05)
    draws = linear_gaussian.sample_y(X, 50, random_state=0) - mean[:, :, None]
    np.testing.assert_allclose(np.cov(np.moveaxis(draws, 1, 0).reshape(2, -1)), COVARIANCE, atol=0.05)


def test_the_density_integrates_to_one_in_each_context(density_at):
    assert trapezoid(density_at[1], density_at[0]) == pytest.approx(1, abs=1e-4)


def test_the_density_of_two_targets_integrates_to_one(linear_gaussian):
    for x in np.array([[0.0, 0.0, 0.0], [1.5, -2.0, 1.0]]):
        mean, sd = linear_gaussian.predict(x[None])[0], np.sqrt(np.diag(COVARIANCE))
        axes = [np.linspace(m - 8 * s, m + 8 * s, 300) for m, s in zip(mean, sd, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
        cell = np.prod([axis[1] - axis[0] for axis in axes])
        total = np.exp(linear_gaussian.log_prob(np.repeat(x[None], len(grid), axis=0), grid)).sum() * cell
        assert total == pytest.approx(1, abs=1e-3)


def test_quantiles_are_where_the_density_says(bent, at, density_at):
    y, density = density_at
    mass = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(y))])
    probabilities = np.array([0.001, 0.05, 0.3, 0.5, 0.9, 0.999])
    np.testing.assert_allclose(np.interp(bent.predict_quantiles(at, probabilities)[0], y, mass), probabilities, atol=1e-5)


def test_the_prediction_is_the_mean_of_the_density(bent, at, density_at):
    y, density = density_at
    expected = trapezoid(y * density, y)
    sd = np.sqrt(trapezoid((y - expected) ** 2 * density, y))
    assert abs(bent.predict(at)[0] - expected) < 1e-3 * sd


def test_samples_follow_quantiles_and_mean(bent, at):
    draws = bent.sample_y(at, 20_000, random_state=0)[0]
    probabilities = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    below = (draws[:, None] <= bent.predict_quantiles(at, probabilities)).mean(axis=0)
    np.testing.assert_allclose(below, probabilities, atol=0.012)
    assert abs(draws.mean() - bent.predict(at)[0]) < 4 * draws.std() / np.sqrt(len(draws))


def test_even_draws_of_several_targets_agree_with_random_ones(linear_gaussian):
    X, _, _ = draw_linear_gaussian(4, 2)
    draws = linear_gaussian.sample_y(X, 20_000, random_state=0)
    sd = draws.std(axis=-1)
    assert (np.abs(linear_gaussian.predict(X) - draws.mean(axis=-1)) < 0.03 * sd).all()
    expected = np.moveaxis(np.quantile(draws, [0.1, 0.5, 0.9], axis=-1), 0, -1)
    assert (np.abs(linear_gaussian.predict_quantiles(X, [0.1, 0.5, 0.9]) - expected) < 0.06 * sd[..., None]).all()


def test_location_scale_and_shape_depend_on_the_features(bent):
    X, y = draw_bent(500, 1)
    blind = stats.gaussian_kde(y).logpdf(y).mean()
    assert bent.score(X, y) > blind + 0.3
    assert bent.score(X, y) > bent.score(X[::-1], y) + 1
    (left, right) = bent.predict_quantiles([[-1.5, 0.0], [1.7, 0.0]], [0.05, 0.5, 0.95])
    skewness = [(high - middle) / (middle - low) for low, middle, high in (left, right)]
    assert skewness[1] > 2 * skewness[0]


def test_score_is_the_weighted_mean_of_the_log_density(bent):
    X, y = draw_bent(20, 2)
    weight = np.arange(20.0)
    assert bent.score(X, y) == pytest.approx(bent.log_prob(X, y).mean(), rel=1e-12)
    assert bent.score(X, y, weight) == pytest.approx(np.average(bent.log_prob(X, y), weights=weight), rel=1e-12)
    assert isinstance(bent.score(X, y), float)
    y[0] = 1e300  # a row of density zero and weight zero isn't there
    assert bent.log_prob(X, y)[0] == -np.inf
    assert bent.score(X, y, weight) == pytest.approx(np.average(bent.log_prob(X[1:], y[1:]), weights=weight[1:]), rel=1e-12)


def test_the_density_is_in_the_units_of_the_targets():
    X, y = draw_bent(120, 0)
    plain = ConditionalFlowDensity(margins="linear", **SMALL).fit(X, y)
    scaled = ConditionalFlowDensity(margins="linear", **SMALL).fit(4 * X - 2, 8 * y + 16)
    np.testing.assert_allclose(scaled.log_prob(4 * X - 2, 8 * y + 16), plain.log_prob(X, y) - np.log(8), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scaled.predict(4 * X - 2), 8 * plain.predict(X) + 16, rtol=1e-4, atol=1e-4)
    # Curves too: what the best flow of each scored is the score of its held-out rows.
    np.testing.assert_allclose(
        np.array(scaled.validation_scores_), np.array(plain.validation_scores_) - np.log(8), rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(np.array(scaled.loss_curves_), np.array(plain.loss_curves_) + np.log(8), rtol=1e-4, atol=1e-4)


def test_curves_are_mean_log_densities_of_the_rows():
    X, y = draw_bent(150, 0)
    density = ConditionalFlowDensity(**{**SMALL, "n_estimators": 1, "validation_fraction": 0.5, "n_iter_no_change": np.inf})
    density.fit(X, y)
    held_out_best = max(density.validation_scores_[0])
    # Its held-out half scored as well as told: the mean over all rows lies between those of the halves.
    assert min(held_out_best, -density.loss_curves_[0][-1]) - 0.5 < density.score(X, y) < held_out_best + 0.5


@pytest.mark.parametrize("margins", ["linear", "bent", "smooth"])
def test_shapes_follow_the_targets_given(margins):
    X, y = draw_bent(60, 0)
    table = np.column_stack([y, X[:, 1] + np.exp(y)])
    for targets, outputs in ((y, ()), (y[:, None], (1,)), (table, (2,)), (pd.DataFrame(table, columns=["a", "b"]), (2,))):
        density = ConditionalFlowDensity(margins=margins, **SMALL).fit(X, targets)
        assert density.log_prob(X, targets).shape == (60,)
        assert density.predict(X[:7]).shape == (7, *outputs)
        assert density.predict_quantiles(X[:7], [0.2, 0.8]).shape == (7, *outputs, 2)
        assert density.sample_y(X[:7], 5, random_state=0).shape == (7, *outputs, 5)
        assert density.sample_y(X[:7]).shape == (7, *outputs, 1)
        assert np.isfinite(density.predict(X)).all()


def test_a_vector_and_a_column_of_targets_are_the_same():
    X, y = draw_bent(60, 0)
    vector, column = (ConditionalFlowDensity(**SMALL).fit(X, targets) for targets in (y, y[:, None]))
    np.testing.assert_array_equal(vector.predict(X), column.predict(X)[:, 0])
    np.testing.assert_array_equal(vector.log_prob(X, y), column.log_prob(X, y[:, None]))
    np.testing.assert_array_equal(vector.predict_quantiles(X), column.predict_quantiles(X)[:, 0])


def test_rows_are_a_set_and_weights_are_repetitions():
    X, y = draw_bent(110, 0)
    weight = np.random.RandomState(0).randint(0, 3, 110)
    weighted = ConditionalFlowDensity(**SMALL).fit(X, y, sample_weight=weight)
    again = np.random.RandomState(1).permutation(np.repeat(np.arange(110), weight))
    repeated = ConditionalFlowDensity(**SMALL).fit(X[again], y[again])
    np.testing.assert_array_equal(weighted.log_prob(X, y), repeated.log_prob(X, y))


def test_the_same_seed_gives_the_same_density_whatever_the_jobs_and_touches_no_global_state():
    X, y = draw_bent(110, 0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    one, same, other = (
        ConditionalFlowDensity(**{**SMALL, "random_state": seed, "n_jobs": n_jobs}).fit(X, y)
        for seed, n_jobs in ((0, 1), (0, 2), (1, 1))
    )
    np.testing.assert_array_equal(one.predict(X), same.predict(X))
    assert (one.predict(X) != other.predict(X)).all()
    np.testing.assert_array_equal(one.sample_y(X, 3, random_state=5), same.sample_y(X, 3, random_state=5))
    assert (one.sample_y(X, 3, random_state=5) != one.sample_y(X, 3, random_state=6)).all()
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_answers_of_a_row_depend_on_the_row_alone(bent):
    # Many rows go through compiled kernels, few through torch.
    X, y = draw_bent(60_000, 3)
    few = slice(100, 103)
    np.testing.assert_allclose(bent.log_prob(X, y)[few], bent.log_prob(X[few], y[few]), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(bent.predict(X[:3000])[few], bent.predict(X[few]), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(bent.predict_quantiles(X[:1500])[few], bent.predict_quantiles(X[few]), rtol=1e-7, atol=1e-7)


def test_constant_targets_and_features_are_no_obstacle():
    X, y = draw_bent(60, 0)
    constant_features = ConditionalFlowDensity(**SMALL).fit(np.ones((60, 2)), y)
    assert np.ptp(constant_features.predict([[1.0, 1.0], [1.0, 1.0]])) == 0
    assert np.isfinite(constant_features.score(np.ones((60, 2)), y))
    constant_target = ConditionalFlowDensity(**SMALL).fit(X, np.full(60, 3.0))
    np.testing.assert_allclose(constant_target.predict(X), 3.0, rtol=1e-3)
    np.testing.assert_allclose(constant_target.predict_quantiles(X), 3.0, rtol=1e-2)
    np.testing.assert_allclose(constant_target.sample_y(X, 4, random_state=0), 3.0, rtol=2e-2)
    one_of_two = ConditionalFlowDensity(**SMALL).fit(X, np.column_stack([np.full(60, 3.0), y]))
    np.testing.assert_allclose(one_of_two.predict(X)[:, 0], 3.0, rtol=1e-2)
    assert np.ptp(one_of_two.predict(X)[:, 1]) > 0.1


@pytest.mark.filterwarnings("ignore:A continuous density is not meaningful")
@pytest.mark.parametrize("n_rows", [1, 2, 3, 30])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_few_rows_with_many_features_give_a_density(n_rows, early_stopping):
    rng = np.random.RandomState(0)
    X, y = rng.randn(n_rows, 40), rng.randn(n_rows)
    density = ConditionalFlowDensity(**{**SMALL, "early_stopping": early_stopping}).fit(X, y)
    assert np.isfinite(density.log_prob(rng.randn(5, 40), rng.randn(5))).all()
    if n_rows == 30:
        # What there is to say of noise: nothing. A regression that follows it would be far worse than a plain Gaussian.
        assert density.score(rng.randn(200, 40), rng.randn(200)) > -2.5


def test_a_search_chooses_by_the_log_density():
    X, y = draw_bent(150, 0)
    search = GridSearchCV(ConditionalFlowDensity(**SMALL), {"learning_rate": [1e-8, 1e-2]}, cv=2).fit(X, y)
    assert search.best_params_ == {"learning_rate": 1e-2}
    assert search.best_score_ == pytest.approx(search.cv_results_["mean_test_score"].max())


def test_queries_change_nothing(bent):
    X, y = draw_bent(10, 0)
    before = copy.deepcopy(vars(bent))
    bent.log_prob(X, y), bent.predict(X), bent.predict_quantiles(X), bent.sample_y(X, 2)
    assert vars(bent).keys() == before.keys()
    for flow, old in zip(bent.flows_, before["flows_"], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(flow.state_dict().values(), old.state_dict().values(), strict=True))
