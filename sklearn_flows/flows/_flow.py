"""A normalizing flow: a base distribution pulled back through an invertible map."""

from __future__ import annotations

from torch import Tensor, nn

from ..distributions import StandardNormal, StudentMixture
from ..transforms import Transform


class Flow(nn.Module):
    """Density :math:`\\log p(x) = \\log p_Z(f(x)) + \\log|\\det \\partial f / \\partial x|` [1]_ (eq. 3).

    With a transform that depends on a context :math:`c` it is a conditional density :math:`\\log p(x \\mid c)`.

    Parameters
    ----------
    transform : Transform
        The invertible map :math:`f` from data to latents.
    base : StandardNormal or StudentMixture
        The distribution :math:`p_Z` of the latents.

    References
    ----------
    .. [1] Papamakarios, Nalisnick, Rezende, Mohamed and Lakshminarayanan, "Normalizing Flows for Probabilistic
       Modeling and Inference", JMLR 22(57), 2021.
    """

    def __init__(self, transform: Transform, base: StandardNormal | StudentMixture) -> None:
        super().__init__()
        self.transform = transform
        self.base = base

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Log-density of each row.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_features)
            Points in data space.
        context : Tensor of shape (n_samples, n_context), default=None
            What each row's density depends on; None for an unconditional flow.

        Returns
        -------
        Tensor of shape (n_samples,)
            Log-densities in nats.
        """
        z, log_det = self.transform.forward(x, context)
        return self.base.log_prob(z) + log_det

    def to_latent(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map data, shape (n_samples, n_features), to latents of the same shape: standard normal, if the flow is right."""
        z, _ = self.transform.forward(x, context)
        return self.base.to_normal(z)

    def from_latent(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map latents, shape (n_samples, n_features), to data of the same shape."""
        return self.from_base(self.base.from_normal(z), context)

    def from_base(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Map draws of the base, shape (n_samples, n_features), to data of the same shape."""
        x, _ = self.transform.inverse(z, context)
        return x
