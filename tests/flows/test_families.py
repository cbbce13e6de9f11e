import warnings
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats

from sklearn_flows.distributions import StudentMixture
from sklearn_flows.flows import continuous_flow, glow, iaf, maf, realnvp, spline_flow
from sklearn_flows.transforms import Inverse, LULinear, NeuralODE

NETWORK = {"hidden_layer_sizes": [6], "activation": "tanh"}
SPLINE = {"n_bins": 4, "tail_bound": 3.0}


def continuous(whitening, *, n_transforms, generator, base=None):
    """A single equation, whatever the number of layers: it has none."""
    return continuous_flow(whitening, n_frequencies=1, rtol=1e-11, atol=1e-11, generator=generator, base=base, **NETWORK)


FAMILIES = {
    "spline-autoregressive": partial(spline_flow, layer="autoregressive", **NETWORK, **SPLINE),
    "spline-coupling": partial(spline_flow, layer="coupling", **NETWORK, **SPLINE),
    "maf": partial(maf, **NETWORK),
    "iaf": partial(iaf, **NETWORK),
    "realnvp": partial(realnvp, **NETWORK),
    "glow": partial(glow, **NETWORK),
    "continuous": continuous,
}


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def family(request):
    return request.param


def lower_triangular(n_features, generator):
    below = torch.randn(n_features, n_features, generator=generator, dtype=torch.float64).tril(-1)
    return below + torch.linspace(0.4, 2.5, n_features, dtype=torch.float64).diag()


@pytest.mark.parametrize("n_features", [1, 2])
def test_density_integrates_to_one(family, n_features, generator, randomise):
    flow = randomise(family(torch.eye(n_features), n_transforms=3, generator=generator), generator, std=0.3)
    # Trapezoids converge fast on smooth densities that vanish at the edge; spacing and reach leave 1e-4 here.
    reach, n_points = 32.0, 1200
    for part in flow.modules():
        if isinstance(part, NeuralODE):
            # Slow to score, and smoother than splines; the field is bounded, so it doesn't carry rows far.
            reach, n_points = 8.0, 150
            part.rtol = part.atol = 1e-5
    axis = torch.linspace(-reach, reach, n_points, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * n_features).reshape(-1, n_features)
    with torch.no_grad():
        density = torch.cat([flow.log_prob(chunk).exp() for chunk in grid.split(40_000)])
    assert float(density.sum() * (axis[1] - axis[0]) ** n_features) == pytest.approx(1.0, abs=1e-3)
    # It must be another density than the one that every family starts with.
    gaussian = stats.norm.pdf(grid.numpy()).prod(axis=1)
    assert np.abs(density.numpy() - gaussian).max() > 0.05 * gaussian.max()


