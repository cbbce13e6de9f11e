"""What a flow over images adds to one over tables: positions, levels, and which pixels are neighbours.

An image is a row: the array of shape (channels, height, width), flattened in C order.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ._base import Transform

ImageShape = tuple[int, int, int]


class PerPosition(Transform):
    """Apply a transform to the channels of an image, at each position alike.

    Over an ``LULinear`` this is the invertible 1x1 convolution of Glow [1]_ (section 3.2), over an ``ActNorm`` the activation
    normalisation of channels (section 3.1).

    Parameters
    ----------
    transform : Transform
        Map of as many features as the image has channels.
    n_positions : int
        Height times width.

    References
    ----------
    .. [1] Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018.
    """

    def __init__(self, transform: Transform, n_positions: int) -> None:
        super().__init__()
        self.transform = transform
        self.n_positions = n_positions

    def extra_repr(self) -> str:
        return f"n_positions={self.n_positions}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._map(x, context, inverse=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._map(z, context, inverse=True)

    def _map(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        by_position = x.unflatten(-1, (-1, self.n_positions)).mT
        at_each = None if context is None else context.unsqueeze(-2).expand(*by_position.shape[:-1], -1).flatten(-3, -2)
        y, log_det = (self.transform.inverse if inverse else self.transform.forward)(by_position.flatten(-3, -2), at_each)
        return y.view(by_position.shape).mT.flatten(-2), log_det.unflatten(-1, (-1, self.n_positions)).sum(dim=-1)


class FactorOut(Transform):
    """Send the first features through a transform and leave the others as they are: these are latents already.

    The multi-scale architecture of RealNVP [1]_ (section 3.6) is a composition of levels, each of which ends with this: half of
    the channels leave, and the other half goes through all further levels.

    Parameters
    ----------
    transform : Transform
        Map of the first features.
    n_features : int
        How many go through it.

    References
    ----------
    .. [1] Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
    """

    def __init__(self, transform: Transform, n_features: int) -> None:
        super().__init__()
        self.transform = transform
        self.n_features = n_features

    def extra_repr(self) -> str:
        return f"n_features={self.n_features}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._map(x, context, inverse=False)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._map(z, context, inverse=True)

    def _map(self, x: Tensor, context: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        first, others = x.tensor_split([self.n_features], dim=-1)
        first, log_det = (self.transform.inverse if inverse else self.transform.forward)(first, context)
        return torch.cat([first, others], dim=-1), log_det


def checkerboard(image_shape: ImageShape) -> Tensor:
    """Give the checkerboard mask of RealNVP [1]_ (section 3.4): true where the row and the column add up to an odd number.

    Parameters
    ----------
    image_shape : tuple of (int, int, int)
        Channels, height and width.

    Returns
    -------
    Tensor of shape (channels * height * width,), dtype bool
        The mask, of the flattened image.

    References
    ----------
    .. [1] Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
    """
    channels, height, width = image_shape
    odd = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == 1
    return odd.expand(channels, height, width).flatten()


def squeeze_order(image_shape: ImageShape) -> Tensor:
    """Give the order of features that makes blocks of 2x2 pixels four channels of one pixel: the squeeze of RealNVP [1]_.

    The image becomes one of shape ``(4 * channels, height / 2, width / 2)``. The first half of its channels are the diagonals
    of the blocks, the other half what is beside them, so that a channel mask is another kind of checkerboard (section 3.6).

    Parameters
    ----------
    image_shape : tuple of (int, int, int)
        Channels, height and width, the latter two even.

    Returns
    -------
    Tensor of shape (channels * height * width,), dtype int64
        For each feature of the squeezed image its place in the image.

    References
    ----------
    .. [1] Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
    """
    channels, height, width = image_shape
    places = torch.arange(channels * height * width).view(channels, height // 2, 2, width // 2, 2)
    corners = [places[:, :, i, :, j] for i, j in ((0, 0), (1, 1), (0, 1), (1, 0))]
    return torch.stack(corners).flatten()
