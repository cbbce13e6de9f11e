"""Orthogonalised steps for blocks of rows of matrices, as ``training._optim.Muon`` describes them."""

import math

import numpy as np

from ..nets import MUON_BLOCK_SIZE as BLOCK_SIZE
from ._product import vector_width
from ._vector import compiled, load, store, total

# A matrix of products of a block's rows has as many columns as a block may have rows, those of missing ones filled with zeros.
_SQUARE = BLOCK_SIZE * BLOCK_SIZE


@compiled
def _multiply(work, a, b, c):
    """Multiply the square at ``a`` by that at ``b``, to ``c``: two rows at once, for the processor to work on side by side."""
    width = vector_width(work)
    for i in range(0, BLOCK_SIZE, 2):
        for lane in range(0, BLOCK_SIZE, width):
            first = load(work, b + lane) * work[a + i * BLOCK_SIZE]
            second = load(work, b + lane) * work[a + (i + 1) * BLOCK_SIZE]
            for k in range(1, BLOCK_SIZE):
                row = load(work, b + k * BLOCK_SIZE + lane)
                first = first + row * work[a + i * BLOCK_SIZE + k]
                second = second + row * work[a + (i + 1) * BLOCK_SIZE + k]
            store(work, c + i * BLOCK_SIZE + lane, first)
            store(work, c + (i + 1) * BLOCK_SIZE + lane, second)


@compiled
def _inverse_root_of_products(block, n_rows, length, coefficients, n_iterations, work):
    """Find Q such that the rows of Q M are orthonormal, or nearly so; M are the rows of ``block``.

    Returns where Q is in ``work``, not in its first square; where all of M is zero, so is Q.
    """
    products, squared, factor, result, spare = 0, _SQUARE, 2 * _SQUARE, 3 * _SQUARE, 4 * _SQUARE
    width = vector_width(work)
    zero = work.dtype.type(0.0)
    for i in range(2 * _SQUARE):
        work[i] = zero
        work[result + i % _SQUARE] = zero
    norm = 0.0
    for i in range(n_rows):
        for j in range(i + 1):
            dots = load(block, 0) * 0.0
            for k in range(0, length, width):
                dots = dots + load(block, i * length + k) * load(block, j * length + k)
            dot = total(dots)
            work[products + i * BLOCK_SIZE + j] = work[products + j * BLOCK_SIZE + i] = dot
            norm += dot * dot * (1.0 if i == j else 2.0)
    norm = math.sqrt(norm)
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


@compiled
def orthogonalised_steps(
    values, gradients, momentum, blocks, n_seen, scale, learning_rate, weight_decay, beta, coefficients, n_iterations, size
):
    """Take a step for each block of rows of matrices; ``scale`` is a factor of the gradients."""
    dtype = values.dtype.type
    width = vector_width(values)
    longest = 0
    for i in range(len(blocks)):
        longest = max(longest, blocks[i, 2], blocks[i, 3])
    block = np.empty(BLOCK_SIZE * (longest + width), values.dtype)
    work = np.empty(5 * _SQUARE, values.dtype)
    coefficients = coefficients.astype(values.dtype)
    factor, keep, decay = dtype(scale), dtype(beta), dtype(1.0 - learning_rate * weight_decay)
    for b in range(len(blocks)):
        first, first_row, n_rows, n_columns = blocks[b, 0], blocks[b, 1], blocks[b, 2], blocks[b, 3]
        # The shorter side is made orthonormal; its vectors lie one after the other, filled up with zeros.
        is_tall = n_rows > n_columns
        n_vectors, length = (n_columns, n_rows) if is_tall else (n_rows, n_columns)
        padded = (length + width - 1) // width * width
        for i in range(n_vectors * padded):
            block[i] = dtype(0.0)
        for i in range(n_rows):
            for j in range(n_columns):
                place = first + i * n_columns + j
                g = gradients[place] * factor
                m = keep * momentum[place] + g
                momentum[place] = m
                block[j * padded + i if is_tall else i * padded + j] = keep * m + g
        result = _inverse_root_of_products(block, n_vectors, padded, coefficients, n_iterations, work)
        step = dtype(learning_rate * size * math.sqrt(length))
        for k in range(0, padded, width):
            for i in range(n_vectors):
                moved = load(block, k) * work[result + i * BLOCK_SIZE]
                for j in range(1, n_vectors):
                    moved = moved + load(block, j * padded + k) * work[result + i * BLOCK_SIZE + j]
                store(work, i * width, moved * step)
            for i in range(n_vectors):
                for lane in range(min(width, length - k)):
                    row, column = (k + lane, i) if is_tall else (i, k + lane)
                    if column < n_seen[first_row + row]:
                        place = first + row * n_columns + column
                        values[place] = values[place] * decay - work[i * width + lane]
        for i in range(n_rows * n_columns):
            gradients[first + i] = dtype(0.0)
