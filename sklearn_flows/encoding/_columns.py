"""One class for each kind of column: an increasing map to the real line with its log-derivative."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Encoded values are kept within this bound so that nothing after them overflows; the density beyond it is zero.
MAX_ENCODED = 1e30
# Width given to a constant column, as a share of its value (of one, where the value is zero).
CONSTANT_COLUMN_WIDTH = 1e-3


@dataclass(frozen=True)
class ContinuousColumn:
    """A column of real numbers, standardised: ``z = (x - loc) / scale``.

    Parameters
    ----------
    loc, scale : float
        Centre and positive width, in the units of the column.
    """

    loc: float
    scale: float

    @classmethod
    def fit(cls, x, weight):
        """Take the weighted mean and standard deviation, in float64.

        Parameters
        ----------
        x : ndarray of shape (n_samples,)
            Finite values.
        weight : ndarray of shape (n_samples,)
            Non-negative weights with a positive sum.

        Returns
        -------
        ContinuousColumn
            The fitted column.
        """
        # Scaling by a power of two is exact, and keeps squares of values like 1e200 or 1e-200 representable.
        _, exponent = np.frexp(max(abs(x.min()), abs(x.max())))
        unit = np.ldexp(x, -exponent, dtype=np.float64)
        share = weight / weight.sum()
        loc = share @ unit
        # The floor is the rounding of the values themselves: vanishing weights could make the deviation vanish.
        unit -= loc
        scale = max(np.sqrt(share @ np.square(unit, out=unit)), np.finfo(np.float64).eps)
        return cls(float(np.ldexp(loc, exponent)), float(np.ldexp(scale, exponent)))

    def encode(self, x):
        """Map values to the real line.

        Parameters
        ----------
        x : ndarray of shape (n_samples,)
            Values.

        Returns
        -------
        z : ndarray of shape (n_samples,)
            Encoded values, float64.
        log_derivative : ndarray of shape (n_samples,)
            Logarithm of the derivative of each.
        """
        with np.errstate(over="ignore"):
            z = (x.astype(np.float64, copy=False) - self.loc) / self.scale
        beyond = np.abs(z) > MAX_ENCODED
        log_derivative = np.where(beyond, -np.inf, -np.log(self.scale))
        return np.clip(z, -MAX_ENCODED, MAX_ENCODED), log_derivative

    def decode(self, z):
        """Undo ``encode``.

        Parameters
        ----------
        z : ndarray of shape (n_samples,)
            Encoded values.

        Returns
        -------
        ndarray of shape (n_samples,)
            Values in the units of the column.
        """
        return z * self.scale + self.loc


def constant_column(value):
    """Build the column for values that are all the same: there is no width to learn, so it gets a narrow one.

    Parameters
    ----------
    value : float
        The value.

    Returns
    -------
    ContinuousColumn
        A column of width ``1e-3 * abs(value)``, or ``1e-3`` where the value is zero.
    """
    width = CONSTANT_COLUMN_WIDTH * (abs(float(value)) or 1.0)
    return ContinuousColumn(float(value), max(width, np.finfo(np.float64).tiny))


def is_constant(x):
    """Whether values differ by no more than the rounding of their last digit.

    Parameters
    ----------
    x : ndarray of shape (n_samples,)
        Finite values.

    Returns
    -------
    bool
        True if they do.
    """
    # Halved: the difference of the largest and the smallest double overflows, and so does the spacing of the largest. By a
    # scalar of x's own type: before numpy 2 a float32 divided by a Python number becomes a float64, of finer spacing.
    half = x.dtype.type(0.5)
    low, high = x.min() * half, x.max() * half
    return bool(high - low <= 2 * np.spacing(max(abs(low), abs(high))))


def is_discrete(x):
    """Whether values repeat so much that a continuous density isn't meaningful for them.

    They do if one of them holds more than a twentieth of the rows, if each is found in twenty rows, or if there are only about
    25 of them, each in two rows. A value counts by its share here: the effective number of values is the inverse probability
    that two rows hold the same one.

    Parameters
    ----------
    x : ndarray of shape (n_samples,)
        Values.

    Returns
    -------
    bool
        True if they are discrete.
    """
    n_rows = len(x)
    _, counts = np.unique(x, return_counts=True)
    n_effective = n_rows**2 / np.square(counts, dtype=np.float64).sum()
    has_atom = counts.max() >= 5 and counts.max() > n_rows / 20
    return bool(has_atom or n_effective <= n_rows / 20 or (n_effective < 25 and n_effective <= n_rows / 2))
