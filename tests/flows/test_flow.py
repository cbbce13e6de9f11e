import torch
from scipy import stats

from sklearn_flows.distributions import StandardNormal
from sklearn_flows.flows import Flow
from sklearn_flows.transforms import LULinear


def test_log_prob_is_the_change_of_variables(generator, randomise):
    linear = randomise(LULinear(3), generator)
    flow = Flow(linear, StandardNormal(3))
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(lambda row: linear.forward(row[None])[0][0], x[0])
    mean = torch.linalg.solve(matrix, -linear.bias).detach()
    expected = stats.multivariate_normal(mean.numpy(), torch.linalg.inv(matrix.T @ matrix).numpy()).logpdf(x.numpy())
    torch.testing.assert_close(flow.log_prob(x).detach(), torch.from_numpy(expected), rtol=1e-11, atol=1e-11)


def test_to_latent_and_from_latent_undo_each_other(generator, randomise):
    flow = Flow(randomise(LULinear(3), generator), StandardNormal(3))
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    latent = flow.to_latent(x)
    assert torch.equal(latent, flow.transform.forward(x)[0])
    torch.testing.assert_close(flow.from_latent(latent), x, rtol=1e-12, atol=1e-12)
