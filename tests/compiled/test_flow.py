"""Flows on compiled kernels give what torch gives, values and gradients, and give way where they can't."""

import subprocess
import sys
import threading

import pytest
import torch

from sklearn_flows.compiled import compiled_flow
from sklearn_flows.compiled._transform import MAX_ROWS, CompiledTransform
from sklearn_flows.flows import maf, realnvp, spline_flow
from sklearn_flows.training._optim import FlatParameters

FAMILIES = {
    "spline-autoregressive": lambda **kwargs: spline_flow(layer="autoregressive", n_bins=5, tail_bound=3.0, **kwargs),
    "spline-coupling": lambda **kwargs: spline_flow(layer="coupling", n_bins=5, tail_bound=3.0, **kwargs),
    "maf": maf,
    "realnvp": realnvp,
}


@pytest.fixture
def build(generator, randomise):
    def build(family, n_features=4, hidden_layer_sizes=(70, 9), activation="silu", std=0.2, n_transforms=2):
        flow = FAMILIES[family](
            whitening=torch.eye(n_features),
            n_transforms=n_transforms,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            generator=generator,
        )
        return randomise(flow, generator, std=std)

    return build


def log_prob_at_zero(flow):
    return flow.log_prob(torch.zeros(1, flow.base.n_features, dtype=flow.base._like.dtype))


def compile_or_fail(flow, parameters=None, n_threads=1):
    compiled = compiled_flow(flow, log_prob_at_zero, n_threads, parameters)
    assert isinstance(compiled.transform, CompiledTransform)
    return compiled


def answers(flow, x, parameters):
    """All that a flow gives for rows, gradients included."""
    x = x.clone().requires_grad_()
    parameters.gradients.zero_()
    log_prob = flow.log_prob(x)
    (log_prob * torch.linspace(-1, 2, len(x), dtype=x.dtype)).sum().backward()
    with torch.no_grad():
        latent = flow.to_latent(x)
        back = flow.from_latent(latent)
    return [log_prob.detach(), x.grad, latent, back, parameters.gradients.clone()]


