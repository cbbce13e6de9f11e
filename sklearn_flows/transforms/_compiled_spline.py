"""The rational-quadratic spline compiled for the CPU: one pass over the raw parameters, forwards or backwards.

The mathematics is that of ``_spline``, which says it in torch and is the one to read first. Here rows lie next to each other
in memory, and ``LANES`` of them at a time go through loops so short and plain that the compiler makes vector instructions of
them, on intermediate results that never leave the innermost cache. Two habits follow from that:

- conditions are sums of terms that are zero where they don't hold, ``size += bin if k == index else 0``;
- every constant has the precision of the arrays: one double among floats would halve the speed, silently.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numba import njit

from .._workspace import empty
from ._spline import DERIVATIVE_OFFSET, MIN_BIN, MIN_DERIVATIVE, SplineKernels

LANES = 64
CACHE_LINE = 64  # bytes

# The compiler may reorder sums; it may not assume that infinity and NaN don't occur. With Python's error model each division
# would have a branch for the exception, and no loop with one would be vectorised.
compiled = njit(fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy", nogil=True, cache=True)


class _Precision(NamedTuple):
    """Constants in the precision of the arrays."""

    # exp(y) = 2^n exp(r) with r = y - n log 2, |r| <= log(2) / 2. log 2 has two parts, the first of so few digits that n times
    # it is exact. Taylor's series, highest power first: the first term left out is below the rounding.
    inverse_log_2: float
    log_2_high: float
    log_2_low: float
    smallest_exponent: float
    exp_series: tuple[float, ...]
    # 2^n as bits: (n + bias) * 2^(number of bits of the fraction).
    exponent_bias: float
    exponent_unit: float
    # log(1 + u) = 2 artanh(t) with t = u / (2 + u), |t| <= 1/3 for u in [0, 1], as a series in t^2.
    artanh_series: tuple[float, ...]
    min_bin: float
    min_derivative: float
    derivative_offset: float

    @classmethod
    def of(cls, dtype):
        real = np.dtype(dtype).type
        n_exp, n_artanh, n_bits = (8, 8, 23) if real is np.float32 else (14, 16, 52)
        info = np.finfo(dtype)
        return cls(
            inverse_log_2=real(1 / math.log(2)),
            log_2_high=real(0.693145751953125),
            log_2_low=real(math.log(2) - 0.693145751953125),
            smallest_exponent=real(info.minexp * math.log(2)),
            exp_series=tuple(real(1 / math.factorial(i)) for i in reversed(range(n_exp))),
            exponent_bias=real(1 - info.minexp),
            exponent_unit=real(2**n_bits),
            artanh_series=tuple(real(2 / (2 * i + 1)) for i in reversed(range(n_artanh))),
            min_bin=real(MIN_BIN),
            min_derivative=real(MIN_DERIVATIVE),
            derivative_offset=real(DERIVATIVE_OFFSET),
        )


_PRECISIONS = {np.dtype(dtype): _Precision.of(dtype) for dtype in (np.float32, np.float64)}


@compiled
def exponential(v, power, exponent, c):
    """Replace v <= 0 by exp(v). ``power`` and ``exponent`` are one piece of memory, as reals and as integers."""
    half = v.dtype.type(0.5)
    to_integer = exponent.dtype.type
    for j in range(LANES):
        y = max(v[j], c.smallest_exponent)
        n = np.floor(y * c.inverse_log_2 + half)
        r = (y - n * c.log_2_high) - n * c.log_2_low
        series = c.exp_series[0]
        for coefficient in c.exp_series[1:]:
            series = series * r + coefficient
        v[j] = series
        exponent[j] = to_integer((n + c.exponent_bias) * c.exponent_unit)
    for j in range(LANES):
        v[j] *= power[j]


@compiled
def _softmax(raw, shares, top, total, power, exponent, c):
    n_bins = raw.shape[0]
    zero, one = top.dtype.type(0), top.dtype.type(1)
    for j in range(LANES):
        top[j] = raw[0, j]
    for k in range(1, n_bins):
        r = raw[k]
        for j in range(LANES):
            top[j] = max(top[j], r[j])
    for j in range(LANES):
        total[j] = zero
    for k in range(n_bins):
        r, share = raw[k], shares[k]
        for j in range(LANES):
            share[j] = r[j] - top[j]
        exponential(share, power, exponent, c)
        for j in range(LANES):
            total[j] += share[j]
    for j in range(LANES):
        total[j] = one / total[j]
    for k in range(n_bins):
        share = shares[k]
        for j in range(LANES):
            share[j] *= total[j]


@compiled
def _find_bin(position, shares, index, end, c):
    """Set ``index`` to the number of inner knots at or below ``position``."""
    zero, one = position.dtype.type(0), position.dtype.type(1)
    n_bins = shares.shape[0]
    free = one - position.dtype.type(n_bins) * c.min_bin
    for j in range(LANES):
        end[j] = zero
        index[j] = zero
    for k in range(n_bins - 1):
        share = shares[k]
        for j in range(LANES):
            end[j] += c.min_bin + free * share[j]
            index[j] += one if position[j] >= end[j] else zero


@compiled
def _bin_at(index, shares, start, size, c):
    zero, one, real = index.dtype.type(0), index.dtype.type(1), index.dtype.type
    n_bins = shares.shape[0]
    free = one - real(n_bins) * c.min_bin
    for j in range(LANES):
        start[j] = zero
        size[j] = zero
    for k in range(n_bins):
        share, number = shares[k], real(k)
        for j in range(LANES):
            step = c.min_bin + free * share[j]
            start[j] += step if number < index[j] else zero
            size[j] += step if number == index[j] else zero


@compiled
def _derivatives_at(index, raw, left, right, left_slope, right_slope, power, exponent, c):
    """Set ``left`` and ``right`` to the derivatives at the ends of the bin, and the slopes to theirs in the raw values."""
    zero, real = index.dtype.type(0), index.dtype.type
    # Where there is no raw value, at both ends of the box, the offset alone makes the derivative one.
    for j in range(LANES):
        left[j] = c.derivative_offset
        right[j] = c.derivative_offset
    for k in range(raw.shape[0]):
        r, bin_before, bin_after = raw[k], real(k), real(k + 1)
        for j in range(LANES):
            left[j] += r[j] if index[j] == bin_after else zero
            right[j] += r[j] if index[j] == bin_before else zero
    _softplus(left, left_slope, power, exponent, c)
    _softplus(right, right_slope, power, exponent, c)


@compiled
def _softplus(v, slope, power, exponent, c):
    """Replace v by its softplus plus the smallest derivative, and set ``slope`` to the derivative of that."""
    zero, one, two = v.dtype.type(0), v.dtype.type(1), v.dtype.type(2)
    for j in range(LANES):
        slope[j] = -abs(v[j])
    exponential(slope, power, exponent, c)
    for j in range(LANES):
        u = slope[j]
        t = u / (two + u)
        t_squared = t * t
        series = c.artanh_series[0]
        for coefficient in c.artanh_series[1:]:
            series = series * t_squared + coefficient
        slope[j] = (one if v[j] > zero else u) / (one + u)
        v[j] = c.min_derivative + max(v[j], zero) + series * t


@compiled
def load_block(x, raw, bias, row, first, n, x_block, raw_block):
    # Also where rows are in the right order already: their distance in memory is often a power of two, and the parameters
    # of a row then compete for the same few places in the cache.
    for j in range(n):
        x_block[j] = x[row, first + j]
    for p in range(raw.shape[1]):
        for j in range(n):
            raw_block[p, j] = raw[row, p, first + j] + bias[row, p]


@compiled
def splines(x, raw, bias, bound, rows, integers, c, z, derivative):
    real = x.dtype.type
    zero, one, two = real(0), real(1), real(2)
    n_parameters = raw.shape[1]
    n_bins = (n_parameters + 1) // 3
    power, exponent = rows[0], integers[0]
    x_block, position, index, x_k = rows[1], rows[2], rows[3], rows[4]
    w, y_k, h, d_left = rows[5], rows[6], rows[7], rows[8]
    d_right, spare, other, value = rows[9], rows[10], rows[11], rows[12]
    slope = rows[13]
    shares = rows[14 : 14 + 2 * n_bins]
    raw_block = rows[14 + 2 * n_bins : 14 + 2 * n_bins + n_parameters]
    for row in range(x.shape[0]):
        for first in range(0, x.shape[1], LANES):
            n = min(LANES, x.shape[1] - first)
            load_block(x, raw, bias, row, first, n, x_block, raw_block)
            for j in range(LANES):
                position[j] = min(max((x_block[j] + bound) / (two * bound), zero), one)
            _softmax(raw_block[:n_bins], shares[:n_bins], spare, other, power, exponent, c)
            _softmax(raw_block[n_bins : 2 * n_bins], shares[n_bins:], spare, other, power, exponent, c)
            _find_bin(position, shares[:n_bins], index, spare, c)
            _bin_at(index, shares[:n_bins], x_k, w, c)
            _bin_at(index, shares[n_bins:], y_k, h, c)
            _derivatives_at(index, raw_block[2 * n_bins :], d_left, d_right, spare, other, power, exponent, c)
            for j in range(LANES):
                xi = min(max((position[j] - x_k[j]) / w[j], zero), one)
                s = h[j] / w[j]
                rest = xi * (one - xi)
                denominator = s + (d_left[j] + d_right[j] - two * s) * rest
                value[j] = (y_k[j] + h[j] * (s * xi * xi + d_left[j] * rest) / denominator) * (two * bound) - bound
                numerator = d_right[j] * xi * xi + two * s * rest + d_left[j] * (one - xi) * (one - xi)
                slope[j] = (s / denominator) * (s / denominator) * numerator
            for j in range(LANES):
                outside = abs(x_block[j]) > bound
                value[j] = x_block[j] if outside else value[j]
                slope[j] = one if outside else slope[j]
            for j in range(n):
                z[row, first + j] = value[j]
                derivative[row, first + j] = slope[j]


@compiled
def inverse_splines(z, raw, bias, bound, rows, integers, c, x, derivative):
    real = z.dtype.type
    zero, one, two, four = real(0), real(1), real(2), real(4)
    n_parameters = raw.shape[1]
    n_bins = (n_parameters + 1) // 3
    power, exponent = rows[0], integers[0]
    z_block, position, index, x_k = rows[1], rows[2], rows[3], rows[4]
    w, y_k, h, d_left = rows[5], rows[6], rows[7], rows[8]
    d_right, spare, other, value = rows[9], rows[10], rows[11], rows[12]
    slope = rows[13]
    shares = rows[14 : 14 + 2 * n_bins]
    raw_block = rows[14 + 2 * n_bins : 14 + 2 * n_bins + n_parameters]
    for row in range(z.shape[0]):
        for first in range(0, z.shape[1], LANES):
            n = min(LANES, z.shape[1] - first)
            load_block(z, raw, bias, row, first, n, z_block, raw_block)
            for j in range(LANES):
                position[j] = min(max((z_block[j] + bound) / (two * bound), zero), one)
            _softmax(raw_block[:n_bins], shares[:n_bins], spare, other, power, exponent, c)
            _softmax(raw_block[n_bins : 2 * n_bins], shares[n_bins:], spare, other, power, exponent, c)
            _find_bin(position, shares[n_bins:], index, spare, c)
            _bin_at(index, shares[:n_bins], x_k, w, c)
            _bin_at(index, shares[n_bins:], y_k, h, c)
            _derivatives_at(index, raw_block[2 * n_bins :], d_left, d_right, spare, other, power, exponent, c)
            for j in range(LANES):
                s = h[j] / w[j]
                curvature = d_left[j] + d_right[j] - two * s
                rise = max(position[j] - y_k[j], zero)
                quadratic = h[j] * (s - d_left[j]) + rise * curvature
                linear = h[j] * d_left[j] - rise * curvature
                constant = -s * rise
                discriminant = max(linear * linear - four * quadratic * constant, zero)
                xi = min(max(two * constant / (-linear - np.sqrt(discriminant)), zero), one)
                value[j] = (x_k[j] + w[j] * xi) * (two * bound) - bound
                rest = xi * (one - xi)
                denominator = s + curvature * rest
                numerator = d_right[j] * xi * xi + two * s * rest + d_left[j] * (one - xi) * (one - xi)
                slope[j] = (denominator / s) * (denominator / s) / numerator
            for j in range(LANES):
                outside = abs(z_block[j]) > bound
                value[j] = z_block[j] if outside else value[j]
                slope[j] = one if outside else slope[j]
            for j in range(n):
                x[row, first + j] = value[j]
                derivative[row, first + j] = slope[j]


@compiled
def _share_gradients(index, shares, start, size, start_gradient, size_gradient, mean, out, c):
    """Back through ``_bin_at`` and the softmax; ``mean`` is working memory."""
    zero, one, real = index.dtype.type(0), index.dtype.type(1), index.dtype.type
    n_bins = shares.shape[0]
    free = one - real(n_bins) * c.min_bin
    for j in range(LANES):
        mean[j] = start_gradient[j] * (start[j] - index[j] * c.min_bin) + size_gradient[j] * (size[j] - c.min_bin)
    for k in range(n_bins):
        share, result, number = shares[k], out[k], real(k)
        for j in range(LANES):
            direct = start_gradient[j] if number < index[j] else zero
            direct += size_gradient[j] if number == index[j] else zero
            result[j] = share[j] * (free * direct - mean[j])


@compiled
def spline_gradients(x, raw, bias, bound, rows, integers, c, z_gradient, log_gradient, x_gradient, raw_gradient):
    real = x.dtype.type
    zero, one, two = real(0), real(1), real(2)
    n_parameters = raw.shape[1]
    n_bins = (n_parameters + 1) // 3
    power, exponent = rows[0], integers[0]
    x_block, position, index, x_k = rows[1], rows[2], rows[3], rows[4]
    w, y_k, h, d_left = rows[5], rows[6], rows[7], rows[8]
    d_right, left_slope, right_slope, spare = rows[9], rows[10], rows[11], rows[12]
    other, g_value, g_log, g_start_x = rows[13], rows[14], rows[15], rows[16]
    g_start_y, g_w, g_h = rows[17], rows[18], rows[19]
    shares = rows[20 : 20 + 2 * n_bins]
    raw_block = rows[20 + 2 * n_bins : 20 + 2 * n_bins + n_parameters]
    last_log = log_gradient.shape[0] - 1  # one row of them may stand for all
    for row in range(x.shape[0]):
        for first in range(0, x.shape[1], LANES):
            n = min(LANES, x.shape[1] - first)
            load_block(x, raw, bias, row, first, n, x_block, raw_block)
            for j in range(LANES):
                position[j] = min(max((x_block[j] + bound) / (two * bound), zero), one)
            _softmax(raw_block[:n_bins], shares[:n_bins], spare, other, power, exponent, c)
            _softmax(raw_block[n_bins : 2 * n_bins], shares[n_bins:], spare, other, power, exponent, c)
            _find_bin(position, shares[:n_bins], index, spare, c)
            _bin_at(index, shares[:n_bins], x_k, w, c)
            _bin_at(index, shares[n_bins:], y_k, h, c)
            _derivatives_at(index, raw_block[2 * n_bins :], d_left, d_right, left_slope, right_slope, power, exponent, c)
            for j in range(n):
                inside = one if abs(x_block[j]) <= bound else zero
                g_value[j] = z_gradient[row, first + j] * inside * two * bound
                g_log[j] = log_gradient[min(row, last_log), first + j] * inside
            # The names of _spline.gradients.
            for j in range(LANES):
                xi = min(max((position[j] - x_k[j]) / w[j], zero), one)
                s = h[j] / w[j]
                rest, xi_left = xi * (one - xi), one - xi
                curvature = d_left[j] + d_right[j] - two * s
                denominator = s + curvature * rest
                a = s * xi * xi + d_left[j] * rest
                numerator = d_right[j] * xi * xi + two * s * rest + d_left[j] * xi_left * xi_left
                g_a = g_value[j] * h[j] / denominator
                g_denominator = -(g_a * a + two * g_log[j]) / denominator
                g_numerator = g_log[j] / numerator
                g_rest = g_a * d_left[j] + g_denominator * curvature + two * g_numerator * s
                g_s = two * g_log[j] / s + g_a * xi * xi + g_denominator * (one - two * rest) + two * g_numerator * rest
                g_xi = (
                    two * xi * (g_a * s + g_numerator * d_right[j])
                    - two * xi_left * g_numerator * d_left[j]
                    + g_rest * (one - two * xi)
                )
                spare[j] = (g_a * rest + g_denominator * rest + g_numerator * xi_left * xi_left) * left_slope[j]
                other[j] = (g_denominator * rest + g_numerator * xi * xi) * right_slope[j]
                g_start_x[j] = -g_xi / w[j]
                g_w[j] = -(g_xi * xi + g_s * s) / w[j]
                g_h[j] = g_value[j] * a / denominator + g_s / w[j]
                g_start_y[j] = g_value[j]
            for j in range(n):
                x_gradient[row, first + j] = (
                    z_gradient[row, first + j] if abs(x_block[j]) > bound else -g_start_x[j] / (two * bound)
                )
            for k in range(n_bins - 1):
                result, bin_before, bin_after = raw_block[2 * n_bins + k], real(k), real(k + 1)
                for j in range(LANES):
                    gradient = spare[j] if index[j] == bin_after else zero
                    gradient += other[j] if index[j] == bin_before else zero
                    result[j] = gradient
            _share_gradients(index, shares[:n_bins], x_k, w, g_start_x, g_w, spare, raw_block[:n_bins], c)
            _share_gradients(index, shares[n_bins:], y_k, h, g_start_y, g_h, spare, raw_block[n_bins : 2 * n_bins], c)
            for p in range(n_parameters):
                for j in range(n):
                    raw_gradient[row, p, first + j] = raw_block[p, j]


def rows_last(x):
    """Array of shape (n_splines, n_rows) from a tensor (..., n_rows, n_splines): the same memory, if it is in that order."""
    return x.detach().mT.reshape(-1, x.shape[-2]).contiguous().numpy()


def _parameters_rows_last(raw):
    """Array of shape (n_splines, n_parameters, n_rows) from a tensor (..., n_rows, n_splines, n_parameters)."""
    return raw.detach().movedim(-3, -1).reshape(-1, raw.shape[-1], raw.shape[-3]).contiguous().numpy()


def working_memory(n_parameters, dtype):
    """Rows of ``LANES`` numbers for all that a kernel keeps of a block, as reals and as integers, and its constants.

    In one piece: rows that lie scattered can compete for the same place in the cache, which makes a kernel twice as slow.
    """
    dtype = np.dtype(dtype)
    n_bytes = (20 + 2 * n_parameters) * LANES * dtype.itemsize
    memory = np.zeros(n_bytes + CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % CACHE_LINE
    rows = memory[start : start + n_bytes].view(dtype).reshape(-1, LANES)
    return rows, rows.view(f"i{dtype.itemsize}"), _PRECISIONS[dtype]


def real_type(x):
    """Type of numpy's scalars for the numbers of a tensor."""
    return np.float32 if x.dtype == torch.float32 else np.float64


