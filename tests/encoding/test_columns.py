import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from sklearn_flows.encoding import ContinuousColumn, HeavyTailedColumn, SmoothColumn, grid_step
from sklearn_flows.encoding._columns import (
    MAX_ENCODED,
    constant_column,
    fit_column,
    fit_smooth_column,
    is_constant,
    is_discrete,
)


def columns():
    rng = np.random.RandomState(0)
    z = rng.normal(size=500)
    return {
        "standard": z,
        "offset-1e8": 1e8 + z,
        "scale-1e-8": 1e-8 * z,
        "scale-1e200": 1e200 * z,
        "scale-1e-200": 1e-200 * z,
        "scale-1e300": 1e300 * np.clip(z, -3, 3),
        "subnormal": 1e-310 * z,
        "cauchy": rng.standard_cauchy(size=500),
        "float32-offset": (1e4 + z).astype(np.float32),
        "integers": rng.randint(-5, 6, size=500).astype(float),
        "two-rows": np.array([-1.0, 3.0]),
        "one-outlier": np.r_[np.zeros(499), 1.0],
    }


@pytest.fixture(params=columns().values(), ids=columns())
def x(request):
    return request.param


@pytest.fixture(params=["even", "uneven", "with-zeros"])
def weight(request, x):
    rng = np.random.RandomState(1)
    if request.param == "even":
        return np.ones(len(x))
    weight = rng.exponential(size=len(x))
    if request.param == "with-zeros":
        weight[:-1][rng.rand(len(x) - 1) < 0.3] = 0.0
        weight[0] = 1.0
    return weight


def exact_moments(x, weight):
    """Weighted mean and standard deviation, in exact arithmetic but for the root."""
    total = sum(map(Fraction, weight))
    x, share = list(map(Fraction, x.tolist())), [Fraction(w) / total for w in weight]
    mean = sum(s * v for s, v in zip(share, x, strict=True))
    variance = sum(s * (v - mean) ** 2 for s, v in zip(share, x, strict=True))
    # Scaled before the root: the squares of 1e200 and of 1e-200 are no doubles.
    unit = Fraction(2) ** math.frexp(max(map(abs, x)))[1]
    return mean, math.sqrt(variance / unit**2) * unit


def test_moments_are_those_of_exact_arithmetic(x, weight):
    column = ContinuousColumn.fit(x, weight)
    mean, deviation = exact_moments(x, weight)
    largest = Fraction(float(np.abs(x).max()))
    # A few ulps of the largest value; no double can do better than one.
    assert abs(Fraction(column.loc) - mean) <= Fraction(2e-15) * largest + Fraction(5e-324)
    assert abs(Fraction(column.scale) - deviation) <= Fraction(1e-13) * Fraction(deviation) + Fraction(5e-324)


def test_mean_of_a_plain_column_is_that_of_fsum():
    x = columns()["offset-1e8"]
    column = ContinuousColumn.fit(x, np.ones(len(x)))
    mean = math.fsum(x) / len(x)
    assert column.loc == pytest.approx(mean, rel=1e-15)
    assert column.scale == pytest.approx(math.sqrt(math.fsum((v - mean) ** 2 for v in x) / len(x)), rel=1e-12)


def test_encoded_values_are_standardised(x, weight):
    z, _ = ContinuousColumn.fit(x, weight).encode(x)
    assert z.dtype == np.float64
    # Values that are offset by 1e8 of their deviations are given to 1e-8 of them.
    assert np.average(z, weights=weight) == pytest.approx(0.0, abs=1e-7)
    assert np.average(z**2, weights=weight) == pytest.approx(1.0, abs=1e-7)


def test_round_trip(x, weight):
    column = ContinuousColumn.fit(x, weight)
    z, _ = column.encode(x)
    tolerance = 4 * np.spacing(float(np.abs(x).max()))
    assert np.abs(column.decode(z) - x.astype(np.float64)).max() <= tolerance


def test_round_trip_far_outside_the_fitted_values():
    column = ContinuousColumn.fit(np.array([-1.0, 1.0]), np.ones(2))
    x = np.array([-1e20, -1e6, 0.0, 1e6, 1e20])
    z, log_derivative = column.encode(x)
    np.testing.assert_allclose(column.decode(z), x, rtol=1e-15)
    assert np.isfinite(log_derivative).all()