@pytest.mark.parametrize("n_features", [1, 2, 5])
def test_starts_as_a_mixture_of_the_whitened_features(family, n_features, generator):
    shares, means = torch.tensor([0.3, 0.7]), torch.randn(2, n_features, generator=generator)
    base = StudentMixture(shares, means, torch.stack([lower_triangular(n_features, generator) for _ in shares]))
    whitening = lower_triangular(n_features, generator)
    flow = family(whitening, n_transforms=3, generator=generator, base=base).double()
    x = torch.randn(50, n_features, generator=generator, dtype=torch.float64)
    expected = base.log_prob(x @ whitening.T) + whitening.diagonal().log().sum()
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(flow.from_latent(flow.to_latent(x)), x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_features", [1, 2, 5])
def test_starts_as_the_gaussian_of_the_whitening_matrix(family, n_features, generator):
    # Ones and quarters are exact in float32, the parameters' own type: the tolerance can be that of float64.
    quarters = torch.randint(-4, 5, (n_features, n_features), generator=generator).double() / 4
    whitening = quarters.tril(-1) + torch.eye(n_features, dtype=torch.float64)
    flow = family(whitening, n_transforms=3, generator=generator).double()
    covariance = torch.linalg.inv(whitening.T @ whitening).numpy()
    x = 4 * torch.randn(50, n_features, generator=generator, dtype=torch.float64)
    expected = stats.multivariate_normal(np.zeros(n_features), covariance).logpdf(x.numpy())
    np.testing.assert_allclose(flow.log_prob(x).detach().numpy(), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("n_features", [1, 2, 5])
def test_starts_as_the_gaussian_of_any_whitening_matrix_to_single_precision(family, n_features, generator):
    whitening = lower_triangular(n_features, generator)
    flow = family(whitening, n_transforms=2, generator=generator)
    x = torch.linalg.solve(whitening, torch.randn(n_features, 50, generator=generator, dtype=torch.float64)).T
    covariance = torch.linalg.inv(whitening.T @ whitening).numpy()
    expected = stats.multivariate_normal(np.zeros(n_features), covariance).logpdf(x.numpy())
    np.testing.assert_allclose(flow.log_prob(x.float()).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_features", [1, 2, 5])
def test_latents_map_back_to_data(family, n_features, generator, randomise):
    flow = randomise(family(torch.eye(n_features), n_transforms=3, generator=generator), generator, std=0.3)
    x = 2 * torch.randn(50, n_features, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(flow.from_latent(flow.to_latent(x)), x, rtol=1e-9, atol=1e-9)


def test_nonlinear_layers_let_every_latent_depend_on_every_feature(family, generator, randomise):
    flow = randomise(family(torch.eye(4), n_transforms=6, generator=generator), generator)
    for layer in flow.transform.transforms:
        if isinstance(layer, LULinear):
            for parameter in layer.parameters():
                torch.nn.init.zeros_(parameter)
    x = torch.randn(4, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: flow.to_latent(x[None])[0], x)
    assert (jacobian != 0).all()


def test_same_generator_same_flow_and_the_global_state_stays(family):
    before = torch.get_rng_state()
    one, same, other = (
        family(torch.eye(3), n_transforms=2, generator=torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("n_features", [1, 2])
def test_building_a_flow_does_not_warn(family, n_features, generator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        family(torch.eye(n_features), n_transforms=2, generator=generator)


def test_parameters_are_float32_on_the_cpu(family, generator):
    flow = family(lower_triangular(3, generator), n_transforms=2, generator=generator)
    assert {(p.dtype, p.device.type) for p in flow.parameters()} == {(torch.float32, "cpu")}


def test_a_flow_without_features_is_a_point(family, generator):
    # What is left to model of a table whose columns are all constant.
    flow = family(torch.empty(0, 0), n_transforms=2, generator=generator)
    nothing = torch.empty(3, 0)
    assert flow.log_prob(nothing).tolist() == [0.0, 0.0, 0.0]
    assert flow.to_latent(nothing).shape == (3, 0)
    assert flow.from_latent(nothing).shape == (3, 0)


@pytest.mark.parametrize("n_features", [1, 2, 5])
def test_iaf_is_the_inverse_of_a_maf_with_the_same_weights(n_features, generator, randomise):
    identity = torch.eye(n_features)
    mirrored = randomise(maf(identity, n_transforms=3, generator=generator, **NETWORK), generator, std=0.3)
    flow = iaf(identity, n_transforms=3, generator=generator, **NETWORK).double()
    # As built the whitening map is the identity. Of the rest, the layer that is next to the data in the one is next to the
    # latents in the other.
    first, *layers = mirrored.transform.transforms
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.zero_()
    for own, other in zip(flow.transform.transforms[1:], reversed(layers), strict=True):
        part = own.transform if isinstance(own, Inverse) else own
        part.load_state_dict(other.state_dict())
    x = 2 * torch.randn(50, n_features, generator=generator, dtype=torch.float64)
    z, log_det = flow.transform.forward(x)
    expected_z, expected_log_det = mirrored.transform.inverse(x)
    torch.testing.assert_close(z, expected_z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det, expected_log_det, rtol=1e-9, atol=1e-9)
    back, log_det_back = flow.transform.inverse(x)
    expected_back, expected_log_det_back = mirrored.transform.forward(x)
    torch.testing.assert_close(back, expected_back, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(log_det_back, expected_log_det_back, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_features", [1, 2])
def test_glow_in_context_is_a_density_in_each_context_and_starts_without_need_of_it(n_features, generator, randomise):
    whitening = lower_triangular(n_features, generator)
    flow = glow(whitening, n_transforms=3, generator=generator, n_context=2, **NETWORK).double()
    contexts = torch.tensor([[-1.0, 0.5], [2.0, 0.0], [2.0, 1.0]], dtype=torch.float64)
    x = torch.randn(3, n_features, generator=generator, dtype=torch.float64)
    without = glow(whitening, n_transforms=3, generator=generator, **NETWORK).double()
    torch.testing.assert_close(flow.log_prob(x, contexts), without.log_prob(x), rtol=1e-6, atol=1e-6)

    randomise(flow, generator, std=0.3)
    axis = torch.linspace(-16, 16, 600, dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * n_features).reshape(-1, n_features)
    with torch.no_grad():
        densities = [flow.log_prob(grid, context.expand(len(grid), -1)).exp() for context in contexts]
    for density in densities:
        assert float(density.sum() * (axis[1] - axis[0]) ** n_features) == pytest.approx(1.0, abs=1e-3)
    assert not torch.allclose(densities[0], densities[1], atol=1e-2)
    assert not torch.allclose(densities[1], densities[2], atol=1e-2)
    torch.testing.assert_close(flow.from_latent(flow.to_latent(x, contexts), contexts), x, rtol=1e-9, atol=1e-9)
