"""Tables as they are: every container, every scale, and the shapes that break estimators."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_iris, make_moons
from sklearn.exceptions import ConvergenceWarning

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def moons():
    return make_moons(150, noise=0.1, random_state=0)[0]


# --- containers ---


def memmap(X, tmp_path):
    file = tmp_path / f"{len(X)}.npy"
    np.save(file, X)
    return np.load(file, mmap_mode="r")


CONTAINERS = {
    "a list": lambda X, tmp_path: X.tolist(),
    "a tuple of arrays": lambda X, tmp_path: tuple(X),
    "a pandas frame": lambda X, tmp_path: pd.DataFrame(X, columns=["x", "y"]),
    "a pandas frame of nullable floats": lambda X, tmp_path: pd.DataFrame(X, columns=["x", "y"]).astype("Float64"),
    "a pandas frame without names": lambda X, tmp_path: pd.DataFrame(X),
    "a polars frame": lambda X, tmp_path: pytest.importorskip("polars").DataFrame(X, schema=["x", "y"]),
    "a read-only memmap": memmap,
    "a Fortran-ordered array": lambda X, tmp_path: np.asfortranarray(X),
    "a view of negative strides": lambda X, tmp_path: X[::-1, ::-1].copy()[::-1, ::-1],
    "an array of the other byte order": lambda X, tmp_path: X.astype(X.dtype.newbyteorder()),
    "a torch tensor": lambda X, tmp_path: torch.as_tensor(X),
}


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=CONTAINERS)
def test_a_table_in_any_container_is_that_table(make_density, moons, contain, tmp_path):
    expected = make_density().fit(moons, sample_weight=moons[:, 0] ** 2, X_val=moons[:50])
    X, X_val = contain(moons, tmp_path), contain(moons[:50], tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        density = make_density().fit(X, sample_weight=moons[:, 0] ** 2, X_val=X_val)
        scores = density.score_samples(contain(moons, tmp_path))
    np.testing.assert_array_equal(scores, expected.score_samples(moons))
    assert density.validation_scores_ == expected.validation_scores_


def test_weights_come_in_any_container(make_density, moons):
    pl = pytest.importorskip("polars")
    weight = np.arange(150) % 4
    expected = make_density().fit(moons, sample_weight=weight).score_samples(moons)
    for given in (weight.tolist(), pd.Series(weight), pl.Series(weight), weight.astype(np.float32), 3.7 * weight):
        # A factor is divided out again, but for its rounding.
        scores = make_density().fit(moons, sample_weight=given).score_samples(moons)
        np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_integers_are_numbers(make_density):
    X = np.random.RandomState(0).randint(0, 1000, size=(60, 2))
    scores = make_density().fit(X).score_samples(X)
    assert scores.dtype == np.float64
    np.testing.assert_array_equal(make_density().fit(X.astype(float)).score_samples(X.astype(float)), scores)


# --- rows are a set ---


def test_repeats_weights_and_order_do_not_matter(make_density, moons):
    rng = np.random.RandomState(0)
    weight = rng.randint(0, 4, size=150)
    repeated = np.repeat(moons, weight, axis=0)[rng.permutation(weight.sum())]
    weighted = make_density().fit(moons, sample_weight=weight)
    np.testing.assert_array_equal(make_density().fit(repeated).score_samples(moons), weighted.score_samples(moons))


# --- scales ---


def test_powers_of_two_shift_the_scores_exactly(make_density, moons):
    scale = np.array([1024.0, 2.0**-20])
    density, scaled = make_density().fit(moons), make_density().fit(moons * scale)
    np.testing.assert_array_equal(scaled.transform(moons * scale), density.transform(moons))
    # Only the sum of the Jacobian's terms rounds.
    expected = density.score_samples(moons) - np.log(scale).sum()
    np.testing.assert_allclose(scaled.score_samples(moons * scale), expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(scaled.sample(9, random_state=0), density.sample(9, random_state=0) * scale)


@pytest.mark.parametrize("shift", [0.0, [-3e4, 77.7]], ids=["scaled", "scaled and shifted"])
def test_other_affine_maps_shift_the_scores_nearly_exactly(make_density, moons, shift):
    scale = np.array([3.3e5, 7.7e-4])
    mapped = moons * scale + np.multiply(shift, scale)
    density = make_density(max_iter=20).fit(moons)
    difference = make_density(max_iter=20).fit(mapped).score_samples(mapped) - density.score_samples(moons)
    np.testing.assert_allclose(difference, -np.log(scale).sum(), atol=0.01)


def test_columns_at_1e8_and_1e_minus_8_are_like_any_others(make_density, moons):
    scale = np.array([1e8, 1e-8])
    density, scaled = make_density().fit(moons), make_density().fit(moons * scale)
    expected = density.score_samples(moons) - np.log(scale).sum()
    np.testing.assert_allclose(scaled.score_samples(moons * scale), expected, atol=0.01)
    np.testing.assert_allclose(scaled.inverse_transform(scaled.transform(moons * scale)), moons * scale, rtol=1e-9)


def test_a_narrow_column_far_from_zero_is_seen(make_density, moons):
    far = np.add(moons, [0.0, 1e8])
    expected = make_density().fit(moons).score_samples(moons)
    # 1e8 leaves a double eight digits behind the point, 1e-8 of the column's width.
    np.testing.assert_allclose(make_density().fit(far).score_samples(far), expected, atol=0.01)


# --- shapes and distributions ---


def assert_usable(density, X):
    with np.errstate(all="raise", under="ignore"):
        scores = density.score_samples(X)
        samples = density.sample(50, random_state=0)
        Z = density.transform(X)
    assert np.isfinite(scores).all()
    assert np.isfinite(samples).all()
    assert samples.shape == (50, X.shape[1])
    assert np.isfinite(Z).all()
    scale = np.maximum(np.abs(X).max(axis=0), 1e-300)
    np.testing.assert_allclose(density.inverse_transform(Z) / scale, X / scale, atol=1e-9)
    assert np.isfinite(density.loss_curve_).all()


CAUCHY = np.random.RandomState(0).standard_cauchy(size=(500, 2))
NORMAL = np.random.RandomState(1).randn(60, 30)
TABLES = {
    "one column": NORMAL[:, :1],
    "one column of two rows": NORMAL[:2, :1],
    "a constant column": np.column_stack([NORMAL[:, :2], np.full(60, 5.0)]),
    "constant columns between others": np.column_stack([np.zeros(60), NORMAL[:, 0], np.full(60, -1e9), NORMAL[:, 1]]),
    "only constant columns": np.tile([1.0, -2.0, 0.0], (60, 1)),
    "a column that varies by one in the last place": np.column_stack(
        [NORMAL[:, 0], np.where(np.arange(60) % 2, 1.0, np.nextafter(1.0, 2.0))]
    ),
    "more columns than rows": NORMAL[:10],
    "two rows": NORMAL[:2, :3],
    "one row": NORMAL[:1, :3],
    "one row many times": np.tile(NORMAL[:1, :3], (40, 1)),
    "equal columns": np.column_stack([NORMAL[:, 0], NORMAL[:, 0], NORMAL[:, 1]]),
    "heavy tails": CAUCHY,
    "heavier tails": np.sign(CAUCHY) * CAUCHY**4,
    "an outlier": np.vstack([NORMAL[:, :2], [[1e6, -1e6]]]),
    "an outlier at the end of the doubles": np.vstack([NORMAL[:, :2], [[1e300, -1e300]]]),
    "the smallest doubles": NORMAL[:, :2] * 1e-300,
}


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("X", TABLES.values(), ids=TABLES)
def test_a_difficult_table_gives_a_usable_density_without_warnings(make_density, X, early_stopping):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "A continuous density is not meaningful")
        density = make_density(early_stopping=early_stopping).fit(X)
    assert_usable(density, X)


def test_heavy_tails_are_fitted_at_the_defaults(make_density):
    density = make_density.func(random_state=0).fit(CAUCHY)
    assert_usable(density, CAUCHY)
    # Better than the Gaussian of the same moments.
    gaussian = -0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(CAUCHY.T))[1]
    assert density.score(CAUCHY) > gaussian + 1


def test_a_grid_of_integers_is_fitted_with_a_warning_that_names_the_columns(make_density):
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.randint(0, 4, size=100), rng.randn(100), rng.randint(0, 2, size=100)])
    with pytest.warns(UserWarning, match=r"not meaningful for discrete columns: 'x0' .*, 'x2' ") as record:
        density = make_density().fit(X)
    assert len([warning for warning in record if "not meaningful" in str(warning.message)]) == 1
    assert "'x1'" not in str(record[0].message)
    assert_usable(density, X)
    with pytest.warns(UserWarning, match="not meaningful for discrete columns: 'age' .*, 'sex' "):
        make_density().fit(pd.DataFrame(X, columns=["age", "height", "sex"]))


def test_a_real_table_is_fitted_better_than_by_independent_normals(make_density):
    X = load_iris().data + 0.05 * np.random.RandomState(0).uniform(-1, 1, size=(150, 4))
    density = make_density(max_iter=20).fit(X)
    independent = -0.5 * np.log(2 * np.pi * np.e * X.var(axis=0)).sum()
    assert density.score(X) > independent + 1


def test_float32_tables_are_answered_in_float32(make_density, moons):
    X = moons.astype(np.float32)
    density = make_density().fit(X)
    assert density.score_samples(X).dtype == density.transform(X).dtype == np.float32
    assert density.inverse_transform(X).dtype == np.float32
    assert density.sample(2).dtype == np.float64
    np.testing.assert_allclose(density.score_samples(X), density.score_samples(X.astype(float)), atol=2e-4)
