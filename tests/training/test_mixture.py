"""The mixture that training may start from."""

import numpy as np
import pytest
from scipy import stats
from sklearn.mixture import GaussianMixture

from sklearn_flows.compiled import compiled_kernels_in_any_case
from sklearn_flows.training import _mixture
from sklearn_flows.training._mixture import (
    MAX_COLUMNS_FOR_PAIRS,
    Mixture,
    SplitRows,
    choose_mixture,
    first_groups,
    fit_mixture,
)


def groups(n_rows, seed):
    rng = np.random.RandomState(seed)
    centres = np.array([[-2.0, 0.0], [2.0, 1.0], [1.0, -2.0]])
    return centres[rng.randint(3, size=n_rows)] + 0.4 * rng.randn(n_rows, 2)


def ones(rows):
    return np.ones(len(rows))


def choose(rows, rows_val, seed=0):
    return choose_mixture(rows, ones(rows), rows_val, ones(rows_val), np.random.RandomState(seed))


def test_the_density_is_that_of_the_mixture():
    rows, rows_val = groups(200, 0), groups(100, 1)
    mixture, score = choose(rows, rows_val)
    assert mixture.shares.sum() == pytest.approx(1)
    expected = 0
    for share, mean, factor, df in zip(*mixture, strict=True):
        assert np.array_equal(factor, np.tril(factor))
        expected = expected + share * stats.multivariate_t(mean, np.linalg.inv(factor.T @ factor), df).pdf(rows_val)
    np.testing.assert_allclose(mixture.log_density(rows_val), np.log(expected), rtol=1e-9)
    assert score == pytest.approx(np.log(expected).mean())


def test_groups_are_found():
    mixture, _ = choose(groups(300, 0), groups(100, 1))
    test = groups(2000, 2)
    truth = sum(stats.multivariate_normal(c, 0.16).pdf(test) / 3 for c in ([-2, 0], [2, 1], [1, -2]))
    assert mixture.log_density(test).mean() > np.log(truth).mean() - 0.05


def test_a_single_gaussian_stays_one_or_nearly():
    rng = np.random.RandomState(0)
    factor = rng.randn(5, 5)
    rows, rows_val, test = (rng.randn(n, 5) @ factor for n in (300, 100, 2000))
    mixture, _ = choose(rows, rows_val)
    single = GaussianMixture(1).fit(rows)
    assert mixture.log_density(test).mean() > single.score(test) - 0.03


def test_groups_of_independent_columns_are_found_though_few_of_them_are_no_better_than_one_of_dependent_ones():
    rng = np.random.RandomState(0)
    centres, scales = rng.randn(8, 15), np.exp(0.5 * rng.randn(8, 15))

    def draw(n_rows):
        group = rng.randint(8, size=n_rows)
        return centres[group] + scales[group] * rng.randn(n_rows, 15)

    mixture, _ = choose(draw(300), draw(100))
    off_diagonal = ~np.eye(15, dtype=bool)
    assert not mixture.precisions_cholesky[:, off_diagonal].any()
    assert len(mixture.shares) >= 8


def test_few_rows_in_many_dimensions_are_no_trouble():
    rng = np.random.RandomState(0)
    rows, rows_val, test = (rng.randn(n, 20) for n in (25, 10, 500))
    mixture, _ = choose(rows, rows_val)
    # The truth has -28.4; a Gaussian with the covariance of 25 rows in 20 dimensions has less than -100.
    assert mixture.log_density(test).mean() > -40


