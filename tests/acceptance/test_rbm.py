"""sklearn.neural_network.tests.test_rbm, by meaning."""

import numpy as np
import pytest
from sklearn.datasets import make_moons

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def moons():
    return make_moons(200, noise=0.1, random_state=0)[0]


def test_fit(make_density, moons):
    X = moons.copy()
    first = make_density(max_iter=1).fit(X).score(X)
    density = make_density(max_iter=40, learning_rate=1e-2).fit(X)
    assert density.score(X) > first + 0.1
    np.testing.assert_array_equal(X, moons)


def test_score_samples(make_density, moons):
    density = make_density().fit(moons)
    # Far outside the score falls, without clipping, without NaN and without an exception.
    scores = density.score_samples([[0.5, 0.25], [1e2, 1e2], [1e4, 1e4], [1e200, -1e200]])
    assert np.all(np.diff(scores) < 0)
    assert scores[2] < -1e4


def test_convergence_dtype_consistency(make_density, moons):
    # Values that float32 holds exactly: only the dtype differs.
    X32 = moons.astype(np.float32)
    X64 = X32.astype(np.float64)
    Z32, Z64 = make_density().fit_transform(X32), make_density().fit_transform(X64)
    assert Z32.dtype == np.float32
    np.testing.assert_allclose(Z32, Z64, rtol=1e-5, atol=1e-6)


def test_feature_names_out(make_density, moons):
    name = make_density.func.__name__.lower()
    assert list(make_density().fit(moons).get_feature_names_out()) == [f"{name}0", f"{name}1"]


def test_rbm_verbose(make_density, moons, capsys):
    make_density(max_iter=3, verbose=10).fit(moons)
    told = capsys.readouterr()
    assert "3/3" in told.out + told.err
    assert "log-likelihood" in told.out + told.err
