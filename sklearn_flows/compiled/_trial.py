"""When compiled kernels serve: where they work, and where they save more time than it takes to load them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
# How far an answer may be from what it should be, as a share of this plus one.
TOLERANCE = 1e-3
# How many times as far as rounding takes torch.
ROUNDINGS = 100.0
# What kernels have computed as torch or numpy do, in this process: a trial takes as long as some hundred rows do.
_trusted: set[tuple[object, ...]] = set()
_in_any_case = ContextVar("compiled kernels serve in any case", default=False)


@contextmanager
def compiled_kernels_in_any_case() -> Iterator[None]:
    """Use compiled kernels however few the rows are: worthwhile where there are many densities, one after the other."""
    token = _in_any_case.set(True)
    try:
        yield
    finally:
        _in_any_case.reset(token)


def kernels_serve_in_any_case() -> bool:
    """Say whether the call is one where kernels are worth their loading whatever is asked."""
    return _in_any_case.get()


def tried(
    kind: tuple[object, ...],
    compile_it: Callable[[], T],
    trial: Callable[[T], Tensor],
    expected: Callable[[], tuple[Tensor, float]],
) -> T | None:
    """Give what kernels are wanted for, or None where they can't serve.

    Parameters
    ----------
    kind : tuple
        What they are for. The first time in a process that it is asked for they are tried: where they fail or give something
        else than they should, a warning says so.
    compile_it : callable
        Gives what is wanted, or raises ``NotImplementedError``.
    trial : callable
        Gives what the kernels answer.
    expected : callable
        Gives what they should, and how far rounding takes torch from it at most, NaN where torch gives no number. Where that is
        far, the trial says little: the next one of the kind is tried too.

    Returns
    -------
    object or None
        What ``compile_it`` gives.
    """
    try:
        import numba
    except ImportError:
        return None
    # Without the compiler the loops would run, but as Python's.
    if getattr(numba.config, "DISABLE_JIT", False):
        return None
    try:
        result = compile_it()
    except NotImplementedError:
        return None
    except Exception as error:  # whatever stops a compiler: an unknown processor, no place for its cache, a missing symbol
        _warn(repr(error))
        return None
    if kind in _trusted:
        return result
    given, rounding = expected()
    try:
        found = trial(result)
    except Exception as error:
        _warn(repr(error))
        return None
    atol = TOLERANCE + ROUNDINGS * rounding
    if math.isfinite(atol) and not torch.allclose(found, given, rtol=TOLERANCE, atol=atol, equal_nan=True):
        _warn(f"{found} instead of {given}")
        return None
    if atol <= 2 * TOLERANCE:
        _trusted.add(kind)
    return result


def _warn(reason: str) -> None:
    message = f"Compiled kernels can't be used here ({reason}). Slower ones serve, in torch or numpy."
    warnings.warn(message, RuntimeWarning, stacklevel=5)
