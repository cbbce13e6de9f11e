"""Kernels called by their address give what they give by name, and nothing is called that doesn't fit."""

import numba
import numpy as np
import pytest
from numba import types
from numba.core.errors import TypingError

from sklearn_flows.compiled import _functions
from sklearn_flows.compiled._functions import inner, kind_of_kernel

kernel, call = kind_of_kernel(lambda number: types.float64(number[::1], types.intp, types.boolean))


@kernel
def element(values, i, doubled):
    return values[i] * (2.0 if doubled else 1.0)


@kernel
def element_before(values, i, doubled):
    return values[i - 1] * (2.0 if doubled else 1.0)


@inner
def plus_one(x):
    return x + 1


@numba.njit
def one_more_than(address, values, i):
    return plus_one(call(address, values, i, False)), call(address, values, 2, True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_address_says_which_kernel_is_called(dtype):
    values = np.arange(5, dtype=dtype)
    assert one_more_than(element.address(values.dtype), values, 3) == (4, 4)
    assert one_more_than(element_before.address(values.dtype), values, 3) == (3, 2)


@pytest.mark.parametrize("argument", [np.arange(5), np.arange(10.0)[::2], np.arange(4.0).reshape(2, 2)])
def test_other_arguments_are_an_error_of_the_compiler(argument):
    with pytest.raises(TypingError):
        one_more_than(element.address(np.dtype(float)), argument, 3)


def test_an_inner_function_says_that_python_cannot_call_it():
    with pytest.raises(TypeError, match="plus_one has no entry for Python"):
        plus_one(1)


def test_what_is_kept_has_another_name_after_any_change_of_the_sources(tmp_path, monkeypatch):
    (tmp_path / "_functions.py").write_text("a = 1\n")
    (tmp_path / "_layers.py").write_text("b = 1\n")
    monkeypatch.setattr(_functions, "__file__", str(tmp_path / "_functions.py"))
    before = _functions._version()
    assert before == _functions._version()
    (tmp_path / "_layers.py").write_text("b = 2\n")
    assert before != _functions._version()
    assert _functions.called_from_python(lambda x: x).py_func.__qualname__.endswith(_functions._VERSION)