def test_log_derivative_is_that_of_finite_differences(x, weight):
    column = ContinuousColumn.fit(x, weight)
    # The map is linear: differences need not be small, only exact enough.
    ends = np.array([column.loc - column.scale, column.loc + column.scale])
    z, log_derivative = column.encode(ends)
    difference = Fraction(ends[1]) - Fraction(ends[0])
    slope = math.log(z[1] - z[0]) - (math.log(difference.numerator) - math.log(difference.denominator))
    np.testing.assert_allclose(log_derivative, slope, atol=1e-7)
    np.testing.assert_allclose(log_derivative, -math.log(column.scale), rtol=1e-14)


def test_integer_weight_is_a_repeated_value():
    x, times = columns()["standard"], np.random.RandomState(2).randint(0, 4, size=500)
    times[np.abs(x).argmax()] = 1
    weighted = ContinuousColumn.fit(x, times.astype(float))
    repeated = ContinuousColumn.fit(np.repeat(x, times), np.ones(times.sum()))
    assert weighted.loc == pytest.approx(repeated.loc, abs=1e-15)
    assert weighted.scale == pytest.approx(repeated.scale, rel=1e-14)


def test_rescaling_by_powers_of_two_is_exact():
    x, weight = columns()["standard"], np.ones(500)
    column, rescaled = ContinuousColumn.fit(x, weight), ContinuousColumn.fit(x * 2.0**-40, weight)
    assert (rescaled.loc, rescaled.scale) == (column.loc * 2.0**-40, column.scale * 2.0**-40)
    np.testing.assert_array_equal(rescaled.encode(x * 2.0**-40)[0], column.encode(x)[0])


def test_values_beyond_what_can_be_represented_have_no_density():
    column = ContinuousColumn.fit(np.array([-1e-200, 1e-200]), np.ones(2))
    z, log_derivative = column.encode(np.array([-1e200, -1.0, 0.0, 1e-200, 1.0, 1e200, 1.7e308]))
    assert np.isfinite(z).all()
    assert np.abs(z).max() <= MAX_ENCODED
    np.testing.assert_array_equal(log_derivative == -np.inf, [True, True, False, False, True, True, True])
    assert np.isfinite(log_derivative[2:4]).all()


def test_vanishing_weights_do_not_make_the_scale_vanish():
    column = ContinuousColumn.fit(np.array([1.0, 2.0]), np.array([1.0, 1e-300]))
    assert column.scale > 0
    assert all(np.isfinite(part).all() for part in column.encode(np.array([1.0, 2.0])))


CONSTANTS = [0.0, -0.0, 1.0, -3.7, 1e8, 1e-8, 1e200, -1e-200, 1e308, 1e-310, 5e-324]


@pytest.mark.parametrize("value", CONSTANTS)
def test_values_that_differ_in_their_last_digit_are_constant(value):
    above = np.nextafter(value, np.inf)
    for x in ([value] * 3, [value, above], [above, value, value], [np.nextafter(value, -np.inf), value]):
        assert is_constant(np.array(x))


@pytest.mark.parametrize("value", [1.0, -3.7, 1e8, 1e-8, 1e200, -1e-200])
def test_values_that_differ_in_more_than_their_last_digit_are_not_constant(value):
    assert not is_constant(np.array([value, value * (1 + 1e-14)]))
    assert not is_constant(np.array([value, -value]))


def test_the_last_digit_is_that_of_the_values_own_type():
    x = np.array([1e4, np.nextafter(np.float32(1e4), np.float32(np.inf))])
    assert is_constant(x.astype(np.float32))
    assert not is_constant(x.astype(np.float64))


def test_the_whole_range_of_doubles_is_not_constant():
    largest = np.finfo(np.float64).max
    assert not is_constant(np.array([-largest, largest]))


@pytest.mark.parametrize("value", CONSTANTS)
def test_constant_columns_get_a_narrow_finite_density_at_their_value(value):
    column = constant_column(np.float64(value))
    assert column.loc == value
    assert 0 < column.scale <= 1e-3 * max(abs(value), 1.0)
    z, log_derivative = column.encode(np.array([value]))
    assert z.tolist() == [0.0]
    assert np.isfinite(log_derivative).all()
    assert column.decode(z).tolist() == [value]


