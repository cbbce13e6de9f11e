"""Flows on compiled kernels, where these can serve."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ..flows import Flow, Rows

if TYPE_CHECKING:
    from ._likelihood import CompiledLikelihood

T = TypeVar("T")
# What kernels have computed as torch does, in this process. Whether they do depends on the machine and on the kind of the flow,
# not on its weights, and a trial in torch takes as long as some hundred rows do.
_trusted: set[tuple[object, ...]] = set()


def compiled_flow(flow: Flow, methods: Sequence[str], point: Sequence[Tensor], n_threads: int) -> Flow:
    """Give the same flow on kernels compiled for the CPU, or itself where they can't serve.

    They give what torch gives, to rounding, in a fraction of the time, but no gradients; and they must be loaded, which takes a
    good part of a second, and the first time on a machine compiled, which takes many. Parameters are those of now.

    Parameters
    ----------
    flow : Flow
        The flow. Kernels serve on the CPU, for the activations and transformers that there are kernels for.
    methods : sequence of str
        What will be asked of the result. The first time in a process that this is asked of a flow of this kind, both answer it
        for a point: where the kernels fail or give something else than torch, a warning says so and torch serves.
    point : sequence of Tensor
        Arguments of the methods: a row, and its context where there is one.
    n_threads : int
        How many threads may share the rows. Answers don't depend on it.

    Returns
    -------
    Flow
        With the same base distribution.
    """
    values, offsets = _copied(flow)

    def compile_it() -> Flow:
        from ._transform import CompiledTransform

        return Flow(CompiledTransform(flow.transform, values, offsets, flow.base.n_features, n_threads), flow.base)

    def answer(flow: Flow) -> Tensor:
        return torch.cat([getattr(flow, method)(*point).flatten() for method in methods])

    result = _tried(values, flow, tuple(methods), compile_it, answer, lambda: answer(flow))
    return flow if result is None else result


def compiled_likelihood(flow: Flow, parameters: Any, rows: Rows, n_threads: int) -> CompiledLikelihood | None:
    """Give the likelihood of a flow and its gradient on kernels compiled for the CPU, or None where they can't serve.

    Parameters
    ----------
    flow : Flow
        The flow.
    parameters : FlatParameters
        All its parameters as one vector. They are read from there in every call, and get their gradients there.
    rows : Rows
        The one nearest to zero is what it is tried with, as in ``compiled_flow``: far ones have gradients full of rounding.
    n_threads : int
        How many threads may share the rows. Answers don't depend on it.

    Returns
    -------
    CompiledLikelihood or None
        The likelihood.
    """

    def compile_it() -> CompiledLikelihood:
        from ._likelihood import CompiledLikelihood

        return CompiledLikelihood(flow, parameters.values, parameters.gradients, parameters.offsets, n_threads)

    def gradient(compute: Callable[[], object]) -> Tensor:
        parameters.gradients.zero_()
        compute()
        found = parameters.gradients.clone()
        parameters.gradients.zero_()
        scaled: Tensor = found / (1 + found.norm())
        return scaled

    def nearest() -> Tensor:
        return rows.values.abs().amax(dim=1).argmin(dim=0, keepdim=True)

    def expected() -> None:
        row = nearest()
        torch.autograd.backward(-(rows.weight[row] * flow.log_prob(*rows.given(row))).sum())

    return _tried(
        parameters.values,
        flow,
        ("gradient",),
        compile_it,
        lambda likelihood: gradient(lambda: likelihood.add_gradient(rows, nearest())),
        lambda: gradient(expected),
    )


def _tried(
    parameters: Tensor,
    flow: Flow,
    asked: tuple[str, ...],
    compile_it: Callable[[], T],
    trial: Callable[[T], Tensor],
    expected: Callable[[], Tensor],
) -> T | None:
    try:
        import numba
    except ImportError:
        return None
    # Without the compiler the loops would run, but as Python's.
    if getattr(numba.config, "DISABLE_JIT", False) or parameters.device.type != "cpu" or not flow.base.n_features:
        return None
    try:
        result = compile_it()
    except NotImplementedError:
        return None
    except Exception as error:  # whatever stops a compiler: an unknown processor, no place for its cache, a missing symbol
        _warn(repr(error))
        return None
    kind = (asked, parameters.dtype, repr(flow))
    if kind in _trusted:
        return result
    given = expected()
    try:
        found = trial(result)
    except Exception as error:
        _warn(repr(error))
        return None
    if not torch.allclose(found, given, rtol=1e-3, atol=1e-3, equal_nan=True):
        _warn(f"{found} instead of {given}")
        return None
    _trusted.add(kind)
    return result


def _warn(reason: str) -> None:
    message = f"Compiled kernels can't be used here ({reason}). Slower ones in torch serve."
    warnings.warn(message, RuntimeWarning, stacklevel=5)


def _copied(module: nn.Module) -> tuple[Tensor, dict[int, int]]:
    values, offsets, n = [], {}, 0
    for parameter in module.parameters():
        values.append(parameter.detach().reshape(-1))
        offsets[id(parameter)] = n
        n += parameter.numel()
    return torch.cat(values), offsets
