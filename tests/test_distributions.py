import pytest
import torch
from scipy import stats

from sklearn_flows.distributions import StandardNormal


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
