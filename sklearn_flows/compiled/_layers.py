"""Layers on panels, forwards, backwards and inverse: coupling and autoregressive ones, and linear maps.

A panel of rows goes through a whole layer, network and scalar bijections, while it is in the cache.
"""

from ._functions import inner
from ._product import (
    LANES,
    add_bias_gradient,
    add_weight_gradient,
    linear,
    linear_transposed,
    vector_width,
)
from ._scalar_maps import (
    affine,
    affine_gradient,
    inverse_affine,
    inverse_affine_gradient,
    inverse_spline,
    spline,
    spline_gradient,
)
from ._vector import absolute, exponential, larger, load, select, sigmoid, smaller, store

RELU, TANH, SILU, ELU = range(4)
# Columns of the table that describes a network, one row for each linear layer: places of its weights and biases among all
# parameters, its numbers of inputs and outputs, and places in ``stairs`` (see ``linear`` and ``linear_transposed``).
WEIGHTS, BIASES, N_IN, N_OUT, SEEN, SEEN_BY = range(6)


@inner
def _activate(values, position, slopes, slopes_position, n_units, activation):
    """Replace one panel of a layer's outputs by their activations, and write the derivatives of these to ``slopes``."""
    for i in range(0, n_units * LANES, vector_width(values)):
        y = load(values, position + i)
        if activation == RELU:
            a = larger(y, 0.0)
            slope = select(y > 0.0, 1.0, y * 0.0)
        elif activation == TANH:
            u = exponential(-2.0 * absolute(y))
            size = (1.0 - u) / (u + 1.0)
            a = select(y > 0.0, size, -size)
            slope = 1.0 - a * a
        elif activation == SILU:
            share = sigmoid(y)
            a = y * share
            slope = share * (1.0 + (y - a))
        else:
            slope = exponential(smaller(y, 0.0))
            a = larger(y, 0.0) + slope - 1.0
        store(values, position + i, a)
        store(slopes, slopes_position + i, slope)


@inner
def _clipped_inputs(context, context_position, n_context, x, x_position, staying, bound, inputs, position):
    for i in range(0, n_context * LANES, vector_width(x)):
        v = load(context, context_position + i)
        store(inputs, position + i, smaller(bound, larger(-bound, v)))
    position += n_context * LANES
    for i in range(len(staying)):
        for lane in range(0, LANES, vector_width(x)):
            v = load(x, x_position + staying[i] * LANES + lane)
            store(inputs, position + i * LANES + lane, smaller(bound, larger(-bound, v)))


