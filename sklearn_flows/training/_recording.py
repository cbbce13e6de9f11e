"""Kernels of CUDA that are recorded once and then launched all at a word."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")

# Calls of a function on CUDA before it is recorded: libraries choose their kernels in the first ones, and a short fit isn't
# worth it.
CALLS_BEFORE_RECORDING = 20
# Recordings share the memory pool of the process, so they take turns, each with what it compiles before.
turn_to_record = threading.RLock()


class Recording(Generic[Result]):
    """What a function launches on CUDA, as a single launch.

    A training step of a small flow is hundreds of kernels that each take less time than their launch. They are recorded once,
    without being run, and read and write the same places in memory ever after.

    Parameters
    ----------
    function : callable
        It must read nothing back from the device, and have been called before.
    """

    def __init__(self, function: Callable[[], Result]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with turn_to_record, torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = function()

    def replay(self) -> Result:
        """Run what was recorded, and give what the function gave, which holds until the next call."""
        self._graph.replay()
        return self._result
