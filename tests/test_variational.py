"""VariationalFlow on densities with known answers, and its errors."""

import copy
import math
import pickle
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from sklearn_flows import VariationalFlow
from sklearn_flows.training import fit_gaussian

QUICK = {"n_transforms": 1, "hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0}


def standard_normal(x):
    return -0.5 * x.square().sum(dim=1)


class Normal:
    """A normal distribution, far from the origin and with columns of very different units."""

    def __init__(self, n_features):
        rng = np.random.RandomState(0)
        root = rng.normal(size=(n_features, n_features)) / np.sqrt(n_features)
        units = np.logspace(-3, 3, n_features)
        self.covariance = units[:, None] * (root @ root.T + 0.02 * np.eye(n_features)) * units
        self.mean = 30 * units * rng.normal(size=n_features)
        self.root = torch.linalg.cholesky(torch.tensor(self.covariance))

    def log_density(self, x):
        whitened = torch.linalg.solve_triangular(self.root, (x - torch.tensor(self.mean)).T, upper=False)
        return -0.5 * whitened.square().sum(dim=0)

    @property
    def log_normalizer(self):
        return 0.5 * len(self.mean) * math.log(2 * math.pi) + float(self.root.diagonal().log().sum())


def banana(x):
    """Haario's twisted normal distribution, normalised."""
    a, b = x[:, 0] / 10, x[:, 1] + 0.03 * (x[:, 0].square() - 100)
    return -0.5 * (a.square() + b.square()) - math.log(10) - math.log(2 * math.pi)


def funnel(x):
    """Neal's funnel in 10 dimensions, normalised."""
    v, y = x[:, 0], x[:, 1:]
    n = y.shape[1]
    log_p = -0.5 * (v / 3).square() - math.log(3) - 0.5 * (y.square().sum(dim=1) * torch.exp(-v)) - 0.5 * n * v
    return log_p - 0.5 * (n + 1) * math.log(2 * math.pi)


EFFECTS = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
ERRORS = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


def eight_schools(x):
    """Posterior of (mu, log tau, eta) where theta = mu + tau eta, mu ~ N(0, 5^2), tau ~ half-Cauchy(5) and eta ~ N(0, 1)."""
    mu, log_tau, eta = x[:, :1], x[:, 1:2], x[:, 2:]
    theta = mu + log_tau.exp() * eta
    likelihood = -0.5 * ((torch.tensor(EFFECTS) - theta) / torch.tensor(ERRORS)).square().sum(dim=1)
    prior = -0.5 * (mu / 5).square() - torch.log1p((log_tau.exp() / 5).square()) + log_tau
    return likelihood + prior[:, 0] - 0.5 * eta.square().sum(dim=1)


def means_of_eight_schools():
    """Posterior means of mu, log tau and the thetas: given tau all is normal, and tau is summed over a grid."""
    log_tau = np.linspace(-10, 6, 4001)
    log_p, given_tau = [], []
    for tau in np.exp(log_tau):
        prior = 25 + tau**2 * np.eye(8)
        marginal = prior + np.diag(ERRORS**2)
        log_p.append(stats.multivariate_normal(np.zeros(8), marginal).logpdf(EFFECTS))
        solved = np.linalg.solve(marginal, EFFECTS)
        given_tau.append([25 * solved.sum(), *(prior @ solved)])
    log_p += log_tau - np.log1p((np.exp(log_tau) / 5) ** 2)
    weights = np.exp(log_p - np.max(log_p))
    weights /= weights.sum()
    mu, *theta = weights @ np.array(given_tau)
    return mu, weights @ log_tau, np.array(theta)


@pytest.fixture(scope="module")
def on_schools():
    return VariationalFlow(random_state=0).fit(eight_schools, 10)


@pytest.fixture(scope="module")
def on_banana():
    return VariationalFlow(random_state=0).fit(banana, 2)


@pytest.fixture(scope="module")
def quick():
    return VariationalFlow(**QUICK).fit(banana, 2)


# Known answers


@pytest.mark.parametrize("layer", ["autoregressive", "coupling"])
def test_a_correlated_normal_distribution_is_found_in_any_units(layer):
    normal = Normal(8)
    flow = VariationalFlow(layer=layer, max_iter=200, random_state=0).fit(normal.log_density, 8)
    # KL(q || p) = E_q[log q - log p].
    X = flow.sample(20_000, random_state=0)
    log_p = normal.log_density(torch.tensor(X)).numpy() - normal.log_normalizer
    assert abs(np.mean(flow.log_prob(X) - log_p)) < 1e-2
    assert flow.elbo_ == pytest.approx(normal.log_normalizer, abs=1e-2)
    # Four standard errors.
    deviation = np.sqrt(np.diag(normal.covariance))
    assert np.abs((X.mean(axis=0) - normal.mean) / deviation).max() < 4 / np.sqrt(20_000)


def test_the_gaussian_start_is_exact_for_a_normal_distribution(generator):
    normal = Normal(5)

    def score(x):
        x = x.requires_grad_()
        value = normal.log_density(x)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]

    location, scale = fit_gaussian(score, 5, generator, torch.device("cpu"))
    deviation = np.sqrt(np.diag(normal.covariance))
    units = np.outer(deviation, deviation)
    np.testing.assert_allclose(location.numpy() / deviation, normal.mean / deviation, atol=1e-5)
    np.testing.assert_allclose((scale @ scale.T).numpy() / units, normal.covariance / units, atol=1e-5)
    assert torch.equal(scale, scale.tril())


