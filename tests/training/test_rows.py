from itertools import groupby

import numpy as np
import pytest

from sklearn_flows.training import canonical_rows, split_off


def tables():
    rng = np.random.RandomState(0)
    continuous = rng.normal(size=(60, 3))
    return {
        "continuous": continuous,
        "one-column": rng.randint(5, size=(60, 1)).astype(float),
        "binary": rng.randint(2, size=(60, 4)).astype(float),
        "grid-of-integers": rng.randint(-3, 4, size=(200, 3)).astype(float),
        "repeated-rows": continuous[rng.randint(10, size=100)],
        "ties-in-all-but-the-last-column": np.column_stack([np.repeat([1.0, 2.0], 30), np.ones(60), rng.normal(size=60)]),
        "signed-zeros": rng.choice([-0.0, 0.0, 1.0], size=(60, 3)),
        "one-row": np.array([[1.0, 2.0]]),
        "all-rows-equal": np.ones((20, 2)),
        "huge-and-tiny": rng.choice([-1e300, -1e-300, 0.0, 5e-324, 1e300], size=(60, 2)),
    }


@pytest.fixture(params=tables().values(), ids=tables())
def X(request):
    return request.param


@pytest.fixture
def float_weight(X):
    return np.random.RandomState(1).exponential(size=len(X))


def sorted_and_merged(X, weight):
    """The definition, with Python's lists."""
    pairs = sorted((tuple(row + 0.0), w) for row, w in zip(X, weight, strict=True) if w > 0)
    groups = [(row, [w for _, w in group]) for row, group in groupby(pairs, key=lambda pair: pair[0])]
    rows, sums = [row for row, _ in groups], np.array([sum(weights) for _, weights in groups])
    return np.array(rows), sums / sums.mean()


def assert_identical(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()


def test_agrees_with_the_definition(X, float_weight):
    rows, weight = canonical_rows(X, float_weight)
    expected_rows, expected_weight = sorted_and_merged(X, float_weight)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(weight, expected_weight, rtol=1e-12)
    assert weight.mean() == pytest.approx(1.0, rel=1e-14)


def test_order_of_rows_changes_no_bit(X, float_weight):
    expected = canonical_rows(X, float_weight)
    for seed in range(5):
        shuffled = np.random.RandomState(seed).permutation(len(X))
        assert_identical(canonical_rows(X[shuffled], float_weight[shuffled]), expected)


def test_order_of_weights_among_equal_rows_changes_no_bit():
    # Sums of these depend on their order in the last digit.
    weight = np.array([0.1, 0.2, 0.3, 0.7, 1e-17, 1e16, 3.3, 1 / 3])
    X = np.repeat([[1.0], [2.0]], 4, axis=0)
    assert len({float(np.add.reduce(np.roll(weight, k))) for k in range(8)}) > 1
    expected = canonical_rows(X, weight)
    for seed in range(20):
        shuffled = np.random.RandomState(seed).permutation(8)
        assert_identical(canonical_rows(X[shuffled], weight[shuffled]), expected)


def test_zero_weight_is_absence(X, float_weight):
    absent = np.random.RandomState(2).rand(len(X)) < 0.3
    absent[0] = False
    expected = canonical_rows(X[~absent], float_weight[~absent])
    assert_identical(canonical_rows(X, np.where(absent, 0.0, float_weight)), expected)


def test_integer_weight_is_repetition(X):
    times = np.random.RandomState(3).randint(0, 4, size=len(X))
    times[0] = 2
    repeated = np.repeat(X, times, axis=0)
    assert_identical(canonical_rows(X, times.astype(float)), canonical_rows(repeated, np.ones(len(repeated))))


@pytest.mark.parametrize("factor", [0.5, 1.0, 4.0])
def test_scale_of_the_weights_does_not_matter(X, float_weight, factor):
    assert_identical(canonical_rows(X, factor * float_weight), canonical_rows(X, float_weight))


def test_equal_weights_are_as_none(X):
    assert_identical(canonical_rows(X, np.full(len(X), 3.0)), canonical_rows(X, np.ones(len(X))))


def test_negative_zero_is_zero():
    rows, weight = canonical_rows(np.array([[-0.0, 1.0], [0.0, 1.0], [-0.0, -0.0]]), np.ones(3))
    assert rows.tolist() == [[0.0, 0.0], [0.0, 1.0]]
    assert not np.signbit(rows).any()
    np.testing.assert_allclose(weight, [2 / 3, 4 / 3], rtol=1e-15)


def test_rescaling_columns_by_powers_of_two_keeps_the_order():
    X = tables()["repeated-rows"]
    factors = np.array([2.0**-20, 1.0, 2.0**30])
    rows, weight = canonical_rows(X, np.ones(len(X)))
    assert_identical(canonical_rows(X * factors, np.ones(len(X))), (rows * factors, weight))


def test_shifting_columns_keeps_the_order():
    X = tables()["grid-of-integers"]
    shift = np.array([-100.0, 7.0, 2.0**40])
    rows, weight = canonical_rows(X, np.ones(len(X)))
    assert_identical(canonical_rows(X + shift, np.ones(len(X))), (rows + shift, weight))


def test_float32_rows_stay_float32(X, float_weight):
    with np.errstate(over="ignore", under="ignore"):
        single = np.nan_to_num(X.astype(np.float32))
    rows, weight = canonical_rows(single, float_weight)
    assert rows.dtype == np.float32
    assert weight.dtype == np.float64
    np.testing.assert_array_equal(rows, sorted_and_merged(single, float_weight)[0])


def test_input_is_left_alone(X, float_weight):
    before = X.copy(), float_weight.copy()
    canonical_rows(X, float_weight)
    assert_identical((X, float_weight), before)


def test_memory_layout_of_the_input_does_not_matter(X, float_weight):
    assert_identical(canonical_rows(np.asfortranarray(X), float_weight), canonical_rows(X, float_weight))


@pytest.mark.parametrize(
    ("n_rows", "fraction", "n_held_out"), [(2, 0.001, 1), (2, 0.999, 1), (10, 0.25, 3), (10, 0.99, 9), (1000, 0.1, 100)]
)
def test_split_takes_each_row_once_and_leaves_both_sides_one(n_rows, fraction, n_held_out):
    kept, held_out = split_off(n_rows, fraction, np.random.RandomState(0))
    assert len(held_out) == n_held_out
    assert sorted([*kept, *held_out]) == list(range(n_rows))


def test_split_is_random_and_follows_its_seed():
    first, same, other = (split_off(1000, 0.2, np.random.RandomState(seed))[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, same)
    # Two random fifths share a fifth of their members: 40, with a standard deviation of 5.
    assert 15 < len(np.intersect1d(first, other)) < 65