@inner
def _map_feature(x, x_position, raw, position, is_affine, n_parameters, bound, inverse, shares, y, log_det, log_position):
    for lane in range(0, LANES, vector_width(x)):
        v, r = load(x, x_position + lane), position + lane
        if is_affine:
            if inverse:
                v, log_derivative = inverse_affine(v, raw, r, bound)
            else:
                v, log_derivative = affine(v, raw, r, bound)
        elif inverse:
            v, log_derivative = inverse_spline(v, raw, r, (n_parameters + 1) // 3, bound, shares)
        else:
            v, log_derivative = spline(v, raw, r, (n_parameters + 1) // 3, bound, shares)
        store(y, x_position + lane, v)
        store(log_det, log_position + lane, load(log_det, log_position + lane) + log_derivative)


@inner
def map_by_layer(
    parameters,
    table,
    stairs,
    staying,
    moving,
    activation,
    input_bound,
    is_affine,
    n_parameters,
    bound,
    inverse,
    context,
    n_context,
    x,
    y,
    log_det,
    kept,
    places,
    work,
    n_panels,
    n_features,
):
    """Map panels of rows by a layer whose network sees what is given: forwards any, inverse coupling layers.

    Its first inputs are the ``n_context`` columns of ``context``, which comes in panels too.

    ``kept`` gets what the way back needs, at ``places``: the network's inputs, of each hidden layer the activations and their
    derivatives, and the raw parameters of the bijections. ``log_det`` is added to.
    """
    n_layers = len(table)
    for panel in range(n_panels):
        here = panel * n_features * LANES
        a_position = places[0] + panel * (n_context + len(staying)) * LANES
        there = panel * n_context * LANES
        _clipped_inputs(context, there, n_context, x, here, staying, input_bound, kept, a_position)
        for i in range(n_layers - 1):
            n_out = table[i, N_OUT]
            y_position = places[1 + 2 * i] + panel * n_out * LANES
            linear(
                *(parameters, table[i, WEIGHTS], table[i, N_IN], table[i, BIASES], 0, n_out, stairs, table[i, SEEN]),
                *(kept, a_position, kept, y_position),
            )
            _activate(kept, y_position, kept, places[2 + 2 * i] + panel * n_out * LANES, n_out, activation)
            a_position = y_position
        if len(moving) < n_features:
            for i in range(len(staying)):
                for lane in range(here + staying[i] * LANES, here + (staying[i] + 1) * LANES, vector_width(x)):
                    store(y, lane, load(x, lane))
        weights, n_in, biases = table[n_layers - 1, WEIGHTS], table[n_layers - 1, N_IN], table[n_layers - 1, BIASES]
        raw_position = places[2 * n_layers - 1] + panel * len(moving) * n_parameters * LANES
        # A few features at a time: their raw parameters are used while they are in the innermost cache.
        at_once = 6 if is_affine else 1
        for first in range(0, len(moving), at_once):
            last = min(first + at_once, len(moving))
            linear(
                *(parameters, weights, n_in, biases, first * n_parameters, last * n_parameters),
                *(stairs, table[n_layers - 1, SEEN], kept, a_position, kept, raw_position),
            )
            for i in range(first, last):
                _map_feature(
                    *(x, here + moving[i] * LANES, kept, raw_position + i * n_parameters * LANES),
                    *(is_affine, n_parameters, bound, inverse, work, y, log_det, panel * LANES),
                )


@inner
def invert_autoregressive(
    parameters,
    table,
    stairs,
    units_up_to,
    staying,
    activation,
    input_bound,
    is_affine,
    n_parameters,
    bound,
    context,
    n_context,
    z,
    x,
    log_det,
    kept,
    places,
    work,
    n_panels,
    n_features,
):
    """Undo an autoregressive layer, one feature after another; context as in ``map_by_layer``.

    Each hidden unit is computed once, when all that it sees is known: all features together take the arithmetic of one way
    forwards. ``units_up_to[i, m]`` is how many units of hidden layer i see at most m inputs.
    """
    n_layers = len(table)
    output = table[n_layers - 1]
    for panel in range(n_panels):
        here = panel * n_features * LANES
        inputs = places[0] + panel * (n_context + n_features) * LANES
        _clipped_inputs(context, panel * n_context * LANES, n_context, z, here, staying[:0], input_bound, kept, inputs)
        for feature in range(n_features):
            a_position = inputs
            for i in range(n_layers - 1):
                n_out = table[i, N_OUT]
                first, last = (units_up_to[i, feature - 1] if feature > 0 else 0), units_up_to[i, feature]
                y_position = places[1 + 2 * i] + panel * n_out * LANES
                linear(
                    *(parameters, table[i, WEIGHTS], table[i, N_IN], table[i, BIASES], first, last, stairs, table[i, SEEN]),
                    *(kept, a_position, kept, y_position),
                )
                new, slopes = y_position + first * LANES, places[2 + 2 * i] + (panel * n_out + first) * LANES
                _activate(kept, new, kept, slopes, last - first, activation)
                a_position = y_position
            raw_position = places[2 * n_layers - 1] + panel * n_features * n_parameters * LANES
            linear(
                *(parameters, output[WEIGHTS], output[N_IN], output[BIASES]),
                *(feature * n_parameters, (feature + 1) * n_parameters, stairs, output[SEEN]),
                *(kept, a_position, kept, raw_position),
            )
            _map_feature(
                *(z, here + feature * LANES, kept, raw_position + feature * n_parameters * LANES),
                *(is_affine, n_parameters, bound, True, work, x, log_det, panel * LANES),
            )
            for lane in range(0, LANES, vector_width(x)):
                v = load(x, here + feature * LANES + lane)
                clipped = smaller(input_bound, larger(-input_bound, v))
                store(kept, inputs + (n_context + feature) * LANES + lane, clipped)


@inner
def _multiply(values, position, factors, factors_position, n):
    for i in range(0, n, vector_width(values)):
        store(values, position + i, load(values, position + i) * load(factors, factors_position + i))


@inner
def layer_gradient(
    parameters,
    table,
    stairs,
    staying,
    moving,
    input_bound,
    is_affine,
    n_parameters,
    bound,
    n_context,
    x,
    gradient,
    log_gradient,
    kept,
    places,
    work,
    n_panels,
    n_features,
):
    """Carry gradients back through ``map_by_layer``, but not to the context.

    ``gradient``, with respect to its images, becomes that with respect to ``x``; in ``kept`` derivatives and raw parameters
    become gradients, of which ``add_layer_gradient`` makes those of the parameters.
    """
    n_layers = len(table)
    raw = places[2 * n_layers - 1]
    n_out = len(moving) * n_parameters
    for panel in range(n_panels):
        here = panel * n_features * LANES
        for i in range(len(moving)):
            for lane in range(0, LANES, vector_width(x)):
                place = here + moving[i] * LANES + lane
                r = raw + (panel * n_out + i * n_parameters) * LANES + lane
                v, g, g_log = load(x, place), load(gradient, place), load(log_gradient, panel * LANES + lane)
                if is_affine:
                    g = affine_gradient(v, kept, r, bound, g, g_log)
                else:
                    g = spline_gradient(v, kept, r, (n_parameters + 1) // 3, bound, work, g, g_log)
                store(gradient, place, g)
        g_position = raw + panel * n_out * LANES
        for i in range(n_layers - 1, -1, -1):
            n_in = table[i, N_IN]
            # Gradients of activations go where the work is, then meet the derivatives at their place.
            linear_transposed(
                *(parameters, table[i, WEIGHTS], n_in, 0, n_in, table[i, N_OUT], stairs, table[i, SEEN_BY]),
                *(kept, g_position, work, 0),
            )
            if i > 0:
                g_position = places[2 * i] + panel * n_in * LANES
                _multiply(kept, g_position, work, 0, n_in * LANES)
        for i in range(len(staying)):
            for lane in range(0, LANES, vector_width(x)):
                place = here + staying[i] * LANES + lane
                # The clip of the inputs lets no gradient through.
                g = load(work, (n_context + i) * LANES + lane)
                g = select(absolute(load(x, place)) <= input_bound, g, 0.0)
                store(gradient, place, load(gradient, place) + g)


@inner
def inverse_autoregressive_gradient(
    parameters,
    table,
    stairs,
    units_up_to,
    input_bound,
    bound,
    n_context,
    z,
    gradient,
    log_gradient,
    kept,
    places,
    work,
    n_panels,
    n_features,
):
    """Carry gradients back through ``invert_autoregressive`` with an affine bijection, one feature after another from the last.

    What ``layer_gradient`` says holds here too, with ``z`` in the place of ``x``. The gradient of a feature is known when those
    of all later ones are, as it is an input of their parameters, and that of a hidden unit when those of all features are that
    see it: again the arithmetic is that of one way back.
    """
    n_layers = len(table)
    raw = places[2 * n_layers - 1]
    for panel in range(n_panels):
        here = panel * n_features * LANES
        # Units that no feature sees were left out on the way there: the only feature of a table leaves all of them out.
        for i in range(n_layers - 1):
            unseen, n_out = units_up_to[i, n_features - 1], table[i, N_OUT]
            for j in range((panel * n_out + unseen) * LANES, (panel + 1) * n_out * LANES):
                kept[places[1 + 2 * i] + j] = 0.0
                kept[places[2 + 2 * i] + j] = 0.0
        for feature in range(n_features - 1, -1, -1):
            n_in, n_out = table[0, N_IN], table[0, N_OUT]
            linear_transposed(
                *(parameters, table[0, WEIGHTS], n_in, n_context + feature, n_context + feature + 1, n_out),
                *(stairs, table[0, SEEN_BY], kept, _gradients_of(places, 0, n_layers) + panel * n_out * LANES, work, 0),
            )
            for lane in range(0, LANES, vector_width(z)):
                place, r = here + feature * LANES + lane, raw + (here + feature * LANES) * 2 + lane
                v = load(z, place)
                x, _ = inverse_affine(v, kept, r, bound)
                # The clip of the inputs lets no gradient through.
                g = select(absolute(x) <= input_bound, load(work, (n_context + feature) * LANES + lane), 0.0)
                g = load(gradient, place) + g
                g = inverse_affine_gradient(v, kept, r, bound, g, load(log_gradient, panel * LANES + lane))
                store(gradient, place, g)
            for i in range(n_layers - 1, 0, -1):
                n_in, n_out = table[i, N_IN], table[i, N_OUT]
                first, last = (units_up_to[i - 1, feature - 1] if feature > 0 else 0), units_up_to[i - 1, feature]
                linear_transposed(
                    *(parameters, table[i, WEIGHTS], n_in, first, last, n_out, stairs, table[i, SEEN_BY]),
                    *(kept, _gradients_of(places, i, n_layers) + panel * n_out * LANES, work, 0),
                )
                new = _gradients_of(places, i - 1, n_layers) + (panel * n_in + first) * LANES
                _multiply(kept, new, work, first * LANES, (last - first) * LANES)


@inner
def _gradients_of(places, layer, n_layers):
    """Where the gradients of a linear layer's outputs are kept: derivatives of activations, or raw parameters, before."""
    return places[2 * layer + 2] if layer < n_layers - 1 else places[2 * n_layers - 1]


@inner
def add_layer_gradient(table, stairs, kept, places, work, n_panels, out):
    """Add to ``out`` the gradients of a layer's parameters, after ``layer_gradient``."""
    n_layers = len(table)
    for i in range(n_layers):
        n_in, n_out = table[i, N_IN], table[i, N_OUT]
        inputs = places[2 * i - 1] if i > 0 else places[0]
        gradients = _gradients_of(places, i, n_layers)
        add_weight_gradient(
            *(kept, gradients, n_out, kept, inputs, n_in, n_panels, stairs, table[i, SEEN], out, table[i, WEIGHTS], work)
        )
        add_bias_gradient(kept, gradients, n_out, n_panels, out, table[i, BIASES])
