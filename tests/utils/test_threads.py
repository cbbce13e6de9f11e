import threading

import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from sklearn_flows import MAFDensity
from sklearn_flows.cross_fitting import in_threads
from sklearn_flows.utils._threads import MAX_SCALARS_ON_ONE_THREAD, one_thread_if_small


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_small_kernels_get_one_thread_and_large_ones_what_torch_is_set_to(two_threads):
    with one_thread_if_small(MAX_SCALARS_ON_ONE_THREAD):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with one_thread_if_small(MAX_SCALARS_ON_ONE_THREAD + 1):
        assert torch.get_num_threads() == 2


def test_other_threads_keep_their_setting(two_threads):
    seen = []

    def look():
        torch.set_num_threads(2)
        with one_thread_if_small(1):
            inside.set()
            done.wait(10)
        seen.append(torch.get_num_threads())

    inside, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=look)
    thread.start()
    inside.wait(10)
    here = torch.get_num_threads()
    done.set()
    thread.join()
    assert here == 2
    assert seen == [2]


def test_an_error_in_fit_leaves_the_setting(two_threads, monkeypatch):
    def fail(*args, **kwargs):
        assert torch.get_num_threads() == 1
        raise RuntimeError("stop here")

    monkeypatch.setattr("sklearn_flows.density._base.fit_flow", fail)
    with pytest.raises(RuntimeError, match="stop here"):
        MAFDensity().fit(torch.arange(10.0).reshape(5, 2).numpy())
    assert torch.get_num_threads() == 2


def test_where_several_threads_compute_each_has_one_blas_thread():
    def count(i):
        with one_thread_if_small(1):
            seen[i] = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]

    seen = [None] * 6
    with threadpool_limits(2, user_api="blas"):
        in_threads(count, 6, n_jobs=2)
        after = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
    assert all(n == 1 for numbers in seen for n in numbers)
    assert all(n == 2 for n in after)