def assert_the_same(flow, x, **tolerance):
    parameters = FlatParameters(flow)
    found, expected = answers(compile_or_fail(flow, parameters), x, parameters), answers(flow, x, parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_rows", [1, 64, 2 * MAX_ROWS + 3])
def test_they_give_the_same(family, n_rows, build, generator):
    x = 2 * torch.randn(n_rows, 4, generator=generator, dtype=torch.float64)
    x[0] = 1e4  # far outside every box
    assert_the_same(build(family), x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("hidden_layer_sizes", [(), (5,), (200, 130), (3, 4, 5)])
@pytest.mark.parametrize("n_features", [1, 2, 9])
def test_all_shapes_give_the_same(family, n_features, hidden_layer_sizes, build, generator):
    flow = build(family, n_features, hidden_layer_sizes, std=0.05)
    x = torch.randn(40, n_features, generator=generator, dtype=torch.float64)
    assert_the_same(flow, x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("activation", ["relu", "tanh", "elu"])
def test_activations_give_the_same(activation, build, generator):
    x = 2 * torch.randn(100, 4, generator=generator, dtype=torch.float64)
    assert_the_same(build("maf", activation=activation), x, rtol=1e-10, atol=1e-10)


def test_single_precision_gives_the_same_to_rounding(build, generator):
    flow = build("spline-autoregressive").float()
    assert_the_same(flow, torch.randn(100, 4, generator=generator), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_finite_differences(family, build, generator):
    flow = build(family, n_features=3, hidden_layer_sizes=(4,), activation="tanh")
    parameters = FlatParameters(flow)
    transform = compile_or_fail(flow, parameters).transform
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    exists = torch.ones_like(parameters.values)
    for layer in flow.modules():
        if hasattr(layer, "mask"):
            start = parameters.offsets[id(layer.weight)]
            exists[start : start + layer.mask.numel()] = layer.mask.reshape(-1).double()

    def function(x, values):
        transform.values, transform.gradients = values * exists, None  # weights that don't exist are zero
        return transform.forward(x)

    assert torch.autograd.gradcheck(function, (x, parameters.values.clone().requires_grad_()))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_number_of_threads_changes_no_bit(family, build, generator):
    flow = build(family)
    x = torch.randn(7 * MAX_ROWS - 5, 4, generator=generator, dtype=torch.float64)
    parameters = FlatParameters(flow)
    one, many = (answers(compile_or_fail(flow, parameters, n), x, parameters) for n in (1, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rows_answer_does_not_depend_on_the_others(family, build, generator):
    flow = compile_or_fail(build(family))
    x = torch.randn(2 * MAX_ROWS, 4, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        together = flow.log_prob(x)
        back = flow.from_latent(x)
        for rows in (slice(0, 1), slice(37, 50), slice(100, MAX_ROWS + 99)):
            assert torch.equal(flow.log_prob(x[rows]), together[rows])
            assert torch.equal(flow.from_latent(x[rows]), back[rows])


def test_two_ways_forward_before_one_back_are_kept_apart(build, generator):
    flow = build("spline-autoregressive")
    parameters = FlatParameters(flow)
    compiled = compile_or_fail(flow, parameters)
    x, y = torch.randn(2, 30, 4, generator=generator, dtype=torch.float64)

    def gradient(flow):
        parameters.gradients.zero_()
        first, second = flow.log_prob(x).mean(), flow.log_prob(y).square().mean()
        flow.log_prob(x + y)  # never taken back
        (first * second).backward()
        return parameters.gradients.clone()

    torch.testing.assert_close(gradient(compiled), gradient(flow), rtol=1e-10, atol=1e-10)


def test_threads_share_a_flow(build, generator):
    flow = compile_or_fail(build("maf"))
    x = torch.randn(8, 300, 4, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = [flow.log_prob(rows) for rows in x]
        found = [None] * len(x)

        def score(i):
            with torch.no_grad():
                for _ in range(20):
                    found[i] = flow.log_prob(x[i])

        threads = [threading.Thread(target=score, args=(i,)) for i in range(len(x))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_nan_is_not_made_a_number(build):
    flow = compile_or_fail(build("spline-coupling"))
    x = torch.zeros(3, 4, dtype=torch.float64)
    x[1, 2] = torch.nan
    with torch.no_grad():
        assert flow.log_prob(x).isnan().tolist() == [False, True, False]
        assert flow.from_latent(x).isnan().any(dim=1).tolist() == [False, True, False]


def test_without_a_vector_the_parameters_are_those_of_now(build):
    flow = build("maf")
    compiled = compile_or_fail(flow)
    before = log_prob_at_zero(compiled)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.mul_(2)
    assert torch.equal(log_prob_at_zero(compiled), before)
    assert not torch.equal(log_prob_at_zero(flow), before)


def test_torch_serves_where_there_are_no_kernels(build):
    flow = build("maf", activation="gelu")
    assert compiled_flow(flow, log_prob_at_zero, 1) is flow


def test_kernels_that_give_something_else_than_torch_are_not_used(build, monkeypatch):
    flow = build("maf")
    forward = CompiledTransform.forward
    monkeypatch.setattr(CompiledTransform, "forward", lambda self, x, context=None: tuple(y + 1 for y in forward(self, x)))
    with pytest.warns(RuntimeWarning, match="instead of"):
        assert compiled_flow(flow, log_prob_at_zero, 1) is flow


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
from sklearn_flows.compiled import compiled_flow
from sklearn_flows.flows import maf
if how == "broken":
    import sklearn_flows.compiled._transform as broken
    def fail(*arguments): raise OSError("no place for the cache")
    broken.to_panels = fail
flow = maf(torch.eye(2), n_transforms=1, hidden_layer_sizes=(3,), activation="silu", generator=torch.Generator())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert compiled_flow(flow, lambda flow: flow.log_prob(torch.zeros(1, 2)), 1) is flow
messages = [str(w.message) for w in caught if "ompiled kernels" in str(w.message)]
assert len(messages) == (how == "broken"), messages
assert how != "broken" or "no place for the cache" in messages[0]
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
