"""Base distributions: what the latents follow."""

from __future__ import annotations

import math

import torch
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


# Steps that halve the interval in which a quantile lies: enough for double precision.
BISECTIONS = 60


class GaussianMixture(nn.Module):
    """A mixture of normal distributions, which doesn't change in training.

    Parameters
    ----------
    shares : Tensor of shape (n_components,)
        Weights, which sum to one.
    means : Tensor of shape (n_components, n_features)
        Means.
    precisions_cholesky : Tensor of shape (n_components, n_features, n_features)
        Lower-triangular matrices :math:`P_k` with positive diagonals: :math:`P_k (z - \\mu_k)` is standard normal under
        component :math:`k`.
    """

    log_shares: Tensor
    means: Tensor
    precisions_cholesky: Tensor

    def __init__(self, shares: Tensor, means: Tensor, precisions_cholesky: Tensor) -> None:
        super().__init__()
        self.n_components, self.n_features = means.shape
        self.register_buffer("log_shares", shares.log().float())
        self.register_buffer("means", means.float())
        self.register_buffer("precisions_cholesky", precisions_cholesky.float())

    def extra_repr(self) -> str:
        return f"n_components={self.n_components}"

    def _whitened(self, z: Tensor) -> Tensor:
        """The points as each component sees them, shape (n_components, n_features, n_samples)."""
        shift = self.precisions_cholesky @ self.means.unsqueeze(-1)
        return self.precisions_cholesky @ z.mT - shift

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of each row, in nats; shapes as in ``StandardNormal``."""
        log_det = self.precisions_cholesky.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        constant = self.log_shares.log_softmax(dim=0) + log_det - 0.5 * self.n_features * math.log(2 * math.pi)
        return (constant.unsqueeze(-1) - 0.5 * self._whitened(z).square().sum(dim=-2)).logsumexp(dim=0)

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Draw rows; arguments as in ``StandardNormal``."""
        noise = torch.randn(n_samples, self.n_features, generator=generator, dtype=torch.float64).to(self.means)
        shares = self.log_shares.detach().double().cpu().exp()
        component = torch.multinomial(shares, n_samples, replacement=True, generator=generator)
        rows = torch.empty_like(noise)
        for k in range(self.n_components):
            chosen = (component == k).nonzero().squeeze(-1).to(noise.device)
            solved = torch.linalg.solve_triangular(self.precisions_cholesky[k], noise[chosen].mT, upper=False)
            rows[chosen] = solved.mT + self.means[k]
        return rows

    def to_normal(self, z: Tensor) -> Tensor:
        """Map points, one to one, such that they are standard normal if ``z`` follows this distribution.

        Each coordinate is turned into the normal quantile of its conditional distribution, given those before it (Rosenblatt's
        transformation).
        """
        whitened = self._whitened(z)
        return _normal_score(self._log_shares_given_previous(whitened), whitened).mT

    def _log_shares_given_previous(self, whitened: Tensor) -> Tensor:
        """Log-share of each component, given the coordinates before each."""
        log_diagonal = self.precisions_cholesky.diagonal(dim1=-2, dim2=-1).log().unsqueeze(-1)
        terms = log_diagonal - 0.5 * whitened.square()
        log_joint = self.log_shares[:, None, None] + terms.cumsum(dim=1) - terms
        return log_joint - log_joint.logsumexp(dim=0)

    def from_normal(self, u: Tensor) -> Tensor:
        """Undo ``to_normal``."""
        z = u.new_zeros(u.mT.shape)
        log_joint = self.log_shares.unsqueeze(-1).expand(-1, len(u))
        for i in range(self.n_features):
            precision = self.precisions_cholesky[:, i, i, None]
            # Under component k, precision * z_i + offset is standard normal.
            row = self.precisions_cholesky[:, i, :i]
            offset = row @ z[:i] - (self.precisions_cholesky[:, i, : i + 1] * self.means[:, : i + 1]).sum(-1, keepdim=True)
            log_shares = log_joint - log_joint.logsumexp(dim=0)
            # The quantile of the mixture lies between those of its components.
            quantiles = (u[:, i] - offset) / precision
            low, high = quantiles.amin(dim=0), quantiles.amax(dim=0)
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                below = _normal_score(log_shares, precision * middle + offset) < u[:, i]
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            z[i] = (low + high) / 2
            log_joint = log_joint + precision.log() - 0.5 * (precision * z[i] + offset).square()
        return z.mT


def _normal_score(log_shares: Tensor, quantiles: Tensor) -> Tensor:
    """Normal quantile of a mixture's distribution function, given the normal quantiles of its components (first axis)."""
    log_below = (log_shares + torch.special.log_ndtr(quantiles)).logsumexp(dim=0)
    log_above = (log_shares + torch.special.log_ndtr(-quantiles)).logsumexp(dim=0)
    tail = _log_quantile(torch.minimum(log_below, log_above))
    return torch.where(log_below < log_above, tail, -tail)


def _log_quantile(log_p: Tensor) -> Tensor:
    """Normal quantile, at most zero, of a probability given by its logarithm."""
    # ndtri serves where the probability can be represented well; further out, Newton's method on the logarithm.
    centre = torch.special.ndtri(log_p.clamp(min=-30).exp().clamp(max=0.5))
    x = -(-2 * log_p.clamp(max=-30)).sqrt()
    for _ in range(6):
        log_ndtr = torch.special.log_ndtr(x)
        log_slope = -0.5 * x.square() - 0.5 * math.log(2 * math.pi) - log_ndtr
        x = x - (log_ndtr - log_p.clamp(max=-30)) * (-log_slope).exp()
    return torch.where(log_p < -30, x, centre)
