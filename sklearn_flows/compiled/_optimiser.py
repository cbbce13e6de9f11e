"""Steps of the optimisers: of AdamW as one pass over memory, of Muon block by block."""

import math

from numba import types

from ._functions import inner, kind_of_kernel
from ._muon import orthogonalised_steps
from ._product import vector_width
from ._vector import load, total


@inner
def _squared_norm(x):
    """Sum of squares. A plain loop would wait for each sum, as their order may not change."""
    width = vector_width(x)
    n_whole = len(x) - len(x) % width
    result = 0.0
    if n_whole > 0:
        squares = load(x, 0) * 0.0
        for i in range(0, n_whole, width):
            v = load(x, i)
            squares = squares + v * v
        result += total(squares)
    for i in range(n_whole, len(x)):
        result += x[i] * x[i]
    return result


@inner
def factor_of_clipped(gradients, max_norm):
    """What gradients are multiplied with, so that their norm is ``max_norm`` at most."""
    norm = math.sqrt(_squared_norm(gradients))
    # Written such that a norm that isn't a number is the factor.
    return 1.0 if norm <= max_norm else max_norm / norm


def _signature_of_step(number):
    memory, table, n, setting = number[::1], types.int64[::1], types.intp, types.float64
    values, gradients, first_moment, second_moment = [memory] * 4
    n_decaying, blocks, n_seen, n_in_blocks, coefficients = n, types.int64[:, ::1], table, n, types.float64[::1]
    learning_rate, weight_decay, clip, beta1, beta2, eps, beta_of_blocks = [setting] * 7
    n_iterations, size_of_blocks, n_steps, part, n_parts = n, setting, n, n, n
    return types.void(
        *(values, gradients, first_moment, second_moment, n_decaying, blocks, n_seen, n_in_blocks, coefficients),
        *(learning_rate, weight_decay, clip, beta1, beta2, eps, beta_of_blocks, n_iterations, size_of_blocks, n_steps),
        *(part, n_parts),
    )


_step_kernel, call_step = kind_of_kernel(_signature_of_step)


@_step_kernel
def _step(
    values, gradients, first_moment, second_moment, n_decaying, blocks, n_seen, n_in_blocks, coefficients,
    learning_rate, weight_decay, clip, beta1, beta2, eps, beta_of_blocks, n_iterations, size_of_blocks, n_steps,
    part, n_parts,
):  # fmt: skip
    """Take step number ``n_steps``, from 1, along gradients times ``clip``, and clear them: of a part of all parameters.

    What is in blocks takes an orthogonalised step, and the rest one of AdamW.
    """
    first, last = len(blocks) * part // n_parts, len(blocks) * (part + 1) // n_parts
    orthogonalised_steps(
        *(values, gradients, first_moment, blocks[first:last], n_seen, clip, learning_rate, weight_decay),
        *(beta_of_blocks, coefficients, n_iterations, size_of_blocks),
    )
    dtype = values.dtype.type
    scale, decay = dtype(clip), dtype(1.0 - learning_rate * weight_decay)
    keep1, keep2, add1, add2 = dtype(beta1), dtype(beta2), dtype(1.0 - beta1), dtype(1.0 - beta2)
    size = dtype(learning_rate / (1.0 - beta1**n_steps))
    correction, small = dtype(1.0 / math.sqrt(1.0 - beta2**n_steps)), dtype(eps)
    n_others = len(values) - n_in_blocks
    first, last = n_in_blocks + n_others * part // n_parts, n_in_blocks + n_others * (part + 1) // n_parts
    # Slices, for a loop from zero: the compiler makes vectors only of what it knows not to count from the end of an array.
    values, gradients, first_moment = values[first:last], gradients[first:last], first_moment[first:last]
    second_moment, n_decaying = second_moment[first:last], n_decaying - first
    for i in range(len(values)):
        g = gradients[i] * scale
        m = keep1 * first_moment[i] + add1 * g
        v = keep2 * second_moment[i] + add2 * g * g
        first_moment[i], second_moment[i] = m, v
        value = values[i] * decay if i < n_decaying else values[i]
        values[i] = value - size * m / (math.sqrt(v) * correction + small)
        gradients[i] = dtype(0.0)


def address_of_step(dtype):
    """Address of the kernel for ``call_step``."""
    return _step.address(dtype)
