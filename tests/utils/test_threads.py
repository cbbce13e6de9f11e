import threading

import pytest
import torch

from sklearn_flows import MAFDensity
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
