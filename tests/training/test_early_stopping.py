import math

import pytest

from sklearn_flows.training._early_stopping import EarlyStopping


def run(scores, **parameters):
    """Feed scores, from epoch 0, until it wants to stop; return it and the last epoch."""
    stopping = EarlyStopping(**parameters)
    for epoch, score in enumerate(scores):
        stopping.update(epoch, score)
        if stopping.should_stop:
            break
    return stopping, epoch


def test_stops_when_patience_is_used_up_and_remembers_the_best():
    stopping, epoch = run([0.0, 1.0, 2.0, 1.9, 1.8, 1.7, 1.6, 9.0], patience=3, tol=0.0)
    assert epoch == 5
    assert (stopping.best_epoch, stopping.best_score) == (2, 2.0)


def test_a_rise_restores_patience():
    stopping, epoch = run([0.0, -1.0, 1.0, 0.0, 2.0, 0.0, 1.0], patience=2, tol=0.0)
    assert epoch == 6
    assert stopping.best_epoch == 4


def test_rises_below_tolerance_move_the_best_but_use_patience():
    stopping, epoch = run([0.0, 0.05, 0.08, 0.09], patience=3, tol=0.1)
    assert epoch == 3
    assert stopping.should_stop
    assert (stopping.best_epoch, stopping.best_score) == (3, 0.09)


def test_small_rises_that_add_up_restore_patience():
    stopping, epoch = run([0.06 * i for i in range(50)], patience=3, tol=0.1)
    assert epoch == 49
    assert not stopping.should_stop


def test_the_first_score_can_stay_the_best():
    stopping, epoch = run([5.0, 4.0, 3.0], patience=2, tol=0.0)
    assert epoch == 2
    assert (stopping.best_epoch, stopping.best_score) == (0, 5.0)


def test_equal_scores_are_no_rise():
    _, epoch = run([1.0] * 10, patience=4, tol=0.0)
    assert epoch == 4


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_scores_that_are_not_finite_are_never_the_best(bad):
    stopping = EarlyStopping(patience=5, tol=0.0)
    assert not stopping.update(0, bad)
    assert stopping.update(1, 1.0)
    assert not stopping.update(2, bad)
    assert (stopping.best_epoch, stopping.best_score) == (1, 1.0)


def test_infinite_patience_never_stops():
    _, epoch = run([0.0] * 100, patience=math.inf, tol=0.0)
    assert epoch == 99
