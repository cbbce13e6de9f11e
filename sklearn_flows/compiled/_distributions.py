"""Base distributions on panels: log-densities, and their gradients with respect to the rows."""

import math

import numpy as np
import torch
from numba import types

from ..distributions import StandardNormal, spherical_log_density
from ._functions import inner, kind_of_kernel
from ._product import LANES, linear, linear_transposed, vector_width
from ._vector import exponential, larger, load, logarithm, store


def _log_density(number):
    memory, n = number[::1], types.intp
    values, z, log_density, gradient, work = [memory] * 5
    stairs, n_components, wants_gradient, n_panels, n_features = types.int64[::1], n, types.boolean, n, n
    of_rows = z, log_density, gradient, wants_gradient, work, n_panels, n_features
    return types.void(values, stairs, n_components, *of_rows)


# Log-density of the rows of panels and, where it is wanted, its gradient. ``work`` is memory for ``2 * n + 2`` units.
_density_kernel, call_log_density = kind_of_kernel(_log_density)


@_density_kernel
def _log_density_of_normal(values, stairs, n_components, z, log_density, gradient, wants_gradient, work, n_panels, n):
    for panel in range(n_panels):
        for lane in range(0, LANES, vector_width(z)):
            first = panel * n * LANES + lane
            total = load(z, first) * 0.0
            for place in range(first, first + n * LANES, LANES):
                v = load(z, place)
                total = total + v * v
                if wants_gradient:
                    store(gradient, place, -v)
            store(log_density, panel * LANES + lane, values[0] - 0.5 * total)


@inner
def _log_density_of_panel(values, stairs, n_components, z, here, log_density, out, gradient, wants_gradient, work, n):
    # The sum over components is scaled by its largest term so far, and so is the gradient that is summed with it.
    size, width = n * n + n, vector_width(z)
    whitened, back, highest, total = 0, n * LANES, 2 * n * LANES, (2 * n + 1) * LANES
    for k in range(n_components):
        linear(values, k * size, n, k * size + n * n, 0, n, stairs, 0, z, here, work, whitened)
        if wants_gradient:
            linear_transposed(values, k * size, n, 0, n, n, stairs, n, work, whitened, work, back)
        log_at_centre, df = values[n_components * size + k], values[n_components * (size + 1) + k]
        for lane in range(0, LANES, width):
            distance = load(work, whitened + lane) * 0.0
            for i in range(n):
                v = load(work, whitened + i * LANES + lane)
                distance = distance + v * v
            if math.isinf(df):
                log_joint = log_at_centre - 0.5 * distance
                pull = distance * 0.0 - 1.0
            else:
                log_joint = log_at_centre - (0.5 * (df + n)) * logarithm(distance / df + 1.0)
                pull = (-(df + n)) / (distance + df)
            if k == 0:
                top, kept, share = log_joint, distance * 0.0, distance * 0.0 + 1.0
                store(work, total + lane, share)
            else:
                before = load(work, highest + lane)
                top = larger(before, log_joint)
                kept, share = exponential(before - top), exponential(log_joint - top)
                store(work, total + lane, load(work, total + lane) * kept + share)
            store(work, highest + lane, top)
            if wants_gradient:
                pull = pull * share
                for i in range(n):
                    place = here + i * LANES + lane
                    added = pull * load(work, back + i * LANES + lane)
                    if k == 0:
                        store(gradient, place, added)
                    else:
                        store(gradient, place, load(gradient, place) * kept + added)
    for lane in range(0, LANES, width):
        sum_of_shares = load(work, total + lane)
        store(log_density, out + lane, load(work, highest + lane) + logarithm(sum_of_shares))
        if wants_gradient:
            for place in range(here + lane, here + lane + n * LANES, LANES):
                store(gradient, place, load(gradient, place) / sum_of_shares)


@_density_kernel
def _log_density_of_mixture(values, stairs, n_components, z, log_density, gradient, wants_gradient, work, n_panels, n):
    for panel in range(n_panels):
        _log_density_of_panel(
            *(values, stairs, n_components, z, panel * n * LANES, log_density, panel * LANES, gradient),
            *(wants_gradient, work, n),
        )


def describe_base(base, dtype):
    """What compiled functions need to know of a base distribution: the arguments of ``call_log_density`` that tell of it.

    Parameters
    ----------
    base : StandardNormal or StudentMixture
        The distribution.
    dtype : dtype
        Precision.

    Returns
    -------
    address : int
        Address of the kernel.
    values : ndarray
        Of a mixture, one component after the other: the matrix that makes it spherical and, right behind it as ``linear`` wants
        it, what is added; then the logarithms of the densities at all centres; then degrees of freedom.
    stairs : ndarray
        Those of triangular matrices.
    n_components : int
        Number of components.
    """
    n = base.n_features
    stairs = np.array([*range(1, n + 1), *range(n)], dtype=np.int64)
    if isinstance(base, StandardNormal):
        return _log_density_of_normal.address(dtype), np.array([-0.5 * n * math.log(2 * math.pi)], dtype), stairs, 1
    matrices = base.precisions_cholesky.double().cpu().numpy()
    shifts = -(matrices @ base.means.double().cpu().numpy()[:, :, None])
    blocks = np.concatenate([matrices.reshape(len(matrices), -1), shifts[:, :, 0]], axis=1)
    log_det = np.log(np.diagonal(matrices, axis1=1, axis2=2)).sum(axis=1)
    df = base.df.double().cpu()
    spherical = spherical_log_density(torch.zeros_like(df), n, df).numpy()
    log_at_centre = base.log_shares.double().cpu().log_softmax(dim=0).numpy() + log_det + spherical
    values = np.concatenate([blocks.ravel(), log_at_centre, df.numpy()]).astype(dtype)
    return _log_density_of_mixture.address(dtype), values, stairs, base.n_components
