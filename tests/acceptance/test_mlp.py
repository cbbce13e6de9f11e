"""sklearn.neural_network.tests.test_mlp, by meaning."""

import math
import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, make_moons
from sklearn.exceptions import ConvergenceWarning

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:A continuous density is not meaningful"),
]


@pytest.fixture(scope="module")
def moons():
    return make_moons(100, noise=0.1, random_state=0)[0]


@pytest.fixture(scope="module")
def iris():
    return load_iris().data


def parameters_of(density):
    return torch.cat([p.reshape(-1) for p in density.flow_.parameters()])


def test_alpha(make_density, moons):
    def size_of_networks(weight_decay):
        density = make_density(weight_decay=weight_decay, learning_rate=1e-2, early_stopping=False).fit(moons)
        linear = [m for m in density.flow_.modules() if isinstance(m, torch.nn.Linear)]
        return np.array([float(layer.weight.abs().sum()) for layer in linear])

    free, decayed = size_of_networks(0.0), size_of_networks(20.0)
    assert np.all(free > decayed)


def test_nonfinite_params(make_density):
    rng = np.random.RandomState(0)
    X = np.finfo(np.float64).max * rng.uniform(size=(10, 2))
    density = make_density().fit(X)
    assert torch.isfinite(parameters_of(density)).all()
    assert np.isfinite(density.score_samples(X)).all()


def test_shuffle(make_density, moons):
    def fit(seed):
        # One-row batches: the order of the rows matters most.
        return parameters_of(make_density(max_iter=1, batch_size=1, random_state=seed).fit(moons[:50]))

    assert torch.equal(fit(0), fit(0))
    assert not torch.equal(fit(0), fit(1))


def test_tolerance(make_density):
    X = [[3, 2], [1, 6]]
    density = make_density(tol=0.5, max_iter=3000, early_stopping=True).fit(X)
    assert density.n_iter_ < 3000


def test_verbose_sgd(make_density, capsys):
    make_density(max_iter=2, verbose=10).fit([[3, 2], [1, 6]])
    told = capsys.readouterr()
    # A line on standard output, or the unit of a tqdm bar on standard error before scikit-learn 1.9.
    assert re.search(r"epoch 2/2|2/2 .*epoch", told.out + told.err)


def test_early_stopping(make_density, moons):
    tol = 0.2
    density = make_density(tol=tol, max_iter=3000, early_stopping=True).fit(moons)
    assert density.n_iter_ < 3000
    assert isinstance(density.validation_scores_, list)
    assert len(density.validation_scores_) == density.n_iter_
    assert density.best_validation_score_ == max(density.validation_scores_)
    assert density.best_validation_score_ + tol > density.validation_scores_[-1]

    density = make_density(early_stopping=False).fit(moons)
    assert density.validation_scores_ is None
    assert density.best_validation_score_ is None


def test_warm_start(make_density, iris):
    density = make_density(warm_start=True).fit(iris)
    density.fit(iris)
    density.fit(iris[:100])
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4 features as input"):
        density.fit(iris[:, :3])
    with pytest.raises(ValueError, match="warm_start=True continues the training of flow_, but parameters that shape it"):
        density.set_params(hidden_layer_sizes=(9,)).fit(iris)


def test_warm_start_full_iteration(make_density, iris):
    density = make_density(warm_start=True, max_iter=3)
    assert density.fit(iris).n_iter_ == 3
    assert density.fit(iris).n_iter_ == 6


@pytest.mark.parametrize("n_iter_no_change", [1, 2, 5, 10])
def test_n_iter_no_change(make_density, moons, n_iter_no_change):
    # No rise ever counts with such a tolerance: exactly the patience goes by, and half of it at each lower learning rate.
    density = make_density(early_stopping=True, tol=1e9, max_iter=3000, n_iter_no_change=n_iter_no_change).fit(moons)
    assert density.n_iter_ == n_iter_no_change + 2 * math.ceil(n_iter_no_change / 2)


def test_n_iter_no_change_inf(make_density, moons):
    density = make_density(early_stopping=True, tol=1e9, max_iter=30, n_iter_no_change=np.inf).fit(moons)
    assert density.n_iter_ == 30


def test_mlp_warm_start_no_convergence(make_density, moons):
    density = make_density(
        warm_start=True, early_stopping=False, max_iter=5, n_iter_no_change=np.inf, learning_rate=1e-2, tol=0.0
    )
    with pytest.warns(ConvergenceWarning):
        density.fit(moons)
    assert density.n_iter_ == 5
    density.set_params(max_iter=10)
    with pytest.warns(ConvergenceWarning):
        density.fit(moons)
    assert density.n_iter_ == 15


def test_mlp_diverging_loss(make_density, iris):
    # A step that only makes it bad: the weights of the best epoch are kept.
    density = make_density(learning_rate=10.0, max_iter=20, early_stopping=True, n_iter_no_change=10).fit(iris)
    assert torch.isfinite(parameters_of(density)).all()
    assert np.isfinite(density.validation_scores_).all()
    assert density.score(iris) > make_density(learning_rate=1e-12).fit(iris).score(iris) - 0.01

    # A step that overflows whenever it is halved.
    density = make_density(learning_rate=1e12, max_iter=20)
    with pytest.raises(ValueError, match=r"Training of .* diverged: .*The column with the most extreme value.*learning_rate"):
        density.fit(iris)
    assert not hasattr(density, "flow_")


def test_mlp_sample_weight_with_early_stopping(make_density, moons):
    weighted = make_density(early_stopping=True).fit(moons, sample_weight=np.ones(len(moons)))
    plain = make_density(early_stopping=True).fit(moons)
    np.testing.assert_array_equal(weighted.score_samples(moons), plain.score_samples(moons))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_mlp_param_dtypes(make_density, iris, dtype):
    X = iris.astype(dtype)
    density = make_density().fit(X)
    assert parameters_of(density).dtype == torch.float64
    assert density.score_samples(X).dtype == dtype
    assert density.transform(X).dtype == dtype
    assert density.sample(2).dtype == np.float64


def test_minimum_input_sample_size(make_density):
    X = np.random.RandomState(0).randn(2, 5)
    density = make_density(early_stopping=True).fit(X)
    assert np.isfinite(density.score_samples(X)).all()
    assert len(density.validation_scores_) == density.n_iter_
