"""Densities on the plane that papers on flows draw, with their exact values.

They are answers, not estimators: nothing is fitted. ``sample`` and ``score_samples`` are called as those of an estimator are.
"""

from abc import ABC, abstractmethod

import numpy as np
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.utils import check_array, check_random_state

# Points of a curve that stand for all of it. Neighbours are closer than a third of the noise.
N_CURVE_POINTS = 1_000
# Rows whose distances to all these points are computed at once: bounds the memory.
CHUNK = 500


class ToyDensity(ABC):
    """A density of two columns that is known exactly."""

    def sample(self, n_samples=1, random_state=None):
        """Draw rows.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Seed.

        Returns
        -------
        X : ndarray of shape (n_samples, 2)
            Independent draws.
        """
        return self._draw(n_samples, check_random_state(random_state))

    def score_samples(self, X):
        """Compute the log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, 2)
            Rows.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Log-densities in nats; minus infinity where the density is zero.
        """
        X = check_array(X, dtype=np.float64)
        if X.shape[1] != 2:
            raise ValueError(f"X must have two columns, but has {X.shape[1]}.")
        return self._log_density(X)

    @abstractmethod
    def _draw(self, n_samples, rng):
        """Draw rows with a RandomState instance."""

    @abstractmethod
    def _log_density(self, X):
        """Compute the log-density of rows, a finite array of shape (n_samples, 2)."""


def _log_normal(squared_distance, scale):
    """Log-density of an isotropic normal distribution on the plane, from the squared distance to its centre."""
    return -0.5 * squared_distance / scale**2 - np.log(2 * np.pi * scale**2)


class _NoisyCurve(ToyDensity):
    """Points of two curves, with normal noise: their density is an integral along the curves."""

    noise: float

    @abstractmethod
    def _curve(self, u, which):
        """Map numbers that are uniform in (0, 1) to points of curve 0 or 1, all arrays of the same length."""

    def _draw(self, n_samples, rng):
        which, u = rng.randint(2, size=n_samples), rng.uniform(size=n_samples)
        return self._curve(u, which) + self.noise * rng.normal(size=(n_samples, 2))

    def _log_density(self, X):
        # The midpoint rule in v with u = v^2, as the spiral is long where u is small.
        v = (np.arange(N_CURVE_POINTS) + 0.5) / N_CURVE_POINTS
        points = np.concatenate([self._curve(v**2, np.full(N_CURVE_POINTS, which)) for which in (0, 1)])
        log_weights = np.tile(np.log(2 * v) - np.log(2 * N_CURVE_POINTS), 2)
        parts = []
        for start in range(0, len(X), CHUNK):
            squared_distance = cdist(X[start : start + CHUNK], points, "sqeuclidean")
            parts.append(logsumexp(log_weights + _log_normal(squared_distance, self.noise), axis=1))
        return np.concatenate(parts)


class TwoMoons(_NoisyCurve):
    """Two interleaved half circles of radius 1 with normal noise of 0.1, as ``sklearn.datasets.make_moons`` draws them.

    Examples
    --------
    >>> from sklearn_flows.datasets import TwoMoons
    >>> X = TwoMoons().sample(1000, random_state=0)
    >>> TwoMoons().score_samples(X).shape
    (1000,)
    """

    noise = 0.1

    def _curve(self, u, which):
        x, y = np.cos(np.pi * u), np.sin(np.pi * u)
        return np.column_stack([np.where(which, 1 - x, x), np.where(which, 0.5 - y, y)])


class TwoSpirals(_NoisyCurve):
    """Two arms of a spiral, one and a half turns each, with normal noise of 0.1.

    Examples
    --------
    >>> from sklearn_flows.datasets import TwoSpirals
    >>> X = TwoSpirals().sample(1000, random_state=0)
    >>> TwoSpirals().score_samples(X).shape
    (1000,)
    """

    noise = 0.1

    def _curve(self, u, which):
        angle = 3 * np.pi * np.sqrt(u)
        radius = np.where(which, -1, 1) * angle / 3
        return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])


