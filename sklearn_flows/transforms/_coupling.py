"""The coupling layer: one part of the features stays, and chooses how the other part is mapped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ._base import Transform
from ._elementwise import CONDITIONER_BOUND, Transformer


class Coupling(Transform):
    """Coupling layer: :math:`z_A = x_A`, :math:`z_B = \\tau(x_B; h(x_A))` [1]_ (section 3.2).

    Both directions cost one pass of the conditioner.

    Parameters
    ----------
    transformer : Transformer
        The scalar bijection :math:`\\tau`.
    conditioner : nn.Module
        Network from the features that stay, shape ``(n, n_staying)``, to the raw parameters of the others,
        shape ``(n, n_moving * transformer.n_parameters)``.
    stays : Tensor of shape (n_features,), dtype bool
        Which features stay. With none of them the layer is an unconditional elementwise map.

    References
    ----------
    .. [1] Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
    """

    staying: Tensor
    moving: Tensor
    merged_order: Tensor

    def __init__(self, transformer: Transformer, conditioner: nn.Module, stays: Tensor) -> None:
        super().__init__()
        self.transformer = transformer
        self.conditioner = conditioner
        # Index tensors, made once: indexing with a boolean mask would wait for the device in every call.
        self.register_buffer("staying", stays.nonzero().squeeze(-1))
        self.register_buffer("moving", (~stays).nonzero().squeeze(-1))
        self.register_buffer("merged_order", torch.cat([self.staying, self.moving]).argsort())

    def extra_repr(self) -> str:
        return f"transformer={self.transformer!r}"

    def _parameters_from(self, kept: Tensor) -> Tensor:
        raw: Tensor = self.conditioner(kept.clamp(-CONDITIONER_BOUND, CONDITIONER_BOUND))
        return raw.view(kept.shape[0], self.moving.shape[0], self.transformer.n_parameters)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = x[:, self.staying]
        moved, log_derivatives = self.transformer.forward(x[:, self.moving], self._parameters_from(kept))
        return torch.cat([kept, moved], dim=1)[:, self.merged_order], log_derivatives.sum(dim=-1)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        kept = z[:, self.staying]
        moved, log_derivatives = self.transformer.inverse(z[:, self.moving], self._parameters_from(kept))
        return torch.cat([kept, moved], dim=1)[:, self.merged_order], log_derivatives.sum(dim=-1)
