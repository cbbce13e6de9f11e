"""Linear maps of features on panels: LU-parametrised matrices, scales and permutations."""

import math

from ._functions import called_from_python, inner
from ._product import LANES, add_bias_gradient, add_weight_gradient, linear, linear_transposed, vector_width
from ._vector import load, store


@inner
def _add_multiple(target, position, factor, source, source_position, n):
    for j in range(n):
        target[position + j] += factor * source[source_position + j]


# What is prepared of an LU-linear map of n features, once for all rows: the matrix and, right behind it as ``linear`` wants it,
# b; U; the sum of the logarithms of its diagonal.
@inner
def _places(n):
    u = n * n + n
    return u, u + n * n


@inner
def prepare_lu(parameters, lower, upper, log_diagonal, bias, n, prepared):
    """Multiply L and U."""
    u, log_sum = _places(n)
    prepared[log_sum] = 0.0
    for i in range(n):
        for j in range(n):
            prepared[u + i * n + j] = parameters[upper + i * n + j] if j > i else 0.0
        prepared[u + i * n + i] = math.exp(parameters[log_diagonal + i])
        prepared[log_sum] += parameters[log_diagonal + i]
    for i in range(n):
        for j in range(n):
            prepared[i * n + j] = prepared[u + i * n + j]
        prepared[n * n + i] = parameters[bias + i]
        for k in range(i):
            _add_multiple(prepared, i * n + k, parameters[lower + i * n + k], prepared, u + k * n + k, n - k)


@inner
def map_by_lu(prepared, stairs, x, z, log_det, n_panels, n):
    """Map panels by ``z = L U x + b``, and add to ``log_det``."""
    _, log_sum = _places(n)
    for panel in range(n_panels):
        here = panel * n * LANES
        linear(prepared, 0, n, n * n, 0, n, stairs, 0, x, here, z, here)
    for i in range(n_panels * LANES):
        log_det[i] += prepared[log_sum]


@inner
def lu_gradient(prepared, stairs, gradient, x_gradient, kept_gradient, n_panels, n):
    """Carry gradients back through ``map_by_lu``, and keep them for ``add_lu_gradient``."""
    for panel in range(n_panels):
        here = panel * n * LANES
        linear_transposed(prepared, 0, n, 0, n, n, stairs, n, gradient, here, x_gradient, here)
    for i in range(n_panels * n * LANES):
        kept_gradient[i] = gradient[i]


@inner
def add_lu_gradient(stairs, x, gradient, log_gradient, n_panels, n, work, out, bias, sums):
    """Add up the gradients of the matrix and, behind it, of the sum of logarithms in ``sums``, and those of b in ``out``."""
    add_weight_gradient(gradient, 0, n, x, 0, n, n_panels, stairs, 0, sums, 0, work)
    add_bias_gradient(gradient, 0, n, n_panels, out, bias)
    for i in range(n_panels * LANES):
        sums[n * n] += log_gradient[i]


@inner
def finish_lu_gradient(parameters, lower, upper, log_diagonal, n, prepared, sums, work, out):
    """Add the gradients of L and U to ``out``, after ``add_lu_gradient`` for all rows.

    ``work`` is memory for three matrices.
    """
    u, _ = _places(n)
    g_upper, g_lower, u_transposed = 0, n * n, 2 * n * n
    for i in range(n):
        for j in range(n):
            work[g_upper + i * n + j] = sums[i * n + j]
            work[g_lower + i * n + j] = 0.0
            work[u_transposed + j * n + i] = prepared[u + i * n + j]
    for i in range(n):
        for k in range(i + 1, n):
            factor = parameters[lower + k * n + i]
            _add_multiple(work, g_upper + i * n + i, factor, sums, k * n + i, n - i)
        for k in range(n):
            _add_multiple(work, g_lower + i * n, sums[i * n + k], work, u_transposed + k * n, min(i, k + 1))
        out[log_diagonal + i] += work[g_upper + i * n + i] * prepared[u + i * n + i] + sums[n * n]
        for j in range(i + 1, n):
            out[upper + i * n + j] += work[g_upper + i * n + j]
        for j in range(i):
            out[lower + i * n + j] += work[g_lower + i * n + j]


