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
