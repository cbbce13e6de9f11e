"""Memory that is used again in every step of a loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor


class Workspace:
    """Buffers for the intermediate results of a computation that is repeated.

    Without it the memory of one training step goes back to the operating system at its end, and comes back in the next one
    page by page, each filled with zeros first: for large batches that takes as long as the arithmetic.

    The n-th request of a round gets the n-th buffer, so a round must be over, with all that it computed, when the next begins.
    """

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []
        self._n_taken = 0

    @contextmanager
    def round(self) -> Iterator[None]:
        """Serve ``empty`` in the block, in the calling thread, with buffers that the next round uses again."""
        self._n_taken = 0
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def take(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Give the next buffer, cut to shape."""
        size = math.prod(shape)
        if self._n_taken == len(self._buffers):
            self._buffers.append(like.new_empty(size))
        buffer = self._buffers[self._n_taken]
        if len(buffer) < size or buffer.dtype != like.dtype or buffer.device != like.device:
            buffer = self._buffers[self._n_taken] = like.new_empty(size)
        self._n_taken += 1
        return buffer[:size].view(*shape)


_current: ContextVar[Workspace | None] = ContextVar("workspace", default=None)


def empty(shape: Sequence[int], like: Tensor) -> Tensor:
    """Make a tensor without values, of a given shape, with the dtype and the device of another."""
    workspace = _current.get()
    return like.new_empty(shape) if workspace is None else workspace.take(shape, like)
