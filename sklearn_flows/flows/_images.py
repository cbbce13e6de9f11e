"""Functions that assemble flows over images: levels, each on images of half the height and half the width.

All layers start as the identity, up to the order of features, so such a flow starts as a Gaussian, too. The linear map that
makes it one comes last: it mixes all pixels, and convolutions must see neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..distributions import StandardNormal
from ..nets import ConvolutionalNetwork
from ..transforms import (
    ActNorm,
    Affine,
    Composed,
    Coupling,
    FactorOut,
    LULinear,
    Permutation,
    PerPosition,
    Transform,
    checkerboard,
    squeeze_order,
)
from ._families import Base
from ._flow import Flow

ImageShape = tuple[int, int, int]
# The image of a shape to layers, and the shape of the image that they give.
Level = Callable[[ImageShape], tuple[list[Transform], ImageShape]]


def _multi_scale(level: Level, image_shape: ImageShape, n_levels: int) -> Composed:
    """Levels one after the other, where half of the channels leave after each but the last."""
    layers, (channels, height, width) = level(image_shape)
    if n_levels > 1:
        inner = _multi_scale(level, (channels // 2, height, width), n_levels - 1)
        layers.append(FactorOut(inner, channels // 2 * height * width))
    return Composed(layers)


def _flow(transform: Composed, whitening: Tensor, base: Base | None) -> Flow:
    """Bring the latents into the order of the pixels, whiten them, and put a base under them."""
    with torch.no_grad():
        order, _ = transform.forward(torch.arange(len(whitening), dtype=torch.float32)[None])
    last = [Permutation(order[0].long().argsort()), LULinear.from_lower_triangular(whitening)]
    return Flow(Composed([*transform.transforms, *last]), StandardNormal(len(whitening)) if base is None else base)


def realnvp_of_images(
    whitening: Tensor,
    *,
    image_shape: ImageShape,
    n_levels: int,
    n_transforms: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    generator: torch.Generator,
    base: Base | None = None,
) -> Flow:
    """RealNVP [1]_ for images: affine couplings with checkerboard masks, a squeeze, such with channel masks, at each level.

    Parameters
    ----------
    whitening : Tensor of shape (n_pixels, n_pixels)
        Lower-triangular start of the last linear map.
    image_shape : tuple of (int, int, int)
        Channels, height and width. The latter two can be halved ``n_levels`` times.
    n_levels : int
        Number of levels L.
    n_transforms : int
        Number of couplings at each level, the larger half of them before the squeeze.
    hidden_layer_sizes : sequence of int
        Channels of each hidden layer of the conditioners.
    activation : str
        Activation of the conditioners.
    generator : torch.Generator
        Source of initial weights.
    base : StudentMixture, default=None
        Distribution of the whitened pixels that training starts from. None is the standard normal.

    Returns
    -------
    Flow
        The flow.

    References
    ----------
    .. [1] Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017, sections 3.4 to 3.6.
    """

    def couplings(shape: ImageShape, mask: Tensor, n: int) -> list[Transform]:
        masks = [mask, ~mask] * n
        return [
            Coupling(Affine(), ConvolutionalNetwork(shape, stays, 2, hidden_layer_sizes, activation, generator), stays)
            for stays in masks[:n]
        ]

    def level(shape: ImageShape) -> tuple[list[Transform], ImageShape]:
        channels, height, width = shape
        squeezed = 4 * channels, height // 2, width // 2
        halves = torch.arange(channels * height * width) < channels * height * width // 2
        n_channelwise = n_transforms // 2
        return [
            *couplings(shape, checkerboard(shape), n_transforms - n_channelwise),
            Permutation(squeeze_order(shape)),
            *couplings(squeezed, halves, n_channelwise),
        ], squeezed

    return _flow(_multi_scale(level, image_shape, n_levels), whitening, base)


def glow_of_images(
    whitening: Tensor,
    *,
    image_shape: ImageShape,
    n_levels: int,
    n_transforms: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    generator: torch.Generator,
    base: Base | None = None,
) -> Flow:
    """Glow [1]_ for images: at each level a squeeze, then steps of ActNorm, invertible 1x1 convolution and affine coupling.

    Parameters
    ----------
    whitening : Tensor of shape (n_pixels, n_pixels)
        Lower-triangular start of the last linear map.
    image_shape : tuple of (int, int, int)
        Channels, height and width. The latter two can be halved ``n_levels`` times.
    n_levels : int
        Number of levels L.
    n_transforms : int
        Number of steps K at each level.
    hidden_layer_sizes : sequence of int
        Channels of each hidden layer of the conditioners.
    activation : str
        Activation of the conditioners.
    generator : torch.Generator
        Source of initial weights and permutations.
    base : StudentMixture, default=None
        Distribution of the whitened pixels that training starts from. None is the standard normal.

    Returns
    -------
    Flow
        The flow.

    References
    ----------
    .. [1] Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018, section 3 and
       figure 2.
    """

    def level(shape: ImageShape) -> tuple[list[Transform], ImageShape]:
        channels, height, width = 4 * shape[0], shape[1] // 2, shape[2] // 2
        squeezed, n_positions = (channels, height, width), height * width
        stays = torch.arange(channels * n_positions) < channels // 2 * n_positions
        layers: list[Transform] = [Permutation(squeeze_order(shape))]
        for _ in range(n_transforms):
            mixing = [ActNorm(channels), Permutation(torch.randperm(channels, generator=generator)), LULinear(channels)]
            network = ConvolutionalNetwork(squeezed, stays, 2, hidden_layer_sizes, activation, generator)
            layers += [PerPosition(Composed(mixing), n_positions), Coupling(Affine(), network, stays)]
        return layers, squeezed

    return _flow(_multi_scale(level, image_shape, n_levels), whitening, base)
