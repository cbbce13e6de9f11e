"""The masked autoregressive layer: each feature is mapped by a scalar bijection that the features before it choose."""

from __future__ import annotations

import torch
from torch import Tensor

from ..nets import MADE
from ._base import Transform
from ._conditioned import map_conditioned
from ._elementwise import Transformer, clip_for_conditioner


class MaskedAutoregressive(Transform):
    """Autoregressive layer :math:`z_i = \\tau(x_i; h_i(x_{1:i-1}, c))`, with a context :math:`c` or without.

    Its Jacobian is triangular, so the log-determinant is the sum of the scalar ones. All parameters
    :math:`h_i` come from one pass of a masked network; the inverse needs the features one after another.

    Parameters
    ----------
    transformer : Transformer
        The scalar bijection :math:`\\tau`: affine gives MAF [1]_, a rational-quadratic spline the autoregressive
        neural spline flow [2]_.
    conditioner : MADE
        The masked network :math:`h`, with ``transformer.n_parameters`` outputs for each feature, and inputs for a context or
        without.

    References
    ----------
    .. [1] Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", NeurIPS 2017.
    .. [2] Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019.
    """

    def __init__(self, transformer: Transformer, conditioner: MADE) -> None:
        super().__init__()
        self.transformer = transformer
        self.conditioner = conditioner

    def extra_repr(self) -> str:
        return f"transformer={self.transformer!r}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return map_conditioned(self.transformer, self.conditioner, x, context, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        solved: list[Tensor] = []
        terms: list[Tensor] = [z.new_zeros(*z.shape[:-1], 1)]

        def solve(i: int, parameters: Tensor) -> Tensor:
            x_i, term = self.transformer.inverse(z[..., i : i + 1], parameters)
            solved.append(x_i)
            terms.append(term)
            return clip_for_conditioner(x_i)

        self.conditioner.in_order(z, solve, None if context is None else clip_for_conditioner(context))
        return torch.cat(solved, dim=-1) if solved else z, torch.cat(terms, dim=-1).sum(dim=-1)
