"""The interface of an invertible map, and the composition of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class Transform(nn.Module, ABC):
    """An invertible, differentiable map with a tractable log-determinant.

    By convention ``forward`` goes from data to latent space (the normalising direction, the one that a
    density needs) and ``inverse`` from latent space to data (the generative direction).
    """

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map data to latents.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_features)
            Points in data space.

        Returns
        -------
        z : Tensor of shape (n_samples, n_features)
            Points in latent space.
        log_det : Tensor of shape (n_samples,)
            :math:`\\log |\\det \\partial z / \\partial x|` of each row.
        """

    @abstractmethod
    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map latents to data.

        Parameters
        ----------
        z : Tensor of shape (n_samples, n_features)
            Points in latent space.

        Returns
        -------
        x : Tensor of shape (n_samples, n_features)
            Points in data space.
        log_det : Tensor of shape (n_samples,)
            :math:`\\log |\\det \\partial x / \\partial z|` of each row.
        """


class Composed(Transform):
    """Apply several transforms in order, adding up their log-determinants.

    Parameters
    ----------
    transforms : sequence of Transform
        The maps, the one next to the data first. An empty sequence is the identity.
    """

    def __init__(self, transforms: Sequence[Transform]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[:-1])
        for transform in self.transforms:
            assert isinstance(transform, Transform)  # ModuleList forgets the type
            x, term = transform.forward(x)
            log_det = log_det + term
        return x, log_det

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[:-1])
        for transform in reversed(self.transforms):
            assert isinstance(transform, Transform)
            z, term = transform.inverse(z)
            log_det = log_det + term
        return z, log_det
