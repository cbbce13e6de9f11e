"""What must hold for transforms that depend on a context, besides what holds for every transform."""

import pytest
import torch

from sklearn_flows.distributions import StandardNormal
from sklearn_flows.flows import Flow
from sklearn_flows.nets import MADE, MLP
from sklearn_flows.transforms import Affine, Composed, Coupling, Inverse, LULinear, MaskedAutoregressive, Permutation

N_CONTEXT = 2


def autoregressive(n_features, generator):
    return MaskedAutoregressive(Affine(), MADE(n_features, 2, [12, 12], "tanh", generator, N_CONTEXT))


def coupling(n_features, generator):
    stays = torch.arange(n_features) % 2 == 1
    n_staying = int(stays.sum())
    return Coupling(Affine(), MLP(n_staying, 2 * (n_features - n_staying), [6], "tanh", generator, N_CONTEXT), stays)


def inverse(n_features, generator):
    return Inverse(autoregressive(n_features, generator))


def composed(n_features, generator):
    parts = [coupling(n_features, generator), Permutation(torch.arange(n_features).flip(0)), LULinear(n_features)]
    return Composed([*parts, autoregressive(n_features, generator)])


@pytest.fixture(params=[autoregressive, coupling, inverse, composed], ids=lambda build: build.__name__)
def build(request):
    return request.param


@pytest.fixture(params=["forward", "inverse"])
def name(request):
    return request.param


def draw(n_rows, n_columns, generator):
    return torch.randn(n_rows, n_columns, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n_features", [1, 4])
def test_each_row_is_mapped_in_its_own_context(build, name, n_features, generator, randomise):
    transform = randomise(build(n_features, generator), generator)
    x, context = draw(6, n_features, generator), draw(6, N_CONTEXT, generator)
    y, log_det = getattr(transform, name)(x, context)
    for i in range(len(x)):
        y_alone, log_det_alone = getattr(transform, name)(x[i : i + 1], context[i : i + 1])
        torch.testing.assert_close(y_alone[0], y[i], rtol=0, atol=1e-12)
        torch.testing.assert_close(log_det_alone[0], log_det[i], rtol=0, atol=1e-12)


def test_the_gradient_reaches_the_context(build, name, generator, randomise):
    transform = randomise(build(3, generator), generator)
    x, context = draw(4, 3, generator), draw(4, N_CONTEXT, generator).requires_grad_()
    assert torch.autograd.gradcheck(lambda context: getattr(transform, name)(x, context), context)


@pytest.mark.parametrize("n_features", [1, 3])
def test_every_feature_that_moves_depends_on_the_context(build, n_features, generator, randomise):
    transform = randomise(build(n_features, generator), generator)
    x = draw(1, n_features, generator)
    moves = torch.ones(n_features, dtype=torch.bool)
    if isinstance(transform, Coupling):
        moves = torch.arange(n_features) % 2 == 0
    jacobian = torch.autograd.functional.jacobian(lambda c: transform.forward(x, c)[0][0], draw(1, N_CONTEXT, generator))[:, 0]
    assert torch.equal(jacobian.ne(0), moves[:, None].expand(-1, N_CONTEXT))


def test_values_far_outside_the_known_range_choose_what_its_edge_does(build, generator, randomise):
    transform = randomise(build(3, generator), generator)
    x, far = draw(2, 3, generator), torch.tensor([[1e9, 0.0], [1e12, 0.0]], dtype=torch.float64)
    a, b = (transform.forward(x[:1], context[None])[0] for context in far)
    assert torch.equal(a, b)


@pytest.mark.parametrize("wrong", [None, 1, 3])
def test_a_missing_context_or_one_of_another_width_is_an_error(build, name, wrong, generator):
    # Of one feature and a context of one column a masked network would otherwise make numbers without the other.
    transform = build(3, generator).double()
    context = None if wrong is None else draw(5, wrong, generator)
    with pytest.raises(ValueError, match=r"must have the shape \(n_samples, 2\)"):
        getattr(transform, name)(draw(5, 3, generator), context)


def test_transforms_without_use_for_a_context_ignore_it(name, generator, randomise):
    parts = [
        LULinear(3),
        Permutation(torch.tensor([2, 0, 1])),
        MaskedAutoregressive(Affine(), MADE(3, 2, [5], "relu", generator)),
    ]
    transform = randomise(Composed(parts), generator)
    x = draw(5, 3, generator)
    for with_context, without in zip(
        getattr(transform, name)(x, draw(5, N_CONTEXT, generator)), getattr(transform, name)(x), strict=True
    ):
        assert torch.equal(with_context, without)


@pytest.mark.parametrize("context_value", [-1.0, 0.5])
def test_a_conditional_flow_integrates_to_one_in_each_context(context_value, generator, randomise):
    flow = Flow(randomise(composed(2, generator), generator, 0.3), StandardNormal(2).double())
    axis = torch.linspace(-12, 12, 241, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        density = flow.log_prob(grid, torch.full((len(grid), N_CONTEXT), context_value, dtype=torch.float64)).exp()
    assert abs(density.sum() * 0.1**2 - 1) < 1e-3


def test_flows_map_there_and_back_in_context(generator, randomise):
    flow = Flow(randomise(composed(4, generator), generator), StandardNormal(4).double())
    x, context = draw(7, 4, generator), draw(7, N_CONTEXT, generator)
    z = flow.to_latent(x, context)
    torch.testing.assert_close(flow.from_latent(z, context), x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(flow.from_base(z, context), x, rtol=1e-10, atol=1e-10)
