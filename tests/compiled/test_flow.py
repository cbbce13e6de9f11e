"""Flows on compiled kernels give what torch gives, values and gradients, and give way where they can't."""

import copy
import math
import subprocess
import sys
import threading

import pytest
import torch

from sklearn_flows.compiled import _trial, compiled_flow, compiled_likelihood
from sklearn_flows.compiled._likelihood import CompiledLikelihood
from sklearn_flows.compiled._program import MAX_ROWS
from sklearn_flows.compiled._transform import CompiledTransform
from sklearn_flows.distributions import StudentMixture
from sklearn_flows.flows import Rows, glow, iaf, maf, realnvp, spline_flow
from sklearn_flows.training._likelihood import Likelihood
from sklearn_flows.training._optim import AdamW, FlatParameters, MovingAverage, Muon

FAMILIES = {
    "spline-autoregressive": lambda **kwargs: spline_flow(layer="autoregressive", n_bins=5, tail_bound=3.0, **kwargs),
    "spline-coupling": lambda **kwargs: spline_flow(layer="coupling", n_bins=5, tail_bound=3.0, **kwargs),
    "maf": maf,
    "iaf": iaf,
    "realnvp": realnvp,
    "glow": glow,
}


@pytest.fixture
def build(generator, randomise):
    def build(family, n_features=4, hidden_layer_sizes=(70, 9), activation="silu", std=0.2, n_transforms=2, base=None):
        flow = FAMILIES[family](
            whitening=torch.eye(n_features),
            n_transforms=n_transforms,
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            generator=generator,
            base=base,
        )
        return randomise(flow, generator, std=std)

    return build


def zero_row(flow):
    return torch.zeros(1, flow.base.n_features, dtype=flow.base._like.dtype)


def log_prob_at_zero(flow):
    return flow.log_prob(zero_row(flow))


def compile_or_fail(flow, n_threads=1):
    compiled = compiled_flow(flow, ["log_prob"], [zero_row(flow)], n_threads)
    assert isinstance(compiled.transform, CompiledTransform)
    return compiled


def likelihood_or_fail(flow, parameters, n_threads=1):
    row = Rows(parameters.values.new_zeros(1, flow.base.n_features), parameters.values.new_ones(1))
    likelihood = compiled_likelihood(flow, parameters, row, n_threads)
    assert isinstance(likelihood, CompiledLikelihood)
    return likelihood


def answers(flow, x):
    """All that a flow gives for rows."""
    with torch.no_grad():
        latent = flow.to_latent(x)
        return [flow.log_prob(x), latent, flow.from_latent(latent)]


