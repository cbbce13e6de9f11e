"""Orthogonalised steps for blocks of rows of matrices, as ``training._optim.Muon`` describes them."""

import math

import numpy as np

from ..nets import MUON_BLOCK_SIZE as BLOCK_SIZE
from ._functions import inner
from ._product import vector_width
from ._vector import load, store, total

# A matrix of products of a block's rows has as many columns as a block may have rows, those of missing ones filled with zeros.
_SQUARE = BLOCK_SIZE * BLOCK_SIZE


@inner
def _combine(weights, square, rows, first, stride, sums, place, stride_of_sums):
    """Sum a vector of each row with each row of a square of weights: four sums at once, for the processor to overlap them."""
    n = BLOCK_SIZE
    for i in range(0, n, 4):
        w = square + i * n
        row = load(rows, first)
        a, b, c, d = row * weights[w], row * weights[w + n], row * weights[w + 2 * n], row * weights[w + 3 * n]
        for j in range(1, n):
            row = load(rows, first + j * stride)
            a = a + row * weights[w + j]
            b = b + row * weights[w + n + j]
            c = c + row * weights[w + 2 * n + j]
            d = d + row * weights[w + 3 * n + j]
        out = place + i * stride_of_sums
        store(sums, out, a)
        store(sums, out + stride_of_sums, b)
        store(sums, out + 2 * stride_of_sums, c)
        store(sums, out + 3 * stride_of_sums, d)


@inner
def _multiply(work, a, b, c):
    """Multiply the square at ``a`` by that at ``b``, to ``c``."""
    for lane in range(0, BLOCK_SIZE, vector_width(work)):
        _combine(work, a, work, b + lane, BLOCK_SIZE, work, c + lane, BLOCK_SIZE)


@inner
def _products_of_rows(block, length, work):
    """Products of all rows of a block with each other, to the first square, four of them at once; give the sum of squares."""
    width = vector_width(block)
    norm = 0.0
    for i in range(BLOCK_SIZE):
        for j in range(0, i + 1, 4):
            first = second = third = fourth = load(block, 0) * 0.0
            for k in range(0, length, width):
                row, other = load(block, i * length + k), j * length + k
                first = first + row * load(block, other)
                second = second + row * load(block, other + length)
                third = third + row * load(block, other + 2 * length)
                fourth = fourth + row * load(block, other + 3 * length)
            dots = (total(first), total(second), total(third), total(fourth))
            for of_four in range(min(4, i + 1 - j)):
                dot = dots[of_four]
                work[i * BLOCK_SIZE + j + of_four] = work[(j + of_four) * BLOCK_SIZE + i] = dot
                norm += dot * dot * (1.0 if i == j + of_four else 2.0)
    return norm


@inner
def _inverse_root_of_products(block, length, coefficients, n_iterations, work):
    """Find Q such that the rows of Q M are orthonormal, or nearly so; M are the rows of ``block``.

    Returns where Q is in ``work``, not in its first square; where all of M is zero, so is Q.
    """
    products, squared, factor, result, spare = 0, _SQUARE, 2 * _SQUARE, 3 * _SQUARE, 4 * _SQUARE
    zero = work.dtype.type(0.0)
    for i in range(_SQUARE):
        work[squared + i] = work[result + i] = zero
    norm = math.sqrt(_products_of_rows(block, length, work))
    if norm == 0.0:  # but go on with NaN, which must be seen
        return squared
    scale = work.dtype.type(1.0 / norm)
    for i in range(_SQUARE):
        work[products + i] *= scale
    for i in range(BLOCK_SIZE):
        work[result + i * (BLOCK_SIZE + 1)] = math.sqrt(scale)
    for iteration in range(n_iterations):
        _multiply(work, products, products, squared)
        for i in range(_SQUARE):
            work[factor + i] = coefficients[1] * work[products + i] + coefficients[2] * work[squared + i]
        for i in range(BLOCK_SIZE):
            work[factor + i * (BLOCK_SIZE + 1)] += coefficients[0]
        _multiply(work, factor, result, spare)
        result, spare = spare, result
        if iteration + 1 < n_iterations:
            _multiply(work, factor, products, squared)
            _multiply(work, squared, factor, products)
    return result


@inner
def _add_to_momentum(momentum, gradients, keep, scale, ahead):
    """Let gradients count for the momentum and clear them; to ``ahead`` goes the momentum after as large ones once more."""
    for j in range(len(momentum)):
        g = gradients[j] * scale
        momentum[j] = keep * momentum[j] + g
        ahead[j] = keep * momentum[j] + g
        gradients[j] = 0.0


@inner
def _move(values, decay, step, direction, n):
    for j in range(n):
        values[j] = values[j] * decay - step * direction[j]


@inner
def orthogonalised_steps(
    values, gradients, momentum, blocks, n_seen, scale, learning_rate, weight_decay, beta, coefficients, n_iterations, size
):
    """Take a step for each block of rows of matrices; ``scale`` is a factor of the gradients."""
    dtype = values.dtype.type
    width = vector_width(values)
    longest = 0
    for i in range(len(blocks)):
        longest = max(longest, blocks[i, 2], blocks[i, 3])
    memory = np.empty(BLOCK_SIZE * (longest + width), values.dtype)
    work = np.empty(5 * _SQUARE, values.dtype)
    coefficients = coefficients.astype(values.dtype)
    scale, keep, decay = dtype(scale), dtype(beta), dtype(1.0 - learning_rate * weight_decay)
    for b in range(len(blocks)):
        first, first_row, n_rows, n_columns = blocks[b, 0], blocks[b, 1], blocks[b, 2], blocks[b, 3]
        # The shorter side is made orthonormal; its vectors lie one after the other, filled up with zeros.
        is_tall = n_rows > n_columns
        length = n_rows if is_tall else n_columns
        padded = (length + width - 1) // width * width
        block = memory[: BLOCK_SIZE * padded]
        block[:] = dtype(0.0)
        for i in range(n_rows):
            # Rows and columns as arrays of their own, for loops from zero: of those the compiler makes vectors.
            row = slice(first + i * n_columns, first + (i + 1) * n_columns)
            if is_tall:
                _add_to_momentum(momentum[row], gradients[row], keep, scale, block[i::padded])
            else:
                _add_to_momentum(momentum[row], gradients[row], keep, scale, block[i * padded : (i + 1) * padded])
        inverse_root = _inverse_root_of_products(block, padded, coefficients, n_iterations, work)
        for k in range(0, padded, width):
            _combine(work, inverse_root, block, k, padded, work, 0, width)
            for i in range(BLOCK_SIZE):
                store(block, i * padded + k, load(work, i * width))
        step = dtype(learning_rate * size * math.sqrt(length))
        for i in range(n_rows):
            row = slice(first + i * n_columns, first + (i + 1) * n_columns)
            if is_tall:
                _move(values[row], decay, step, block[i::padded], n_seen[first_row + i])
            else:
                _move(values[row], decay, step, block[i * padded : (i + 1) * padded], n_seen[first_row + i])
