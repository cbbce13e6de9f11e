"""What a fit tells while it runs: printed lines, a tqdm bar, scikit-learn's callbacks."""

import sys

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sklearn_flows.utils import _progress

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def X():
    return load_breast_cancer().data[:60, :3]


@pytest.fixture
def without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)


# --- printed lines and bars ---


@pytest.mark.usefixtures("without_tqdm")
def test_silent_by_default(make_density, X, capsys):
    make_density().fit(X)
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("without_tqdm")
def test_verbose_1_tells_about_ten_times_how_it_goes(make_density, X, capsys):
    make_density(max_iter=40, verbose=1).fit(X)
    *lines, last = capsys.readouterr().out.splitlines()
    name = make_density.func.__name__
    assert 5 <= len(lines) <= 15
    assert all(line.startswith(f"[{name}] epoch ") and "log-likelihood" in line for line in lines)
    assert lines[-1].startswith(f"[{name}] epoch 40/40")
    assert "stopped after 40 epochs" in last
    assert "max_iter" in last


@pytest.mark.usefixtures("without_tqdm")
def test_verbose_2_tells_of_every_epoch_and_of_validation(make_density, X, capsys):
    density = make_density(verbose=2, early_stopping=True).fit(X)
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == density.n_iter_
    for i, (line, loss, score) in enumerate(zip(lines, density.loss_curve_, density.validation_scores_, strict=True)):
        assert f"epoch {i + 1}/5" in line
        assert f"{-loss:.4f}" in line
        assert f"validation {score:.4f}" in line
    assert "stopped after" in last


@pytest.mark.usefixtures("without_tqdm")
def test_the_reason_for_stopping_early_is_told(make_density, X, capsys):
    make_density(max_iter=100, verbose=1, early_stopping=True, tol=1e9, n_iter_no_change=3).fit(X)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "stopped after 7 epochs" in last
    assert "early_stopping" in last


