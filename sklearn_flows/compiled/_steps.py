"""The steps that a program consists of: kernels for all that can be asked of one.

A step is a row of numbers: addresses of its kernels, and what these must know of it, mostly where something lies.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import types

from ..transforms._elementwise import CONDITIONER_BOUND
from ._functions import Kernel, inner, kind_of_kernel
from ._layers import (
    add_layer_gradient,
    inverse_autoregressive_gradient,
    invert_autoregressive,
    layer_gradient,
    map_by_layer,
)
from ._linear_maps import (
    add_lu_gradient,
    finish_lu_gradient,
    invert_lu,
    invert_scale,
    lu_gradient,
    map_by_lu,
    map_by_scale,
    prepare_lu,
    reorder,
    scale_gradient,
)

# Columns of the table of steps. The first ones are for all kinds: addresses of kernels, as in ``StepKernels``, and where the
# step's part of the memory begins that keeps what the way back needs.
PREPARE, MAP, INVERT, GRADIENT, FINISH, KEPT = range(6)
# Of linear maps: places of the parameters, of what is prepared once for all rows, of sums over rows, and of their stairs.
LOWER, UPPER, LOG_DIAGONAL, BIAS, PREPARED, SUMS, LU_STAIRS = range(6, 13)
# Of scales: the places of the parameters.
RAW_LOG_SCALE, SHIFT = range(6, 8)
# Of permutations: the places of both orders.
ORDER, INVERSE_ORDER = range(6, 8)
# Of layers: places and sizes of their tables, and the numbers that kernels ask for.
TABLE, N_LAYERS, STAIRS, PLACES, STAYING, N_STAYING, MOVING, N_MOVING, UNITS, ACTIVATION, IS_AFFINE, N_RAW, N_CONTEXT = range(
    6, 19
)
N_COLUMNS = 19

_N, _TABLE, _BOUND = types.intp, types.int64[::1], types.float64


def _preparation(number):
    step, parameters, prepared, n_features = _TABLE, number[::1], number[::1], _N
    return types.void(step, parameters, prepared, n_features)


def _map(number):
    step, numbers, memory = _TABLE, _TABLE, number[::1]
    parameters, prepared, context, x, z, log_det, kept, work = [memory] * 8
    n_panels, n_features = _N, _N
    of_step = step, numbers, _BOUND, parameters, prepared
    return types.void(*of_step, context, x, z, log_det, kept, work, n_panels, n_features)


def _gradient(number):
    step, numbers, memory = _TABLE, _TABLE, number[::1]
    parameters, prepared, x, gradient, spare, log_gradient, kept, work, out, sums = [memory] * 10
    n_panels, n_features = _N, _N
    of_step = step, numbers, _BOUND, parameters, prepared
    is_in_spare = types.boolean
    return is_in_spare(*of_step, x, gradient, spare, log_gradient, kept, work, out, sums, n_panels, n_features)


def _finish(number):
    step, memory = _TABLE, number[::1]
    parameters, prepared, sums, work, out = [memory] * 5
    n_features = _N
    return types.void(step, parameters, prepared, sums, work, out, n_features)


_preparation_kernel, call_preparation = kind_of_kernel(_preparation)
_map_kernel, call_map = kind_of_kernel(_map)
_gradient_kernel, call_gradient = kind_of_kernel(_gradient)
_finish_kernel, call_finish = kind_of_kernel(_finish)


class StepKernels(NamedTuple):
    """Kernels of a kind of step.

    Attributes
    ----------
    prepare : Kernel or None
        Computes what is the same for all rows, where there is such a thing.
    map, invert : Kernel
        Take panels of rows through the step, there and back, and add to ``log_det``.
    gradient : Kernel
        Carries ``gradient`` with respect to the images back to ``x``, to where it was or to ``spare``: it says which. What the
        rows give to the gradients of the parameters is added to ``out`` and ``sums``.
    finish : Kernel or None
        Adds to ``out`` what follows from sums over all rows.
    """

    prepare: Kernel | None
    map: Kernel
    invert: Kernel
    gradient: Kernel
    finish: Kernel | None


@_preparation_kernel
def _prepare_lu(step, parameters, prepared, n_features):
    places = step[LOWER], step[UPPER], step[LOG_DIAGONAL], step[BIAS]
    prepare_lu(parameters, *places, n_features, prepared[step[PREPARED] :])


@_map_kernel
def _map_by_lu(step, numbers, bound, parameters, prepared, context, x, z, log_det, kept, work, n_panels, n_features):
    map_by_lu(prepared[step[PREPARED] :], numbers[step[LU_STAIRS] :], x, z, log_det, n_panels, n_features)


@_map_kernel
def _invert_lu(step, numbers, bound, parameters, prepared, context, z, x, log_det, kept, work, n_panels, n_features):
    places = step[LOWER], step[UPPER], step[LOG_DIAGONAL], step[BIAS]
    invert_lu(parameters, *places, z, x, log_det, n_panels, n_features)


@_gradient_kernel
def _lu_gradient(
    step, numbers, bound, parameters, prepared,
    x, gradient, spare, log_gradient, kept, work, out, sums, n_panels, n_features,
):  # fmt: skip
    stairs, here = numbers[step[LU_STAIRS] :], kept[step[KEPT] :]
    lu_gradient(prepared[step[PREPARED] :], stairs, gradient, spare, here, n_panels, n_features)
    add_lu_gradient(stairs, x, here, log_gradient, n_panels, n_features, work, out, step[BIAS], sums[step[SUMS] :])
    return True


@_finish_kernel
def _finish_lu(step, parameters, prepared, sums, work, out, n_features):
    places = step[LOWER], step[UPPER], step[LOG_DIAGONAL]
    finish_lu_gradient(parameters, *places, n_features, prepared[step[PREPARED] :], sums[step[SUMS] :], work, out)


LU = StepKernels(_prepare_lu, _map_by_lu, _invert_lu, _lu_gradient, _finish_lu)


@_map_kernel
def _map_by_scale(step, numbers, bound, parameters, prepared, context, x, z, log_det, kept, work, n_panels, n_features):
    map_by_scale(parameters, step[RAW_LOG_SCALE], step[SHIFT], bound, x, z, log_det, n_panels, n_features)


@_map_kernel
def _invert_scale(step, numbers, bound, parameters, prepared, context, z, x, log_det, kept, work, n_panels, n_features):
    invert_scale(parameters, step[RAW_LOG_SCALE], step[SHIFT], bound, z, x, log_det, n_panels, n_features)


@_gradient_kernel
def _scale_gradient(
    step, numbers, bound, parameters, prepared,
    x, gradient, spare, log_gradient, kept, work, out, sums, n_panels, n_features,
):  # fmt: skip
    places = step[RAW_LOG_SCALE], step[SHIFT]
    scale_gradient(parameters, *places, bound, x, gradient, log_gradient, n_panels, n_features, out)
    return False


SCALE = StepKernels(None, _map_by_scale, _invert_scale, _scale_gradient, None)


@_map_kernel
def _reorder(step, numbers, bound, parameters, prepared, context, x, z, log_det, kept, work, n_panels, n_features):
    reorder(x, numbers[step[ORDER] :], z, n_panels, n_features)


@_map_kernel
def _reorder_back(step, numbers, bound, parameters, prepared, context, z, x, log_det, kept, work, n_panels, n_features):
    reorder(z, numbers[step[INVERSE_ORDER] :], x, n_panels, n_features)


@_gradient_kernel
def _reorder_gradient(
    step, numbers, bound, parameters, prepared,
    x, gradient, spare, log_gradient, kept, work, out, sums, n_panels, n_features,
):  # fmt: skip
    reorder(gradient, numbers[step[INVERSE_ORDER] :], spare, n_panels, n_features)
    return True


REORDER = StepKernels(None, _reorder, _reorder_back, _reorder_gradient, None)


@inner
def _tables(step, numbers):
    table = numbers[step[TABLE] : step[TABLE] + 6 * step[N_LAYERS]].reshape((step[N_LAYERS], 6))
    staying = numbers[step[STAYING] : step[STAYING] + step[N_STAYING]]
    moving = numbers[step[MOVING] : step[MOVING] + step[N_MOVING]]
    return table, numbers[step[STAIRS] :], staying, moving, numbers[step[PLACES] :]


@inner
def _units_up_to(step, numbers, n_features):
    n_hidden = step[N_LAYERS] - 1
    return numbers[step[UNITS] : step[UNITS] + n_hidden * n_features].reshape((n_hidden, n_features))


@_map_kernel
def _map_by_network(step, numbers, bound, parameters, prepared, context, x, y, log_det, kept, work, n_panels, n_features):
    table, stairs, staying, moving, places = _tables(step, numbers)
    map_by_layer(
        *(parameters, table, stairs, staying, moving, step[ACTIVATION], CONDITIONER_BOUND, step[IS_AFFINE] == 1),
        *(step[N_RAW], bound, False, context, step[N_CONTEXT], x, y, log_det, kept[step[KEPT] :], places, work),
        *(n_panels, n_features),
    )


@_map_kernel
def _invert_by_network(step, numbers, bound, parameters, prepared, context, y, x, log_det, kept, work, n_panels, n_features):
    table, stairs, staying, moving, places = _tables(step, numbers)
    map_by_layer(
        *(parameters, table, stairs, staying, moving, step[ACTIVATION], CONDITIONER_BOUND, step[IS_AFFINE] == 1),
        *(step[N_RAW], bound, True, context, step[N_CONTEXT], y, x, log_det, kept[step[KEPT] :], places, work),
        *(n_panels, n_features),
    )


@_map_kernel
def _solve_in_order(step, numbers, bound, parameters, prepared, context, z, x, log_det, kept, work, n_panels, n_features):
    table, stairs, staying, _, places = _tables(step, numbers)
    units = _units_up_to(step, numbers, n_features)
    invert_autoregressive(
        *(parameters, table, stairs, units, staying, step[ACTIVATION], CONDITIONER_BOUND, step[IS_AFFINE] == 1, step[N_RAW]),
        *(bound, context, step[N_CONTEXT], z, x, log_det, kept[step[KEPT] :], places, work, n_panels, n_features),
    )


@_gradient_kernel
def _network_gradient(
    step, numbers, bound, parameters, prepared,
    x, gradient, spare, log_gradient, kept, work, out, sums, n_panels, n_features,
):  # fmt: skip
    table, stairs, staying, moving, places = _tables(step, numbers)
    here = kept[step[KEPT] :]
    layer_gradient(
        *(parameters, table, stairs, staying, moving, CONDITIONER_BOUND, step[IS_AFFINE] == 1, step[N_RAW]),
        *(bound, step[N_CONTEXT], x, gradient, log_gradient, here, places, work, n_panels, n_features),
    )
    add_layer_gradient(table, stairs, here, places, work, n_panels, out)
    return False


@_gradient_kernel
def _gradient_in_order(
    step, numbers, bound, parameters, prepared,
    x, gradient, spare, log_gradient, kept, work, out, sums, n_panels, n_features,
):  # fmt: skip
    table, stairs, _, _, places = _tables(step, numbers)
    here = kept[step[KEPT] :]
    inverse_autoregressive_gradient(
        *(parameters, table, stairs, _units_up_to(step, numbers, n_features), CONDITIONER_BOUND, bound),
        *(step[N_CONTEXT], x, gradient, log_gradient, here, places, work, n_panels, n_features),
    )
    add_layer_gradient(table, stairs, here, places, work, n_panels, out)
    return False


AUTOREGRESSIVE = StepKernels(None, _map_by_network, _solve_in_order, _network_gradient, None)
COUPLING = StepKernels(None, _map_by_network, _invert_by_network, _network_gradient, None)
INVERSE_AUTOREGRESSIVE = StepKernels(None, _solve_in_order, _map_by_network, _gradient_in_order, None)