def likelihood_and_gradient(likelihood, x, parameters):
    """Log-density of all rows, and loss and gradient of a batch of them, weighted and in some order."""
    rows = Rows(x, torch.linspace(0.5, 2, len(x), dtype=x.dtype))
    batch = torch.arange(len(x)).flip(0)[: max(1, 2 * len(x) // 3)]
    parameters.gradients.zero_()
    loss = likelihood.add_gradient(rows, batch)
    return [likelihood.log_prob(rows), torch.as_tensor(loss, dtype=x.dtype), parameters.gradients.clone()]


def assert_the_same(flow, x, **tolerance):
    for a, b in zip(answers(compile_or_fail(flow), x), answers(flow, x), strict=True):
        torch.testing.assert_close(a, b, **tolerance)
    assert_the_same_likelihood(flow, x, **tolerance)


def assert_the_same_likelihood(flow, x, **tolerance):
    parameters = FlatParameters(flow)
    found = likelihood_and_gradient(likelihood_or_fail(flow, parameters), x, parameters)
    expected = likelihood_and_gradient(Likelihood(flow), x, parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n_rows", [1, 64, 2 * MAX_ROWS + 3])
def test_they_give_the_same(family, n_rows, build, generator):
    x = 2 * torch.randn(n_rows, 4, generator=generator, dtype=torch.float64)
    x[0] = 1e4  # far outside every box
    assert_the_same(build(family), x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("optimiser_class", [AdamW, Muon])
@pytest.mark.parametrize("family", ["spline-autoregressive", "realnvp"])
def test_many_steps_in_one_call_are_the_same_steps(family, optimiser_class, build, generator):
    flows = [build(family)]
    flows.append(copy.deepcopy(flows[0]))
    rows = Rows(torch.randn(100, 4, generator=generator, dtype=torch.float64), torch.linspace(0.5, 2, 100, dtype=torch.float64))
    batches, rates = torch.randperm(100, generator=generator).tensor_split(7), [1e-2 / (i + 1) for i in range(7)]
    results = []
    for flow, at_once in zip(flows, [True, False], strict=True):
        parameters = FlatParameters(flow)
        likelihood = likelihood_or_fail(flow, parameters)
        optimiser, average = optimiser_class(parameters, 0.1), MovingAverage(parameters.values, 3)
        if at_once:
            loss = sum(likelihood.take_steps(rows, batches[i:j], rates[i:j], optimiser, average) for i, j in ((0, 5), (5, 7)))
        else:
            loss = 0.0
            for batch, rate in zip(batches, rates, strict=True):
                loss += likelihood.add_gradient(rows, batch) * len(batch)
                optimiser.step(rate)
                average.add(parameters.values)
        results.append([torch.as_tensor(loss), parameters.values, parameters.gradients, average.values, optimiser.n_steps])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)


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


@pytest.mark.parametrize(("n_components", "df"), [(1, math.inf), (1, 3.0), (2, math.inf), (2, torch.tensor([2.0, math.inf]))])
@pytest.mark.parametrize("n_features", [1, 4])
def test_mixtures_as_bases_give_the_same(n_features, n_components, df, build, generator):
    def randn(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    triangular = (0.3 * randn(n_components, n_features, n_features)).tril(-1)
    triangular = triangular + (1 + randn(n_components, n_features).square()).diag_embed()
    base = StudentMixture(randn(n_components).softmax(dim=0), 2 * randn(n_components, n_features), triangular, df).double()
    x = 2 * randn(300, n_features)
    x[0] = 100.0  # far from all components
    assert_the_same_likelihood(build("realnvp", n_features, base=base), x, rtol=1e-10, atol=1e-10)


def test_single_precision_gives_the_same_to_rounding(build, generator):
    flow = build("spline-autoregressive").float()
    assert_the_same(flow, torch.randn(100, 4, generator=generator), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_number_of_threads_changes_no_bit(family, build, generator):
    flow = build(family)
    x = torch.randn(7 * MAX_ROWS - 5, 4, generator=generator, dtype=torch.float64)
    rows = Rows(x, torch.linspace(0.5, 2, len(x), dtype=torch.float64))
    batches = torch.randperm(len(x), generator=generator).tensor_split(2)

    def everything(n_threads):
        trained = copy.deepcopy(flow)
        parameters = FlatParameters(trained)
        likelihood = likelihood_or_fail(trained, parameters, n_threads)
        loss = likelihood.take_steps(rows, batches, [1e-3, 1e-3], Muon(parameters, 0.1), MovingAverage(parameters.values, 3))
        trained_to = [torch.as_tensor(loss), parameters.values, likelihood.log_prob(rows)]
        return answers(compile_or_fail(flow, n_threads), x) + trained_to

    assert all(torch.equal(a, b) for a, b in zip(everything(1), everything(4), strict=True))


def test_gradients_are_added_to_what_is_there(build, generator):
    flow = build("maf")
    parameters = FlatParameters(flow)
    likelihood = likelihood_or_fail(flow, parameters)
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    for _ in range(2):
        likelihood.add_gradient(Rows(x, x.new_ones(50)), torch.arange(50))
    twice = parameters.gradients.clone()
    parameters.gradients.zero_()
    likelihood.add_gradient(Rows(x, x.new_ones(50)), torch.arange(50))
    torch.testing.assert_close(twice, 2 * parameters.gradients, rtol=1e-12, atol=1e-12)


def test_a_likelihood_follows_its_parameters(build, generator):
    flow = build("spline-coupling")
    parameters = FlatParameters(flow)
    likelihood = likelihood_or_fail(flow, parameters)
    x = torch.randn(50, 4, generator=generator, dtype=torch.float64)
    parameters.values.mul_(0.5)
    torch.testing.assert_close(likelihood.log_prob(Rows(x, x.new_ones(50))), flow.log_prob(x).detach(), rtol=1e-10, atol=1e-10)


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


def test_a_loss_that_is_no_number_is_seen(build):
    flow = build("spline-coupling")
    likelihood = likelihood_or_fail(flow, FlatParameters(flow))
    x = torch.zeros(3, 4, dtype=torch.float64)
    x[1, 2] = torch.nan
    assert math.isnan(likelihood.add_gradient(Rows(x, x.new_ones(3)), torch.arange(3)))


def test_the_parameters_are_those_of_now(build):
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
    assert compiled_flow(flow, ["log_prob"], [zero_row(flow)], 1) is flow
    row = Rows(torch.zeros(1, 4, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    assert compiled_likelihood(flow, FlatParameters(flow), row, 1) is None


def test_kernels_that_give_something_else_than_torch_are_not_used(build, monkeypatch):
    flow = build("maf")
    monkeypatch.setattr(_trial, "_trusted", set())
    forward = CompiledTransform.forward
    monkeypatch.setattr(CompiledTransform, "forward", lambda self, x, context=None: tuple(y + 1 for y in forward(self, x)))
    with pytest.warns(RuntimeWarning, match="instead of"):
        assert compiled_flow(flow, ["log_prob"], [zero_row(flow)], 1) is flow


@pytest.fixture
def narrow(build):
    """A flow whose base is so narrow that gradients in single precision are off by percents, and a row near its centre."""
    flow = build("maf", base=StudentMixture(torch.ones(1), torch.ones(1, 4), 1e6 * torch.eye(4)[None], 3.0), std=0.0)
    row = 1 + 1e-6 * torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    return flow.float(), Rows(row, torch.ones(1))


def test_rounding_is_not_taken_for_a_fault(narrow, monkeypatch):
    def gradient(flow, row):
        parameters = FlatParameters(flow)
        Likelihood(flow).add_gradient(row, torch.arange(1))
        return parameters.gradients.double()

    flow, row = narrow
    exact = gradient(copy.deepcopy(flow).double(), Rows(row.values.double(), row.weight.double()))
    assert (gradient(flow, row) - exact).norm() > 0.003 * exact.norm()
    monkeypatch.setattr(_trial, "_trusted", set())
    assert isinstance(compiled_likelihood(flow, FlatParameters(flow), row, 1), CompiledLikelihood)
    assert not _trial._trusted  # such a trial says little


def test_kernels_whose_gradients_are_wrong_are_not_used(build, monkeypatch):
    flow = build("maf")
    monkeypatch.setattr(_trial, "_trusted", set())
    add_gradient = CompiledLikelihood.add_gradient

    def add_nonsense(self, rows, batch):
        add_gradient(self, rows, batch)
        self._gradients *= 1.1

    monkeypatch.setattr(CompiledLikelihood, "add_gradient", add_nonsense)
    row = Rows(zero_row(flow), torch.ones(1, dtype=torch.float64))
    with pytest.warns(RuntimeWarning, match="instead of"):
        assert compiled_likelihood(flow, FlatParameters(flow), row, 1) is None


def place_of_a_knot(flow):
    """Where the slope of a flow's log-density jumps, of a single column."""

    def slope(x):
        x = x[:, None].requires_grad_()
        return torch.autograd.grad(flow.log_prob(x).sum(), x)[0][:, 0]

    x = torch.linspace(-2.5, 2.5, 2000, dtype=torch.float64)
    for _ in range(6):
        jump = slope(x).diff().abs().argmax()
        x = torch.linspace(x[jump], x[jump + 1], 20, dtype=torch.float64)
    return float(x.mean())


def test_the_other_side_of_a_knot_is_not_taken_for_a_fault(build, monkeypatch):
    flow = build("spline-autoregressive", n_features=1, n_transforms=1)
    knot = torch.full((1, 1), place_of_a_knot(copy.deepcopy(flow).double()))
    flow = flow.float()
    parameters, add_gradient = FlatParameters(flow), CompiledLikelihood.add_gradient
    sides = [Rows(knot + shift, torch.ones(1)) for shift in (-1e-5, 1e-5)]
    gradients = []
    for row in sides:
        parameters.gradients.zero_()
        Likelihood(flow).add_gradient(row, torch.arange(1))
        gradients.append(parameters.gradients.clone())
    assert (gradients[0] - gradients[1]).norm() > 0.01 * gradients[0].norm()
    for row in sides:
        monkeypatch.setattr(_trial, "_trusted", set())
        monkeypatch.setattr(
            CompiledLikelihood, "add_gradient", lambda self, rows, batch, row=row: add_gradient(self, row, batch)
        )
        assert isinstance(compiled_likelihood(flow, parameters, Rows(knot, torch.ones(1)), 1), CompiledLikelihood)
        assert not _trial._trusted


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
from sklearn_flows.flows import Rows, iaf, maf
if how == "broken":
    import sklearn_flows.compiled._transform as broken
    def fail(*arguments): raise OSError("no place for the cache")
    broken.to_panels = fail
flow = maf(torch.eye(2), n_transforms=1, hidden_layer_sizes=(3,), activation="silu", generator=torch.Generator())
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert compiled_flow(flow, ["log_prob"], [torch.zeros(1, 2)], 1) is flow
messages = [str(w.message) for w in caught if "ompiled kernels" in str(w.message)]
assert len(messages) == (how == "broken"), messages
assert how != "broken" or "no place for the cache" in messages[0]
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
