"""Threads that share the parts of one computation."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache


@lru_cache(maxsize=1)
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="sklearn_flows")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a forked process has none of its parent's threads


def for_each(function: Callable[[int], None], n: int, n_threads: int) -> None:
    """Call a function of a number for all numbers below ``n``; which thread does what is left to chance.

    The calling thread works too. Where no helper gets a core, it does all of the work and waits for nobody. What a call raises
    is raised here once the calls under way have ended; none begins after it.
    """
    numbers = iter(range(n))

    def work() -> None:
        try:
            for i in numbers:
                function(i)
        except BaseException:
            deque(numbers, maxlen=0)
            raise

    futures = [_helpers().submit(copy_context().run, work) for _ in range(min(n, n_threads) - 1)]
    try:
        work()
    finally:
        for future in futures:
            if not future.cancel():
                future.result()
