"""Scalar bijections whose parameters come from a conditioner: the "transformers" of coupling and autoregressive layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Conditioners see their inputs clipped to this many standard deviations. The parameters of a row far outside the training data
# are then those at its edge instead of an extrapolation, in which the exponentials of several layers multiply: one such row
# could cost an unclipped flow 1e11 nats. The map stays invertible and its log-determinant exact.
CONDITIONER_BOUND = 4.0


def clip_for_conditioner(x: Tensor) -> Tensor:
    """Bring the inputs of a conditioner into the range that it knows from training."""
    return x.clamp(-CONDITIONER_BOUND, CONDITIONER_BOUND)


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

    def forward(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        result: tuple[Tensor, Tensor] = _Affine.apply(x, *parameters.unbind(dim=-1), self.log_scale_bound)
        return result

    def inverse(self, z: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        mu, a = parameters.unbind(dim=-1)
        alpha = a / (1 + a.abs() / self.log_scale_bound)
        return z * alpha.exp() + mu, alpha


class _Affine(torch.autograd.Function):
    """The way towards the latent space as one step of the tape: training takes it, and half of its time went to the tape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mu: Tensor, a: Tensor, log_scale_bound: float) -> tuple[Tensor, Tensor]:
        squash = 1 + a.abs() / log_scale_bound
        log_derivative = -a / squash
        scale = log_derivative.exp()
        z = (x - mu) * scale
        ctx.save_for_backward(z, scale, squash)
        return z, log_derivative

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g_z, g_log_derivative = gradients
        z, scale, squash = ctx.saved_tensors
        g_x = g_z * scale
        # d(-alpha)/da = -1 / squash^2
        g_a = -(g_log_derivative + g_z * z) / squash.square()
        return g_x, -g_x, g_a, None
