"""Training on another device than the CPU."""

import copy
from contextlib import nullcontext

import pytest
import torch

from sklearn_flows import _fusion
from sklearn_flows._workspace import Workspace
from sklearn_flows.distributions import StudentMixture
from sklearn_flows.flows import Rows, glow, iaf, maf, realnvp, spline_flow
from sklearn_flows.training._likelihood import Likelihood, _add_gradient, _RecordedGradient
from sklearn_flows.training._optim import AdamW, FlatParameters, Muon
from sklearn_flows.training._recording import CALLS_BEFORE_RECORDING

SETTINGS = {"n_transforms": 2, "hidden_layer_sizes": (8, 8), "activation": "silu"}
SPLINES = {"layer": "autoregressive", "n_bins": 4, "tail_bound": 5.0}


def mixture(df):
    return StudentMixture(torch.full((3,), 1 / 3), torch.arange(12.0).reshape(3, 4), torch.eye(4).expand(3, 4, 4).clone(), df)


def build(family, base, generator, **others):
    settings = SETTINGS | (SPLINES if family is spline_flow else {}) | others
    return family(torch.eye(4, dtype=torch.float64), base=base, generator=generator, **settings)


@pytest.mark.parametrize("family", [spline_flow, maf, iaf, realnvp, glow])
@pytest.mark.parametrize("df", [None, float("inf"), torch.tensor([3.0, 8.0, float("inf")])], ids=["single", "normal", "heavy"])
def test_a_step_reads_nothing_back(family, df, generator):
    """On the device that computes nothing there is nothing to read: what asks for a number raises an error."""
    flow = build(family, None if df is None else mixture(df), generator).to("meta")
    rows = Rows(torch.empty(100, 4, device="meta"), torch.empty(100, device="meta"))
    loss = Likelihood(flow).add_gradient(rows, torch.empty(32, dtype=torch.int64, device="meta"))
    assert loss.device.type == "meta"
    assert all(parameter.grad is not None for parameter in flow.parameters())


def test_orthogonalised_steps_read_nothing_back(generator):
    flow = build(spline_flow, None, generator).to("meta")
    optimiser = Muon(FlatParameters(flow), 0.1)
    assert len(optimiser.parameters.blocks) > 0
    optimiser._step_of_blocks(0.1, torch.ones((), device="meta"))
    assert optimiser.first_moment.device.type == "meta"


class NoStream:
    """Stands in for streams and recordings of CUDA: what is recorded is run."""

    def wait_stream(self, stream):
        pass


@pytest.fixture
def no_cuda(monkeypatch):
    for name in ("Stream", "CUDAGraph", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, NoStream)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *given, **settings: nullcontext())


def test_a_recording_leaves_no_gradient_of_the_step_before_it(generator, no_cuda):
    flow = build(spline_flow, None, generator)
    parameters = FlatParameters(flow)
    rows, batch = Rows(torch.randn(50, 4, generator=generator), torch.ones(50)), torch.arange(20)
    _add_gradient(flow, rows, batch, Workspace())
    of_one_step = parameters.gradients.clone()
    _RecordedGradient(flow, rows, batch)
    assert of_one_step.any()
    torch.testing.assert_close(parameters.gradients, 2 * of_one_step)  # what the stand-in runs is the recorded step


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: only one can record and replay its kernels")
@pytest.mark.parametrize("kind", [AdamW, Muon])
def test_recorded_steps_are_those_of_the_cpu(kind, generator):
    flow = build(spline_flow, None, generator)
    optimisers = [kind(FlatParameters(copy.deepcopy(flow).to(device).double()), 0.1) for device in ("cpu", "cuda")]
    for i in range(2 * CALLS_BEFORE_RECORDING):
        gradient = torch.randn(len(optimisers[0].parameters.values), generator=generator, dtype=torch.float64)
        for optimiser in optimisers:
            if i == CALLS_BEFORE_RECORDING + 5:
                optimiser.reset()
            optimiser.parameters.gradients.copy_(gradient)
            optimiser.step(0.01 + 0.001 * i)
            assert not optimiser.parameters.gradients.any()
        values, others = (optimiser.parameters.values.cpu() for optimiser in optimisers)
        torch.testing.assert_close(others, values, rtol=1e-5, atol=1e-6)
    assert optimisers[1]._recording is not None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: only one can record and replay its kernels")
@pytest.mark.parametrize("layer", ["autoregressive", "coupling"])
@pytest.mark.parametrize("fuses", [False, True])
def test_recorded_gradients_are_those_of_the_steps(fuses, layer, generator, monkeypatch):
    if fuses:
        pytest.importorskip("triton")
    else:
        monkeypatch.setattr(_fusion, "find_spec", lambda name: None)
    monkeypatch.setattr(_fusion, "_compiled", {})
    flow = build(spline_flow, mixture(5.0), generator, layer=layer).cuda()
    parameters = FlatParameters(flow)
    rows = Rows(torch.randn(500, 4, generator=generator).cuda(), torch.rand(500, generator=generator).cuda())
    likelihood = Likelihood(flow)
    for i in range(CALLS_BEFORE_RECORDING + 10):
        batch = torch.randperm(500, generator=generator)[: 64 + i % 2].cuda()
        results = []
        for add_gradient in (likelihood.add_gradient, lambda *given: _add_gradient(flow, *given, Workspace())):
            loss = add_gradient(rows, batch).item()
            results.append((loss, parameters.gradients.clone()))
            parameters.gradients.zero_()
        assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
        torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-3, atol=1e-5)
        with torch.no_grad():
            parameters.values.add_(0.01 * torch.randn(len(parameters.values), generator=generator).cuda())
    assert [compiled is not None for compiled in _fusion._compiled.values()] == [True, True] * fuses  # ways forward and back
