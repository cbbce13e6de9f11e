"""The interface of an invertible map, its mirror, and the composition of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class Transform(nn.Module, ABC):
    """An invertible, differentiable map with a tractable log-determinant.

    By convention ``forward`` goes from data to latent space (the normalising direction, the one that a
    density needs) and ``inverse`` from latent space to data (the generative direction). A map may depend on a context,
    one row for each row mapped: log-determinants are those of the map at a fixed context. Maps without use for it ignore it.
    """

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map data to latents.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_features)
            Points in data space.
        context : Tensor of shape (n_samples, n_context), default=None
            What the map of each row depends on besides the row itself; None for an unconditional map.

        Returns
        -------
        z : Tensor of shape (n_samples, n_features)
            Points in latent space.
        log_det : Tensor of shape (n_samples,)
            :math:`\\log |\\det \\partial z / \\partial x|` of each row.
        """

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map latents to data.

        Parameters
        ----------
        z : Tensor of shape (n_samples, n_features)
            Points in latent space.
        context : Tensor of shape (n_samples, n_context), default=None
            What the map of each row depends on besides the row itself; None for an unconditional map.

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

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[:-1])
        for transform in self.transforms:
            assert isinstance(transform, Transform)  # ModuleList forgets the type
            x, term = transform.forward(x, context)
            log_det = log_det + term
        return x, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[:-1])
        for transform in reversed(self.transforms):
            assert isinstance(transform, Transform)
            z, term = transform.inverse(z, context)
            log_det = log_det + term
        return z, log_det


class Inverse(Transform):
    """A transform the other way round: its inverse is the way from data to latents.

    Around a ``MaskedAutoregressive`` it is a layer of the inverse autoregressive flow [1]_ (section 3): it draws in one pass,
    and scores one feature after another.

    Parameters
    ----------
    transform : Transform
        The map to turn round.

    References
    ----------
    .. [1] Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, "Improved Variational Inference with Inverse
       Autoregressive Flow", NeurIPS 2016.
    """

    def __init__(self, transform: Transform) -> None:
        super().__init__()
        self.transform = transform

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.transform.forward(z, context)
