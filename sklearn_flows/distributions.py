"""Base distributions: what the latents follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from scipy import special
from torch import Tensor, nn


class StandardNormal(nn.Module):
    """The standard normal distribution.

    Parameters
    ----------
    n_features : int
        Number of features.
    """

    # A buffer without values: it tells the dtype and the device that samples must have.
    _like: Tensor

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.n_features = n_features
        self.register_buffer("_like", torch.empty(0, dtype=torch.float32), persistent=False)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of each row, in nats.

        Parameters
        ----------
        z : Tensor of shape (n_samples, n_features)
            Points.

        Returns
        -------
        Tensor of shape (n_samples,)
            Log-densities.
        """
        return -0.5 * (z.square().sum(dim=-1) + self.n_features * math.log(2 * math.pi))

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draw rows.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        generator : torch.Generator
            A generator of the CPU: the draws don't depend on the device.

        Returns
        -------
        Tensor of shape (n_samples, n_features)
            The draws.
        """
        return torch.randn(n_samples, self.n_features, generator=generator, dtype=torch.float64).to(self._like)

    def to_normal(self, z: Tensor) -> Tensor:
        """Map points, one to one, such that they are standard normal if ``z`` follows this distribution: here, as they are."""
        return z

    def from_normal(self, u: Tensor) -> Tensor:
        """Undo ``to_normal``."""
        return u


# Steps to where a mixture has a score, at most: enough for double precision if each only halves the interval in which it lies.
MAX_STEPS_TO_A_SCORE = 60


class StudentMixture(nn.Module):
    """A mixture of multivariate Student t distributions, which doesn't change in training.

    Parameters
    ----------
    shares : Tensor of shape (n_components,)
        Weights, which sum to one.
    means : Tensor of shape (n_components, n_features)
        Centres.
    precisions_cholesky : Tensor of shape (n_components, n_features, n_features)
        Lower-triangular matrices :math:`P_k` with positive diagonals: :math:`P_k (z - \\mu_k)` is spherical under component
        :math:`k`.
    df : float or Tensor of shape (n_components,), default=inf
        Degrees of freedom :math:`\\nu` of all components or of each, whole numbers or infinity: normal distributions.
    """

    log_shares: Tensor
    means: Tensor
    precisions_cholesky: Tensor
    df: Tensor

    def __init__(self, shares: Tensor, means: Tensor, precisions_cholesky: Tensor, df: float | Tensor = math.inf) -> None:
        super().__init__()
        self.n_components, self.n_features = means.shape
        self.register_buffer("df", torch.as_tensor(df, dtype=torch.float32).expand(self.n_components).clone())
        # Known on the host: asking ``df`` in every step of training would wait for the device.
        self.has_heavy_tails = bool(self.df.isfinite().any())
        self.register_buffer("log_shares", shares.log().float())
        self.register_buffer("means", means.float())
        self.register_buffer("precisions_cholesky", precisions_cholesky.float())

    @classmethod
    def mean_of(cls, mixtures: Sequence[StudentMixture]) -> StudentMixture:
        """Give the mean of the densities of several mixtures, which is one with all their components."""
        shares = torch.cat([mixture.log_shares.exp() for mixture in mixtures]) / len(mixtures)
        means, precisions_cholesky, df = (
            torch.cat([getattr(mixture, name) for mixture in mixtures]) for name in ("means", "precisions_cholesky", "df")
        )
        return cls(shares, means, precisions_cholesky, df)

    def extra_repr(self) -> str:
        return f"n_components={self.n_components}, df={self.df.unique().tolist()}"

    def _whitened(self, z: Tensor) -> Tensor:
        """The points as each component sees them, shape (n_components, n_features, n_samples)."""
        shift = self.precisions_cholesky @ self.means.unsqueeze(-1)
        # One product for all components: several times faster than one for each.
        rotated = self.precisions_cholesky.flatten(0, 1) @ z.mT
        return rotated.reshape(self.n_components, self.n_features, -1) - shift

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of each row, in nats; shapes as in ``StandardNormal``."""
        log_det = self.precisions_cholesky.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        constant = self.log_shares.log_softmax(dim=0) + log_det
        spherical = self._spherical_log_density(self._whitened(z).square().sum(dim=-2), self.n_features)
        return (constant.unsqueeze(-1) + spherical).logsumexp(dim=0)

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draw rows; arguments as in ``StandardNormal``."""
        noise = torch.randn(n_samples, self.n_features, generator=generator, dtype=torch.float64).to(self.means)
        shares = self.log_shares.detach().double().cpu().exp()
        component = torch.multinomial(shares, n_samples, replacement=True, generator=generator)
        rows = torch.empty_like(noise)
        for k in range(self.n_components):
            chosen = (component == k).nonzero().squeeze(-1).to(noise.device)
            spherical, df = noise[chosen], float(self.df[k])
            if df < math.inf:
                chi_squared = torch.randn(len(chosen), int(df), generator=generator, dtype=torch.float64).square().sum(dim=1)
                spherical *= (df / chi_squared).sqrt().unsqueeze(-1).to(noise)
            solved = torch.linalg.solve_triangular(self.precisions_cholesky[k], spherical.mT, upper=False)
            rows[chosen] = solved.mT + self.means[k]
        return rows

    def to_normal(self, z: Tensor) -> Tensor:
        """Map points, one to one, such that they are standard normal if ``z`` follows this distribution.

        Each coordinate is turned into the normal quantile of its conditional distribution, given those before it (Rosenblatt's
        transformation).
        """
        u = torch.empty_like(z)
        whitened = self._whitened(z)
        log_joint = self.log_shares.unsqueeze(-1).expand(-1, len(z))
        distance = torch.zeros_like(log_joint)
        for i in range(self.n_features):
            w = whitened[:, i]
            u[:, i] = normal_score(log_joint, self._conditional_quantile(w, distance, i))
            log_joint, distance, _ = self._condition(log_joint, distance, w, i)
        return u

    def from_normal(self, u: Tensor) -> Tensor:
        """Undo ``to_normal``."""
        z = u.new_zeros(u.mT.shape)
        log_joint = self.log_shares.unsqueeze(-1).expand(-1, len(u))
        distance = torch.zeros_like(log_joint)
        for i in range(self.n_features):
            precision = self.precisions_cholesky[:, i, i, None]
            # Under component k, precision * z_i + offset is the next whitened coordinate.
            row = self.precisions_cholesky[:, i, :i]
            offset = row @ z[:i] - (self.precisions_cholesky[:, i, : i + 1] * self.means[:, : i + 1]).sum(-1, keepdim=True)
            # The quantile of the mixture lies between those of its components.
            quantiles = (self._conditional_value(u[:, i], distance, i) - offset) / precision
            score_at = partial(self._conditional_score, log_joint, distance, precision, offset, i)
            z[i] = _where_scores_are(u[:, i], score_at, quantiles.amin(dim=0), quantiles.amax(dim=0))
            log_joint, distance, _ = self._condition(log_joint, distance, precision * z[i] + offset, i)
        return z.mT

    def _conditional_score(
        self, log_joint: Tensor, distance: Tensor, precision: Tensor, offset: Tensor, i: int, z: Tensor, rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Normal score of coordinate ``i`` of some rows, given those before it, and its derivative."""
        log_joint, distance = log_joint[:, rows], distance[:, rows]
        w = precision * z + offset[:, rows]
        score = normal_score(log_joint, self._conditional_quantile(w, distance, i))
        *_, log_density = self._condition(log_joint, distance, w, i)
        # The normal distribution function of the score is that of the mixture: so are their derivatives.
        return score, (log_density + 0.5 * score.square() + 0.5 * math.log(2 * math.pi)).exp()

    def _conditional_scale(self, distance: Tensor, i: int) -> Tensor:
        """Of whitened coordinate ``i`` of Student t components, given the squared distance of those before.

        It follows a Student t distribution of ``df + i`` degrees.
        """
        df = self.df[self.df.isfinite(), None]
        return ((df + distance[self.df.isfinite()]) / (df + i)).sqrt()

    def _conditional_quantile(self, w: Tensor, distance: Tensor, i: int) -> Tensor:
        """Normal quantile of whitened coordinate ``i`` under each component, given those before."""
        if not self.has_heavy_tails:
            return w
        heavy = self.df.isfinite()
        t = (w[heavy] / self._conditional_scale(distance, i)).double()
        df = self.df[heavy, None].double().numpy()
        lower = special.ndtri(np.maximum(special.stdtr(df + i, -t.abs().numpy()), np.finfo(np.float64).tiny))
        quantile = w.clone()
        quantile[heavy] = (-t.sign() * torch.from_numpy(lower)).to(w)
        return quantile

    def _conditional_value(self, u: Tensor, distance: Tensor, i: int) -> Tensor:
        """Undo ``_conditional_quantile``."""
        if not self.has_heavy_tails:
            return u.expand(self.n_components, -1)
        heavy = self.df.isfinite()
        df = self.df[heavy, None].double().numpy()
        t = special.stdtrit(df + i, special.ndtr(-u.abs().double().numpy()))
        value = u.expand(self.n_components, -1).clone()
        value[heavy] = (-u.sign() * torch.from_numpy(t)).to(u) * self._conditional_scale(distance, i)
        return value

    def _condition(self, log_joint: Tensor, distance: Tensor, w: Tensor, i: int) -> tuple[Tensor, Tensor, Tensor]:
        """Log-share and squared distance of each component, given one more whitened coordinate; and the log-density of that."""
        further = distance + w.square()
        conditional = self._spherical_log_density(further, i + 1) - self._spherical_log_density(distance, i)
        log_joint = log_joint + self.precisions_cholesky[:, i, i, None].log() + conditional
        log_density = log_joint.logsumexp(dim=0)
        return log_joint - log_density, further, log_density

    def _spherical_log_density(self, squared_distance: Tensor, n_features: int) -> Tensor:
        return spherical_log_density(squared_distance, n_features, self.df.unsqueeze(-1) if self.has_heavy_tails else None)


