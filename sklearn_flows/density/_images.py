"""What is special to estimators of densities whose rows are images."""

import math
from numbers import Integral, Real

import numpy as np

from ..utils._sklearn import Interval, StrOptions
from ._defaults import default_n_noisy_copies

IMAGE_CONSTRAINTS = {
    "image_shape": ["array-like", None],
    "n_levels": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "learning_rate": [Interval(Real, 0, 1e30, closed="right"), StrOptions({"auto"})],
}


def check_image_settings(density):
    """Raise an error unless the rows can be images and the flow can have its levels.

    Parameters
    ----------
    density : estimator object
        It has ``image_shape``, ``n_levels``, ``n_teachers`` and ``n_features_in_``.
    """
    shape = tuple(density.image_shape)
    if len(shape) != 3 or not all(isinstance(number, Integral) and number >= 1 for number in shape):
        raise ValueError(
            f"image_shape must be three integers of at least 1, (channels, height, width). Got {density.image_shape!r}."
        )
    if math.prod(shape) != density.n_features_in_:
        raise ValueError(
            f"image_shape={shape} asks for rows of {math.prod(shape)} pixels, the product of channels, height and width, but X"
            f" has {density.n_features_in_} features. Give the shape of the images, or leave image_shape=None for a table."
        )
    n_levels, possible = density.n_levels, _halvings(shape)
    if n_levels == "auto":
        n_levels = 1
    if n_levels > possible:
        raise ValueError(
            f"n_levels={density.n_levels} halves the height and the width of the images {n_levels} time(s), but {shape[1]} x"
            f" {shape[2]} pixels can be halved {possible} time(s). "
            + ("Set n_levels to at most that." if possible else "Crop or pad the images to an even height and width.")
        )
    if density.n_teachers not in ("auto", 0):
        raise ValueError(
            f"n_teachers={density.n_teachers} is for tables: a flow over images learns from the images themselves. Leave"
            " n_teachers at 'auto', or set it to 0."
        )


def resolve_n_levels(n_levels, image_shape):
    """Say how many levels a flow over images has.

    Parameters
    ----------
    n_levels : int or "auto"
        The parameter. "auto" is up to 3, as long as the last level has at least 2x2 positions.
    image_shape : tuple of (int, int, int)
        Channels, height and width, the latter two even.

    Returns
    -------
    int
        The number.
    """
    if n_levels != "auto":
        return n_levels
    _, height, width = image_shape
    return max(1, min(3, _halvings(image_shape), int(math.log2(min(height, width))) - 1))


def _halvings(image_shape):
    """How often height and width can be halved: the twos in their greatest common divisor."""
    side = math.gcd(*image_shape[1:])
    return (side & -side).bit_length() - 1


def dequantised(levels, part, part_val, rng):
    """Repeat images, each time with other noise in the cells of their pixels' levels.

    Parameters
    ----------
    levels : PixelLevels
        The levels.
    part : tuple of (ndarray, ndarray, ndarray)
        All distinct images, their weights, and the indices of those to train on.
    part_val : tuple of (ndarray, ndarray, ndarray) or None
        The same of those to validate on.
    rng : numpy.random.RandomState
        Source of the noise.

    Returns
    -------
    part, part_val : tuple of (ndarray, ndarray, ndarray), the same or None
        Noisy rows.
    """
    n_copies = default_n_noisy_copies(len(part[0]))
    return tuple(None if given is None else _noisy_copies(levels, *given, n_copies, rng) for given in (part, part_val))


def _noisy_copies(levels, rows, weight, indices, n_copies, rng):
    rows = rows[indices]
    noisy = np.concatenate([levels.dequantise(rows, rng) for _ in range(n_copies)])
    if noisy.min() <= levels.low or noisy.max() >= levels.high:
        raise ValueError(
            f"Pixels range from {rows.min():g} to {rows.max():g}, but the fit that warm_start=True continues has density zero"
            f" beyond {levels.low:g} to {levels.high:g}. Fit with warm_start=False."
        )
    return noisy, np.tile(weight[indices], n_copies), np.arange(len(noisy))
