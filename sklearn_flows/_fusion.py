"""Many small kernels of one function made into few, by torch's compiler."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

_wanted: ContextVar[bool] = ContextVar("fused_kernels", default=False)
# The compiled version of a function with given settings; None where it can't be compiled.
_compiled: dict[tuple[Any, ...], Callable[..., Any] | None] = {}
_logger = logging.getLogger(__name__)


@contextmanager
def fused_kernels(wanted: bool = True) -> Iterator[None]:
    """Let functions called through ``call`` in the block, in the calling thread, be compiled.

    Parameters
    ----------
    wanted : bool, default=True
        Whether to compile. Even then nothing is where Triton, which writes the kernels, is missing.
    """
    token = _wanted.set(wanted and find_spec("triton") is not None)
    try:
        yield
    finally:
        _wanted.reset(token)


def is_fusing() -> bool:
    """Whether kernels are to be fused. A way back may run in another thread, so the way forward must ask for it."""
    return _wanted.get()


def call(function: Callable[..., Any], *tensors: Tensor, fused: bool, **settings: Any) -> Any:
    """Call a function of tensors that needs no gradients, fused or as it is.

    A function is compiled at its first fused call, which takes seconds, for tensors of any size, and for the life of the
    process. What can't be compiled, for want of a C compiler say, runs as it is.

    Parameters
    ----------
    function : callable
        The function.
    *tensors : Tensor
        Its arguments.
    fused : bool
        Whether to compile it: ``is_fusing()``.
    **settings
        Further arguments, hashable; the compiled kernels are of these values alone.

    Returns
    -------
    Any
        What the function returns.
    """
    if fused:
        key = (function, *sorted(settings.items()))
        try:
            if key not in _compiled:
                _compiled[key] = _compile(function, settings)
            compiled = _compiled[key]
            if compiled is not None:
                # Detached, since kernels are compiled anew for arguments that need gradients and for those that don't.
                return compiled(*[tensor.detach() for tensor in tensors])
        except Exception:
            _logger.debug("%s isn't compiled", function.__name__, exc_info=True)
            _compiled[key] = None
    return function(*tensors, **settings)


def _compile(function: Callable[..., Any], settings: dict[str, Any]) -> Callable[..., Any]:
    def with_settings(*tensors: Tensor) -> Any:
        return function(*tensors, **settings)

    # The compiler counts versions by the code of a function, and gives up after a few: each needs a code of its own.
    with_settings.__code__ = with_settings.__code__.replace()
    # Kernels are few, so that processes which compile them side by side would take longer to start than they save.
    compiled: Callable[..., Any] = torch.compile(with_settings, dynamic=True, options={"compile_threads": 1})
    return compiled