def test_a_tqdm_bar_takes_the_place_of_lines_where_scikit_learn_has_no_callbacks(make_density, X, capsys, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(_progress, "HAS_CALLBACKS", False)
    make_density(verbose=1).fit(X)
    told = capsys.readouterr()
    assert told.out == ""
    assert "5/5" in told.err
    assert "log-likelihood" in told.err
    assert make_density.func.__name__ in told.err


def test_the_bar_is_closed_when_a_fit_fails(make_density, X, monkeypatch):
    tqdm = pytest.importorskip("tqdm.auto").tqdm
    bars = []

    class Bar(tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            bars.append(self)
            self.is_closed = False

        def close(self):
            super().close()
            self.is_closed = True

    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    monkeypatch.setattr(_progress, "HAS_CALLBACKS", False)
    with pytest.raises(ValueError, match="diverged"):
        make_density(verbose=1, learning_rate=1e20).fit(X)
    assert [bar.is_closed for bar in bars] == [True]


# --- scikit-learn's callbacks ---
# ScoringMonitor(scoring=None) fails in scikit-learn 1.9.1 whatever the estimator: it updates a dictionary with a float.


@pytest.fixture
def callbacks():
    return pytest.importorskip("sklearn.callback")


def in_a_search(density, n_jobs):
    return GridSearchCV(density, {"n_transforms": [1, 2]}, cv=2, n_jobs=n_jobs)


WAYS = {
    "alone": lambda density: density,
    "in a pipeline": lambda density: make_pipeline(StandardScaler(), density),
    "in a search": lambda density: in_a_search(density, 1),
    "in a search by two processes": lambda density: in_a_search(density, 2),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_progress_bars_show_every_level_and_change_no_result(make_density, X, callbacks, capsys, way):
    pytest.importorskip("rich")
    plain = way(make_density()).fit(X)
    capsys.readouterr()
    watched = way(make_density()).set_callbacks(callbacks.ProgressBar()).fit(X)
    assert make_density.func.__name__ in capsys.readouterr().out
    np.testing.assert_array_equal(watched.score_samples(X), plain.score_samples(X))


@pytest.mark.parametrize("y", [None, np.arange(60)], ids=["without y", "with y"])
def test_a_scoring_monitor_sees_the_model_of_every_epoch(make_density, X, callbacks, y):
    monitor = callbacks.ScoringMonitor(scoring={"score": make_density.func.score})
    density = make_density(early_stopping=False).set_callbacks(monitor).fit(X, y)
    # One row for each epoch, and one for the whole fit.
    rows = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert [row["task_id"] for row in rows] == list(range(5))
    scores = [row["score"] for row in rows]
    assert scores[-1] == density.score(X)
    shorter = make_density(early_stopping=False, learning_rate=1e-9).fit(X)
    # The first epoch has hardly left the Gaussian that all start from; float32 against float64 at most.
    assert scores[0] == pytest.approx(shorter.score(X), abs=0.5)
    assert len(set(scores)) == 5


def test_a_scoring_monitor_is_weighted_as_the_fit_is(make_density, X, callbacks):
    def scores_of(estimator, X, y, sample_weight=None):
        return {"score": estimator.score(X, sample_weight=sample_weight)}

    weight = np.random.RandomState(0).uniform(size=60)
    monitor = callbacks.ScoringMonitor(scoring=scores_of)
    density = make_density(early_stopping=False).set_callbacks(monitor).fit(X, sample_weight=weight)
    scores = [row["score"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert scores[-1] == density.score(X, sample_weight=weight) != density.score(X)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_scoring_monitor_on_the_density_sees_every_fit_of_a_search(make_density, X, callbacks, n_jobs):
    monitor = callbacks.ScoringMonitor(scoring={"score": make_density.func.score})
    in_a_search(make_density(early_stopping=False).set_callbacks(monitor), n_jobs).fit(X)
    logs = monitor.get_logs()
    epochs = [row for row in logs.data if row["task_name"] == "epoch"]
    # Two candidates on two folds and the refit, each of five epochs.
    assert len(epochs) == (2 * 2 + 1) * 5
    assert all(np.isfinite(row["score"]) for row in epochs)


def test_a_scoring_monitor_works_on_the_last_step_of_a_pipeline(make_density, X, callbacks):
    monitor = callbacks.ScoringMonitor(scoring={"score": make_density.func.score})
    pipe = make_pipeline(StandardScaler(), make_density(early_stopping=False).set_callbacks(monitor)).fit(X)
    scores = [row["score"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 5
    assert scores[-1] == pipe.score(X)


class StopAfter:
    """Callback that asks to stop after a number of epochs."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        return context.task_name == "epoch" and context.task_id + 1 == self.n_epochs


@pytest.mark.usefixtures("callbacks")
def test_a_callback_can_stop_a_fit(make_density, X, capsys):
    density = make_density(early_stopping=False, verbose=2).set_callbacks(StopAfter(2)).fit(X)
    assert density.n_iter_ == len(density.loss_curve_) == 2
    assert "stopped after 2 epochs" in capsys.readouterr().out.splitlines()[-1]
    pipe = make_pipeline(StandardScaler(), make_density(early_stopping=False).set_callbacks(StopAfter(3))).fit(X)
    assert pipe[-1].n_iter_ == 3
    # Of processes only this one knows the class above: a search in one process.
    search = in_a_search(make_density(early_stopping=False).set_callbacks(StopAfter(1)), 1).fit(X)
    assert search.best_estimator_.n_iter_ == 1


@pytest.mark.usefixtures("callbacks")
def test_a_stop_by_callback_is_no_reason_to_warn_of_convergence(make_density, X, recwarn):
    make_density(early_stopping=False, learning_rate=1e-2).set_callbacks(StopAfter(2)).fit(X)
    assert [str(warning.message) for warning in recwarn] == []


def test_every_epoch_that_callbacks_see_begin_they_see_end(make_density, X, callbacks):
    class Counter:
        def __init__(self):
            self.begun, self.ended = [], []

        def setup(self, estimator, context):
            pass

        def teardown(self, estimator, context):
            pass

        def on_fit_task_begin(self, estimator, context):
            self.begun.append((context.task_name, context.task_id))

        def on_fit_task_end(self, estimator, context):
            self.ended.append((context.task_name, context.task_id))

    counter = Counter()
    stopped = make_density(max_iter=200, n_iter_no_change=1, tol=10.0, early_stopping=True).set_callbacks(counter).fit(X)
    assert stopped.n_iter_ < 200
    assert sorted(counter.begun) == sorted(counter.ended)
    assert len(counter.begun) == stopped.n_iter_ + 1
