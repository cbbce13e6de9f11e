"""sklearn.neighbors.tests.test_kde, by meaning."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.datasets import make_blobs
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("std", [0.1, 3.0])
def test_kernel_density(make_density, std):
    X, _ = make_blobs(n_samples=1000, centers=[[5.0, -2.0, 1.0]], cluster_std=std, random_state=0)
    query, _ = make_blobs(n_samples=200, centers=[[5.0, -2.0, 1.0]], cluster_std=std, random_state=1)
    truth = multivariate_normal([5.0, -2.0, 1.0], std**2 * np.eye(3)).logpdf(query)
    error = make_density().fit(X).score_samples(query) - truth
    # A Gaussian with estimated moments errs by about (number of moments / 1000)^0.5 = 0.1 for a row, 0.005 in the mean.
    assert np.abs(error).mean() < 0.2
    assert abs(error.mean()) < 0.05


def test_kernel_density_sampling(make_density):
    rng = np.random.RandomState(0)
    X = rng.randn(100, 3)
    samples = make_density().fit(X).sample(100, random_state=0)
    assert samples.shape == X.shape
    # Most samples lie as near to the data as other draws from the truth do.
    nearest = NearestNeighbors(n_neighbors=1).fit(X)
    distances, _ = nearest.kneighbors(samples)
    others, _ = nearest.kneighbors(rng.randn(100, 3))
    assert np.median(distances) < 1.5 * np.median(others)

    assert make_density().fit(rng.randn(4, 1)).sample().shape == (1, 1)


def test_kde_score(make_density):
    rng = np.random.RandomState(0)
    X, Y = rng.random_sample((100, 3)), rng.random_sample((100, 3))
    density = make_density().fit(X)
    # The mean, not KernelDensity's sum: the same whether rows come once or twice.
    assert density.score(Y) == pytest.approx(density.score_samples(Y).mean(), rel=1e-12)
    assert density.score(np.vstack([Y, Y])) == pytest.approx(density.score(Y), rel=1e-12)
    assert isinstance(density.score(Y), float)


def test_kde_pipeline_gridsearch(make_density):
    X, _ = make_blobs(cluster_std=0.1, random_state=1, centers=[[0, 1], [1, 0], [0, 0]])
    pipe = make_pipeline(StandardScaler(with_mean=False, with_std=False), make_density(max_iter=30, early_stopping=False))
    step = pipe.steps[-1][0]
    search = GridSearchCV(pipe, {f"{step}__learning_rate": [1e-7, 1e-2], f"{step}__n_transforms": [1, 2]}, cv=2)
    search.fit(X)
    # At 1e-7 the flow stays the Gaussian that it starts as, which three separate blobs are not.
    assert search.best_params_[f"{step}__learning_rate"] == 1e-2