@pytest.mark.parametrize(("diagonal", "only_diagonal"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("n_features", [1, 4, MAX_COLUMNS_FOR_PAIRS + 1])
def test_moments_and_distances_are_those_of_each_component(n_features, diagonal, only_diagonal):
    rng = np.random.RandomState(0)
    rows, rows_val, weighted = rng.randn(30, n_features), rng.randn(20, n_features), rng.rand(3, 30)
    split = SplitRows(rows, ones(rows), rows_val, ones(rows_val), only_diagonal)
    products, sums, mass = split.moments(weighted, diagonal)
    expected = np.einsum("kn,ni,nj->kij", weighted, rows, rows)
    np.testing.assert_allclose(products, np.einsum("kii->ki", expected) if diagonal else expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(sums, weighted @ rows, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(mass, weighted.sum(axis=1))
    factors = np.tril(rng.randn(3, n_features, n_features)) * (np.eye(n_features) if diagonal else 1)
    mixture = Mixture(np.full(3, 1 / 3), rng.randn(3, n_features), factors, np.full(3, np.inf))
    expected = np.square(np.einsum("kij,knj->kni", factors, np.r_[rows, rows_val] - mixture.means[:, None])).sum(axis=2)
    np.testing.assert_allclose(split.squared_distance(mixture, diagonal), expected, rtol=1e-9, atol=1e-10)


def compiled_or_fail(*arguments):
    with compiled_kernels_in_any_case():
        split = SplitRows(*arguments)
    assert split.kernels is not None
    return split


@pytest.mark.parametrize("df", [np.inf, 4.0])
@pytest.mark.parametrize("prior_rows", [2.0, np.inf])
@pytest.mark.parametrize("diagonal_share", [0.03, 1.0])
# Rows and judges end between two vectors, or with them; a single column has no pairs.
@pytest.mark.parametrize(("n_rows", "n_features"), [(9, 1), (61, 3), (64, 6), (120, MAX_COLUMNS_FOR_PAIRS)])
def test_compiled_kernels_take_the_same_steps(n_rows, n_features, diagonal_share, prior_rows, df):
    rng = np.random.RandomState(0)
    rows, rows_val = rng.randn(n_rows, n_features), rng.randn(8, n_features)
    weight, weight_val = rng.rand(n_rows), rng.rand(8)
    responsibility = rng.dirichlet([0.3, 0.3, 0.3], size=n_rows).T
    split = rows, weight, rows_val, weight_val, diagonal_share == 1
    expected, found = (
        fit_mixture(kind(*split), responsibility, prior_rows, diagonal_share, df) for kind in (SplitRows, compiled_or_fail)
    )
    for a, b in zip([*expected[0], *expected[1:]], [*found[0], *found[1:]], strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("products_at_once", [1, 5_000, 2**24])
def test_steps_are_the_same_however_many_are_taken_at_once(monkeypatch, products_at_once):
    rows, responsibility = groups(60, 0), np.random.RandomState(0).dirichlet([0.3, 0.3, 0.3], size=60).T
    arguments = compiled_or_fail(rows, ones(rows), rows[:9], ones(rows[:9])), responsibility, 2.0, 0.03, np.inf
    expected = fit_mixture(*arguments)
    monkeypatch.setattr(_mixture, "PRODUCTS_AT_ONCE", products_at_once)
    np.testing.assert_array_equal(fit_mixture(*arguments)[1], expected[1])


def test_no_step_follows_when_the_time_is_over(monkeypatch):
    rows, responsibility = groups(60, 0), np.random.RandomState(0).dirichlet([0.3, 0.3, 0.3], size=60).T
    arguments = compiled_or_fail(rows, ones(rows), rows[:9], ones(rows[:9])), responsibility, 2.0, 0.03, np.inf
    monkeypatch.setattr(_mixture, "PRODUCTS_AT_ONCE", 1)
    first = fit_mixture(*arguments, until=0.0)
    monkeypatch.setattr(_mixture, "MAX_EM_STEPS", 1)
    np.testing.assert_array_equal(first[1], fit_mixture(*arguments)[1])


@pytest.mark.parametrize("n_components", [1, 2, 7, 30])
def test_compiled_kernels_find_the_same_groups(n_components):
    rows = groups(60, 0)
    split = rows, np.random.RandomState(0).randint(3, size=60).astype(float), rows[:9], ones(rows[:9])
    expected, found = (
        first_groups(kind(*split), n_components, np.random.RandomState(1)) for kind in (SplitRows, compiled_or_fail)
    )
    np.testing.assert_array_equal(found, expected)
    assert (found.sum(axis=0) == 1).all()


@pytest.mark.parametrize("kind", [SplitRows, compiled_or_fail])
def test_there_may_be_fewer_places_than_groups(kind):
    rows = np.repeat([[0.0, 1.0], [2.0, 3.0]], 6, axis=0)
    found = first_groups(kind(rows, ones(rows), rows, ones(rows)), 5, np.random.RandomState(0))
    assert (found[:, :6] == found[:, :1]).all()
    assert (found[:, 6:] == found[:, -1:]).all()
    assert found[:, 0] @ found[:, -1] == 0


def test_too_many_columns_for_pairs_are_not_for_kernels():
    rows = np.random.RandomState(0).randn(60, MAX_COLUMNS_FOR_PAIRS + 1)
    with compiled_kernels_in_any_case():
        assert SplitRows(rows, ones(rows), rows, ones(rows)).kernels is None
        assert SplitRows(rows, ones(rows), rows, ones(rows), diagonal=True).kernels is not None


@pytest.mark.parametrize("n_rows", [1_999, 2_000])
def test_compiled_kernels_are_loaded_for_many_rows(n_rows):
    rows = np.zeros((n_rows - 1, 2))
    assert (SplitRows(rows, ones(rows), rows[:1], ones(rows[:1])).kernels is not None) == (n_rows == 2_000)


@pytest.mark.parametrize("split", [SplitRows, compiled_or_fail])
def test_what_is_no_covariance_is_an_error(split, monkeypatch):
    monkeypatch.setattr(_mixture, "MIN_VARIANCE", -10.0)
    rows = groups(60, 0)
    with pytest.raises(np.linalg.LinAlgError):
        fit_mixture(split(rows, ones(rows), rows[:9], ones(rows[:9])), np.ones((1, 60)), 2.0, 0.03, np.inf)


@pytest.mark.parametrize("df", [np.inf, 4.0])
def test_weights_are_repetitions(df):
    rows, rows_val = groups(60, 0), groups(40, 1)
    weight = np.random.RandomState(2).randint(1, 4, size=60)
    arguments = {"responsibility": np.ones((1, 60)), "prior_rows": 4.0, "diagonal_share": 0.03, "df": df}
    weighted, *_ = fit_mixture(SplitRows(rows, weight.astype(float), rows_val, ones(rows_val)), **arguments)
    repeated_rows = np.repeat(rows, weight, axis=0)
    one_group = {"responsibility": np.ones((1, len(repeated_rows)))}
    split = SplitRows(repeated_rows, ones(repeated_rows), rows_val, ones(rows_val))
    repeated, *_ = fit_mixture(split, **arguments | one_group)
    for a, b in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    split = SplitRows(rows, 2.0 * weight, rows_val, 3 * ones(rows_val))
    doubled, *_ = fit_mixture(split, **arguments | {"prior_rows": 8.0})
    np.testing.assert_allclose(doubled.means, weighted.means, rtol=1e-2, atol=1e-3)


def test_the_same_seed_gives_the_same_mixture():
    rows, rows_val = groups(100, 0), groups(50, 1)
    first, second = (choose(rows, rows_val, seed=3)[0] for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a, b)


def test_heavy_tails_are_found():
    rng = np.random.RandomState(0)
    truth = stats.multivariate_t(np.zeros(4), np.eye(4) + 0.5, df=3)
    rows, rows_val, test = (truth.rvs(n, random_state=rng) for n in (300, 100, 2000))
    mixture, _ = choose(rows / rows.std(axis=0), rows_val / rows.std(axis=0))
    assert set(mixture.df) <= {2, 4, 8}
    score = mixture.log_density(test / rows.std(axis=0)).mean() - np.log(rows.std(axis=0)).sum()
    # A hundredth of a nat for each of about ten parameters; the best normal distribution loses 0.6.
    assert score > truth.logpdf(test).mean() - 0.1


def test_a_number_of_components_and_diagonal_scales_can_be_asked_for():
    rows, rows_val = groups(200, 0), groups(100, 1)
    rng = np.random.RandomState(0)
    mixture, _ = choose_mixture(rows, ones(rows), rows_val, ones(rows_val), rng, n_components=5, diagonal=True)
    assert len(mixture.shares) == 5
    for factor in mixture.precisions_cholesky:
        assert np.array_equal(factor, np.diag(np.diag(factor)))


def test_a_combination_is_likelier_than_the_best_alone():
    rng = np.random.RandomState(0)
    # Groups of different tails and widths: no single candidate suits all.
    draws = [stats.t(2).rvs((900, 3), random_state=rng), 5 + 0.05 * rng.randn(900, 3), rng.uniform(-9, -3, (900, 3))]
    rows, rows_val, test = (np.concatenate([d[a:b] for d in draws]) for a, b in ((0, 100), (100, 140), (140, 900)))
    arguments = (rows, ones(rows), rows_val, ones(rows_val))
    best, score_of_best = choose_mixture(*arguments, np.random.RandomState(0))
    combination, score = choose_mixture(*arguments, np.random.RandomState(0), combine=True)
    assert combination.shares.sum() == pytest.approx(1)
    assert len(combination.shares) > len(best.shares)
    assert score == pytest.approx(combination.log_density(rows_val).mean())
    assert score > score_of_best
    assert combination.log_density(test).mean() > best.log_density(test).mean()


def test_no_more_rows_are_seen_than_asked_for():
    rows, rows_val = groups(200, 0), groups(100, 1)
    seen = np.random.RandomState(0).permutation(200)[:50]
    # A single normal component has a mean that tells which rows it was fitted to.
    mixture, _ = choose_mixture(
        rows, ones(rows), rows_val, ones(rows_val), np.random.RandomState(0), n_components=1, max_rows=50
    )
    np.testing.assert_allclose(mixture.means[0], rows[seen].mean(axis=0), atol=1e-3)


def test_when_the_time_is_over_the_first_mixture_must_do():
    rows, rows_val = groups(200, 0), groups(100, 1)
    mixture, score = choose_mixture(rows, ones(rows), rows_val, ones(rows_val), np.random.RandomState(0), until=0.0)
    assert len(mixture.shares) == 1
    assert score == pytest.approx(mixture.log_density(rows_val).mean())
    assert score < choose(rows, rows_val)[1]


def test_equal_rows_and_constant_columns_are_no_trouble():
    rows = np.zeros((40, 3))
    rows[:20, 0] = 1
    mixture, score = choose(rows, rows[::2])
    assert np.isfinite(score)
    assert all(np.isfinite(part).all() for part in mixture[:3])
