"""A scale and a shift for each feature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._base import Transform


class ActNorm(Transform):
    """Activation normalisation :math:`z = e^{s} \\odot x + b` [1]_ (section 3.1), a learned scale and shift of each feature.

    It starts as the identity. The paper sets it by the first batch, such that its outputs have mean 0 and variance 1. Here what
    comes before it has done so already, with all rows: the whitening map of a table, the encoding of an image.

    Parameters
    ----------
    n_features : int
        Number of features.
    log_scale_bound : float, default=5.0
        :math:`s` is squashed smoothly into ``(-log_scale_bound, log_scale_bound)``, as in ``Affine``.

    References
    ----------
    .. [1] Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018.
    """

    def __init__(self, n_features: int, log_scale_bound: float = 5.0) -> None:
        super().__init__()
        self.log_scale_bound = log_scale_bound
        self.raw_log_scale = nn.Parameter(torch.zeros(n_features, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(n_features, dtype=torch.float32))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale()
        return x * log_scale.exp() + self.bias, log_scale.sum().expand(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale = self._log_scale()
        return (z - self.bias) * (-log_scale).exp(), -log_scale.sum().expand(z.shape[:-1])

    def _log_scale(self) -> Tensor:
        return self.raw_log_scale / (1 + self.raw_log_scale.abs() / self.log_scale_bound)
