"""Threads that share the tasks of one computation without coming back to Python in between.

One thread leads: it opens tasks, which are numbered, works on them like all others, and waits until all that are open are done.
Others help if they get a core. Where they don't, the one that leads does everything. What all need to know of each other are a
few counters in an array.
"""

import os

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ._functions import inner
from ._vector import element_pointer

# Places of the counters, each in a line of the cache for itself: tasks that are taken, open, and done, and whether all is over.
_TAKEN, _OPEN, _DONE, _IS_OVER = 0, 8, 16, 24
_SIZE = 32
_ORDER = "seq_cst"


def new_team():
    """Counters of a team that has no task yet."""
    return np.zeros(_SIZE, dtype=np.int64)


@intrinsic
def _read(typing_context, team, counter):
    def emit(context, builder, sig, values):
        return builder.load_atomic(element_pointer(context, builder, sig.args[0], *values), _ORDER, 8)

    return types.int64(team, types.intp), emit


@intrinsic
def _write(typing_context, team, counter, value):
    def emit(context, builder, sig, values):
        builder.store_atomic(values[2], element_pointer(context, builder, sig.args[0], *values[:2]), _ORDER, 8)
        return context.get_dummy_value()

    return types.void(team, types.intp, types.int64), emit


@intrinsic
def _add_one(typing_context, team, counter):
    def emit(context, builder, sig, values):
        place = element_pointer(context, builder, sig.args[0], *values)
        builder.atomic_rmw("add", place, ir.Constant(ir.IntType(64), 1), _ORDER)
        return context.get_dummy_value()

    return types.void(team, types.intp), emit


@intrinsic
def _replace(typing_context, team, counter, old, new):
    """Replace a counter's value if it still is the old one, and say whether it was."""

    def emit(context, builder, sig, values):
        place = element_pointer(context, builder, sig.args[0], *values[:2])
        return builder.extract_value(builder.cmpxchg(place, values[2], values[3], _ORDER, _ORDER), 1)

    return types.boolean(team, types.intp, types.int64, types.int64), emit


# Who waits lets others have the core, of which there may be fewer than threads.
_YIELD = "SwitchToThread" if os.name == "nt" else "sched_yield"
if llvmlite.binding.address_of_symbol(_YIELD) is None:
    raise ImportError(f"The system has no {_YIELD}.")
_let_others_work = types.ExternalFunction(_YIELD, types.intc())


@inner
def open_tasks(team, n_tasks):
    """Let ``n_tasks`` more be taken."""
    _write(team, _OPEN, _read(team, _OPEN) + n_tasks)


@inner
def take_task(team):
    """Take the next open task; -1 where there is none."""
    while True:
        task = _read(team, _TAKEN)
        if task >= _read(team, _OPEN):
            return -1
        if _replace(team, _TAKEN, task, task + 1):
            return task


@inner
def tell_that_one_is_done(team):
    """Tell who leads that a task is done."""
    _add_one(team, _DONE)


@inner
def wait_until_all_are_done(team):
    """Wait for those who have taken what is open."""
    while _read(team, _DONE) < _read(team, _OPEN):
        _let_others_work()


@inner
def wait_for_a_task(team):
    """Wait for who leads; say whether there may be another task."""
    while _read(team, _TAKEN) >= _read(team, _OPEN):
        if _read(team, _IS_OVER):
            return False
        _let_others_work()
    return True


def dismiss(team):
    """Let all who wait for tasks go."""
    team[_IS_OVER] = 1
