"""sklearn.mixture.tests.test_gaussian_mixture, by meaning."""

import warnings

import numpy as np
import pytest
from sklearn.datasets import make_blobs, make_moons
from sklearn.exceptions import ConvergenceWarning, NotFittedError

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:A continuous density is not meaningful"),
]

MEAN = np.array([1.0, -20.0])
COVARIANCE = np.array([[2.0, 0.6], [0.6, 0.5]])


@pytest.fixture(scope="module")
def gaussian():
    return np.random.RandomState(0).multivariate_normal(MEAN, COVARIANCE, size=2000)


@pytest.fixture(scope="module")
def moons():
    return make_moons(300, noise=0.1, random_state=0)[0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_score(make_density, dtype):
    X = make_blobs(200, random_state=0)[0].astype(dtype)
    density = make_density(max_iter=1)
    name = make_density.func.__name__
    with pytest.raises(NotFittedError, match=f"This {name} instance is not fitted yet. Call 'fit' with"):
        density.score(X)

    log_density = density.fit(X).score_samples(X)
    assert log_density.dtype == dtype
    # The score is averaged in float64, from values rounded to X's dtype.
    assert density.score(X) == pytest.approx(log_density.astype(np.float64).mean(), rel=1e-12)

    longer = make_density(max_iter=30, learning_rate=1e-2).fit(X)
    assert longer.score(X) > density.score(X)


def test_score_samples(make_density, moons):
    density = make_density()
    name = make_density.func.__name__
    with pytest.raises(NotFittedError, match=f"This {name} instance is not fitted yet. Call 'fit' with"):
        density.score_samples(moons)
    assert density.fit(moons).score_samples(moons).shape == (len(moons),)


def test_sample(make_density, gaussian):
    density = make_density(max_iter=2)
    with pytest.raises(NotFittedError, match=f"This {make_density.func.__name__} instance is not fitted"):
        density.sample(0)
    density.fit(gaussian)
    with pytest.raises(ValueError, match="Invalid value for 'n_samples'"):
        density.sample(0)

    samples = density.sample(20_000, random_state=0)
    # Upstream's precision, which here also holds the error of the fit.
    np.testing.assert_allclose(samples.mean(axis=0), MEAN, atol=0.15)
    np.testing.assert_allclose(np.cov(samples.T), COVARIANCE, atol=0.15)

    for n_samples in range(1, 100):
        assert density.sample(n_samples).shape == (n_samples, 2)


def test_gaussian_mixture_fit(make_density, gaussian):
    density = make_density().fit(gaussian)
    truth = -0.5 * np.linalg.slogdet(2 * np.pi * np.e * COVARIANCE)[1]
    # 2,000 rows have a mean log-density within 0.05 of minus the entropy (two standard errors), and the fit adds to it.
    assert density.score(gaussian) == pytest.approx(truth, abs=0.1)


def test_gaussian_mixture_fit_convergence_warning(make_density, moons):
    with pytest.warns(ConvergenceWarning, match="reached max_iter=1 while its likelihood was still rising") as record:
        make_density(max_iter=1).fit(moons)
    assert len(record) == 1


@pytest.mark.parametrize("verbose", [1, 2])
def test_gaussian_mixture_verbose(make_density, moons, capsys, verbose):
    make_density(max_iter=2).fit(moons)
    silent = capsys.readouterr()
    assert silent.out == silent.err == ""
    make_density(max_iter=2, verbose=verbose).fit(moons)
    told = capsys.readouterr()
    # On standard output from scikit-learn 1.9 on; a tqdm bar on standard error before.
    assert make_density.func.__name__ in told.out + told.err
    assert "2/2" in told.out + told.err


def test_warm_start(make_density, moons):
    # Held-out rows are drawn anew in each fit, so the scores of a whole table are compared.
    density = make_density(max_iter=5, learning_rate=1e-2, warm_start=True, early_stopping=False)
    scores = [density.fit(moons).score(moons) for _ in range(4)]
    assert density.n_iter_ == len(density.loss_curve_) == 20
    assert scores[-1] > scores[0]
    # Twenty epochs on twice five would be noise: as good as going on in one go, but for the schedule.
    in_one_go = make_density(max_iter=20, learning_rate=1e-2, early_stopping=False).fit(moons)
    assert scores[-1] > in_one_go.score(moons) - 0.3


@pytest.mark.parametrize("max_iter", [2, 50])
def test_convergence_detected_with_warm_start(make_density, gaussian, max_iter):
    density = make_density(max_iter=max_iter, warm_start=True, tol=0.01)
    for _ in range(20):
        with warnings.catch_warnings(record=True) as record:
            warnings.simplefilter("always", ConvergenceWarning)
            density.fit(gaussian[:300])
        if not record:
            break
    assert not record
    assert density.n_iter_ >= 1


def test_monotonic_likelihood(make_density, moons):
    density = make_density(max_iter=30, learning_rate=3e-3, early_stopping=False).fit(moons)
    smooth = np.convolve(density.loss_curve_, np.ones(10) / 10, mode="valid")
    # An epoch's loss is met while the weights move, so it is noisy even when smoothed.
    assert np.all(np.diff(smooth) < 0.02)
    assert smooth[-1] < smooth[0]


def test_regularisation(make_density):
    X = np.vstack((np.ones((5, 5)), np.zeros((5, 5))))
    density = make_density().fit(X)
    assert np.isfinite(density.score_samples(X)).all()
    assert np.isfinite(density.sample(100, random_state=0)).all()


def test_gaussian_mixture_single_component_stable(make_density):
    X = np.random.RandomState(0).multivariate_normal(np.zeros(2), np.identity(2), size=3)
    assert np.isfinite(make_density().fit(X).sample()).all()
