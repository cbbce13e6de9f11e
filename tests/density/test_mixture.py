"""Mixtures as estimators. What they are fitted by is tested beside it."""

import numpy as np
import pytest
from scipy import stats
from sklearn.mixture import GaussianMixture

from sklearn_flows import MixtureDensity
from sklearn_flows.utils.estimator_checks import parametrize_with_density_checks


@parametrize_with_density_checks([MixtureDensity(), MixtureDensity(1, covariance_type="diag", margins="smooth")])
def test_density_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def skewed():
    rng = np.random.RandomState(0)
    return np.column_stack([rng.exponential(size=600), 10 + rng.rand(600)])


def test_a_single_component_is_a_gaussian_where_the_rows_are():
    rng = np.random.RandomState(0)
    X, test = (rng.multivariate_normal([5, -3], [[4, 1], [1, 2]], size=n) for n in (2000, 2000))
    density = MixtureDensity(1, random_state=0).fit(X)
    assert density.n_components_ == 1
    assert density.score(test) == pytest.approx(GaussianMixture(1).fit(X).score(test), abs=0.01)


def test_a_diagonal_with_smooth_margins_is_a_product_of_its_columns(skewed):
    density = MixtureDensity(1, covariance_type="diag", margins="smooth", random_state=0).fit(skewed)
    test = np.column_stack([stats.expon.rvs(size=3000, random_state=1), stats.uniform(10, 1).rvs(3000, random_state=2)])
    truth = stats.expon.logpdf(test[:, 0]).mean()
    # Kernels lose a little at the sharp ends; a Gaussian loses 0.6.
    assert density.score(test) > truth - 0.12
    left, right = density.score_samples([[0.5, 10.2], [0.5, 10.8]]) - density.score_samples([[2.0, 10.2], [2.0, 10.8]])
    # Unless the tails tie them, only the background does: the columns' ratios hardly depend on each other.
    if np.isinf(density.df_).all():
        assert left == pytest.approx(right, abs=0.02)


def test_latents_are_standard_normal(skewed):
    latents = MixtureDensity(margins="smooth", random_state=0).fit(skewed).transform(skewed)
    for column in latents.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(latents.T)[0, 1]) < 0.15


def test_what_was_chosen_is_told():
    rng = np.random.RandomState(0)
    X = 5 * rng.randn(4, 2)[rng.randint(4, size=400)] + 0.2 * rng.randn(400, 2)
    density = MixtureDensity(random_state=0).fit(X)
    assert density.n_components_ >= 4
    heavy = MixtureDensity(1, random_state=0).fit(stats.multivariate_t([0, 0], df=2).rvs(800, random_state=0))
    assert heavy.df_.shape == (1,)
    assert heavy.df_ <= 4
    alone = MixtureDensity(combine=False, random_state=0).fit(X)
    assert alone.n_components_ < density.n_components_


def test_a_row_like_none_before_costs_no_more_than_the_background_says():
    X = np.random.RandomState(0).randn(150, 2)
    far = np.array([[1e3, -1e3]])
    log_share = -np.log(1 + 135)  # a tenth of the rows is held out
    background = log_share + stats.multivariate_t(X.mean(axis=0), np.cov(X.T), df=3).logpdf(far)
    assert MixtureDensity(1, random_state=0).fit(X).score(far) == pytest.approx(background, abs=1.0)
    without = MixtureDensity(4, background=False, random_state=0).fit(X)
    assert len(without.flow_.base.df) == 4


def test_a_component_may_be_a_thousandth_as_wide_as_another():
    def draw(n, rng):
        return rng.randn(n, 2) * np.where(rng.rand(n) < 0.5, 1.0, 1e-3)[:, None]

    def truth(X):
        wide, narrow = (stats.multivariate_normal(np.zeros(2), scale**2).logpdf(X) for scale in (1.0, 1e-3))
        return np.logaddexp(wide, narrow) - np.log(2)

    train, test = (draw(n, np.random.RandomState(n)) for n in (400, 4000))
    best = truth(test).mean()
    assert MixtureDensity(random_state=0).fit(train).score(test) > best - 0.5
    assert MixtureDensity(min_prior_rows=0.5, random_state=0).fit(train).score(test) < best - 1.5
