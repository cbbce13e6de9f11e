"""Vectors of numbers for numba: what one instruction of the processor works on.

In compiled functions a ``Vector`` is a value like a float. It has arithmetic and comparisons with vectors and with plain
numbers, which become vectors of the same precision; comparisons give a ``Mask``, and ``select`` takes it. So a formula is
written once, as for one number, and no compiler has to find out that it may work on many at once.

Memory is in one-dimensional arrays: ``load(array, position)``, ``store(array, position, vector)``.
"""

import math
import operator

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, lower_cast, models, register_model

from ._functions import inner

# As in all compiled functions, only a product and a sum may become one instruction.
_FLAGS = ("contract",)


def _bytes_of_a_register():
    try:
        features = llvmlite.binding.get_host_cpu_features()
    except RuntimeError:  # not every platform tells
        return 16
    return 64 if features.get("avx512f") else 32 if features.get("avx") else 16


REGISTER_BYTES = _bytes_of_a_register()


class Vector(types.Type):
    """Type of as many numbers as a register holds."""

    def __init__(self, dtype):
        self.dtype = dtype
        self.n_bits = dtype.bitwidth
        self.width = 8 * REGISTER_BYTES // dtype.bitwidth
        super().__init__(name=f"Vector({dtype}, {self.width})")

    @property
    def real(self):
        return ir.VectorType(ir.FloatType() if self.n_bits == 32 else ir.DoubleType(), self.width)

    @property
    def integer(self):
        return ir.VectorType(ir.IntType(self.n_bits), self.width)


class Mask(types.Type):
    """Type of the answers to a comparison of vectors."""

    def __init__(self, dtype):
        self.dtype = dtype
        super().__init__(name=f"Mask({dtype}, {Vector(dtype).width})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.real)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, mask):
        super().__init__(manager, mask, ir.VectorType(ir.IntType(1), Vector(mask.dtype).width))


def splat(builder, scalar, width):
    """Vector of equal numbers, in LLVM's terms."""
    vector = ir.VectorType(scalar.type, width)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)


@lower_cast(types.Float, Vector)
@lower_cast(types.Integer, Vector)
def _number_to_vector(context, builder, number_type, vector, number):
    return splat(builder, context.cast(builder, number, number_type, vector.dtype), vector.width)


def _common_vector(arguments):
    """The vector type that all arguments can be seen as, or None."""
    vectors = {argument for argument in arguments if isinstance(argument, Vector)}
    others = [argument for argument in arguments if not isinstance(argument, Vector)]
    if len(vectors) == 1 and all(isinstance(argument, types.Number) for argument in others):
        return vectors.pop()
    return None


def _register_operation(operation, result, emit):
    """Give an operator to vectors: ``result(vector)`` is its type, ``emit(builder, vector, *values)`` its instructions."""

    @infer_global(operation)
    class Template(AbstractTemplate):
        def generic(self, arguments, keywords):
            vector = _common_vector(arguments)
            return None if vector is None else signature(result(vector), *[vector] * len(arguments))

    def lower(context, builder, sig, values):
        return emit(builder, sig.args[0], *values)

    n_arguments = 1 if operation is operator.neg else 2
    lower_builtin(operation, *[Vector] * n_arguments)(lower)


def _register_operations():
    for operation, instruction in (
        (operator.add, "fadd"),
        (operator.sub, "fsub"),
        (operator.mul, "fmul"),
        (operator.truediv, "fdiv"),
    ):
        _register_operation(
            operation,
            lambda vector: vector,
            lambda builder, vector, a, b, name=instruction: getattr(builder, name)(a, b, flags=_FLAGS),
        )
    _register_operation(operator.neg, lambda vector: vector, lambda builder, vector, a: builder.fneg(a))
    for operation, sign in (
        (operator.lt, "<"),
        (operator.le, "<="),
        (operator.gt, ">"),
        (operator.ge, ">="),
        (operator.eq, "=="),
    ):
        _register_operation(
            operation,
            lambda vector: Mask(vector.dtype),
            lambda builder, vector, a, b, sign=sign: builder.fcmp_ordered(sign, a, b),
        )


_register_operations()


def element_pointer(context, builder, array_type, array, position):
    """Pointer to an element of a one-dimensional array, in LLVM's terms."""
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [position])


