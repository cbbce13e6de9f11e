"""Flows on compiled kernels, where these can serve."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ..flows import Flow, Rows

if TYPE_CHECKING:
    from ._likelihood import CompiledLikelihood

T = TypeVar("T")


def compiled_flow(flow: Flow, trial: Callable[[Flow], Tensor], n_threads: int) -> Flow:
    """Give the same flow on kernels compiled for the CPU, or itself where they can't serve.

    They give what torch gives, to rounding, in a fraction of the time, but no gradients; and they must be loaded, which takes a
    good part of a second, and the first time on a machine compiled, which takes many. Parameters are those of now.

    Parameters
    ----------
    flow : Flow
        The flow. Kernels serve on the CPU, for the activations and transformers that there are kernels for.
    trial : callable
        A short computation of what will be asked of the result. It is done with both: where the kernels fail or give something
        else than torch, a warning says so and torch serves.
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

    result = _tried(values.device.type, flow, compile_it, trial, lambda: trial(flow))
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
        The first one is what it is tried with, as in ``compiled_flow``.
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

    return _tried(
        parameters.values.device.type,
        flow,
        compile_it,
        lambda likelihood: gradient(lambda: likelihood.add_gradient(rows, torch.zeros(1, dtype=torch.int64))),
        lambda: gradient(lambda: torch.autograd.backward(-rows.weight[0] * flow.log_prob(*rows.given(slice(1))).sum())),
    )


def _tried(
    device_type: str, flow: Flow, compile_it: Callable[[], T], trial: Callable[[T], Tensor], expected: Callable[[], Tensor]
) -> T | None:
    try:
        import numba
    except ImportError:
        return None
    # Without the compiler the loops would run, but as Python's.
    if getattr(numba.config, "DISABLE_JIT", False) or device_type != "cpu" or not flow.base.n_features:
        return None
    try:
        result = compile_it()
    except NotImplementedError:
        return None
    except Exception as error:  # whatever stops a compiler: an unknown processor, no place for its cache, a missing symbol
        _warn(repr(error))
        return None
    given = expected()
    try:
        found = trial(result)
    except Exception as error:
        _warn(repr(error))
        return None
    if not torch.allclose(found, given, rtol=1e-3, atol=1e-3, equal_nan=True):
        _warn(f"{found} instead of {given}")
        return None
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