@pytest.mark.parametrize(
    "x",
    [
        np.tile([1.0, 2.0, 3.0, 4.0], 25),
        np.tile(np.arange(30.0), 100),  # counts, each found in a hundred rows
        np.append(np.zeros(10), np.linspace(1, 2, 90)),  # an atom in a continuous column
        np.tile([1.0, 2.0], 3),
    ],
    ids=["four values", "thirty counts", "an atom", "two values in six rows"],
)
@pytest.mark.parametrize("order", [np.sort, lambda x: np.random.RandomState(0).permutation(x)], ids=["sorted", "shuffled"])
def test_repeated_values_are_discrete(x, order):
    assert is_discrete(order(x))


@pytest.mark.parametrize(
    "x",
    [
        np.arange(300.0),
        np.arange(3.0),
        np.round(np.random.RandomState(0).randn(500), 2),  # two digits of a continuous quantity
        np.append(np.zeros(4), np.linspace(1, 2, 200)),
    ],
    ids=["all different", "three rows", "rounded", "a few ties"],
)
def test_values_that_hardly_repeat_are_not_discrete(x):
    assert not is_discrete(x)


def fitted(x, weight=None):
    return fit_column(x, np.ones(len(x)) if weight is None else weight)


HEAVY = {
    "cauchy": stats.cauchy(3, 2).rvs(600, random_state=0),
    "student": stats.t(2).rvs(600, random_state=0) * 1e-8,
    "lognormal": 1e8 * stats.lognorm(1.5).rvs(600, random_state=0),
    "outlier": np.r_[stats.norm.rvs(size=300, random_state=0), 1e6],
}


@pytest.mark.parametrize("x", HEAVY.values(), ids=HEAVY)
def test_heavy_tails_are_bent(x):
    column = fitted(x)
    assert isinstance(column, HeavyTailedColumn)
    z, log_derivative = column.encode(x)
    assert z.mean() == pytest.approx(0, abs=1e-9)
    assert z.std() == pytest.approx(1)
    np.testing.assert_allclose(column.decode(z), x, rtol=1e-9, atol=1e-12 * np.abs(x).max())
    # As a density of the column the images' normal is likelier than the values' own.
    plain, plain_log_derivative = ContinuousColumn.fit(x, np.ones(len(x))).encode(x)
    assert (log_derivative - z**2 / 2).mean() > (plain_log_derivative - plain**2 / 2).mean() + 0.1