def load_vector(builder, pointer, vector):
    """Load a vector from wherever it lies, in LLVM's terms."""
    return builder.load(builder.bitcast(pointer, vector.real.as_pointer()), align=vector.n_bits // 8)


def store_vector(builder, value, pointer, vector):
    """Store a vector to wherever it shall lie, in LLVM's terms."""
    builder.store(value, builder.bitcast(pointer, vector.real.as_pointer()), align=vector.n_bits // 8)


@intrinsic
def load(typing_context, array, position):
    """Vector of the elements of an array from a position on."""
    vector = Vector(array.dtype)

    def emit(context, builder, sig, values):
        return load_vector(builder, element_pointer(context, builder, sig.args[0], *values), vector)

    return vector(array, types.intp), emit


@intrinsic
def store(typing_context, array, position, value):
    """Write a vector to the elements of an array from a position on."""

    def emit(context, builder, sig, values):
        pointer = element_pointer(context, builder, sig.args[0], *values[:2])
        store_vector(builder, values[2], pointer, sig.args[2])
        return context.get_dummy_value()

    vector = Vector(array.dtype)
    return types.void(array, types.intp, vector), emit


@intrinsic
def select(typing_context, mask, a, b):
    """``a`` where the mask holds, ``b`` elsewhere; either may be a number."""
    vector = Vector(mask.dtype)

    def emit(context, builder, sig, values):
        return builder.select(*values)

    return vector(mask, vector, vector), emit


def _intrinsic_function(name):
    @intrinsic
    def function(typing_context, a):
        def emit(context, builder, sig, values):
            vector = sig.args[0]
            full_name = f"llvm.{name}.v{vector.width}f{vector.n_bits}"
            function_type = ir.FunctionType(vector.real, [vector.real])
            return builder.call(cgutils.get_or_insert_function(builder.module, function_type, full_name), values)

        return a(a), emit

    return function


square_root = _intrinsic_function("sqrt")
absolute = _intrinsic_function("fabs")
_nearest = _intrinsic_function("rint")


def _chosen_by(sign, docstring):
    """Function of two vectors, one of them perhaps a number, that gives ``a`` where ``a sign b``, and ``b`` elsewhere."""

    @intrinsic
    def function(typing_context, a, b):
        vector = _common_vector((a, b))

        def emit(context, builder, sig, values):
            return builder.select(builder.fcmp_ordered(sign, *values), *values)

        return vector(vector, vector), emit

    function.__doc__ = docstring
    return function


larger = _chosen_by(">", "The larger of two vectors; ``b`` where ``a`` is NaN.")
smaller = _chosen_by("<", "The smaller of two vectors; ``b`` where ``a`` is NaN.")


@intrinsic
def total(typing_context, a):
    """Sum of a vector's numbers: pairs first, so that the order doesn't depend on anything."""

    def emit(context, builder, sig, values):
        (v,) = values
        width = sig.args[0].width
        while width > 1:
            width //= 2
            halves = [
                builder.shuffle_vector(
                    v, v, ir.Constant(ir.VectorType(ir.IntType(32), width), list(range(start, start + width)))
                )
                for start in (0, width)
            ]
            v = builder.fadd(*halves)
        return builder.extract_element(v, ir.Constant(ir.IntType(32), 0))

    return a.dtype(a), emit


@intrinsic
def _scaled_by_power_of_2(typing_context, a, n):
    """``a * 2^n`` for a in [1/2, 2] and whole n such that the result is a normal number; NaN for NaN."""

    def emit(context, builder, sig, values):
        vector = sig.args[0]
        a, n = values
        n_fraction_bits = 23 if vector.n_bits == 32 else 52
        # Next to this number, floats are the whole numbers: the last bits of the sum are those of n.
        magic = splat(builder, ir.Constant(vector.real.element, 1.5 * 2**n_fraction_bits), vector.width)
        bits = builder.bitcast(builder.fadd(n, magic), vector.integer)
        shift = splat(builder, ir.Constant(vector.integer.element, n_fraction_bits), vector.width)
        exponent = builder.shl(bits, shift)
        return builder.bitcast(builder.add(builder.bitcast(a, vector.integer), exponent), vector.real)

    return a(a, n), emit


@intrinsic
def _exponent(typing_context, a):
    """The whole number n for which a / 2^n is in [1, 2), as a vector; for normal a > 0."""

    def emit(context, builder, sig, values):
        vector = sig.args[0]
        n_fraction_bits, bias = (23, 127) if vector.n_bits == 32 else (52, 1023)

        def whole(number):
            return splat(builder, ir.Constant(vector.integer.element, number), vector.width)

        bits = builder.lshr(builder.bitcast(values[0], vector.integer), whole(n_fraction_bits))
        return builder.sitofp(builder.sub(bits, whole(bias)), vector.real)

    return a(a), emit


def _constants(dtype):
    n_exp, n_artanh, n_log = (8, 8, 5) if dtype == types.float32 else (14, 16, 10)
    info = np.finfo(str(dtype))
    return {
        "smallest": math.log(2) * (info.minexp + 1),
        "largest": math.log(2) * (info.maxexp - 1),
        # exp(r) for |r| <= log(2) / 2 by Taylor's series, highest power first: the first term left out is below the rounding.
        "exp": tuple(1 / math.factorial(i) for i in reversed(range(n_exp))),
        # 2 artanh(t) / t as a series in t^2: for |t| <= 1/3, and for |t| <= 0.172.
        "artanh": tuple(2 / (2 * i + 1) for i in reversed(range(n_artanh))),
        "log": tuple(2 / (2 * i + 1) for i in reversed(range(n_log))),
    }


_CONSTANTS = {n_bits: _constants(dtype) for n_bits, dtype in ((32, types.float32), (64, types.float64))}
_LOG_2 = math.log(2)
# log 2 in two parts, the first of so few digits that a small whole number times it is exact. The second isn't a difference of
# floats: that would have lost the digits that it is there for.
_LOG_2_HIGH = 0.693145751953125
_LOG_2_LOW = 1.428606820309417232e-6


def _polynomial(name):
    """Function that evaluates the series of a name, in the precision of its argument."""

    @intrinsic
    def evaluate(typing_context, x):
        def emit(context, builder, sig, values):
            vector = sig.args[0]
            (x,) = values

            def constant(number):
                return splat(builder, ir.Constant(vector.real.element, number), vector.width)

            first, *others = _CONSTANTS[vector.n_bits][name]
            sum_so_far = constant(first)
            for coefficient in others:
                product = builder.fmul(sum_so_far, x, flags=_FLAGS)
                sum_so_far = builder.fadd(product, constant(coefficient), flags=_FLAGS)
            return sum_so_far

        return x(x), emit

    return evaluate


_exp_series, _artanh_series, _log_series = (_polynomial(name) for name in ("exp", "artanh", "log"))


def _constant(name):
    """Function that gives a constant in the precision of its argument."""

    @intrinsic
    def constant(typing_context, like):
        def emit(context, builder, sig, values):
            vector = sig.args[0]
            return splat(builder, ir.Constant(vector.real.element, _CONSTANTS[vector.n_bits][name]), vector.width)

        return like(like), emit

    return constant


_smallest, _largest = _constant("smallest"), _constant("largest")


@inner
def exponential(v):
    """exp(v), but within the normal numbers; NaN for NaN."""
    v = smaller(_largest(v), larger(_smallest(v), v))
    n = _nearest(v * (1 / _LOG_2))
    r = (v - n * _LOG_2_HIGH) - n * _LOG_2_LOW
    return _scaled_by_power_of_2(_exp_series(r), n)


@inner
def logarithm(v):
    """log(v) for normal v > 0, NaN for NaN."""
    n = _exponent(v * math.sqrt(2.0))  # v / 2^n is in [sqrt(1/2), sqrt(2))
    m = _scaled_by_power_of_2(v, -n)
    t = (m - 1.0) / (m + 1.0)
    # v - v is NaN for NaN and infinity, whose bits would make a finite number.
    return n * _LOG_2_HIGH + (n * _LOG_2_LOW + _log_series(t * t) * t) + (v - v)


@inner
def sigmoid(v):
    """Logistic function."""
    u = exponential(-absolute(v))
    return select(v > 0.0, 1.0, u) / (u + 1.0)


@inner
def softplus(v):
    """log(1 + exp(v)), and its derivative, the logistic function."""
    u = exponential(-absolute(v))
    t = u / (u + 2.0)
    return larger(v, 0.0) + _artanh_series(t * t) * t, select(v > 0.0, 1.0, u) / (u + 1.0)
