import math
from functools import partial

import pytest
import torch

from sklearn_flows.distributions import StudentMixture
from sklearn_flows.flows import Rows, continuous_flow
from sklearn_flows.training import ContinuousLikelihood, FlowMatching, fit_flow, mean_evaluations
from sklearn_flows.training._continuous import _nearest_pairs

SETTINGS = {"hidden_layer_sizes": [16], "activation": "tanh", "n_frequencies": 3, "rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def flow(generator, randomise):
    flow = continuous_flow(torch.eye(3), generator=generator, **SETTINGS)
    return randomise(flow, generator, std=0.2)


@pytest.fixture
def rows(generator):
    values = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    return Rows(values, torch.rand(40, generator=generator, dtype=torch.float64) + 0.5)


def gradient_of(objective, rows, batch):
    parameters = list(objective.flow.parameters())
    for parameter in parameters:
        parameter.grad = None
    loss = objective.add_gradient(rows, batch)
    return loss, torch.cat([p.grad.reshape(-1) for p in parameters if p.grad is not None])


def test_the_loss_is_the_weighted_likelihood(flow, rows, generator):
    batch = torch.arange(5, 25)
    objective = ContinuousLikelihood(flow, 40, "exact", 0.0, generator)
    loss, gradient = gradient_of(objective, rows, batch)
    expected = -(rows.weight[batch] * flow.log_prob(rows.values[batch])).mean()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-4, atol=1e-4)
    expected_gradient = torch.cat([g.reshape(-1) for g in torch.autograd.grad(expected, list(flow.parameters()))])
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(objective.log_prob(rows), flow.log_prob(rows.values).detach())


def test_hutchinsons_loss_is_unbiased(flow, rows, generator):
    batch = torch.zeros(2000, dtype=torch.int64)
    exact = ContinuousLikelihood(flow, 4, "exact", 0.0, generator).add_gradient(rows, batch[:1])
    losses = torch.stack(
        [ContinuousLikelihood(flow, 4, "hutchinson", 0.0, generator).add_gradient(rows, part) for part in batch.split(100)]
    )
    assert losses.std() > 0
    assert (losses.mean() - exact).abs() <= 3 * losses.std() / math.sqrt(len(losses))


def test_the_kinetic_energy_counts_by_its_weight_and_not_in_the_loss(flow, rows, generator):
    batch = torch.arange(40)
    gradients = {}
    for weight in (0.0, 1.0, 2.0):
        loss, gradients[weight] = gradient_of(ContinuousLikelihood(flow, 4, "exact", weight, generator), rows, batch)
        assert loss == pytest.approx(float(gradient_of(ContinuousLikelihood(flow, 4, "exact", 0.0, generator), rows, batch)[0]))
    torch.testing.assert_close(gradients[2.0] - gradients[1.0], gradients[1.0] - gradients[0.0])
    assert (gradients[1.0] - gradients[0.0]).norm() > 0.01


def fit(make_objective, rows, generator, n_epochs, **settings):
    flow = continuous_flow(torch.eye(rows.values.shape[1]), generator=generator, **SETTINGS | settings)
    fit_flow(
        flow,
        rows,
        None,
        max_iter=n_epochs,
        batch_size=256,
        learning_rate=1e-2,
        weight_decay=0.0,
        early_stopping=False,
        n_iter_no_change=math.inf,
        tol=0.0,
        generator=generator,
        objective=make_objective(flow, generator=generator),
        n_visits=2,
    )
    return flow.double().requires_grad_(False)


def test_kinetic_regularisation_lowers_the_energy(generator):
    values = 0.3 * torch.randn(512, 2, generator=generator) + torch.tensor([1.0, -1.0])
    rows = Rows(values, torch.ones(512))
    energies = []
    for weight in (0.0, 1.0):
        objective = partial(ContinuousLikelihood, n_steps=2, trace="exact", kinetic_weight=weight)
        flow = fit(objective, rows, torch.Generator().manual_seed(0), 10)
        x, _ = flow.transform.transforms[0].forward(values.double())
        _, _, energy = flow.transform.transforms[1].forward_in_steps(x, None, 20)
        energies.append(float(energy.mean()))
    assert energies[1] < 0.9 * energies[0]


def test_flow_matching_learns_the_field_between_gaussians(generator):
    # From N(0, 1) to N(m, s^2): the mean velocity at x_t is m + (t s^2 - (1 - t)) / ((1 - t)^2 + t^2 s^2) (x_t - t m).
    mean, std = 1.0, 0.5
    rows = Rows(mean + std * torch.randn(4096, 1, generator=generator), torch.ones(4096))
    mean, std = float(rows.values.mean()), float(rows.values.std())
    flow = fit(partial(FlowMatching, coupling="independent"), rows, generator, 90)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    variance = (1 - t) ** 2 + t**2 * std**2
    for z in (-1.0, 0.0, 1.0):
        x = t * mean + z * variance.sqrt()
        expected = mean + (t * std**2 - (1 - t)) / variance * (x - t * mean)
        found = flow.transform.transforms[1].field.velocity(x[:, None], t)[:, 0]
        torch.testing.assert_close(found, expected, rtol=0, atol=0.15)
    x = mean + std * torch.linspace(-1.5, 1.5, 9, dtype=torch.float64)
    expected = torch.distributions.Normal(mean, std).log_prob(x)
    torch.testing.assert_close(flow.log_prob(x[:, None]), expected, rtol=0, atol=0.15)


@pytest.mark.parametrize("n_components", [None, 1, 2])
def test_times_are_late_where_the_start_is_smooth(n_components, generator):
    base = None
    if n_components is not None:
        shares, precisions = torch.full((n_components,), 1 / n_components), torch.eye(3).expand(n_components, 3, 3)
        base = StudentMixture(shares, torch.randn(n_components, 3, generator=generator), precisions)
    flow = continuous_flow(torch.eye(3), generator=generator, base=base, **SETTINGS)
    times = FlowMatching(flow, "independent", generator)._times(1000).sort().values
    # One in each thousandth of the distribution, whose function is t or 1 - sqrt(1 - t).
    quantiles = times if n_components == 2 else 1 - (1 - times).sqrt()
    middles = (torch.arange(1000) + 0.5) / 1000
    torch.testing.assert_close(quantiles, middles, rtol=0, atol=0.0006)  # half a thousandth, and rounding


def test_optimal_pairs_are_a_permutation_that_is_nearer(generator):
    rows, draws = torch.randn(300, 2, generator=generator), torch.randn(300, 2, generator=generator)
    pairs = _nearest_pairs(rows, draws)
    assert sorted(pairs.tolist()) == list(range(300))
    assert (rows - draws[pairs]).square().sum() < 0.2 * (rows - draws).square().sum()
    # On a line, sorted meets sorted.
    pairs = _nearest_pairs(rows[:50, :1], draws[:50, :1])
    assert torch.equal(draws[pairs, 0][rows[:50, 0].argsort()], draws[:50, 0].sort().values)


def test_a_field_that_cannot_be_followed_has_no_likelihood(flow, rows, generator):
    with torch.no_grad():
        for parameter in flow.transform.transforms[1].parameters():
            parameter.fill_(math.nan)
    assert (ContinuousLikelihood(flow, 4, "exact", 0.0, generator).log_prob(rows) == -math.inf).all()


def test_evaluations_are_counted(flow, rows):
    _, _, n_evaluations = flow.transform.transforms[1].solve(flow.transform.transforms[0].forward(rows.values)[0], None, 1, 0)
    assert mean_evaluations(flow, rows) == pytest.approx(float(n_evaluations.double().mean()))
    assert (n_evaluations >= 8).all()