def test_banana(on_banana):
    weighted = on_banana.importance_sample(banana, 20_000, random_state=0)
    assert weighted.pareto_k < 0.7
    assert weighted.effective_sample_size > 0.9 * 20_000
    assert on_banana.elbo_ == pytest.approx(0, abs=0.05)
    assert weighted.log_normalizer == pytest.approx(0, abs=0.01)
    # Means are 0, and variances 10^2 and 1 + 2 (0.03 * 100)^2.
    mean = np.average(weighted.samples, weights=weighted.weights, axis=0)
    second = np.average(np.square(weighted.samples), weights=weighted.weights, axis=0)
    np.testing.assert_allclose(mean / [10, np.sqrt(19)], 0, atol=0.05)
    np.testing.assert_allclose(second / [100, 19], 1, atol=0.1)


def test_funnel():
    flow = VariationalFlow(random_state=0).fit(funnel, 10)
    weighted = flow.importance_sample(funnel, 20_000, random_state=0)
    assert weighted.pareto_k < 0.7
    assert flow.elbo_ == pytest.approx(0, abs=0.1)
    assert np.average(weighted.samples[:, 0], weights=weighted.weights) == pytest.approx(0, abs=0.3)


def test_posterior_means_of_eight_schools(on_schools):
    mu, log_tau, theta = means_of_eight_schools()
    X = on_schools.sample(50_000, random_state=0)
    assert X[:, 0].mean() == pytest.approx(mu, abs=0.1)
    assert X[:, 1].mean() == pytest.approx(log_tau, abs=0.1)
    thetas = X[:, :1] + np.exp(X[:, 1:2]) * X[:, 2:]
    np.testing.assert_allclose(thetas.mean(axis=0), theta, atol=0.1)
    assert on_schools.importance_sample(eight_schools, 20_000, random_state=0).pareto_k < 0.7


def test_one_feature():
    flow = VariationalFlow(n_transforms=1, max_iter=50, random_state=0).fit(lambda x: -0.5 * ((x[:, 0] - 5) / 0.1) ** 2, 1)
    X = flow.sample(10_000, random_state=0)
    assert X.mean() == pytest.approx(5, abs=0.01)
    assert X.std() == pytest.approx(0.1, rel=0.05)


# What the parts say of each other


@pytest.mark.parametrize("layer", ["autoregressive", "coupling"])
def test_the_density_of_draws_integrates_to_one(layer):
    flow = VariationalFlow(layer=layer, **QUICK).fit(lambda x: -0.5 * x[:, 0] ** 2 - 2 * (x[:, 1] - x[:, 0] ** 2) ** 2, 2)
    axis = np.linspace(-12, 12, 801)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    assert np.exp(flow.log_prob(grid)).sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-3)


def test_draws_carry_their_own_log_density(on_schools, generator):
    X, log_q = on_schools._draw(500, generator)
    np.testing.assert_allclose(on_schools.log_prob(X), log_q, rtol=1e-8, atol=1e-8)


def test_a_constant_of_the_log_density_shifts_the_bound_alone():
    one, other = (VariationalFlow(**QUICK).fit(lambda x, c=c: banana(x) + c, 2) for c in (0.0, 1024.0))
    assert other.elbo_ - one.elbo_ == pytest.approx(1024, abs=1e-6)
    np.testing.assert_allclose(one.sample(5, random_state=0), other.sample(5, random_state=0), rtol=1e-6)


