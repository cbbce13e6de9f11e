"""The scalar bijections of layers on panels: the affine map and the rational-quadratic spline.

The mathematics is that of ``transforms._elementwise`` and ``transforms._spline``, which say it in torch and are the ones to
read first; here it is written for vectors. Raw parameters of a scalar are ``LANES`` apart.
"""

from ..transforms._spline import DERIVATIVE_OFFSET, MIN_BIN, MIN_DERIVATIVE
from ._functions import inner
from ._product import LANES, vector_width
from ._vector import absolute, exponential, larger, load, logarithm, select, smaller, softplus, square_root, store


@inner
def affine(x, raw, position, bound):
    """Map a vector: image and logarithm of the derivative."""
    mu, a = load(raw, position), load(raw, position + LANES)
    log_scale = -(a / (absolute(a) / bound + 1.0))
    return (x - mu) * exponential(log_scale), log_scale


@inner
def inverse_affine(z, raw, position, bound):
    """Undo ``affine``; the second value is the logarithm of the derivative of what is returned."""
    mu, a = load(raw, position), load(raw, position + LANES)
    alpha = a / (absolute(a) / bound + 1.0)
    return z * exponential(alpha) + mu, alpha


@inner
def affine_gradient(x, raw, position, bound, g_z, g_log):
    """Gradient with respect to the argument; those with respect to the raw parameters take the place of these."""
    mu, a = load(raw, position), load(raw, position + LANES)
    squash = absolute(a) / bound + 1.0
    scale = exponential(-(a / squash))
    g_x = g_z * scale
    store(raw, position, -g_x)
    store(raw, position + LANES, -(g_log + g_x * (x - mu)) / (squash * squash))  # d(-alpha)/da = -1 / squash^2
    return g_x


@inner
def inverse_affine_gradient(z, raw, position, bound, g_x, g_log):
    """As ``affine_gradient``, but for ``inverse_affine``."""
    a = load(raw, position + LANES)
    squash = absolute(a) / bound + 1.0
    g_z = g_x * exponential(a / squash)
    store(raw, position, g_x)
    store(raw, position + LANES, (g_log + g_z * z) / (squash * squash))  # d(alpha)/da = 1 / squash^2
    return g_z


@inner
def _unnormalised_shares(raw, position, n_bins, shares, start):
    """Write the exponentials of a softmax to ``shares``, and return one over their sum."""
    width = vector_width(raw)
    top = load(raw, position)
    for k in range(1, n_bins):
        top = larger(top, load(raw, position + k * LANES))
    sum_of_shares = top * 0.0
    for k in range(n_bins):
        share = exponential(load(raw, position + k * LANES) - top)
        store(shares, start + k * width, share)
        sum_of_shares = sum_of_shares + share
    return 1.0 / sum_of_shares


@inner
def _bin_scales(raw, position, n_bins, shares):
    """Write widths and heights of bins to ``shares``, up to factors and the smallest size, and return the factors."""
    free = 1.0 - MIN_BIN * n_bins
    w_scale = _unnormalised_shares(raw, position, n_bins, shares, 0) * free
    h_scale = _unnormalised_shares(raw, position + n_bins * LANES, n_bins, shares, n_bins * vector_width(raw)) * free
    return w_scale, h_scale


@inner
def _find_bin(at, shares, start, n_bins, scale):
    """Number, start and size of the bin that holds a position."""
    width = vector_width(shares)
    end = load(shares, start) * scale + MIN_BIN
    index = end * 0.0
    x_k, w = index, end
    for k in range(1, n_bins):
        size = load(shares, start + k * width) * scale + MIN_BIN
        passed = at >= end
        index = select(passed, k, index)
        x_k = select(passed, end, x_k)
        w = select(passed, size, w)
        end = end + size
    return index, x_k, w


