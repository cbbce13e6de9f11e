"""Every open task is done once, whoever is there to do it, and nobody waits for ever."""

import threading

import numba
import numpy as np
import pytest

from sklearn_flows.compiled._team import (
    dismiss,
    new_team,
    open_tasks,
    take_task,
    tell_that_one_is_done,
    wait_for_a_task,
    wait_until_all_are_done,
)


@numba.njit(nogil=True)
def work(team, done):
    task = take_task(team)
    while task >= 0:
        done[task] += 1
        tell_that_one_is_done(team)
        task = take_task(team)


@numba.njit(nogil=True)
def lead(team, done, sizes_of_rounds):
    """Whether all tasks of earlier rounds were done when the next one began."""
    in_order, n_before = True, 0
    for n_tasks in sizes_of_rounds:
        in_order = in_order and (done[:n_before] == 1).all() and not done[n_before:].any()
        open_tasks(team, n_tasks)
        work(team, done)
        wait_until_all_are_done(team)
        n_before += n_tasks
    return in_order


@numba.njit(nogil=True)
def help_out(team, done):
    while wait_for_a_task(team):
        work(team, done)


@pytest.mark.parametrize("n_helpers", [0, 1, 5])
def test_each_task_is_done_once_and_rounds_follow_each_other(n_helpers):
    sizes_of_rounds = np.array([1, 7, 0, 3] * 500)
    team, done = new_team(), np.zeros(sizes_of_rounds.sum(), dtype=np.int64)
    helpers = [threading.Thread(target=help_out, args=(team, done)) for _ in range(n_helpers)]
    for helper in helpers:
        helper.start()
    assert lead(team, done, sizes_of_rounds)
    dismiss(team)
    for helper in helpers:
        helper.join(60)
    assert not any(helper.is_alive() for helper in helpers)
    assert (done == 1).all()


def test_who_comes_too_late_is_not_kept():
    team = new_team()
    dismiss(team)
    help_out(team, np.zeros(1, dtype=np.int64))