def _evaluate(x, raw, n_bins, tail_bound, inverse):
    """As ``_spline.evaluate_spline``, for tensors of at least two axes, rows on the last but one of ``x``."""
    real = real_type(x)
    y, slope = empty(x.mT.shape, x).mT, empty(x.mT.shape, x).mT
    parameters = _parameters_rows_last(raw)
    no_bias = np.zeros(parameters.shape[:2], real)
    kernel = inverse_splines if inverse else splines
    memory = working_memory(raw.shape[-1], real)
    kernel(rows_last(x), parameters, no_bias, real(tail_bound), *memory, rows_last(y), rows_last(slope))
    return y, slope.log_()


def _gradients(x, raw, n_bins, tail_bound, z_gradient, log_derivative_gradient):
    """As ``_spline.spline_gradients``, for tensors of at least two axes, rows on the last but one of ``x``."""
    real = real_type(x)
    x_gradient = empty(x.mT.shape, x).mT
    raw_gradient = empty(raw.movedim(-3, -1).shape, x).movedim(-1, -3)
    parameters = _parameters_rows_last(raw)
    spline_gradients(
        rows_last(x),
        parameters,
        np.zeros(parameters.shape[:2], real),
        real(tail_bound),
        *working_memory(raw.shape[-1], real),
        rows_last(z_gradient),
        rows_last(log_derivative_gradient),
        rows_last(x_gradient),
        _parameters_rows_last(raw_gradient),
    )
    return x_gradient, raw_gradient


KERNELS = SplineKernels(_evaluate, _gradients)