def spherical_log_density(squared_distance: Tensor, n_features: int, df: Tensor | None) -> Tensor:
    """Log-density of Student t distributions with the identity as their scale, which are normal for infinite ``df`` or None."""
    normal = -0.5 * (squared_distance + n_features * math.log(2 * math.pi))
    if df is None:
        return normal
    heavy = df.isfinite()
    df = torch.where(heavy, df, 1.0).to(squared_distance)
    constant = torch.lgamma((df + n_features) / 2) - torch.lgamma(df / 2) - 0.5 * n_features * (df * math.pi).log()
    student = constant - 0.5 * (df + n_features) * torch.log1p(squared_distance / df)
    return torch.where(heavy, student, normal)


def _where_scores_are(
    u: Tensor, score_at: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], low: Tensor, high: Tensor
) -> Tensor:
    """Find where increasing functions have given values, between bounds, by Newton's method.

    Where a step would leave the interval in which the place lies, or isn't half as long as the one before, the interval is
    halved instead. A row that is done is left alone, so that it doesn't depend on the others.

    Parameters
    ----------
    u : Tensor of shape (n_samples,)
        The values.
    score_at : callable
        Gives values and derivatives at some places, one in each of the rows whose numbers it is given too.
    low, high : Tensor of shape (n_samples,)
        The bounds.

    Returns
    -------
    Tensor of shape (n_samples,)
        The places.
    """
    eps = torch.finfo(u.dtype).eps
    low, high, z, last_step = low.clone(), high.clone(), (low + high) / 2, high - low
    rows = torch.arange(len(u), device=u.device)
    for _ in range(MAX_STEPS_TO_A_SCORE):
        here = z[rows]
        score, slope = score_at(here, rows)
        excess = score - u[rows]
        low[rows] = torch.where(excess < 0, here, low[rows])
        high[rows] = torch.where(excess < 0, high[rows], here)
        newton = here - excess / slope
        serves = (newton > low[rows]) & (newton < high[rows]) & ((newton - here).abs() < last_step[rows] / 2)
        there = torch.where(serves, newton, (low[rows] + high[rows]) / 2)
        there = torch.where(excess.abs() <= eps * (1 + score.abs()), here, there)
        z[rows], last_step[rows] = there, (there - here).abs()
        rows = rows[last_step[rows] > eps * there.abs()]
        if not len(rows):
            break
    return z


