"""When compiled kernels serve, and when torch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..nets import FeedForward
from ._elementwise import Transformer

if TYPE_CHECKING:
    from ._compiled_layer import CompiledLayer
    from ._spline import SplineKernels

# Set for a thread, not for the process: what one fit finds worthwhile must not change the rounding of another.
_compiled_kernels_serve: ContextVar[bool] = ContextVar("compiled_kernels_serve", default=False)


@contextmanager
def compiled_kernels(serve: bool = True) -> Iterator[None]:
    """Let compiled kernels serve in the block, in the calling thread, where there are any for the device and the dtype.

    They give what torch gives, to rounding, in a fraction of the time; but they must be loaded, which takes a good part of a
    second, and the first time on a machine compiled, which takes many.

    Parameters
    ----------
    serve : bool, default=True
        False keeps to torch.
    """
    token = _compiled_kernels_serve.set(serve)
    try:
        yield
    finally:
        _compiled_kernels_serve.reset(token)


def compiled_spline(x: Tensor, otherwise: SplineKernels) -> SplineKernels:
    """Kernels for splines at ``x``, shape (..., n_samples, n_features); ``otherwise`` where no compiled ones serve."""
    kernels = _kernels_for(x)
    return otherwise if kernels is None else kernels.spline


def compiled_layer(
    transformer: Transformer, conditioner: FeedForward, x: Tensor, *, differentiable: bool
) -> CompiledLayer | None:
    """Kernels for a layer as a whole, or None where it is to be computed part by part."""
    kernels = _kernels_for(x)
    if kernels is None or x.ndim > 2 or not kernels.layer.can_serve(transformer, conditioner):
        return None
    if not differentiable and torch.is_grad_enabled() and any(t.requires_grad for t in (x, *conditioner.parameters())):
        return None
    return kernels.layer(transformer, conditioner)


class _Kernels(NamedTuple):
    spline: SplineKernels
    layer: type[CompiledLayer]


def _kernels_for(x: Tensor) -> _Kernels | None:
    serves = _compiled_kernels_serve.get() and x.device.type == "cpu" and x.ndim >= 2 and x.numel() > 0
    return _load() if serves and x.dtype in (torch.float32, torch.float64) else None


@lru_cache(maxsize=1)
def _load() -> _Kernels | None:
    try:
        import numba
    except ImportError:
        return None
    if getattr(numba.config, "DISABLE_JIT", False):  # the loops would run, but as Python's
        return None
    try:
        from ._compiled_layer import CompiledLayer, check_that_kernels_work
        from ._compiled_spline import KERNELS

        check_that_kernels_work()
    except Exception as error:  # whatever stops a compiler: an unknown processor, no place for its cache, a missing symbol
        message = f"Compiled kernels can't be used here ({error!r}). Slower ones in torch serve."
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None
    return _Kernels(KERNELS, CompiledLayer)