@inner
def _bin_at(index, shares, start, n_bins, scale):
    """Start and size of the bin of a number."""
    width = vector_width(shares)
    end = load(shares, start) * scale + MIN_BIN
    y_k, h = end * 0.0, end
    for k in range(1, n_bins):
        size = load(shares, start + k * width) * scale + MIN_BIN
        reached = index >= k
        y_k = select(reached, end, y_k)
        h = select(reached, size, h)
        end = end + size
    return y_k, h


@inner
def _derivatives_at(index, raw, position, n_bins):
    """Derivatives at both ends of a bin, and how they change with the raw values."""
    # Where there is no raw value, at both ends of the box, the offset alone makes the derivative one.
    left = index * 0.0
    right = left
    for k in range(n_bins - 1):
        r = load(raw, position + k * LANES)
        left = select(index == k + 1, r, left)
        right = select(index == k, r, right)
    d_left, left_slope = softplus(left + DERIVATIVE_OFFSET)
    d_right, right_slope = softplus(right + DERIVATIVE_OFFSET)
    return d_left + MIN_DERIVATIVE, left_slope, d_right + MIN_DERIVATIVE, right_slope


@inner
def _in_unit_box(x, bound):
    return smaller(larger(x / (2.0 * bound) + 0.5, 0.0), 1.0)


@inner
def _share_of_bin(at, x_k, w):
    return smaller(larger((at - x_k) / w, 0.0), 1.0)  # knots are rounded sums


@inner
def spline(x, raw, position, n_bins, bound, shares):
    """Map a vector: image and logarithm of the derivative. ``shares`` is memory for ``2 * n_bins`` vectors."""
    heights = n_bins * vector_width(raw)
    at = _in_unit_box(x, bound)
    w_scale, h_scale = _bin_scales(raw, position, n_bins, shares)
    index, x_k, w = _find_bin(at, shares, 0, n_bins, w_scale)
    y_k, h = _bin_at(index, shares, heights, n_bins, h_scale)
    d_left, _, d_right, _ = _derivatives_at(index, raw, position + 2 * n_bins * LANES, n_bins)
    xi = _share_of_bin(at, x_k, w)
    s = h / w
    rest, xi_left = xi * (1.0 - xi), 1.0 - xi
    denominator = s + (d_left + d_right - 2.0 * s) * rest
    numerator = d_right * xi * xi + 2.0 * s * rest + d_left * xi_left * xi_left
    inverse = 1.0 / denominator
    value = (y_k + h * (s * xi * xi + d_left * rest) * inverse) * (2.0 * bound) - bound
    ratio = s * inverse
    inside = absolute(x) <= bound  # NaN is outside, and stays NaN
    return select(inside, value, x), select(inside, logarithm(ratio * ratio * numerator), 0.0)


@inner
def inverse_spline(z, raw, position, n_bins, bound, shares):
    """Undo ``spline``; the second value is the logarithm of the derivative of what is returned."""
    heights = n_bins * vector_width(raw)
    at = _in_unit_box(z, bound)
    w_scale, h_scale = _bin_scales(raw, position, n_bins, shares)
    index, y_k, h = _find_bin(at, shares, heights, n_bins, h_scale)
    x_k, w = _bin_at(index, shares, 0, n_bins, w_scale)
    d_left, _, d_right, _ = _derivatives_at(index, raw, position + 2 * n_bins * LANES, n_bins)
    s = h / w
    curvature = d_left + d_right - 2.0 * s
    rise = larger(at - y_k, 0.0)
    a = h * (s - d_left) + rise * curvature
    b = h * d_left - rise * curvature
    c = -(s * rise)
    # The root without cancellation (eq. 29 of the paper's appendix); rounding can push a zero discriminant below zero.
    root = square_root(larger(b * b - 4.0 * a * c, 0.0))
    xi = smaller(larger(2.0 * c / (-b - root), 0.0), 1.0)
    value = (x_k + w * xi) * (2.0 * bound) - bound
    rest, xi_left = xi * (1.0 - xi), 1.0 - xi
    numerator = d_right * xi * xi + 2.0 * s * rest + d_left * xi_left * xi_left
    ratio = (s + curvature * rest) / s
    inside = absolute(z) <= bound
    return select(inside, value, z), select(inside, logarithm(ratio * ratio / numerator), 0.0)