class Rings(ToyDensity):
    """Three rings around the origin, at radii 1, 2 and 3 with a normal noise of 0.08; as dense along each ring.

    Examples
    --------
    >>> from sklearn_flows.datasets import Rings
    >>> X = Rings().sample(1000, random_state=0)
    >>> Rings().score_samples(X).shape
    (1000,)
    """

    radii = np.array([1.0, 2.0, 3.0])
    noise = 0.08

    def _draw(self, n_samples, rng):
        radius = rng.choice(self.radii, size=n_samples, p=self.radii / self.radii.sum())
        radius = radius + self.noise * rng.normal(size=n_samples)
        angle = rng.uniform(0, 2 * np.pi, size=n_samples)
        return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])

    def _log_density(self, X):
        # A radius below zero, twelve standard deviations away, would be the point opposite: that is left out.
        radius = np.hypot(*X.T)
        deviation = (radius[:, None] - self.radii) / self.noise
        log_weights = np.log(self.radii / self.radii.sum()) - np.log(np.sqrt(2 * np.pi) * self.noise)
        log_of_radius = logsumexp(log_weights - 0.5 * deviation**2, axis=1)
        return log_of_radius - np.log(2 * np.pi * np.maximum(radius, np.finfo(np.float64).tiny))


class Checkerboard(ToyDensity):
    """Uniform on the eight squares of one colour of a board of 4 x 4 squares, with sides of 1 around the origin.

    Examples
    --------
    >>> from sklearn_flows.datasets import Checkerboard
    >>> X = Checkerboard().sample(1000, random_state=0)
    >>> Checkerboard().score_samples(X).shape
    (1000,)
    """

    def _draw(self, n_samples, rng):
        column = rng.randint(4, size=n_samples)
        row = 2 * rng.randint(2, size=n_samples) + column % 2
        return np.column_stack([column, row]) - 2.0 + rng.uniform(size=(n_samples, 2))

    def _log_density(self, X):
        square = np.floor(X)
        is_inside = (np.abs(square + 0.5) < 2).all(axis=1) & (square.sum(axis=1) % 2 == 0)
        return np.where(is_inside, -np.log(8.0), -np.inf)


class EightGaussians(ToyDensity):
    """Eight normal distributions with a standard deviation of 0.2, on a circle of radius 2.

    Examples
    --------
    >>> from sklearn_flows.datasets import EightGaussians
    >>> X = EightGaussians().sample(1000, random_state=0)
    >>> EightGaussians().score_samples(X).shape
    (1000,)
    """

    noise = 0.2
    angles = 2 * np.pi * np.arange(8) / 8

    def _draw(self, n_samples, rng):
        angle = rng.choice(self.angles, size=n_samples)
        return 2 * np.column_stack([np.cos(angle), np.sin(angle)]) + self.noise * rng.normal(size=(n_samples, 2))

    def _log_density(self, X):
        centres = 2 * np.column_stack([np.cos(self.angles), np.sin(self.angles)])
        return logsumexp(_log_normal(cdist(X, centres, "sqeuclidean"), self.noise), axis=1) - np.log(len(centres))


class Pinwheel(ToyDensity):
    """Five normal distributions, 0.3 long and 0.1 wide, turned by an angle that grows with the distance from the origin.

    Turning by an angle that depends on the radius alone changes no areas, so the density is that of the straight arms.

    Examples
    --------
    >>> from sklearn_flows.datasets import Pinwheel
    >>> X = Pinwheel().sample(1000, random_state=0)
    >>> Pinwheel().score_samples(X).shape
    (1000,)
    """

    angles = 2 * np.pi * np.arange(5) / 5
    length, width = 0.3, 0.1

    def _draw(self, n_samples, rng):
        along, across = rng.normal(1, self.length, size=n_samples), rng.normal(0, self.width, size=n_samples)
        radius = np.hypot(along, across)
        angle = np.arctan2(across, along) + rng.choice(self.angles, size=n_samples) + self._twist(radius)
        return np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])

    def _log_density(self, X):
        radius = np.hypot(*X.T)
        angle = (np.arctan2(X[:, 1], X[:, 0]) - self._twist(radius))[:, None] - self.angles
        along, across = radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)
        exponent = -0.5 * (((along - 1) / self.length) ** 2 + (across / self.width) ** 2)
        return logsumexp(exponent, axis=1) - np.log(2 * np.pi * self.length * self.width * len(self.angles))

    @staticmethod
    def _twist(radius):
        return 2 * radius


TOY_DENSITIES = {
    "moons": TwoMoons(),
    "rings": Rings(),
    "checkerboard": Checkerboard(),
    "eight Gaussians": EightGaussians(),
    "pinwheel": Pinwheel(),
    "two spirals": TwoSpirals(),
}
