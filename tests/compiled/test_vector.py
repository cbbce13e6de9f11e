"""Vectors compute what numpy computes, in both precisions and at the ends of their ranges."""

import numpy as np
import pytest
from numba import njit

from sklearn_flows.compiled._vector import (
    REGISTER_BYTES,
    exponential,
    larger,
    load,
    logarithm,
    select,
    sigmoid,
    smaller,
    softplus,
    store,
    total,
)

PRECISIONS = [np.float32, np.float64]


def applied(function, x):
    """Apply a function of one vector to all vectors of an array."""

    @njit(error_model="numpy")
    def loop(x, width, y):
        for i in range(0, len(x), width):
            store(y, i, function(load(x, i)))

    width = REGISTER_BYTES // x.itemsize
    padded = np.resize(x, -(-len(x) // width) * width)
    y = np.empty_like(padded)
    loop(padded, width, y)
    return y[: len(x)]


@njit
def log1p_exp(v):
    return softplus(v)[0]


@njit
def slope_of_log1p_exp(v):
    return softplus(v)[1]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("function", "expected", "low", "high"),
    [
        (exponential, np.exp, -86, 88),
        (sigmoid, lambda x: 1 / (1 + np.exp(-x)), -80, 80),
        (log1p_exp, lambda x: np.logaddexp(0, x), -80, 80),
        (slope_of_log1p_exp, lambda x: 1 / (1 + np.exp(-x)), -80, 80),
    ],
)
def test_functions_are_right_to_rounding(function, expected, low, high, dtype):
    x = np.linspace(low, high, 5001).astype(dtype)
    np.testing.assert_allclose(applied(function, x), expected(x.astype(np.longdouble)), rtol=4 * np.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_logarithm_is_right_to_rounding(dtype):
    info = np.finfo(dtype)
    near_one = 1 + np.linspace(-0.4, 0.5, 2001)
    x = np.concatenate([near_one, np.geomspace(info.tiny, info.max / 4, 3000)]).astype(dtype)
    expected = np.log(x.astype(np.longdouble)).astype(float)
    np.testing.assert_allclose(applied(logarithm, x), expected, rtol=3 * info.eps, atol=info.eps / 4)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_what_is_out_of_range_stays_finite_and_nan_stays_nan(dtype):
    x = np.array([-np.inf, -1e4, 1e4, np.inf, np.nan], dtype)
    exp = applied(exponential, x)
    assert (exp[:2] > 0).all()
    assert (exp[:2] <= 4 * np.finfo(dtype).tiny).all()
    assert np.isfinite(exp[:4]).all()
    assert (exp[2:4] > 1e37).all()
    assert np.isnan(exp[4])
    assert np.isnan(applied(sigmoid, x)[4])
    assert np.isnan(applied(log1p_exp, x)[4])
    assert np.isnan(applied(logarithm, x)[4])
    assert not np.isfinite(applied(logarithm, x)[3])


@njit
def arithmetic(v):
    return -((2.0 * v + 1) / (v - 3) * 0.5 - v * v)


@njit
def comparisons(v):
    zero = v * 0.0
    one = zero + 1.0
    return (
        select(v < 0.0, one, zero)
        + select(v <= 0.0, one, zero) * 2.0
        + select(v > 0.0, one, zero) * 4.0
        + select(v >= 0.0, one, zero) * 8.0
        + select(v == 0.0, one, zero) * 16.0
    )


@njit
def clipped(v):
    return smaller(larger(v, v * 0.0 - 1.0), v * 0.0 + 1.0)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_operators_are_those_of_numbers(dtype):
    x = np.linspace(-2, 2, 401).astype(dtype)
    tolerance = 10 * np.finfo(dtype).eps
    np.testing.assert_allclose(applied(arithmetic, x), -((2 * x + 1) / (x - 3) * 0.5 - x * x), rtol=tolerance, atol=tolerance)
    expected = (x < 0) + 2.0 * (x <= 0) + 4.0 * (x > 0) + 8.0 * (x >= 0) + 16.0 * (x == 0)
    np.testing.assert_array_equal(applied(comparisons, x), expected)
    np.testing.assert_array_equal(applied(clipped, x), np.clip(x, -1, 1))


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_total_is_the_sum(dtype):
    @njit
    def sum_of(x):
        return total(load(x, 0))

    x = np.arange(1, REGISTER_BYTES // np.dtype(dtype).itemsize + 1).astype(dtype)
    assert sum_of(x) == x.sum()
