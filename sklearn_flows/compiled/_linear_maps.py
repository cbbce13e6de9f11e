"""Linear maps of features on panels: LU-parametrised matrices and permutations."""

import math

from ._product import LANES, add_bias_gradient, add_weight_gradient, linear, linear_transposed, vector_width
from ._vector import compiled, load, store


@compiled
def _add_multiple(target, position, factor, source, source_position, n):
    for j in range(n):
        target[position + j] += factor * source[source_position + j]


@compiled
def map_by_lu(parameters, lower, upper, log_diagonal, bias, stairs, x, z, log_det, matrix, n_panels, n):
    """Map panels by ``z = L U x + b``, add to ``log_det``, and keep the matrix, followed by b and by U, in ``matrix``."""
    u = n * n + n
    sum_of_logs = parameters[log_diagonal]
    for i in range(1, n):
        sum_of_logs += parameters[log_diagonal + i]
    for i in range(n):
        for j in range(n):
            matrix[u + i * n + j] = parameters[upper + i * n + j] if j > i else 0.0
        matrix[u + i * n + i] = math.exp(parameters[log_diagonal + i])
    for i in range(n):
        for j in range(n):
            matrix[i * n + j] = matrix[u + i * n + j]
        matrix[n * n + i] = parameters[bias + i]
        for k in range(i):
            _add_multiple(matrix, i * n + k, parameters[lower + i * n + k], matrix, u + k * n + k, n - k)
    for panel in range(n_panels):
        here = panel * n * LANES
        linear(matrix, 0, n, n * n, 0, n, stairs, 0, x, here, z, here)
    for i in range(n_panels * LANES):
        log_det[i] += sum_of_logs


@compiled
def lu_gradient(matrix, stairs, gradient, x_gradient, kept_gradient, n_panels, n):
    """Carry gradients back through ``map_by_lu``, and keep them for ``add_lu_gradient``."""
    for panel in range(n_panels):
        here = panel * n * LANES
        linear_transposed(matrix, 0, n, n, stairs, n, gradient, here, x_gradient, here)
    for i in range(n_panels * n * LANES):
        kept_gradient[i] = gradient[i]


@compiled
def add_lu_gradient(
    parameters, lower, upper, log_diagonal, bias, stairs, x, gradient, log_gradient, matrix, n_panels, n, work, out
):
    """Add to ``out`` the gradients of the parameters of ``map_by_lu``, given those with respect to its images.

    The end of ``work`` is memory for four matrices.
    """
    u = n * n + n
    g_matrix = len(work) - 4 * n * n
    g_upper, g_lower, u_transposed = g_matrix + n * n, g_matrix + 2 * n * n, g_matrix + 3 * n * n
    for i in range(n * n):
        work[g_matrix + i] = 0.0
        work[g_lower + i] = 0.0
    add_weight_gradient(gradient, 0, n, x, 0, n, n_panels, stairs, 0, work, g_matrix, work)
    for i in range(n):
        for j in range(n):
            work[g_upper + i * n + j] = work[g_matrix + i * n + j]
            work[u_transposed + j * n + i] = matrix[u + i * n + j]
    for i in range(n):
        for k in range(i + 1, n):
            factor = parameters[lower + k * n + i]
            _add_multiple(work, g_upper + i * n + i, factor, work, g_matrix + k * n + i, n - i)
        for k in range(n):
            factor = work[g_matrix + i * n + k]
            _add_multiple(work, g_lower + i * n, factor, work, u_transposed + k * n, min(i, k + 1))
    g_log = log_gradient[0]
    for i in range(1, n_panels * LANES):
        g_log += log_gradient[i]
    for i in range(n):
        out[log_diagonal + i] += work[g_upper + i * n + i] * matrix[u + i * n + i] + g_log
        for j in range(i + 1, n):
            out[upper + i * n + j] += work[g_upper + i * n + j]
        for j in range(i):
            out[lower + i * n + j] += work[g_lower + i * n + j]
    add_bias_gradient(gradient, 0, n, n_panels, out, bias)


@compiled
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


@compiled
def reorder(x, order, y, n_panels, n):
    """Feature ``order[i]`` of ``x`` becomes feature i of ``y``."""
    width = vector_width(x)
    for panel in range(n_panels):
        here = panel * n * LANES
        for i in range(n):
            for lane in range(0, LANES, width):
                store(y, here + i * LANES + lane, load(x, here + order[i] * LANES + lane))


@compiled
def to_panels(rows, panels):
    """Copy rows to panels; the rest of the last one is filled with zeros."""
    n_rows, n_features = rows.shape
    n_panels = (n_rows + LANES - 1) // LANES
    for panel in range(n_panels):
        for lane in range(LANES):
            row = panel * LANES + lane
            for i in range(n_features):
                panels[(panel * n_features + i) * LANES + lane] = rows[row, i] if row < n_rows else 0.0


@compiled
def from_panels(panels, rows):
    """Copy what panels hold to rows."""
    n_rows, n_features = rows.shape
    for row in range(n_rows):
        panel, lane = row // LANES, row % LANES
        for i in range(n_features):
            rows[row, i] = panels[(panel * n_features + i) * LANES + lane]
