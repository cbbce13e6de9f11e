import pytest
import torch
from scipy import optimize, stats

from sklearn_flows.conditional._mixture import log_density, quantile
from sklearn_flows.distributions import StandardNormal
from sklearn_flows.flows import Flow
from sklearn_flows.nets import MLP
from sklearn_flows.transforms import Affine, Coupling


def normal(location, log_scale, generator):
    """A flow that is normal around ``location`` times the context."""
    network = MLP(0, 2, [], "relu", generator, 1)
    with torch.no_grad():
        network.linear_layers()[0].weight[0, 0] = location
        network.linear_layers()[0].bias[1] = log_scale
    return Flow(Coupling(Affine(), network, torch.zeros(1, dtype=torch.bool)), StandardNormal(1)).double()


@pytest.fixture
def flows(generator):
    return [normal(*parameters, generator) for parameters in ((-1.0, 0.0), (0.5, -1.0), (3.0, 0.5))]


def components(flows, context):
    result = []
    for flow in flows:
        (low, high) = flow.from_latent(torch.tensor([[-1.0], [1.0]]).double(), torch.full((2, 1), context).double()).flatten()
        result.append(stats.norm(float(low + high) / 2, float(high - low) / 2))
    return result


@pytest.mark.parametrize("context", [0.0, 0.7, -2.0])
@torch.no_grad()
def test_density_and_quantiles_are_those_of_the_mixture(flows, context):
    parts, c = components(flows, context), torch.full((1, 1), context).double()
    for z in (-2.0, 0.3, 4.0):
        expected = torch.tensor([part.pdf(z) for part in parts]).mean().log()
        torch.testing.assert_close(log_density(flows, torch.tensor([[z]]).double(), c)[0], expected.double())
    for score in (-6.0, -1.0, 0.0, 0.2, 3.0):
        p = stats.norm.cdf(score)
        expected = optimize.brentq(lambda z, p=p: sum(part.cdf(z) for part in parts) / 3 - p, -60, 60, xtol=1e-13)
        assert float(quantile(flows, score, c)[0]) == pytest.approx(expected, abs=1e-6 if score == -6.0 else 1e-8)


@torch.no_grad()
def test_the_quantile_of_a_row_depends_on_the_row_alone(flows):
    c = torch.linspace(-3, 3, 50, dtype=torch.float64).unsqueeze(-1)
    together = quantile(flows, 0.4, c)
    assert all(torch.equal(together[i : i + 1], quantile(flows, 0.4, c[i : i + 1])) for i in range(50))


@torch.no_grad()
def test_a_single_flow_has_the_quantile_that_its_latent_says(flows):
    c = torch.linspace(-3, 3, 5, dtype=torch.float64).unsqueeze(-1)
    torch.testing.assert_close(quantile(flows[:1], 1.3, c), flows[0].from_latent(torch.full((5, 1), 1.3).double(), c)[:, 0])
