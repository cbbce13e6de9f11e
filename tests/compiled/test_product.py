"""Products on panels are those of numpy, with and without weights that don't exist."""

import numba
import numpy as np
import pytest

from sklearn_flows.compiled import _product
from sklearn_flows.compiled._product import LANES, TILE_HEIGHT, tile_width

N_PANELS = 3


# Products are for compiled functions to call.
@numba.njit
def linear(weights, position, row, bias_position, first, last, stairs, seen, x, x_position, y, y_position):
    _product.linear(weights, position, row, bias_position, first, last, stairs, seen, x, x_position, y, y_position)


@numba.njit
def linear_transposed(weights, position, n_in, first, last, n_out, stairs, seen_by, y, y_position, x, x_position):
    _product.linear_transposed(weights, position, n_in, first, last, n_out, stairs, seen_by, y, y_position, x, x_position)


@numba.njit
def add_weight_gradient(y, y_position, n_out, x, x_position, n_in, n_panels, stairs, seen, out, out_position, work):
    _product.add_weight_gradient(*(y, y_position, n_out, x, x_position, n_in, n_panels, stairs, seen, out, out_position, work))


@numba.njit
def add_bias_gradient(y, y_position, n_out, n_panels, out, out_position):
    _product.add_bias_gradient(y, y_position, n_out, n_panels, out, out_position)


@numba.njit
def width_of(array):
    return tile_width(array)


def to_panels(units):
    """Panels of an array (n_units, n_rows)."""
    return np.ascontiguousarray(units.reshape(len(units), units.shape[1] // LANES, LANES).transpose(1, 0, 2)).ravel()


class Layer:
    """A linear layer, its inputs and the gradients of its outputs; the weights start at a place of their own."""

    def __init__(self, n_in, n_out, stairs, dtype):
        rng = np.random.RandomState(0)
        n_seen = np.sort(rng.randint(0, n_in + 1, n_out)) if stairs else np.full(n_out, n_in)
        self.exists = np.arange(n_in) < n_seen[:, None]
        self.weight = np.where(self.exists, rng.randn(n_out, n_in), 0).astype(dtype)
        self.bias = rng.randn(n_out).astype(dtype)
        self.x, self.g = (rng.randn(n, N_PANELS * LANES).astype(dtype) for n in (n_in, n_out))
        self.parameters = np.concatenate([np.zeros(5, dtype), self.weight.ravel(), self.bias])
        seen_by = np.searchsorted(n_seen, np.arange(n_in), side="right")
        self.stairs = np.concatenate([n_seen, seen_by]).astype(np.int64)
        self.n_in, self.n_out, self.bias_position = n_in, n_out, 5 + self.weight.size
        self.tolerance = {"rtol": 0, "atol": 1e4 * np.finfo(dtype).eps * 10 / 100}


@pytest.fixture(params=[(12, 40, False), (21, 128, True), (7, 3, True), (1, 1, False), (0, 5, False), (70, 37, True)])
def layer(request, dtype):
    return Layer(*request.param, dtype)


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    return request.param


def test_forwards(layer):
    y = np.full(N_PANELS * layer.n_out * LANES, np.nan, layer.x.dtype)
    x = to_panels(layer.x)
    for panel in range(N_PANELS):
        linear(
            *(layer.parameters, 5, layer.n_in, layer.bias_position, 0, layer.n_out, layer.stairs, 0),
            *(x, panel * layer.n_in * LANES, y, panel * layer.n_out * LANES),
        )
    np.testing.assert_allclose(y, to_panels(layer.weight @ layer.x + layer.bias[:, None]), **layer.tolerance)


def test_some_units_only(layer):
    first, last = layer.n_out // 3, layer.n_out - layer.n_out // 4
    y = np.full(layer.n_out * LANES, -7, layer.x.dtype)
    linear(
        *(layer.parameters, 5, layer.n_in, layer.bias_position, first, last, layer.stairs, 0),
        *(to_panels(layer.x), 0, y, 0),
    )
    expected = layer.weight @ layer.x[:, :LANES] + layer.bias[:, None]
    expected[:first], expected[last:] = -7, -7
    np.testing.assert_allclose(y, to_panels(expected), **layer.tolerance)


def test_transposed(layer):
    x = np.full(layer.n_in * LANES, np.nan, layer.x.dtype)
    linear_transposed(
        *(layer.parameters, 5, layer.n_in, 0, layer.n_in, layer.n_out, layer.stairs, layer.n_out),
        *(to_panels(layer.g), 0, x, 0),
    )
    np.testing.assert_allclose(x, to_panels(layer.weight.T @ layer.g[:, :LANES]), **layer.tolerance)


def test_transposed_to_some_inputs_only(layer):
    first, last = layer.n_in // 3, layer.n_in - layer.n_in // 4
    x = np.full(layer.n_in * LANES, -7, layer.x.dtype)
    linear_transposed(
        *(layer.parameters, 5, layer.n_in, first, last, layer.n_out, layer.stairs, layer.n_out),
        *(to_panels(layer.g), 0, x, 0),
    )
    expected = layer.weight.T @ layer.g[:, :LANES]
    expected[:first], expected[last:] = -7, -7
    np.testing.assert_allclose(x, to_panels(expected), **layer.tolerance)


def test_gradients_of_weights_and_biases_are_added(layer, dtype):
    out = np.ones(3 + layer.n_out * layer.n_in, dtype)
    work = np.empty((N_PANELS * LANES + TILE_HEIGHT) * width_of(out), dtype)
    y, x = to_panels(layer.g), to_panels(layer.x)
    add_weight_gradient(y, 0, layer.n_out, x, 0, layer.n_in, N_PANELS, layer.stairs, 0, out, 3, work)
    expected = 1 + np.where(layer.exists, layer.g @ layer.x.T, 0)
    np.testing.assert_allclose(out[3:], expected.ravel(), **layer.tolerance)
    np.testing.assert_array_equal(out[:3], 1)
    np.testing.assert_array_equal(out[3:].reshape(layer.exists.shape)[~layer.exists], 1)

    sums = np.ones(layer.n_out + 1, dtype)
    add_bias_gradient(y, 0, layer.n_out, N_PANELS, sums, 1)
    np.testing.assert_allclose(sums, np.append(1, 1 + layer.g.sum(axis=1)), **layer.tolerance)
