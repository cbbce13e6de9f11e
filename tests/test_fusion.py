import threading

import pytest
import torch

from sklearn_flows import _fusion
from sklearn_flows._fusion import call, fused_kernels, is_fusing
from sklearn_flows.transforms import RationalQuadraticSpline


class Compiler:
    """Stands in for torch's compiler."""

    def __init__(self, error=None):
        self.error = error
        self.n_compiled = self.n_calls = 0

    def __call__(self, function, **options):
        self.n_compiled += 1

        def compiled(*tensors):
            self.n_calls += 1
            if self.error is not None:
                raise self.error
            return function(*tensors)

        return compiled


@pytest.fixture
def compile_with(monkeypatch):
    def compile_with(compiler, has_triton=True):
        monkeypatch.setattr(torch, "compile", compiler)
        monkeypatch.setattr(_fusion, "find_spec", lambda name: object() if has_triton else None)
        monkeypatch.setattr(_fusion, "_compiled", {})
        return compiler

    return compile_with


def scaled(x, factor):
    return factor * x


def test_nothing_is_compiled_unless_wanted(compile_with):
    compiler = compile_with(Compiler())
    assert not is_fusing()
    with fused_kernels(False):
        assert not is_fusing()
    assert call(scaled, torch.ones(2), fused=False, factor=3.0).tolist() == [3, 3]
    assert compiler.n_compiled == 0


def test_nothing_is_fused_without_triton(compile_with):
    compile_with(Compiler(), has_triton=False)
    with fused_kernels():
        assert not is_fusing()


def test_each_setting_is_compiled_once(compile_with):
    compiler = compile_with(Compiler())
    for factor in (2.0, 3.0, 2.0, 3.0):
        assert call(scaled, torch.ones(2), fused=True, factor=factor).tolist() == [factor, factor]
    assert (compiler.n_compiled, compiler.n_calls) == (2, 4)


@pytest.mark.parametrize("error", [RuntimeError("no C compiler"), FileNotFoundError("gcc")])
def test_what_cannot_be_compiled_runs_as_it_is_and_is_not_tried_again(error, compile_with):
    compiler = compile_with(Compiler(error))
    for _ in range(3):
        assert call(scaled, torch.ones(2), fused=True, factor=2.0).tolist() == [2, 2]
    assert (compiler.n_compiled, compiler.n_calls) == (1, 1)


@pytest.mark.parametrize("inverse", [False, True])
def test_the_way_back_through_a_spline_is_fused_in_whatever_thread_it_runs(inverse, compile_with, generator):
    """CUDA's ways back run in threads that know nothing of the context of the way forward."""
    compiler = compile_with(Compiler())
    spline = RationalQuadraticSpline(n_bins=4)
    x, raw = torch.randn(9, 2, generator=generator), torch.randn(9, 2, spline.n_parameters, generator=generator)
    results = []
    for wanted in (False, True):
        leaves = [x.clone().requires_grad_(), raw.clone().requires_grad_()]
        with fused_kernels(wanted):
            values = (spline.inverse if inverse else spline.forward)(*leaves)
        way_back = threading.Thread(target=lambda values=values: sum(v.sum() for v in values).backward())
        way_back.start()
        way_back.join()
        results.append([*values, *[leaf.grad for leaf in leaves]])
    assert compiler.n_calls == (3 if inverse else 2)
    for plain, fused in zip(*results, strict=True):
        assert torch.equal(plain, fused)
