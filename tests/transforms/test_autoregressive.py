import math

import pytest
import torch

from sklearn_flows.nets import MADE
from sklearn_flows.transforms import Affine, MaskedAutoregressive, RationalQuadraticSpline, spline_knots
from sklearn_flows.transforms._elementwise import CONDITIONER_BOUND


def copy_network(made, independent):
    """Give a MADE the parameters of zuko's masked network, whose hidden units of equal degree are not neighbours.

    Widths must be multiples of ``n_features - 1``: then both have equally many hidden units of each degree.
    """
    order = torch.arange(made.n_features)
    linear = [layer for layer in made.layers if hasattr(layer, "weight")]
    theirs = [layer for layer in independent if hasattr(layer, "weight")]
    # Inputs that reach each unit, by their masks alone.
    reaches = torch.eye(made.n_features)
    with torch.no_grad():
        for i, (layer, other) in enumerate(zip(linear, theirs, strict=True)):
            reaches = ((other.mask.float() @ reaches) > 0).float()
            is_last = i == len(linear) - 1
            units = torch.arange(len(reaches)) if is_last else reaches.sum(dim=1).argsort(stable=True)
            layer.weight.copy_((other.mask * other.weight)[units][:, order])
            layer.bias.copy_(other.bias[units])
            order = units


@pytest.fixture(params=["affine", "spline"])
def transformer_and_univariate(request):
    """Our scalar bijection, and the same as a function from raw parameters to one of zuko's transforms."""
    transforms = pytest.importorskip("zuko.transforms")
    if request.param == "affine":

        def affine(raw):
            mu, a = raw.unbind(-1)
            alpha = a / (1 + a.abs() / 3.0)
            return transforms.MonotonicAffineTransform(shift=-mu * (-alpha).exp(), scale=-a, slope=math.exp(-3.0))

        return Affine(log_scale_bound=3.0), affine

    def spline(raw):
        widths, heights, derivatives = spline_knots(raw, 5)
        result = transforms.MonotonicRQSTransform(widths, heights, derivatives[..., 1:-1])
        zero = torch.zeros_like(widths[..., :1])
        result.horizontal = 4.0 * (2 * torch.cat([zero, widths.cumsum(-1)], dim=-1) - 1)
        result.vertical = 4.0 * (2 * torch.cat([zero, heights.cumsum(-1)], dim=-1) - 1)
        result.derivatives = derivatives
        return result

    return RationalQuadraticSpline(n_bins=5, tail_bound=4.0), spline


@pytest.mark.parametrize(("n_features", "hidden"), [(2, [3]), (3, [4, 6]), (5, [8, 4, 12])])
def test_network_layer_and_inverse_agree_with_an_independent_implementation(
    transformer_and_univariate, n_features, hidden, generator, randomise
):
    lazy = pytest.importorskip("zuko.flows.autoregressive")
    transformer, univariate = transformer_and_univariate
    n_parameters = transformer.n_parameters
    theirs = lazy.MaskedAutoregressiveTransform(
        n_features, univariate=univariate, shapes=[(n_parameters,)], hidden_features=hidden, activation=torch.nn.Tanh
    )
    randomise(theirs, generator)
    made = MADE(n_features, n_parameters, hidden, "tanh", generator).double()
    copy_network(made, theirs.hyper)
    theirs.hyper = torch.nn.Sequential(torch.nn.Hardtanh(-CONDITIONER_BOUND, CONDITIONER_BOUND), theirs.hyper)
    ours = MaskedAutoregressive(transformer, made)
    x = 3 * torch.randn(50, n_features, generator=generator, dtype=torch.float64)

    raw = theirs.hyper[1](x).unflatten(-1, (n_features, n_parameters))
    assert (made(x) - raw).abs().max() <= 1e-10

    z, log_det = ours.forward(x)
    expected_z, expected_log_det = theirs().call_and_ladj(x)
    assert (z - expected_z).abs().max() <= 1e-10
    assert (log_det - expected_log_det).abs().max() <= 1e-10

    latent = 3 * torch.randn(50, n_features, generator=generator, dtype=torch.float64)
    back, log_det_back = ours.inverse(latent)
    expected_back = theirs().inv(latent)
    assert (back - expected_back).abs().max() <= 1e-10
    assert (log_det_back + theirs().log_abs_det_jacobian(expected_back, latent)).abs().max() <= 1e-10


def test_feature_depends_on_those_before_it_alone(generator, randomise):
    layer = randomise(MaskedAutoregressive(Affine(), MADE(4, 2, [8], "tanh", generator)), generator)
    x = torch.randn(4, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer.forward(x[None])[0][0], x)
    assert torch.equal(jacobian, jacobian.tril())
    assert (jacobian.diagonal() > 0).all()
    assert jacobian.tril(-1).count_nonzero() == 6


def test_far_out_features_choose_the_parameters_of_the_edge(generator, randomise):
    layer = randomise(MaskedAutoregressive(Affine(), MADE(2, 2, [8], "relu", generator)), generator)
    x = torch.tensor([[CONDITIONER_BOUND, 0.7], [1e6, 0.7], [-CONDITIONER_BOUND, 0.7], [-1e6, 0.7]], dtype=torch.float64)
    z, log_det = layer.forward(x)
    assert torch.equal(z[0::2, 1], z[1::2, 1])
    assert torch.equal(log_det[0::2], log_det[1::2])
    assert log_det[0] != log_det[2]
