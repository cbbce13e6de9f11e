"""How many threads may work on kernels that take microseconds."""

from contextlib import contextmanager, nullcontext
from functools import lru_cache
from threading import Lock

from threadpoolctl import ThreadpoolController

# Scalars per layer (rows times units) up to which one thread is as fast as several, or nearly.
MAX_SCALARS_ON_ONE_THREAD = 2**17


@lru_cache(maxsize=1)
def _controller():
    # Made once: it looks through all loaded libraries, which takes longer than a small fit's step.
    return ThreadpoolController()


class _SharedLimit:
    """One thread for BLAS while any block asks for it.

    Unlike OpenMP's, BLAS's setting is one of the process. Blocks in several threads overlap in any order: the first one in sets
    it, and the last one out sets it back. Some versions of OpenBLAS (0.3.31) heed only the main thread, so what starts threads
    should hold it while they run.
    """

    def __init__(self):
        self._lock = Lock()
        self._n_blocks = 0
        self._limiter = None

    @contextmanager
    def hold(self):
        with self._lock:
            if self._n_blocks == 0:
                self._limiter = _controller().limit(limits=1, user_api="blas")
            self._n_blocks += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_blocks -= 1
                if self._n_blocks == 0:
                    self._limiter.restore_original_limits()


_blas_limit = _SharedLimit()


def one_blas_thread():
    """Keep BLAS on one thread, in all threads of the process: for as long as several of them compute.

    Returns
    -------
    context manager
        The block in which it is.
    """
    return _blas_limit.hold()


@contextmanager
def one_thread():
    """Keep kernels of torch and BLAS on one thread: where they are small, or beside threads of our own.

    Threads meet at the end of each kernel. On a machine that is busy otherwise, each such meeting waits for the scheduler,
    which takes far longer than a small kernel. And OpenMP's threads stay awake for a while, waiting for another kernel: whoever
    works on their cores meanwhile gets half of them.
    """
    # OpenMP's setting is one of the calling thread: other threads, and the setting afterwards, stay as they are.
    with _blas_limit.hold(), _controller().limit(limits=1, user_api="openmp"):
        yield


def one_thread_if_small(n_scalars):
    """Keep small kernels on one thread, and leave large ones those that torch is set to.

    Parameters
    ----------
    n_scalars : int
        Size of the widest layer's output: number of rows times number of units.

    Returns
    -------
    context manager
        The block in which they are.
    """
    return nullcontext() if n_scalars > MAX_SCALARS_ON_ONE_THREAD else one_thread()
