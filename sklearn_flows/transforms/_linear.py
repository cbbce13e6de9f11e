"""Linear maps between the nonlinear layers: permutations and LU-parametrised matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return select(x, self.order), x.new_zeros(x.shape[:-1])

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        upper = self._upper()
        matrix = matrix_product_plus(self.lower.tril(-1), upper, upper)  # the unit diagonal of L adds U itself
        z = matrix_product_plus(matrix, x.mT, self.bias.unsqueeze(-1)).mT
        return z, self.log_diagonal.sum(dim=-1, keepdim=True).expand(z.shape[:-1])

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        shifted = (z.mT - self.bias.unsqueeze(-1))
        y = torch.linalg.solve_triangular(self.lower.tril(-1), shifted, upper=False, unitriangular=True)
        x = torch.linalg.solve_triangular(self._upper(), y, upper=True).mT
        return x, -self.log_diagonal.sum(dim=-1, keepdim=True).expand(x.shape[:-1])