@pytest.mark.parametrize("x", HEAVY.values(), ids=HEAVY)
def test_log_derivative_of_bent_columns(x):
    column = fitted(x)
    points = np.quantile(x, np.linspace(0.05, 0.95, 19))
    h = 1e-6 * (np.quantile(x, 0.75) - np.quantile(x, 0.25))
    slope = (column.encode(points + h)[0] - column.encode(points - h)[0]) / (2 * h)
    np.testing.assert_allclose(column.encode(points)[1], np.log(slope), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n_rows", [50, 1000, 20_000])
def test_normal_and_light_tails_stay_linear(n_rows):
    rng = np.random.RandomState(0)
    for x in (rng.randn(n_rows), rng.rand(n_rows), rng.beta(2, 2, n_rows)):
        assert isinstance(fitted(x), ContinuousColumn)


def test_few_rows_and_discrete_values_stay_linear():
    assert isinstance(fitted(HEAVY["cauchy"][:20]), ContinuousColumn)
    assert isinstance(fitted(np.r_[np.zeros(500), HEAVY["cauchy"][:100]]), ContinuousColumn)


@pytest.mark.parametrize("factor", [-8.0, 3.7, 1e-5])
def test_the_bend_moves_with_the_units(factor):
    x = HEAVY["student"]
    z, log_derivative = fitted(x).encode(x)
    scaled, scaled_log_derivative = fitted(factor * x + 2 * factor).encode(factor * x + 2 * factor)
    np.testing.assert_allclose(scaled, np.sign(factor) * z, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scaled_log_derivative, log_derivative - np.log(abs(factor)), rtol=0, atol=1e-6)


def test_weights_move_the_centre_as_repetitions_do():
    x = np.sort(HEAVY["cauchy"][:200])
    weight = np.random.RandomState(0).randint(1, 4, size=200)
    weighted, repeated = fitted(x, weight.astype(float)), fitted(np.repeat(x, weight))
    # The criterion counts rows, and equal rows are one to it: the chosen width may differ, but not by much.
    assert isinstance(weighted, HeavyTailedColumn)
    assert repeated.centre == pytest.approx(weighted.centre, abs=1e-9)


def test_far_values_of_a_bent_column_stay_finite():
    column = fitted(HEAVY["cauchy"])
    z, log_derivative = column.encode(np.array([-1e300, 1e300, 1e20]))
    assert np.isfinite(z).all()
    assert not np.isnan(log_derivative).any()
    assert np.isfinite(column.decode(np.array([-1e5, 1e5]))).all()


NOT_NORMAL = {
    "uniform": 1e-9 * np.random.RandomState(0).rand(400),
    "exponential": 5e6 + np.random.RandomState(1).exponential(size=3000),
    "two humps": np.r_[np.random.RandomState(2).randn(200) / 9, 4 + np.random.RandomState(3).randn(300)],
    "lognormal": HEAVY["lognormal"],
    "rounded": np.round(np.random.RandomState(4).gamma(2, size=500), 1),
    "far outlier": np.r_[np.random.RandomState(5).rand(300), 1e5],
}


def smooth(x, weight=None):
    return fit_smooth_column(x, np.ones(len(x)) if weight is None else weight)


@pytest.fixture(params=NOT_NORMAL.values(), ids=NOT_NORMAL)
def not_normal(request):
    return request.param


def test_a_smooth_column_is_mapped_and_back(not_normal):
    column = smooth(not_normal)
    assert isinstance(column, SmoothColumn)
    centre, width = np.median(not_normal), not_normal.std()
    points = np.sort(np.r_[not_normal, centre + width * np.linspace(-20, 20, 4001)])
    z, log_derivative = column.encode(points)
    assert (np.diff(z)[np.diff(points) > 0] > 0).all()
    assert np.isfinite(log_derivative).all()
    np.testing.assert_allclose(column.decode(z), points, rtol=1e-9, atol=1e-9 * width)


def test_log_derivative_of_smooth_columns(not_normal):
    column = smooth(not_normal)
    points = np.quantile(not_normal, np.linspace(0.02, 0.98, 97)) * (1 + 1e-9)
    h = 1e-6 * (np.quantile(not_normal, 0.75) - np.quantile(not_normal, 0.25))
    slope = (column.encode(points + h)[0] - column.encode(points - h)[0]) / ((points + h) - (points - h))
    np.testing.assert_allclose(column.encode(points)[1], np.log(slope), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["uniform", "exponential", "two humps"])
def test_smoothing_makes_new_values_likelier(name):
    x = NOT_NORMAL[name]
    rng = np.random.RandomState(7)
    train, test = np.split(rng.permutation(x), [len(x) // 2])

    def score(column):
        z, log_derivative = column.encode(test)
        return (log_derivative + stats.norm.logpdf(z)).mean()

    assert score(smooth(train)) > score(fitted(train)) + 0.03


def test_normal_columns_and_few_rows_are_not_smoothed():
    assert isinstance(smooth(np.random.RandomState(0).randn(500)), ContinuousColumn)
    assert isinstance(smooth(NOT_NORMAL["two humps"][:20]), ContinuousColumn)


def test_smoothing_moves_with_the_units(not_normal):
    z, log_derivative = smooth(not_normal).encode(not_normal)
    scaled, scaled_log_derivative = smooth(4.0 * not_normal).encode(4.0 * not_normal)
    np.testing.assert_allclose(scaled, z, rtol=0, atol=1e-9)
    np.testing.assert_allclose(scaled_log_derivative, log_derivative - np.log(4), rtol=0, atol=1e-9)


def test_far_values_of_a_smooth_column_stay_finite(not_normal):
    z, log_derivative = smooth(not_normal).encode(np.array([-1e300, 1e300, 1e20]))
    assert np.isfinite(z).all()
    assert not np.isnan(log_derivative).any()


def test_a_grid_step_is_the_median_distance_of_neighbours():
    assert grid_step(np.array([3.0, 1.0, 1.5, 1.0, 2.0, 9.0])) == 0.75
