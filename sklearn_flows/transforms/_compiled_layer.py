"""Whole layers compiled for the CPU: a conditioner and the scalar bijections that it steers, in one call each way.

A network's outputs are many times larger than all else in a layer: the parameters of every feature of every row. Here they are
made and used a few features at a time, while they are in the cache; on the way back their gradients are never stored as a
whole. And what torch spends on each operation, a few microseconds, is spent once for a layer: in small batches that is most.

All arrays have units (or features, or parameters) first and rows last, as in ``_compiled_spline``.
"""

import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  # numba calls its matrix products
from numba import types

from .._workspace import empty
from ._compiled_spline import (
    LANES,
    compiled,
    exponential,
    inverse_splines,
    load_block,
    real_type,
    rows_last,
    spline_gradients,
    splines,
    working_memory,
)
from ._elementwise import CONDITIONER_BOUND, Affine
from ._spline import RationalQuadraticSpline

RELU, TANH, SILU, ELU = range(4)
ACTIVATION_CODES = {"relu": RELU, "tanh": TANH, "silu": SILU, "elu": ELU}

# The largest piece of a layer's outputs that is made at once: what a second-level cache holds besides the rest.
_BLOCK_BYTES = 500_000
# Units of a hidden layer that are multiplied at once: each such group needs only the inputs that one of them sees.
_HIDDEN_BLOCK = 64

# numba's own entry to scipy's BLAS: kind, transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc.
_gemm = types.ExternalFunction(
    "numba_xxgemm",
    types.intc(
        *(types.char, types.char, types.char),
        *(types.intp, types.intp, types.intp),
        *(types.voidptr, types.voidptr, types.intp, types.voidptr, types.intp),
        *(types.voidptr, types.voidptr, types.intp),
    ),
)
_NO, _YES, _SINGLE, _DOUBLE = ord("n"), ord("t"), ord("s"), ord("d")


@compiled
def _matmul(a, transpose_a, b, transpose_b, c, add):
    """Compute ``c = a @ b``, or ``c += a @ b``, where the rows of each matrix may be parts of longer rows."""
    m, n = c.shape
    k = a.shape[0] if transpose_a else a.shape[1]
    alpha, beta = np.ones(1, c.dtype), np.zeros(1, c.dtype)
    if add:
        beta[0] = 1
    if k == 0:
        if not add:
            c[:] = 0
        return
    # BLAS thinks in columns: it is asked for the transposed product.
    _gemm(
        _SINGLE if c.itemsize == 4 else _DOUBLE,
        _YES if transpose_b else _NO,
        _YES if transpose_a else _NO,
        n,
        m,
        k,
        alpha.ctypes,
        b.ctypes,
        b.strides[0] // b.itemsize,
        a.ctypes,
        a.strides[0] // a.itemsize,
        beta.ctypes,
        c.ctypes,
        c.strides[0] // c.itemsize,
    )


@compiled
def _sigmoid(y, sigmoid, power, exponent, c):
    zero, one = y.dtype.type(0), y.dtype.type(1)
    for j in range(LANES):
        sigmoid[j] = -abs(y[j])
    exponential(sigmoid, power, exponent, c)
    for j in range(LANES):
        u = sigmoid[j]
        sigmoid[j] = (one if y[j] > zero else u) / (one + u)


@compiled
def _activate(y, bias, activation, rows, integers, c, a):
    """Add the bias to ``y``, and set ``a`` to its activations."""
    zero, one, two = y.dtype.type(0), y.dtype.type(1), y.dtype.type(2)
    power, exponent, block, other = rows[0], integers[0], rows[1], rows[2]
    for unit in range(y.shape[0]):
        y_unit, a_unit, b = y[unit], a[unit], bias[unit]
        if activation == RELU:
            for j in range(y.shape[1]):
                y_unit[j] += b
                a_unit[j] = max(y_unit[j], zero)
            continue
        for first in range(0, y.shape[1], LANES):
            n = min(LANES, y.shape[1] - first)
            for j in range(n):
                y_unit[first + j] += b
                block[j] = y_unit[first + j]
            if activation == SILU:
                _sigmoid(block, other, power, exponent, c)
                for j in range(LANES):
                    block[j] *= other[j]
            elif activation == TANH:
                for j in range(LANES):
                    other[j] = -two * abs(block[j])
                exponential(other, power, exponent, c)
                for j in range(LANES):
                    size = (one - other[j]) / (one + other[j])
                    block[j] = size if block[j] > zero else -size
            else:
                for j in range(LANES):
                    other[j] = min(block[j], zero)
                exponential(other, power, exponent, c)
                for j in range(LANES):
                    block[j] = max(block[j], zero) + other[j] - one
            for j in range(n):
                a_unit[first + j] = block[j]