def test_weights_of_the_flow_itself_are_even(quick):
    def log_density(x):
        scale = torch.from_numpy(quick.scale_)
        u = torch.linalg.solve_triangular(scale, (x - torch.from_numpy(quick.location_)).T, upper=False).T
        return quick.flow_.log_prob(u) + 3.0

    weighted = quick.importance_sample(log_density, 1000, random_state=0)
    np.testing.assert_allclose(weighted.weights, 1 / 1000, rtol=1e-6)
    assert weighted.pareto_k == -math.inf
    assert weighted.effective_sample_size == pytest.approx(1000)
    assert weighted.log_normalizer == pytest.approx(3 + np.log(np.diag(quick.scale_)).sum())


def test_a_flow_that_is_too_narrow_is_told():
    # Cauchy's tails are out of reach for a flow with a Gaussian's.
    def cauchy(x):
        return -torch.log1p(x.square()).sum(dim=1)

    flow = VariationalFlow(**QUICK).fit(cauchy, 3)
    assert flow.importance_sample(cauchy, 10_000, random_state=0).pareto_k > 0.7


def test_weights_may_be_zero_but_not_all(quick):
    weighted = quick.importance_sample(lambda x: torch.where(x[:, 0] > 0, banana(x), -math.inf), 1000, random_state=0)
    assert (weighted.weights[weighted.samples[:, 0] <= 0] == 0).all()
    assert weighted.weights.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match="isn't a finite number"):
        quick.importance_sample(lambda x: torch.full((len(x),), -math.inf), 1000)


# scikit-learn's conventions


def test_same_seed_same_flow_and_global_states_stay():
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    one, same, other = (VariationalFlow(**QUICK | {"random_state": seed}).fit(banana, 2) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert np.array_equal(one.sample(9, random_state=0), same.sample(9, random_state=0))
    assert one.elbo_ == same.elbo_ != other.elbo_
    assert not np.array_equal(one.sample(9, random_state=0), one.sample(9, random_state=1))


def test_parameters_clone_and_repr():
    flow = VariationalFlow(3, layer="coupling")
    assert clone(flow).get_params() == flow.get_params()
    assert repr(flow) == "VariationalFlow(layer='coupling', n_transforms=3)"


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda flow: pickle.loads(pickle.dumps(flow))], ids=["deepcopy", "pickle"])
def test_copies_give_the_same(quick, copied):
    other = copied(quick)
    X = quick.sample(5, random_state=0)
    assert np.array_equal(other.sample(5, random_state=0), X)
    assert np.array_equal(other.log_prob(X), quick.log_prob(X))


def test_fitted_attributes(quick):
    assert quick.n_features_in_ == 2
    assert quick.n_iter_ == len(quick.loss_curve_) == 20
    assert quick.stop_reason_ == "max_iter"
    assert {p.dtype for p in quick.flow_.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in quick.flow_.parameters())


def test_a_row_does_not_depend_on_its_batch(quick):
    X = quick.sample(50, random_state=0)
    np.testing.assert_allclose([quick.log_prob(row[None])[0] for row in X], quick.log_prob(X), rtol=1e-9)


