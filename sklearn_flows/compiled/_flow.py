"""Flows on compiled kernels, where these can serve."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..flows import Flow


def compiled_flow(flow: Flow, trial: Callable[[Flow], Tensor], n_threads: int, parameters: Any = None) -> Flow:
    """Give the same flow on kernels compiled for the CPU, or itself where they can't serve.

    They give what torch gives, to rounding, in a fraction of the time; but they must be loaded, which takes a good part of a
    second, and the first time on a machine compiled, which takes many.

    Parameters
    ----------
    flow : Flow
        The flow. Kernels serve on the CPU, for the activations and transformers that there are kernels for.
    trial : callable
        A short computation of what will be asked of the result. It is done with both: where the kernels fail or give something
        else than torch, a warning says so and torch serves.
    n_threads : int
        How many threads may share the rows. Answers don't depend on it.
    parameters : FlatParameters, default=None
        All the flow's parameters as one vector. They are read from there in every call, and get their gradients there. None
        means a copy of the parameters as they are now, without gradients.

    Returns
    -------
    Flow
        With the same base distribution.
    """
    try:
        import numba
    except ImportError:
        return flow
    if parameters is None:
        values, offsets, gradients = *_copied(flow), None
    else:
        values, offsets, gradients = parameters.leaf, parameters.offsets, parameters.gradients
    # Without the compiler the loops would run, but as Python's.
    if getattr(numba.config, "DISABLE_JIT", False) or values.device.type != "cpu" or not flow.base.n_features:
        return flow
    try:
        from ._transform import CompiledTransform

        transform = CompiledTransform(flow.transform, values, offsets, flow.base.n_features, n_threads, gradients)
    except NotImplementedError:
        return flow
    except Exception as error:  # whatever stops a compiler: an unknown processor, no place for its cache, a missing symbol
        _warn(repr(error))
        return flow
    result = Flow(transform, flow.base)
    expected = trial(flow)
    try:
        found = trial(result)
    except Exception as error:
        _warn(repr(error))
        return flow
    if not torch.allclose(found, expected, rtol=1e-3, atol=1e-3, equal_nan=True):
        _warn(f"{found} instead of {expected}")
        return flow
    return result


def _warn(reason: str) -> None:
    message = f"Compiled kernels can't be used here ({reason}). Slower ones in torch serve."
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def _copied(module: nn.Module) -> tuple[Tensor, dict[int, int]]:
    values, offsets, n = [], {}, 0
    for parameter in module.parameters():
        values.append(parameter.detach().reshape(-1))
        offsets[id(parameter)] = n
        n += parameter.numel()
    return torch.cat(values), offsets
