"""Ctrl-C ends a fit as early stopping does: with the best model so far, and a word about it."""

import numpy as np
import pytest
from sklearn.datasets import make_moons

from sklearn_flows import BaggingDensity
from sklearn_flows.density import _taught_start
from sklearn_flows.training import _loop

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N_BATCHES = 4


@pytest.fixture(scope="module")
def moons():
    return make_moons(80, noise=0.1, random_state=0)[0]


@pytest.fixture
def interrupt_at(monkeypatch):
    """Function that makes the given step of later fits, counted from 0, raise KeyboardInterrupt; None makes none."""
    schedule = _loop.warmup_cosine

    def interrupt_at(last_step):
        def interrupted(step, n_steps):
            if step == last_step:
                raise KeyboardInterrupt
            return schedule(step, n_steps)

        monkeypatch.setattr(_loop, "warmup_cosine", interrupted)

    return interrupt_at


@pytest.fixture
def density(make_density):
    return make_density(max_iter=6, batch_size=20, learning_rate=1e-2, early_stopping=False)


def test_the_model_of_the_last_whole_epoch_is_kept_and_a_warning_says_so(density, moons, interrupt_at):
    interrupt_at(2 * N_BATCHES + 2)  # in the middle of the third epoch
    with pytest.warns(UserWarning, match="interrupted by the user after 2 epochs; the best model so far is kept"):
        density.fit(moons)
    assert density.n_iter_ == len(density.loss_curve_) == 2
    scores = density.score_samples(moons)

    interrupt_at(2 * N_BATCHES)  # at its very start
    with pytest.warns(UserWarning, match="interrupted by the user after 2 epochs"):
        density.fit(moons)
    np.testing.assert_array_equal(density.score_samples(moons), scores)


def test_an_interrupted_refit_keeps_what_it_has_got_to(density, moons, interrupt_at):
    density.fit(moons)
    interrupt_at(2 * N_BATCHES)
    with pytest.warns(UserWarning, match="interrupted by the user after 2 epochs"):
        density.fit(moons[:, :1])
    assert density.n_iter_ == 2
    assert density.score_samples(moons[:, :1]).shape == (80,)
    assert density.sample(3).shape == (3, 1)


def test_with_validation_rows_the_best_epoch_is_kept(density, moons, interrupt_at):
    density.set_params(early_stopping=True)
    interrupt_at(5 * N_BATCHES + 1)
    with pytest.warns(UserWarning, match="interrupted by the user after 5 epochs"):
        density.fit(moons, X_val=moons[::2])
    assert len(density.validation_scores_) == 5
    # Scored in float32 in training.
    assert density.score(moons[::2]) >= density.best_validation_score_ - 1e-4


def test_an_interruption_of_the_first_epoch_leaves_the_starting_model(density, moons, interrupt_at):
    interrupt_at(1)
    with pytest.warns(UserWarning, match="interrupted by the user after 0 epochs"):
        density.fit(moons)
    assert density.n_iter_ == 0
    assert density.loss_curve_ == []
    # A Gaussian, with the mean and nearly the covariance of the rows.
    expected = -0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(moons.T))[1]
    assert density.score(moons) == pytest.approx(expected, abs=0.05)


def test_an_interruption_before_training_leaves_the_estimator_as_it_was(density, moons, monkeypatch):
    def interrupted(self, whitening, base, generator):
        raise KeyboardInterrupt

    density.fit(moons)
    before, n_iter = density.score_samples(moons), density.n_iter_
    with monkeypatch.context() as patch:
        patch.setattr(type(density), "_build_flow", interrupted)
        with pytest.raises(KeyboardInterrupt):
            density.fit(moons[:, :1])
    assert density.n_features_in_ == 2
    assert density.n_iter_ == n_iter
    np.testing.assert_array_equal(density.score_samples(moons), before)


def test_a_fit_after_an_interrupted_one_is_as_if_nothing_had_happened(density, moons, interrupt_at):
    expected = density.fit(moons).score_samples(moons)
    interrupt_at(N_BATCHES + 1)
    with pytest.warns(UserWarning, match="interrupted"):
        density.fit(moons)
    interrupt_at(None)
    np.testing.assert_array_equal(density.fit(moons).score_samples(moons), expected)


def test_when_a_teacher_is_interrupted_its_best_flow_is_kept(make_density, moons, interrupt_at):
    density = make_density(max_iter=6, batch_size=20, n_teachers=2)
    interrupt_at(3 * N_BATCHES + 1)
    with pytest.warns(UserWarning, match="interrupted by the user before its last stage"):
        density.fit(moons)
    assert density.stop_reason_ == "interrupted"
    assert np.isfinite(density.score(moons))
    assert density.sample(3).shape == (3, 2)
    assert density.n_iter_ == 3


def test_an_ensemble_is_interrupted_with_the_flow_that_is_being_fitted(density, moons, interrupt_at):
    interrupt_at(2)
    with pytest.warns(UserWarning, match="interrupted"), pytest.raises(KeyboardInterrupt):
        BaggingDensity(density, n_estimators=3).fit(moons)


@pytest.fixture
def every_start_is_tried(monkeypatch):
    """Trials, however far behind a start is."""
    monkeypatch.setattr(_taught_start, "NEAR_BEST_START", np.inf)


@pytest.mark.usefixtures("every_start_is_tried")
def test_when_a_trial_is_interrupted_its_flow_is_kept(make_density, moons, monkeypatch):
    density = make_density(max_iter=6, batch_size=20, n_teachers=1, margins="auto")
    trial = _taught_start._try_for_a_while

    def interrupted(*arguments):
        result = trial(*arguments)
        result.stop_reason = "interrupted"
        return result

    monkeypatch.setattr(_taught_start, "_try_for_a_while", interrupted)
    with pytest.warns(UserWarning, match="before its last stage"):
        density.fit(moons)
    assert density.stop_reason_ == "interrupted"
    assert np.isfinite(density.score(moons))


@pytest.mark.usefixtures("every_start_is_tried")
def test_when_every_trial_diverges_the_error_says_what_to_do(make_density, moons, monkeypatch):
    density = make_density(max_iter=2, batch_size=20, n_teachers=1, margins="auto")

    def diverges(*arguments):
        raise _loop.DivergedError

    monkeypatch.setattr(_taught_start, "_try_for_a_while", diverges)
    with pytest.raises(ValueError, match="diverged for every start"):
        density.fit(moons)
    assert not hasattr(density, "flow_")
