"""Compiled kernels give what torch gives, values and gradients, and give way where they can't be had."""

import subprocess
import sys

import pytest
import torch

from sklearn_flows.flows import maf, realnvp, spline_flow
from sklearn_flows.transforms import Affine, RationalQuadraticSpline, compiled_kernels
from sklearn_flows.transforms._compiled import _load, compiled_layer

pytestmark = pytest.mark.skipif(_load() is None, reason="needs a compiler")

FAMILIES = {
    "spline-autoregressive": lambda **kwargs: spline_flow(layer="autoregressive", n_bins=5, tail_bound=3.0, **kwargs),
    "spline-coupling": lambda **kwargs: spline_flow(layer="coupling", n_bins=5, tail_bound=3.0, **kwargs),
    "maf": maf,
    "realnvp": realnvp,
}


@pytest.fixture
def build(generator, randomise):
    def build(family, n_features=4, hidden_layer_sizes=(70, 9), activation="silu", std=0.2):
        flow = FAMILIES[family](
            whitening=torch.eye(n_features),
            n_transforms=2,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            generator=generator,
        )
        return randomise(flow, generator, std=std)

    return build


def answers(flow, x, serve):
    """All that a flow gives for rows, gradients included."""
    x = x.clone().requires_grad_()
    for parameter in flow.parameters():
        parameter.grad = None
    with compiled_kernels(serve):
        log_prob = flow.log_prob(x)
        (log_prob * torch.linspace(-1, 2, len(x), dtype=x.dtype)).sum().backward()
        with torch.no_grad():
            latent = flow.to_latent(x)
            back = flow.from_latent(latent)
    return [log_prob.detach(), x.grad, latent, back, *(parameter.grad.clone() for parameter in flow.parameters())]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_rows", [1, 64, 150])
def test_flows_give_the_same(family, n_rows, build, generator):
    flow = build(family)
    x = 2 * torch.randn(n_rows, 4, generator=generator, dtype=torch.float64)
    for compiled, expected in zip(answers(flow, x, True), answers(flow, x, False), strict=True):
        torch.testing.assert_close(compiled, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu", "gelu"])
def test_activations_give_the_same(activation, build, generator):
    flow = build("maf", activation=activation)
    x = 2 * torch.randn(100, 4, generator=generator, dtype=torch.float64)
    for compiled, expected in zip(answers(flow, x, True), answers(flow, x, False), strict=True):
        torch.testing.assert_close(compiled, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_wide_layers_are_multiplied_in_blocks_and_give_the_same(family, build, generator):
    flow = build(family, n_features=9, hidden_layer_sizes=(200, 130), std=0.03)
    x = torch.randn(3000, 9, generator=generator, dtype=torch.float64)
    for compiled, expected in zip(answers(flow, x, True), answers(flow, x, False), strict=True):
        torch.testing.assert_close(compiled, expected, rtol=1e-9, atol=1e-9)


def test_single_precision_gives_the_same_to_rounding(build, generator):
    flow = build("spline-autoregressive").float()
    x = torch.randn(100, 4, generator=generator)
    with torch.no_grad(), compiled_kernels():
        log_prob = flow.log_prob(x)
    with torch.no_grad():
        torch.testing.assert_close(log_prob, flow.double().log_prob(x.double()).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("n_bins", [1, 2, 8])
def test_splines_give_the_same_with_gradients(n_bins, inverse, generator):
    spline = RationalQuadraticSpline(n_bins, 3.0)
    x = 4 * torch.rand(70, 3, generator=generator, dtype=torch.float64) - 2
    x[:2] = torch.tensor([[-1e6], [1e6]])
    raw = torch.randn(70, 3, 3 * n_bins - 1, generator=generator, dtype=torch.float64)

    def run(serve):
        inputs = x.clone().requires_grad_(), raw.clone().requires_grad_()
        with compiled_kernels(serve):
            y, log_derivative = (spline.inverse if inverse else spline.forward)(*inputs)
            (y.sin() + log_derivative * y.cos()).sum().backward()
        return y.detach(), log_derivative.detach(), inputs[0].grad, inputs[1].grad

    for compiled, expected in zip(run(True), run(False), strict=True):
        torch.testing.assert_close(compiled, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("serve", [False, True])
@pytest.mark.parametrize("inverse", [False, True])
def test_closed_form_gradients_of_splines(inverse, serve, generator):
    spline = RationalQuadraticSpline(4, 3.0)
    x = (5 * torch.rand(6, 2, generator=generator, dtype=torch.float64) - 2.5).requires_grad_()
    raw = torch.randn(6, 2, 11, generator=generator, dtype=torch.float64, requires_grad=True)
    with compiled_kernels(serve):
        assert torch.autograd.gradcheck(spline.inverse if inverse else spline.forward, (x, raw))


def test_they_serve_in_their_block_and_their_thread_alone(build):
    layer = build("maf").transform.transforms[1]
    x = torch.zeros(3, 4, dtype=torch.float64)

    def serving():
        return compiled_layer(Affine(), layer.conditioner, x, differentiable=True) is not None

    assert not serving()
    with compiled_kernels():
        assert serving()
        with compiled_kernels(False):
            assert not serving()
        assert serving()
    assert not serving()


@pytest.mark.parametrize("how", ["absent", "broken", "switched off"])
def test_torch_serves_where_there_is_no_compiler(how):
    code = f"""
import os, sys, warnings
how = {how!r}
if how == "absent":
    sys.modules["numba"] = None
if how == "switched off":
    os.environ["NUMBA_DISABLE_JIT"] = "1"
import torch
from sklearn_flows.transforms import RationalQuadraticSpline, compiled_kernels
if how == "broken":
    import sklearn_flows.transforms._compiled_layer as broken
    def fail(): raise OSError("no place for the cache")
    broken.check_that_kernels_work = fail
x, raw = torch.linspace(-1, 1, 8)[:, None], torch.ones(8, 1, 8)
spline = RationalQuadraticSpline(3, 2.0)
with warnings.catch_warnings(record=True) as caught, compiled_kernels():
    warnings.simplefilter("always")
    for _ in range(2):
        assert torch.equal(spline.forward(x, raw)[0], spline.forward(x, raw)[0])
    found = spline.forward(x, raw)[0]
assert torch.equal(found, spline.forward(x, raw)[0])
messages = [str(w.message) for w in caught if "ompiled kernels" in str(w.message)]
assert len(messages) == (how == "broken"), messages
assert how != "broken" or "no place for the cache" in messages[0]
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
