import warnings

import numpy as np
import pytest

from sklearn_flows.encoding import TableEncoding, warn_about_discrete_columns


@pytest.fixture
def X():
    rng = np.random.RandomState(0)
    return np.column_stack(
        [
            rng.normal(size=200),
            1e8 + rng.normal(size=200),
            np.full(200, 7.5),
            1e-8 * rng.standard_cauchy(size=200),
            np.full(200, 1e8) + rng.choice([0.0, np.spacing(1e8)], size=200),
            rng.randint(3, size=200),
        ]
    )


@pytest.fixture
def weight():
    return np.random.RandomState(1).exponential(size=200)


def test_columns_that_vary_are_told_from_those_that_do_not(X, weight):
    assert TableEncoding.fit(X, weight).varies.tolist() == [True, True, False, True, False, True]


def test_round_trip(X, weight):
    encoding = TableEncoding.fit(X, weight)
    Z, _ = encoding.encode(X)
    assert (Z.shape, Z.dtype) == (X.shape, np.float64)
    assert (np.abs(encoding.decode(Z) - X) <= 4 * np.spacing(np.abs(X).max(axis=0))).all()


def test_columns_that_vary_are_standardised(X, weight):
    encoding = TableEncoding.fit(X, weight)
    Z = encoding.encode(X)[0][:, encoding.varies]
    # The second column is given to 1e-8 of its deviation.
    np.testing.assert_allclose(np.average(Z, axis=0, weights=weight), 0, atol=1e-7)
    np.testing.assert_allclose(np.average(Z**2, axis=0, weights=weight), 1, atol=1e-7)


def test_log_det_is_the_sum_over_columns(X, weight):
    encoding = TableEncoding.fit(X, weight)
    _, log_det = encoding.encode(X)
    expected = sum(column.encode(x)[1] for column, x in zip(encoding.columns, X.T, strict=True))
    np.testing.assert_allclose(log_det, expected, rtol=1e-14)
    linear = TableEncoding.fit(X, weight, margins="linear")
    _, log_det = linear.encode(X)
    np.testing.assert_allclose(log_det, -sum(np.log(column.scale) for column in linear.columns), rtol=1e-14)


def test_one_value_beyond_what_can_be_represented_takes_the_density_of_its_row_only(X, weight):
    encoding = TableEncoding.fit(X, weight)
    X = X[:3].copy()
    X[1, 3] = 1e300
    Z, log_det = encoding.encode(X)
    assert np.isfinite(Z).all()
    assert np.isfinite(log_det).tolist() == [True, False, True]
    assert log_det[1] == -np.inf


def test_float32_tables_are_encoded_in_float64():
    X = (1e4 + np.random.RandomState(0).normal(size=(100, 2))).astype(np.float32)
    encoding = TableEncoding.fit(X, np.ones(100))
    Z, _ = encoding.encode(X)
    expected = X.astype(np.float64)
    np.testing.assert_allclose(Z, (expected - expected.mean(axis=0)) / expected.std(axis=0), atol=1e-9)


def test_input_is_left_alone(X, weight):
    before = X.copy()
    encoding = TableEncoding.fit(X, weight)
    Z, _ = encoding.encode(X)
    Z_before = Z.copy()
    encoding.decode(Z)
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(Z, Z_before)


def discrete_columns_named(X, names):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_about_discrete_columns(X, names)
    assert len(caught) <= 1
    assert all(w.category is UserWarning for w in caught)
    message = str(caught[0].message) if caught else ""
    return [name for name in names if repr(name) in message]


def test_discrete_columns_are_named_and_no_others():
    rng = np.random.RandomState(0)
    X = np.column_stack(
        [
            rng.normal(size=1000),
            rng.randint(10, size=1000),
            rng.randint(2, size=1000) * 1e8,
            np.ones(1000),
            np.round(rng.normal(size=1000), 2),
            np.where(rng.rand(1000) < 0.9, 0.0, rng.exponential(size=1000)),
        ]
    )
    names = ["normal", "grid", "binary", "constant", "rounded", "mostly zero"]
    assert discrete_columns_named(X, names) == ["grid", "binary", "mostly zero"]


@pytest.mark.parametrize("n_rows", [1, 2, 5, 20, 30, 1000])
def test_continuous_columns_are_not_reported_however_small_the_table(n_rows):
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.normal(size=n_rows), rng.standard_cauchy(size=n_rows), rng.uniform(size=n_rows)])
    assert discrete_columns_named(X, ["a", "b", "c"]) == []
    assert discrete_columns_named(X.astype(np.float32), ["a", "b", "c"]) == []


def test_a_few_ties_in_a_small_table_are_not_reported():
    x = np.r_[np.arange(10.0), 3.0, 7.0]
    assert discrete_columns_named(x[:, None], ["x"]) == []


def test_the_warning_says_what_to_do():
    X = np.repeat([[0.0], [1.0]], 50, axis=0)
    with pytest.warns(UserWarning, match=r"not meaningful.*'colour' \(2 distinct values in \d+ rows\).*noise"):
        warn_about_discrete_columns(X, ["colour"])
