"""Linear maps between the nonlinear layers: permutations and LU-parametrised matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..nets import matrix_product_plus
from ._base import Transform


def select(x: Tensor, features: Tensor) -> Tensor:
    """Take features of rows, shape (..., n_samples, n_features), in a given order."""
    return x.mT.index_select(-2, features).mT


class Permutation(Transform):
    """Reorder the features.

    Parameters
    ----------
    order : Tensor of shape (n_features,), dtype int64
        Feature ``order[i]`` of the input becomes feature ``i`` of the output.
    """

    order: Tensor
    inverse_order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)
        self.register_buffer("inverse_order", order.argsort())

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return select(x, self.order), x.new_zeros(x.shape[:-1])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return select(z, self.inverse_order), z.new_zeros(z.shape[:-1])


class LULinear(Transform):
    """Invertible affine map :math:`z = L U x + b`, with a log-determinant that costs one sum.

    :math:`L` is lower triangular with a unit diagonal, :math:`U` upper triangular with the diagonal
    :math:`e^{s}`, so that :math:`\\log|\\det LU| = \\sum_i s_i` [1]_ (section 3.2; the same matrix is the invertible
    1x1 convolution of Glow, eq. 10). It starts as the identity.

    Parameters
    ----------
    n_features : int
        Number of features.

    References
    ----------
    .. [1] Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018.
    """

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.lower = nn.Parameter(torch.zeros(n_features, n_features, dtype=torch.float32))
        self.upper = nn.Parameter(torch.zeros(n_features, n_features, dtype=torch.float32))
        self.log_diagonal = nn.Parameter(torch.zeros(n_features, dtype=torch.float32))
        self.bias = nn.Parameter(torch.zeros(n_features, dtype=torch.float32))

    @classmethod
    def from_lower_triangular(cls, matrix: Tensor) -> LULinear:
        """Build the map :math:`z = A x` for a lower-triangular :math:`A` with a positive diagonal.

        Parameters
        ----------
        matrix : Tensor of shape (n_features, n_features)
            Lower triangular, with a positive diagonal.

        Returns
        -------
        LULinear
            The map with :math:`L U = A`.
        """
        linear = cls(matrix.shape[0])
        diagonal = matrix.diagonal()
        with torch.no_grad():
            linear.lower.copy_((matrix / diagonal).tril(-1))
            linear.log_diagonal.copy_(diagonal.log())
        return linear

    def _upper(self) -> Tensor:
        return self.upper.triu(1) + self.log_diagonal.exp().diag_embed()

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z: Tensor = _LUProduct.apply(x.mT, self.lower, self.upper, self.log_diagonal, self.bias)
        return z.mT, self._log_det(z.mT)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shifted = z.mT - self.bias.unsqueeze(-1)
        y = torch.linalg.solve_triangular(self.lower.tril(-1), shifted, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(self._upper(), y, upper=True).mT
        return x, -self._log_det(x)

    def _log_det(self, rows: Tensor) -> Tensor:
        return self.log_diagonal.sum(dim=-1, keepdim=True).expand(rows.shape[:-1])


class _LUProduct(torch.autograd.Function):
    """The product as one step of the tape: the matrices are small, and there the tape takes most of the time.

    Features come before samples; all arguments may have a leading axis of members.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, lower: Tensor, upper: Tensor, log_diagonal: Tensor, bias: Tensor) -> Tensor:
        diagonal = log_diagonal.exp()
        strictly_lower, u = lower.tril(-1), upper.triu(1) + diagonal.diag_embed()
        matrix = matrix_product_plus(strictly_lower, u, u)  # the unit diagonal of L gives U itself
        ctx.save_for_backward(x, strictly_lower, u, diagonal, matrix)
        return matrix_product_plus(matrix, x, bias.unsqueeze(-1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g_z,) = gradients
        x, strictly_lower, u, diagonal, matrix = ctx.saved_tensors
        g_x = matrix.mT @ g_z if ctx.needs_input_grad[0] else None
        g_matrix = g_z @ x.mT
        g_u = matrix_product_plus(strictly_lower.mT, g_matrix, g_matrix)
        g_log_diagonal = g_u.diagonal(dim1=-2, dim2=-1) * diagonal
        return g_x, (g_matrix @ u.mT).tril(-1), g_u.triu(1), g_log_diagonal, g_z.sum(dim=-1)