@inner
def invert_lu(parameters, lower, upper, log_diagonal, bias, z, x, log_det, n_panels, n):
    """Undo ``map_by_lu`` by substitution; the negative log-determinant is added to ``log_det``."""
    width = vector_width(x)
    sum_of_logs = parameters[log_diagonal]
    for i in range(1, n):
        sum_of_logs += parameters[log_diagonal + i]
    for panel in range(n_panels):
        here = panel * n * LANES
        for lane in range(here, here + LANES, width):
            for i in range(n):
                y = load(z, lane + i * LANES) - parameters[bias + i]
                for k in range(i):
                    y = y - load(x, lane + k * LANES) * parameters[lower + i * n + k]
                store(x, lane + i * LANES, y)
            for i in range(n - 1, -1, -1):
                y = load(x, lane + i * LANES)
                for k in range(i + 1, n):
                    y = y - load(x, lane + k * LANES) * parameters[upper + i * n + k]
                store(x, lane + i * LANES, y * math.exp(-parameters[log_diagonal + i]))
    for i in range(n_panels * LANES):
        log_det[i] -= sum_of_logs


@inner
def _log_scale(raw, bound):
    return raw / (1.0 + abs(raw) / bound)


@inner
def map_by_scale(parameters, raw, bias, bound, x, z, log_det, n_panels, n):
    """Map panels by ``z = exp(s) x + b``, and add to ``log_det``."""
    width = vector_width(x)
    sum_of_logs = 0.0
    for i in range(n):
        log_scale, shift = _log_scale(parameters[raw + i], bound), parameters[bias + i]
        scale = math.exp(log_scale)
        sum_of_logs += log_scale
        for panel in range(n_panels):
            here = (panel * n + i) * LANES
            for lane in range(here, here + LANES, width):
                store(z, lane, load(x, lane) * scale + shift)
    for i in range(n_panels * LANES):
        log_det[i] += sum_of_logs


@inner
def invert_scale(parameters, raw, bias, bound, z, x, log_det, n_panels, n):
    """Undo ``map_by_scale``; the negative log-determinant is added to ``log_det``."""
    width = vector_width(x)
    sum_of_logs = 0.0
    for i in range(n):
        log_scale, shift = _log_scale(parameters[raw + i], bound), parameters[bias + i]
        scale = math.exp(-log_scale)
        sum_of_logs += log_scale
        for panel in range(n_panels):
            here = (panel * n + i) * LANES
            for lane in range(here, here + LANES, width):
                store(x, lane, (load(z, lane) - shift) * scale)
    for i in range(n_panels * LANES):
        log_det[i] -= sum_of_logs


@inner
def scale_gradient(parameters, raw, bias, bound, x, gradient, log_gradient, n_panels, n, out):
    """Carry gradients back through ``map_by_scale``, in place, and add those of the parameters to ``out``."""
    add_bias_gradient(gradient, 0, n, n_panels, out, bias)
    of_log_det = 0.0
    for i in range(n_panels * LANES):
        of_log_det += log_gradient[i]
    for i in range(n):
        scale = math.exp(_log_scale(parameters[raw + i], bound))
        of_log_scale = of_log_det
        for panel in range(n_panels):
            here = (panel * n + i) * LANES
            for lane in range(here, here + LANES):
                gradient[lane] *= scale
                of_log_scale += gradient[lane] * x[lane]
        out[raw + i] += of_log_scale / (1.0 + abs(parameters[raw + i]) / bound) ** 2


@inner
def reorder(x, order, y, n_panels, n):
    """Feature ``order[i]`` of ``x`` becomes feature i of ``y``."""
    width = vector_width(x)
    for panel in range(n_panels):
        here = panel * n * LANES
        for i in range(n):
            for lane in range(0, LANES, width):
                store(y, here + i * LANES + lane, load(x, here + order[i] * LANES + lane))


@called_from_python
def to_panels(rows, panels):
    """Copy rows to panels; the rest of the last one is filled with zeros."""
    n_rows, n_features = rows.shape
    n_panels = (n_rows + LANES - 1) // LANES
    for panel in range(n_panels):
        for lane in range(LANES):
            row = panel * LANES + lane
            for i in range(n_features):
                panels[(panel * n_features + i) * LANES + lane] = rows[row, i] if row < n_rows else 0.0


@called_from_python
def from_panels(panels, rows):
    """Copy what panels hold to rows."""
    n_rows, n_features = rows.shape
    for row in range(n_rows):
        panel, lane = row // LANES, row % LANES
        for i in range(n_features):
            rows[row, i] = panels[(panel * n_features + i) * LANES + lane]
