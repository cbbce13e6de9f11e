"""The coupling layer: one part of the features stays, and chooses how the other part is mapped."""

from __future__ import annotations

import torch
from torch import Tensor

from ..nets import Conditioner
from ._base import Transform
from ._conditioned import map_conditioned
from ._elementwise import Transformer
from ._linear import select


class Coupling(Transform):
    """Coupling layer: :math:`z_A = x_A`, :math:`z_B = \\tau(x_B; h(x_A, c))` [1]_ (section 3.2).

    The context :math:`c` may be missing. Both directions cost one pass of the conditioner.

    Parameters
    ----------
    transformer : Transformer
        The scalar bijection :math:`\\tau`.
    conditioner : Conditioner
        Network from the features that stay, shape ``(n, n_staying)``, and the context, if it has inputs for one, to the raw
        parameters of the others, shape ``(n, n_moving * transformer.n_parameters)``.
    stays : Tensor of shape (n_features,), dtype bool
        Which features stay. With none of them the layer is an elementwise map, which only a context steers.

    References
    ----------
    .. [1] Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
    """

    staying: Tensor
    moving: Tensor
    merged_order: Tensor

    def __init__(self, transformer: Transformer, conditioner: Conditioner, stays: Tensor) -> None:
        super().__init__()
        self.transformer = transformer
        self.conditioner = conditioner
        # Index tensors, made once: indexing with a boolean mask would wait for the device in every call.
        self.register_buffer("staying", stays.nonzero().squeeze(-1))
        self.register_buffer("moving", (~stays).nonzero().squeeze(-1))
        self.register_buffer("merged_order", torch.cat([self.staying, self.moving]).argsort())

    def extra_repr(self) -> str:
        return f"transformer={self.transformer!r}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._map(x, context, inverse=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._map(z, context, inverse=True)

    def _map(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        kept, moving = select(x, self.staying), select(x, self.moving)
        moved, log_det = map_conditioned(self.transformer, self.conditioner, kept, context, moving, inverse=inverse)
        return self._merge(kept, moved), log_det

    def _merge(self, kept: Tensor, moved: Tensor) -> Tensor:
        return select(torch.cat([kept.mT, moved.mT], dim=-2).mT, self.merged_order)