def test_it_tells_how_it_goes(capsys):
    VariationalFlow(**QUICK | {"verbose": 1}).fit(standard_normal, 2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[-1].startswith("[VariationalFlow] step 20/20: evidence lower bound ")


def test_an_interrupted_fit_keeps_what_it_has_reached():
    n_calls = 0

    def interrupted(x):
        nonlocal n_calls
        n_calls += x.shape[0] == 256
        if n_calls == 12:
            n_calls += 1
            raise KeyboardInterrupt
        return banana(x)

    with pytest.warns(UserWarning, match="interrupted by the user after 11 steps"):
        flow = VariationalFlow(**QUICK).fit(interrupted, 2)
    assert flow.stop_reason_ == "interrupted"
    assert flow.n_iter_ == 11
    assert math.isfinite(flow.elbo_)


def test_gradients_may_be_switched_off_outside():
    with torch.no_grad():
        assert VariationalFlow(**QUICK).fit(banana, 2).n_iter_ == 20


# Errors


@pytest.mark.parametrize("method", ["sample", "log_prob", "importance_sample"])
def test_before_fit(method):
    arguments = {"sample": (), "log_prob": (np.zeros((1, 2)),), "importance_sample": (banana,)}[method]
    with pytest.raises(NotFittedError):
        getattr(VariationalFlow(), method)(*arguments)


def nan_far_out(x):
    return torch.where(x[:, 0] > 0.5, math.nan, banana(x))


BAD_FUNCTIONS = {
    "no function": (3.0, TypeError, "must be a function"),
    "no tensor": (lambda x: x.detach().numpy().sum(axis=1), TypeError, "must return a torch tensor.*Got ndarray"),
    "one number": (lambda x: banana(x).sum(), ValueError, r"shape \(1,\).*Got shape \(\)"),
    "a column": (lambda x: banana(x)[:, None], ValueError, r"Got shape \(1, 1\)"),
    "integers": (lambda x: x.sum(dim=1).long(), ValueError, "real floating-point"),
    "detached": (lambda x: banana(x.detach()), ValueError, "without a gradient"),
    "of something else": (lambda x: torch.ones(len(x), requires_grad=True), ValueError, "doesn't depend on its argument"),
    "nan": (lambda x: banana(x) * math.nan, ValueError, "finite everywhere.*it is nan"),
    "nan at some points": (nan_far_out, ValueError, "finite everywhere.*it is nan"),
    "minus infinity": (lambda x: torch.where(x[:, 0] > 0, banana(x), -math.inf), ValueError, "have bounds"),
    "nan gradient": (lambda x: banana(x) + 0 * (x[:, 0] - x[:, 0]).sqrt(), ValueError, "its gradient.*nan"),
}


@pytest.mark.parametrize(("function", "error", "message"), BAD_FUNCTIONS.values(), ids=BAD_FUNCTIONS)
def test_bad_functions_are_told_and_nothing_is_lost(function, error, message):
    flow = VariationalFlow(**QUICK).fit(banana, 2)
    before = flow.sample(5, random_state=0), flow.elbo_
    with pytest.raises(error, match=message):
        flow.fit(function, 2)
    assert np.array_equal(flow.sample(5, random_state=0), before[0])
    assert flow.elbo_ == before[1]
    fresh = VariationalFlow(**QUICK)
    with pytest.raises(error):
        fresh.fit(function, 2)
    assert vars(fresh) == VariationalFlow(**QUICK).get_params()


def test_errors_of_the_function_come_through(quick):
    def broken(x):
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        VariationalFlow(**QUICK).fit(broken, 2)


def test_training_goes_back_where_the_density_is_not_finite():
    n_calls = 0

    def sometimes(x):
        nonlocal n_calls
        n_calls += len(x) == 256
        return banana(x) + (math.nan if n_calls in (5, 9) and len(x) == 256 else 0.0)

    flow = VariationalFlow(**QUICK).fit(sometimes, 2)
    assert flow.n_iter_ == 20
    assert np.isfinite(flow.loss_curve_).all()


@pytest.mark.parametrize("n_features", [0, -1, 1.5, True, "2"])
def test_bad_numbers_of_features(n_features):
    with pytest.raises(ValueError, match="n_features must be an integer of at least 1"):
        VariationalFlow(**QUICK).fit(banana, n_features)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n_transforms", 0),
        ("layer", "spline"),
        ("activation", "sine"),
        ("max_iter", 0),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("hidden_layer_sizes", (0,)),
        ("device", "abacus"),
    ],
)
def test_bad_parameters(parameter, value):
    with pytest.raises(ValueError, match=parameter):
        VariationalFlow(**QUICK | {parameter: value}).fit(banana, 2)


def test_bad_queries(quick):
    with pytest.raises(ValueError, match="Invalid value for 'n_samples'"):
        quick.sample(0)
    with pytest.raises(ValueError, match="at least 25 draws"):
        quick.importance_sample(banana, 24)
    with pytest.raises(ValueError, match="X has 3 features, but VariationalFlow is expecting 2"):
        quick.log_prob(np.zeros((4, 3)))
    with pytest.raises(ValueError, match="NaN"):
        quick.log_prob([[np.nan, 0.0]])


def test_a_missing_library_is_named(quick, monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz_stats.base", None)
    with pytest.raises(ImportError, match="pip install arviz-stats"):
        quick.importance_sample(banana, 100)