@inner
def _through_softmax(index, shares, start, n_bins, scale, free, x_k, w, g_start, g_size, raw, position):
    """Replace raw bin sizes by their gradients, given those of the start and the size of one bin."""
    width = vector_width(shares)
    # The mean of the gradients of all shares, weighted by the shares.
    mean = g_start * (x_k - index * MIN_BIN) + g_size * (w - MIN_BIN)
    mean = mean * (1.0 / free)
    for k in range(n_bins):
        g = select(index > k, g_start, select(index == k, g_size, 0.0))
        store(raw, position + k * LANES, load(shares, start + k * width) * scale * (g - mean))


@inner
def spline_gradient(x, raw, position, n_bins, bound, shares, g_z, g_log):
    """Gradient with respect to the argument; those with respect to the raw parameters take the place of these."""
    heights, derivatives = n_bins * vector_width(raw), position + 2 * n_bins * LANES
    free = 1.0 - MIN_BIN * n_bins
    at = _in_unit_box(x, bound)
    w_scale, h_scale = _bin_scales(raw, position, n_bins, shares)
    index, x_k, w = _find_bin(at, shares, 0, n_bins, w_scale)
    y_k, h = _bin_at(index, shares, heights, n_bins, h_scale)
    d_left, left_slope, d_right, right_slope = _derivatives_at(index, raw, derivatives, n_bins)
    inside = absolute(x) <= bound
    # The names of transforms._spline.spline_gradients.
    g_value = select(inside, g_z, 0.0) * (2.0 * bound)
    g_log = select(inside, g_log, 0.0)
    xi = _share_of_bin(at, x_k, w)
    inverse_w = 1.0 / w
    s = h * inverse_w
    rest, xi_left = xi * (1.0 - xi), 1.0 - xi
    curvature = d_left + d_right - 2.0 * s
    inverse_denominator = 1.0 / (s + curvature * rest)
    a = s * xi * xi + d_left * rest
    numerator = d_right * xi * xi + 2.0 * s * rest + d_left * xi_left * xi_left
    g_a = g_value * h * inverse_denominator
    g_denominator = -(g_a * a + 2.0 * g_log) * inverse_denominator
    g_numerator = g_log / numerator
    g_rest = g_a * d_left + g_denominator * curvature + 2.0 * g_numerator * s
    g_s = 2.0 * g_log / s + g_a * xi * xi + g_denominator * (1.0 - 2.0 * rest) + 2.0 * g_numerator * rest
    g_xi = 2.0 * xi * (g_a * s + g_numerator * d_right) - 2.0 * xi_left * g_numerator * d_left + g_rest * (1.0 - 2.0 * xi)
    g_left = ((g_a + g_denominator) * rest + g_numerator * xi_left * xi_left) * left_slope
    g_right = (g_denominator * rest + g_numerator * xi * xi) * right_slope
    g_at = g_xi * inverse_w
    g_w = -(g_xi * xi + g_s * s) * inverse_w
    g_h = g_value * a * inverse_denominator + g_s * inverse_w
    for k in range(n_bins - 1):
        # Knot k is at the right end of bin k and at the left one of the next.
        store(raw, derivatives + k * LANES, select(index == k, g_right, select(index == k + 1, g_left, 0.0)))
    _through_softmax(index, shares, 0, n_bins, w_scale, free, x_k, w, -g_at, g_w, raw, position)
    _through_softmax(index, shares, heights, n_bins, h_scale, free, y_k, h, g_value, g_h, raw, position + n_bins * LANES)
    return select(inside, g_at / (2.0 * bound), g_z)
