import math

import pytest
import torch
from scipy import stats

from sklearn_flows.distributions import StandardNormal, StudentMixture


@pytest.mark.parametrize("n_features", [0, 1, 4])
def test_standard_normal_log_density(n_features, generator):
    z = 3 * torch.randn(50, n_features, generator=generator, dtype=torch.float64)
    expected = stats.norm.logpdf(z.numpy()).sum(axis=1)
    torch.testing.assert_close(StandardNormal(n_features).log_prob(z), torch.from_numpy(expected), rtol=1e-13, atol=1e-13)


def test_standard_normal_samples_follow_it():
    draws = StandardNormal(2).double().sample(5000, torch.Generator().manual_seed(0))
    for column in draws.T:
        # The seed is fixed; a wrong location or scale of a tenth would give p-values below 1e-9.
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-3
    assert abs(torch.corrcoef(draws.T)[0, 1]) < 0.06  # four standard errors


def test_samples_have_the_dtype_of_the_module_and_come_from_the_generator():
    before = torch.get_rng_state()
    single = StandardNormal(3).sample(4, torch.Generator().manual_seed(0))
    double = StandardNormal(3).double().sample(4, torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    assert torch.equal(double.float(), single)
    assert not torch.equal(double, StandardNormal(3).double().sample(4, torch.Generator().manual_seed(1)))


@pytest.fixture(params=[math.inf, 3.0, torch.tensor([5.0, math.inf, 3.0])], ids=["normal", "t", "both"])
def mixture(request, generator):
    shares = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    means = 2 * torch.randn(3, 2, generator=generator, dtype=torch.float64)
    factors = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64).tril(-1) + torch.eye(2, dtype=torch.float64)
    return StudentMixture(shares, means, factors, request.param).double()


def test_mixture_log_density(mixture, generator):
    z = 3 * torch.randn(50, 2, generator=generator, dtype=torch.float64)
    expected = 0
    components = mixture.means, mixture.precisions_cholesky, mixture.df.tolist()
    for share, mean, factor, df in zip([0.2, 0.3, 0.5], *components, strict=True):
        covariance = torch.linalg.inv(factor.T @ factor)
        expected = expected + share * stats.multivariate_t(mean, covariance, df).pdf(z.numpy())
    # The parameters are kept in single precision.
    torch.testing.assert_close(mixture.log_prob(z), torch.from_numpy(expected).log(), rtol=1e-6, atol=1e-6)


def test_mixture_samples_follow_it(mixture):
    draws = mixture.sample(20_000, torch.Generator().manual_seed(0))
    expected = sum(s * m for s, m in zip([0.2, 0.3, 0.5], mixture.means, strict=True))
    if mixture.df.isinf().all():
        torch.testing.assert_close(draws.mean(dim=0), expected, atol=0.06, rtol=0)  # four standard errors
    for column in mixture.to_normal(draws).T:
        assert stats.kstest(column.numpy(), "norm").pvalue > 1e-3
    assert abs(torch.corrcoef(mixture.to_normal(draws).T)[0, 1]) < 0.03


def test_a_mixture_is_mapped_to_normals_and_back(mixture, generator):
    z = 3 * torch.randn(20, 2, generator=generator, dtype=torch.float64)
    u = mixture.to_normal(z)
    torch.testing.assert_close(mixture.from_normal(u), z, rtol=1e-9, atol=1e-9)
    # The change of variables gives the density.
    for point, image, log_density in zip(z, u, mixture.log_prob(z), strict=True):
        h = 1e-5
        steps = h * torch.eye(2, dtype=torch.float64)
        jacobian = (mixture.to_normal(point + steps) - mixture.to_normal(point - steps)) / (2 * h)
        log_det = torch.linalg.slogdet(jacobian).logabsdet
        change_of_variables = StandardNormal(2).double().log_prob(image[None])[0] + log_det
        torch.testing.assert_close(change_of_variables, log_density, rtol=1e-6, atol=1e-6)


def test_far_points_of_a_mixture_are_mapped_and_back(mixture):
    z = torch.tensor([[1e3, -1e3], [-40.0, 40.0], [30.0, 0.0]], dtype=torch.float64)
    u = mixture.to_normal(z)
    assert u.isfinite().all()
    torch.testing.assert_close(mixture.from_normal(u), z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("df", [math.inf, 3.0])
def test_components_far_apart_and_of_very_different_widths_are_mapped_back(df, generator):
    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    widths = torch.logspace(-3, 2, 6, dtype=torch.float64)
    mixture = StudentMixture(torch.full((6,), 1 / 6), 1e3 * randn(6, 2), torch.eye(2) / widths[:, None, None], df).double()
    u = randn(200, 2)
    z = mixture.from_normal(u)
    torch.testing.assert_close(mixture.to_normal(z), u, rtol=1e-8, atol=1e-8)
    alone = torch.cat([mixture.from_normal(row[None]) for row in u[:20]])
    torch.testing.assert_close(alone, z[:20], rtol=1e-12, atol=0)


def test_a_quantile_that_is_no_number_stays_none(mixture):
    u = torch.zeros(3, 2, dtype=torch.float64)
    u[1, 0] = torch.nan
    assert mixture.from_normal(u).isnan().any(dim=1).tolist() == [False, True, False]