def normal_score(log_shares: Tensor, quantiles: Tensor) -> Tensor:
    """Normal quantile of a mixture's distribution function, given the normal quantiles of its components (first axis)."""
    log_below = (log_shares + torch.special.log_ndtr(quantiles)).logsumexp(dim=0)
    log_above = (log_shares + torch.special.log_ndtr(-quantiles)).logsumexp(dim=0)
    tail = _log_quantile(torch.minimum(log_below, log_above))
    return torch.where(log_below < log_above, tail, -tail)


def _log_quantile(log_p: Tensor) -> Tensor:
    """Normal quantile, at most zero, of a probability given by its logarithm."""
    # ndtri serves where the probability can be represented well; further out, Newton's method on the logarithm.
    centre: Tensor = torch.special.ndtri(log_p.clamp(min=-30).exp().clamp(max=0.5))
    if not (log_p < -30).any():
        return centre
    x = -(-2 * log_p.clamp(max=-30)).sqrt()
    for _ in range(6):
        log_ndtr = torch.special.log_ndtr(x)
        log_slope = -0.5 * x.square() - 0.5 * math.log(2 * math.pi) - log_ndtr
        x = x - (log_ndtr - log_p.clamp(max=-30)) * (-log_slope).exp()
    return torch.where(log_p < -30, x, centre)