@compiled
def _through_activation(gradient, y, a, activation, rows, integers, c):
    """Turn gradients with respect to activations into those with respect to what went into them."""
    zero, one = y.dtype.type(0), y.dtype.type(1)
    power, exponent, block, other = rows[0], integers[0], rows[1], rows[2]
    for unit in range(y.shape[0]):
        g, y_unit, a_unit = gradient[unit], y[unit], a[unit]
        if activation == RELU:
            for j in range(y.shape[1]):
                g[j] = g[j] if a_unit[j] > zero else zero
        elif activation == TANH:
            for j in range(y.shape[1]):
                g[j] *= one - a_unit[j] * a_unit[j]
        elif activation == ELU:
            for j in range(y.shape[1]):
                g[j] *= min(a_unit[j], zero) + one
        else:
            for first in range(0, y.shape[1], LANES):
                n = min(LANES, y.shape[1] - first)
                for j in range(n):
                    block[j] = y_unit[first + j]
                _sigmoid(block, other, power, exponent, c)
                for j in range(n):
                    g[first + j] *= other[j] * (one + block[j] * (one - other[j]))


@compiled
def _affine(x, raw, bias, bound, rows, integers, c, inverse, y, slope):
    one = x.dtype.type(1)
    power, exponent, x_block, alpha, raw_block = rows[0], integers[0], rows[1], rows[2], rows[3:5]
    for row in range(x.shape[0]):
        for first in range(0, x.shape[1], LANES):
            n = min(LANES, x.shape[1] - first)
            load_block(x, raw, bias, row, first, n, x_block, raw_block)
            mu, a = raw_block[0], raw_block[1]
            for j in range(LANES):
                alpha[j] = a[j] / (one + abs(a[j]) / bound)
                alpha[j] = alpha[j] if inverse else -alpha[j]
            exponential(alpha, power, exponent, c)
            for j in range(n):
                slope[row, first + j] = alpha[j]
                y[row, first + j] = x_block[j] * alpha[j] + mu[j] if inverse else (x_block[j] - mu[j]) * alpha[j]


@compiled
def _affine_gradients(x, raw, bias, bound, rows, integers, c, z_gradient, log_gradient, x_gradient, raw_gradient):
    one = x.dtype.type(1)
    power, exponent, x_block, scale, raw_block = rows[0], integers[0], rows[1], rows[2], rows[3:5]
    last_log = log_gradient.shape[0] - 1
    for row in range(x.shape[0]):
        for first in range(0, x.shape[1], LANES):
            n = min(LANES, x.shape[1] - first)
            load_block(x, raw, bias, row, first, n, x_block, raw_block)
            mu, a = raw_block[0], raw_block[1]
            for j in range(LANES):
                scale[j] = -a[j] / (one + abs(a[j]) / bound)
            exponential(scale, power, exponent, c)
            for j in range(n):
                squash = one + abs(a[j]) / bound
                g = z_gradient[row, first + j]
                g_alpha = -(log_gradient[min(row, last_log), first + j] + g * (x_block[j] - mu[j]) * scale[j])
                x_gradient[row, first + j] = g * scale[j]
                raw_gradient[row, 0, first + j] = -g * scale[j]
                raw_gradient[row, 1, first + j] = g_alpha / (squash * squash)


