"""sklearn.callback.tests.test_callback_support, by meaning."""

import numpy as np
import pytest

pytest.importorskip("sklearn.callback")
from sklearn.callback.tests._utils import (
    FailingCallback,
    NotValidCallback,
    RecordingAutoPropagatedCallback,
    RecordingCallback,
)

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.RandomState(0).randn(20, 2)


def test_set_callbacks(make_density):
    callbacks = [RecordingCallback(), RecordingAutoPropagatedCallback()]
    density = make_density(max_iter=3)
    assert density.set_callbacks(*callbacks) is density
    density.fit(X)
    for callback in callbacks:
        assert callback.count_hooks("setup") == callback.count_hooks("teardown") == 1
        # The fit itself, and each of its epochs.
        assert callback.count_hooks("on_fit_task_begin") == callback.count_hooks("on_fit_task_end") == 1 + 3


@pytest.mark.parametrize("callback", [None, NotValidCallback(), RecordingCallback])
def test_set_callbacks_error(make_density, callback):
    with pytest.raises(TypeError, match="callbacks must be instances following the FitCallback protocol"):
        make_density().set_callbacks(callback)


def test_set_callback_empty(make_density):
    callback = RecordingCallback()
    density = make_density().set_callbacks(callback)
    density.set_callbacks().set_callbacks().fit(X)
    assert callback.record == []


@pytest.mark.parametrize("fail_at", ["setup", "on_fit_task_begin", "on_fit_task_end", "teardown"])
def test_callback_error(make_density, fail_at):
    callback = FailingCallback(fail_at=fail_at)
    density = make_density().fit(X)
    before = density.score_samples(X)
    density.set_callbacks(callback)
    with pytest.raises(ValueError, match=f"Failing callback failed at {fail_at}"):
        density.fit(X[:10])
    assert callback.count_hooks("setup") == callback.count_hooks("teardown") == 1
    if fail_at != "teardown":  # then the fit itself has succeeded
        np.testing.assert_array_equal(density.score_samples(X), before)


def test_teardown_matches_setup_calls_on_partial_setup_failure(make_density):
    failing, recording = FailingCallback(fail_at="setup"), RecordingCallback()
    with pytest.raises(ValueError, match="Failing callback failed at setup"):
        make_density().set_callbacks(failing, recording).fit(X)
    assert failing.count_hooks("setup") == failing.count_hooks("teardown") == 1
    assert recording.record == []


def test_multiple_teardown_errors_are_grouped(make_density):
    callbacks = [FailingCallback(fail_at="teardown"), FailingCallback(fail_at="teardown")]
    with pytest.raises(Exception, match="The following callback teardown errors occurred") as info:
        make_density().set_callbacks(*callbacks).fit(X)
    assert len(info.value.exceptions) == 2
    assert [callback.count_hooks("teardown") for callback in callbacks] == [1, 1]
