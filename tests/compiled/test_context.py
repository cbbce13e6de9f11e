"""Conditional flows on compiled kernels give what torch gives."""

import copy

import pytest
import torch

from sklearn_flows.compiled import compiled_flow, compiled_likelihood
from sklearn_flows.compiled._likelihood import CompiledLikelihood
from sklearn_flows.compiled._program import MAX_ROWS
from sklearn_flows.compiled._transform import CompiledTransform
from sklearn_flows.distributions import StandardNormal
from sklearn_flows.flows import Flow, Rows, conditional_spline_flow
from sklearn_flows.nets import MADE, MLP
from sklearn_flows.training._likelihood import Likelihood
from sklearn_flows.training._optim import AdamW, FlatParameters, MovingAverage
from sklearn_flows.transforms import Affine, Composed, Coupling, Inverse, MaskedAutoregressive

N_CONTEXT = 3


def affine_layers(n_features, generator):
    """An affine coupling and an affine autoregressive layer that see the context, also in inverse, and one that doesn't."""
    stays = torch.arange(n_features) % 2 == 1
    n_staying = int(stays.sum())
    mlp = MLP(n_staying, 2 * (n_features - n_staying), [9], "relu", generator, N_CONTEXT)
    made, blind = (MADE(n_features, 2, [8, 11], "tanh", generator, n_context) for n_context in (N_CONTEXT, 0))
    turned = MADE(n_features, 2, [7, 10], "silu", generator, N_CONTEXT)
    layers = [Coupling(Affine(), mlp, stays), MaskedAutoregressive(Affine(), made), MaskedAutoregressive(Affine(), blind)]
    layers.append(Inverse(MaskedAutoregressive(Affine(), turned)))
    return Flow(Composed(layers), StandardNormal(n_features))


def spline_layers(n_features, generator):
    return conditional_spline_flow(
        torch.eye(n_features),
        torch.ones(n_features, N_CONTEXT),
        torch.zeros(n_features),
        n_transforms=2,
        hidden_layer_sizes=(20, 7),
        activation="silu",
        n_bins=5,
        tail_bound=3.0,
        generator=generator,
    )


@pytest.fixture(params=[affine_layers, spline_layers], ids=lambda build: build.__name__)
def build(request, generator, randomise):
    return lambda n_features: randomise(request.param(n_features, generator), generator, std=0.2)


def draw(n_rows, n_features, generator):
    return [torch.randn(n_rows, n, generator=generator, dtype=torch.float64) for n in (n_features, N_CONTEXT)]


def compile_or_fail(flow, n_threads=1):
    row = [torch.zeros(1, n, dtype=torch.float64) for n in (flow.base.n_features, N_CONTEXT)]
    compiled = compiled_flow(flow, ["log_prob"], row, n_threads)
    assert isinstance(compiled.transform, CompiledTransform)
    return compiled


def likelihood_or_fail(flow, parameters, rows, n_threads=1):
    likelihood = compiled_likelihood(flow, parameters, rows, n_threads)
    assert isinstance(likelihood, CompiledLikelihood)
    return likelihood


def answers(flow, likelihood, parameters, rows):
    parameters.gradients.zero_()
    loss = likelihood.add_gradient(rows, torch.arange(len(rows.values)).flip(0))
    with torch.no_grad():
        latent = flow.to_latent(rows.values, rows.context)
        back = flow.from_latent(latent, rows.context)
        log_prob = flow.log_prob(rows.values, rows.context)
    loss = torch.as_tensor(loss, dtype=torch.float64)
    return [log_prob, likelihood.log_prob(rows), latent, back, loss, parameters.gradients.clone()]


@pytest.mark.parametrize("n_features", [1, 2, 4])
@pytest.mark.parametrize("n_rows", [1, 33, 2 * MAX_ROWS + 5])
def test_kernels_give_what_torch_gives(build, n_features, n_rows, generator):
    flow = build(n_features)
    x, context = draw(n_rows, n_features, generator)
    context *= 3  # some values are beyond what conditioners see
    rows = Rows(x, torch.linspace(0.5, 2, n_rows, dtype=torch.float64), context)
    parameters = FlatParameters(flow)
    expected = answers(flow, Likelihood(flow), parameters, rows)
    found = answers(compile_or_fail(flow), likelihood_or_fail(flow, parameters, rows), parameters, rows)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_the_number_of_threads_changes_no_bit(build, generator):
    flow = build(3)
    x, context = draw(5 * MAX_ROWS - 3, 3, generator)
    rows = Rows(x, torch.ones(len(x), dtype=torch.float64), context)

    def everything(n_threads):
        trained = copy.deepcopy(flow)
        parameters = FlatParameters(trained)
        likelihood = likelihood_or_fail(trained, parameters, rows, n_threads)
        found = answers(compile_or_fail(flow, n_threads), likelihood, parameters, rows)
        likelihood.take_steps(rows, [torch.arange(len(x))], [1e-3], AdamW(parameters, 0.0), MovingAverage(parameters.values, 3))
        return [*found, parameters.values]

    assert all(torch.equal(a, b) for a, b in zip(everything(1), everything(4), strict=True))


@pytest.mark.parametrize("wrong", [None, (5, 2), (4, N_CONTEXT)])
def test_a_missing_context_or_one_of_another_shape_is_an_error(build, wrong, generator):
    compiled = compile_or_fail(build(2))
    x, _ = draw(5, 2, generator)
    context = None if wrong is None else torch.zeros(wrong, dtype=torch.float64)
    for ask in (compiled.log_prob, compiled.from_latent):
        with torch.no_grad(), pytest.raises(ValueError, match=r"must have the shape \(5, 3\)"):
            ask(x, context)


def test_gradients_of_a_context_are_refused_where_there_are_none(build, generator):
    compiled = compile_or_fail(build(2))
    x, context = draw(5, 2, generator)
    with pytest.raises(NotImplementedError, match="context"):
        compiled.log_prob(x, context.requires_grad_())
