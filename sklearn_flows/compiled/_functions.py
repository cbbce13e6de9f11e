"""Kinds of compiled functions: those that Python calls, kernels that are called by their address, and what these consist of.

numba puts a copy of a function into each that calls it by name, and optimises every copy anew. What is large is therefore a
kernel: compiled once, on its own, and only when it is needed.
"""

import hashlib
from pathlib import Path
from typing import Any

from numba import njit, types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.registry import CPUDispatcher
from numba.extending import intrinsic
from numba.np.numpy_support import from_dtype

# No reordering of sums, no assumptions about infinity or NaN; only a product and a sum may become one instruction.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True, "fastmath": {"contract"}}
# What makes a function one for Python to call is half of a small one's code.
_NOT_FOR_PYTHON: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def _version():
    """What tells these kernels from those that other versions of this folder have left in the cache."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


_VERSION = _version()


def _kept_in_cache(function, **options):
    # numba looks whether a function's own file has changed, but not whether those have that its parts come from.
    function.__qualname__ += f"-{_VERSION}"
    return njit(cache=True, **_OPTIONS, **options)(function)


def called_from_python(function):
    """Compile a function for Python to call."""
    return _kept_in_cache(function)


class _Inner(CPUDispatcher):
    """A function that only compiled ones can call."""

    def __call__(self, *args, **kwargs):
        raise TypeError(f"{self.__name__} has no entry for Python: call it from a function that numba compiles.")


def inner(function):
    """Compile a function into those that call it by name."""
    dispatcher = njit(**_OPTIONS, **_NOT_FOR_PYTHON)(function)
    # Called from Python, a function without an entry is a jump to nowhere.
    dispatcher.__class__ = _Inner
    return dispatcher


class Kernel:
    """A function that compiled ones call by its address.

    Parameters
    ----------
    function : function
        What to compile.
    signature_of : callable
        Gives the function's signature for the type of its numbers.
    """

    def __init__(self, function, signature_of):
        self._dispatcher = _kept_in_cache(function, **_NOT_FOR_PYTHON)
        self._signature_of = signature_of
        self._addresses = {}

    def address(self, dtype):
        """Compile the kernel for numbers of a precision, if need be, and say where it is, in this process."""
        if dtype not in self._addresses:
            signature = self._signature_of(from_dtype(dtype))
            self._dispatcher.compile(signature)
            result = self._dispatcher.overloads[signature.args]
            self._addresses[dtype] = result.library.get_pointer_to_function(result.fndesc.llvm_func_name)
        return self._addresses[dtype]


def kind_of_kernel(signature_of):
    """Make a decorator for kernels of equal signatures, and the function that calls one of them.

    Parameters
    ----------
    signature_of : callable
        Gives the signature for a type of numbers. The first argument that is an array of floats is one of them.

    Returns
    -------
    kernel : callable
        Makes a ``Kernel`` of a function.
    call : callable
        For compiled functions: ``call(address, *arguments)`` is what the kernel gives. What isn't of the signature is an error
        of the compiler: nothing else would notice.
    """

    @intrinsic
    def call(typing_context, address, *arguments):
        arrays = (argument for argument in arguments if isinstance(argument, types.Array))
        numbers = (array.dtype for array in arrays if isinstance(array.dtype, types.Float))
        signature = signature_of(next(numbers, types.float64))
        given = tuple(types.unliteral(argument) for argument in arguments)
        if given != signature.args:
            raise TypingError(f"A kernel of {signature} is called with {given}.")

        def emit(context, builder, sig, values):
            type_of_function = context.call_conv.get_function_type(signature.return_type, signature.args)
            function = builder.inttoptr(values[0], type_of_function.as_pointer())
            unpacked = cgutils.unpack_tuple(builder, values[1])
            casted = [
                context.cast(builder, value, before, after)
                for value, before, after in zip(unpacked, arguments, signature.args, strict=True)
            ]
            status, result = context.call_conv.call_function(builder, function, signature.return_type, signature.args, casted)
            with cgutils.if_unlikely(builder, status.is_error):
                context.call_conv.return_status_propagate(builder, status)
            return result

        return signature.return_type(types.intp, types.StarArgTuple(arguments)), emit

    return lambda function: Kernel(function, signature_of), call