@compiled
def _features_at_once(raw):
    n_bytes = raw.shape[1] * raw.shape[2] * raw.itemsize
    # Not below the size at which matrix products are efficient.
    least = (_HIDDEN_BLOCK + raw.shape[1] - 1) // raw.shape[1]
    return max(least, _BLOCK_BYTES // n_bytes)


@compiled
def _layer_forward(inputs, x, weights, biases, n_seen, activation, affine, bound, inverse, memory, hidden, raw, y, slope):
    """Map ``x`` under the parameters that a network makes of ``inputs``; ``hidden`` and ``raw`` keep what its layers give."""
    rows, integers, c = memory
    a = inputs
    n_hidden = len(weights) - 1
    for i in range(n_hidden):
        values, seen = hidden[2 * i], n_seen[i]
        for first in range(0, len(values), _HIDDEN_BLOCK):
            last = min(first + _HIDDEN_BLOCK, len(values))
            n = seen[last - 1]
            _matmul(weights[i][first:last, :n], False, a[:n], False, values[first:last], False)
        _activate(values, biases[i], activation, rows, integers, c, hidden[2 * i + 1])
        a = hidden[2 * i + 1]
    n_features, n_parameters, n_rows = raw.shape
    weight, seen = weights[n_hidden], n_seen[n_hidden]
    flat, bias = raw.reshape(-1, n_rows), biases[n_hidden].reshape(n_features, n_parameters)
    step = _features_at_once(raw)
    for first in range(0, n_features, step):
        last = min(first + step, n_features)
        outputs = slice(first * n_parameters, last * n_parameters)
        n = seen[last * n_parameters - 1]
        _matmul(weight[outputs, :n], False, a[:n], False, flat[outputs], False)
        part = slice(first, last)
        if affine:
            _affine(x[part], raw[part], bias[part], bound, rows, integers, c, inverse, y[part], slope[part])
        elif inverse:
            inverse_splines(x[part], raw[part], bias[part], bound, rows, integers, c, y[part], slope[part])
        else:
            splines(x[part], raw[part], bias[part], bound, rows, integers, c, y[part], slope[part])


@compiled
def _clear_unseen(weights, seen):
    for i in range(len(weights)):
        weights[i, seen[i] :] = 0


@compiled
def _layer_backward(
    inputs,
    x,
    weights,
    biases,
    n_seen,
    activation,
    affine,
    bound,
    memory,
    hidden,
    raw,
    z_gradient,
    log_gradient,
    raw_gradient,
    hidden_gradients,
    x_gradient,
    inputs_gradient,
    weight_gradients,
    bias_gradients,
):
    rows, integers, c = memory
    n_hidden = len(weights) - 1
    n_features, n_parameters, n_rows = raw.shape
    weight, seen = weights[n_hidden], n_seen[n_hidden]
    bias = biases[n_hidden].reshape(n_features, n_parameters)
    a, a_gradient = hidden[2 * n_hidden - 1], hidden_gradients[n_hidden - 1]
    a_gradient[:] = 0
    step = _features_at_once(raw)
    for first in range(0, n_features, step):
        last = min(first + step, n_features)
        part, outputs = slice(first, last), slice(first * n_parameters, last * n_parameters)
        g = raw_gradient[: last - first]
        if affine:
            _affine_gradients(
                x[part], raw[part], bias[part], bound, rows, integers, c, z_gradient[part], log_gradient, x_gradient[part], g
            )
        else:
            spline_gradients(
                x[part], raw[part], bias[part], bound, rows, integers, c, z_gradient[part], log_gradient, x_gradient[part], g
            )
        flat = g.reshape(-1, n_rows)
        n = seen[last * n_parameters - 1]
        _matmul(flat, False, a[:n], True, weight_gradients[n_hidden][outputs, :n], False)
        _matmul(weight[outputs, :n], True, flat, False, a_gradient[:n], True)
        _sum_rows(flat, bias_gradients[n_hidden][outputs])
    _clear_unseen(weight_gradients[n_hidden], seen)
    for i in range(n_hidden - 1, -1, -1):
        g = hidden_gradients[i]
        _through_activation(g, hidden[2 * i], hidden[2 * i + 1], activation, rows, integers, c)
        _sum_rows(g, bias_gradients[i])
        source, source_gradient = (hidden[2 * i - 1], hidden_gradients[i - 1]) if i > 0 else (inputs, inputs_gradient)
        source_gradient[:] = 0
        for first in range(0, len(g), _HIDDEN_BLOCK):
            last = min(first + _HIDDEN_BLOCK, len(g))
            n = n_seen[i][last - 1]
            _matmul(g[first:last], False, source[:n], True, weight_gradients[i][first:last, :n], False)
            _matmul(weights[i][first:last, :n], True, g[first:last], False, source_gradient[:n], True)
        _clear_unseen(weight_gradients[i], n_seen[i])


@compiled
def _sum_rows(values, sums):
    for i in range(len(values)):
        total = values.dtype.type(0)
        row = values[i]
        for j in range(values.shape[1]):
            total += row[j]
        sums[i] = total


class CompiledLayer:
    """What ``ConditionedMap`` asks of a layer, by the kernels of this module.

    Parameters
    ----------
    transformer : Transformer
        An affine map or a rational-quadratic spline.
    conditioner : FeedForward
        The network.
    """

    def __init__(self, transformer, conditioner):
        self.affine = isinstance(transformer, Affine)
        self.bound = transformer.log_scale_bound if self.affine else transformer.tail_bound
        self.n_parameters = transformer.n_parameters
        self.activation = ACTIVATION_CODES[conditioner.activation]
        self.n_seen = tuple(np.array(layer.n_seen) for layer in conditioner.layers)

    @staticmethod
    def can_serve(transformer, conditioner):
        """Whether there are kernels for a layer."""
        layers = conditioner.layers
        return (
            isinstance(transformer, Affine | RationalQuadraticSpline)
            and conditioner.activation in ACTIVATION_CODES
            and len(layers) > 1
            and layers[0].in_features > 0
        )

    def _arguments(self, inputs, x, parameters):
        real = real_type(x)
        inputs = rows_last(inputs.clamp(-CONDITIONER_BOUND, CONDITIONER_BOUND))
        weights = tuple(weight.detach().numpy() for weight in parameters[::2])
        biases = tuple(bias.detach().numpy() for bias in parameters[1::2])
        return (inputs, rows_last(x), weights, biases, self.n_seen, self.activation, self.affine, real(self.bound))

    def forward(self, inputs, x, parameters, inverse=False):
        """Map rows.

        Parameters
        ----------
        inputs : Tensor of shape (n_samples, n_inputs)
            What the conditioner sees.
        x : Tensor of shape (n_samples, n_features)
            What is mapped.
        parameters : sequence of Tensor
            Weights and biases of the conditioner, in turn.
        inverse : bool, default=False
            Whether to go towards the data.

        Returns
        -------
        y : Tensor of shape (n_samples, n_features)
            Images.
        log_det : Tensor of shape (n_samples,)
            Log-determinants.
        kept : tuple of Tensor
            What ``backward`` needs.
        """
        n_rows, n_features = x.shape
        hidden = [empty((len(bias), n_rows), x) for bias in parameters[1:-1:2] for _ in range(2)]
        raw = empty((n_features, self.n_parameters, n_rows), x)
        y, slope = empty((n_features, n_rows), x), empty((n_features, n_rows), x)
        _layer_forward(
            *self._arguments(inputs, x, parameters),
            inverse,
            working_memory(self.n_parameters, real_type(x)),
            tuple(values.numpy() for values in hidden),
            raw.numpy(),
            y.numpy(),
            slope.numpy(),
        )
        return y.mT, slope.log_().sum(dim=0), (*hidden, raw)

    def backward(self, inputs, x, parameters, kept, z_gradient, log_det_gradient):
        """Carry gradients back through ``forward``.

        Returns
        -------
        inputs_gradient, x_gradient : Tensor
            Gradients with respect to ``inputs`` and ``x``.
        parameter_gradients : list of Tensor
            Gradients with respect to the parameters.
        """
        *hidden, raw = kept
        n_at_once = min(raw.shape[0], _features_at_once(raw.numpy()))
        raw_gradient = empty((n_at_once, *raw.shape[1:]), x)
        hidden_gradients = [empty(values.shape, x) for values in hidden[::2]]
        x_gradient, inputs_gradient = empty(x.mT.shape, x), empty(inputs.mT.shape, x)
        parameter_gradients = [empty(parameter.shape, x) for parameter in parameters]
        _layer_backward(
            *self._arguments(inputs, x, parameters),
            working_memory(self.n_parameters, real_type(x)),
            tuple(values.numpy() for values in hidden),
            raw.numpy(),
            rows_last(z_gradient),
            log_det_gradient.contiguous().numpy()[None],
            raw_gradient.numpy(),
            tuple(values.numpy() for values in hidden_gradients),
            x_gradient.numpy(),
            inputs_gradient.numpy(),
            tuple(gradient.numpy() for gradient in parameter_gradients[::2]),
            tuple(gradient.numpy() for gradient in parameter_gradients[1::2]),
        )
        # The clip of the inputs lets no gradient through.
        inside = inputs.abs() <= CONDITIONER_BOUND
        return inputs_gradient.mT * inside, x_gradient.mT, parameter_gradients


def check_that_kernels_work():
    """Raise an error if a compiler, its cache or the matrix products behind the kernels don't work here."""
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [7.0, 8.0]])
    product = np.empty((2, 2))
    _matmul(a, False, b, False, product, False)
    if not np.array_equal(product, [[19.0, 22.0], [43.0, 50.0]]):
        raise RuntimeError(f"a compiled matrix product gives {product.tolist()} instead of [[19, 22], [43, 50]]")
