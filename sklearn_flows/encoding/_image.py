"""Images to and from the space in which a flow is trained."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from ._table import TableEncoding

# Pixels with more distinct levels than these are continuous: their cells are so narrow that they hardly matter.
MAX_LEVELS = 2**16
# Share of the interval of the logit that is left free below the lowest cell, and above the highest: alpha in the paper.
MARGIN = 0.05
# How far from the grid of levels a value may lie by rounding, in steps.
ROUNDING = 0.01
# The logit of a float64 between 0 and 1 is within this bound, but next to 0.
MAX_LOGIT = 40.0


@dataclass(frozen=True)
class PixelLevels:
    """The levels that the pixels of all images have, and the logit over an interval around them [1]_ (section 4.1).

    A level is the middle of a cell that is as wide as the step between levels. Noise that is uniform in the cell makes pixels
    continuous [2]_. The interval reaches a little beyond the lowest and the highest cell, so that levels a little beyond those
    seen have a density, too.

    Parameters
    ----------
    low, high : float
        Ends of the interval, in the units of the table.
    step : float
        Width of a cell, in the units of the table.

    References
    ----------
    .. [1] Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
    .. [2] Theis, van den Oord and Bethge, "A note on the evaluation of generative models", ICLR 2016, section 3.1.
    """

    low: float
    high: float
    step: float

    @classmethod
    def fit(cls, X):
        """Find the levels: the grid on which all values lie, or ``MAX_LEVELS`` of them between the lowest and the highest.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_pixels)
            Finite rows.

        Returns
        -------
        PixelLevels
            The levels.
        """
        values = np.unique(X).astype(np.float64)
        low, high = values[0], values[-1]
        if low == high:
            # One level tells nothing about the step between levels: that of integers, or the rounding of larger numbers.
            step = max(1.0, 4 * np.spacing(abs(low)))
        else:
            # The quotient corrects the rounding of the smallest difference by the whole range.
            step = (high - low) / max(1, np.rint((high - low) / np.diff(values).min()))
            places = (values - low) / step
            if (high - low) / step > MAX_LEVELS - 1 or np.abs(places - np.rint(places)).max() > ROUNDING:
                step = (high - low) / (MAX_LEVELS - 1)
        beyond = step / 2 + MARGIN / (1 - 2 * MARGIN) * (high - low + step)
        return cls(float(low - beyond), float(high + beyond), float(step))

    def dequantise(self, X, rng):
        """Spread rows over their cells.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_pixels)
            Rows of levels.
        rng : numpy.random.RandomState
            Source of the noise.

        Returns
        -------
        ndarray of shape (n_samples, n_pixels)
            Rows with uniform noise of one step, float64.
        """
        return X + self.step * rng.uniform(-0.5, 0.5, X.shape)

    def encode(self, X):
        """Map rows to the real line by the logit.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_pixels)
            Rows.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_pixels)
            Logits, float64, within about ``MAX_LOGIT``.
        log_det : ndarray of shape (n_samples,)
            Log-determinant of the Jacobian of each row; minus infinity where a pixel isn't between ``low`` and ``high``.
        """
        below, above = X.astype(np.float64) - self.low, self.high - X.astype(np.float64)
        inside = ((below > 0) & (above > 0)).all(axis=1)
        # Outside, any finite logit will do: the density there is zero. By differences, not by shares of the interval: those
        # would round near its upper end.
        smallest = (self.high - self.low) * np.exp(-MAX_LOGIT)
        log_below, log_above = np.log(np.maximum(below, smallest)), np.log(np.maximum(above, smallest))
        log_det = (np.log(self.high - self.low) - log_below - log_above).sum(axis=1)
        return log_below - log_above, np.where(inside, log_det, -np.inf)

    def decode(self, Z):
        """Undo ``encode``.

        Parameters
        ----------
        Z : ndarray of shape (n_samples, n_pixels)
            Logits.

        Returns
        -------
        ndarray of shape (n_samples, n_pixels)
            Rows in the units of the table.
        """
        return self.low + (self.high - self.low) * special.expit(Z)


class ImageEncoding:
    """Map images to real vectors: all pixels by the same logit, then the logit of each pixel by a map of its own.

    Parameters
    ----------
    levels : PixelLevels
        Levels and logit of all pixels.
    logits : TableEncoding
        The map of each pixel's logit.
    """

    def __init__(self, levels, logits):
        self.levels = levels
        self.logits = logits

    @classmethod
    def fit(cls, levels, X, weight, margins):
        """Choose the maps of the pixels' logits.

        Parameters
        ----------
        levels : PixelLevels
            The levels.
        X : ndarray of shape (n_samples, n_pixels)
            At least two dequantised rows.
        weight : ndarray of shape (n_samples,)
            Non-negative weights with a positive sum.
        margins : {"linear", "bent", "smooth"}
            What may be done with a logit, as in ``TableEncoding.fit``.

        Returns
        -------
        ImageEncoding
            The fitted encoding.
        """
        return cls(levels, TableEncoding.fit(levels.encode(X)[0], weight, margins))

    @property
    def varies(self):
        """Which pixels the flow models: all of them, since noise fills the cells of constant ones, too."""
        return self.logits.varies

    def encode(self, X):
        """Map rows to the encoded space; as ``TableEncoding.encode``."""
        logits, log_det = self.levels.encode(X)
        Z, log_det_of_logits = self.logits.encode(logits)
        return Z, log_det + log_det_of_logits

    def decode(self, Z):
        """Undo ``encode``."""
        return self.levels.decode(self.logits.decode(Z))
