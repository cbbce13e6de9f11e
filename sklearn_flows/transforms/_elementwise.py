"""Scalar bijections whose parameters come from a conditioner: the "transformers" of coupling and autoregressive layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

# Conditioners see their inputs clipped to this many standard deviations. The parameters of a row far outside the training data
# are then those at its edge instead of an extrapolation, in which the exponentials of several layers multiply: one such row
# could cost an unclipped flow 1e11 nats. The map stays invertible and its log-determinant exact.
CONDITIONER_BOUND = 4.0


class Transformer(ABC):
    """A family of increasing bijections of the real line, one member for each parameter vector.

    The zero parameter vector gives the identity, so that a conditioner whose last layer is zero starts a layer
    as the identity map.
    """

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Number of real parameters of one scalar bijection."""

    @abstractmethod
    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Map each scalar of ``x``, towards the latent space.

        Parameters
        ----------
        x : Tensor of shape (...)
            The scalars.
        parameters : Tensor of shape (..., n_parameters)
            Unconstrained parameters of each scalar's bijection.

        Returns
        -------
        z : Tensor of shape (...)
            The images.
        log_derivative : Tensor of shape (...)
            Logarithm of the derivative of each ``z`` with respect to its ``x``.
        """

    @abstractmethod
    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Undo ``forward``; the second value is the logarithm of the derivative of ``x`` with respect to ``z``."""


@dataclass(frozen=True)
class Affine(Transformer):
    """The affine bijection :math:`z = (x - \\mu) e^{-\\alpha}` of MAF [1]_ (eq. 4) and, up to signs, of RealNVP [2]_ (eq. 7).

    Parameters
    ----------
    log_scale_bound : float, default=5.0
        :math:`\\alpha` is squashed smoothly into ``(-log_scale_bound, log_scale_bound)``: an unbounded exponent is
        the classic way for an affine flow to overflow in training.

    References
    ----------
    .. [1] Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", NeurIPS 2017.
    .. [2] Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
    """

    log_scale_bound: float = 5.0

    @property
    def n_parameters(self) -> int:
        return 2

    def _shift_and_log_scale(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mu, a = parameters.unbind(dim=-1)
        return mu, a / (1 + a.abs() / self.log_scale_bound)

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mu, alpha = self._shift_and_log_scale(parameters)
        return (x - mu) * (-alpha).exp(), -alpha

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mu, alpha = self._shift_and_log_scale(parameters)
        return z * alpha.exp() + mu, alpha
