"""Conditioners: the networks that choose the parameters of the scalar bijections."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
}


class _Linear(nn.Linear):
    """Linear layer initialised from a generator, never from torch's global one, and by default with zeros."""

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator | None = None) -> None:
        super().__init__(n_in, n_out, device="cpu", dtype=torch.float32)
        if generator is not None and n_in > 0:
            bound = 1 / math.sqrt(n_in)
            nn.init.uniform_(self.weight, -bound, bound, generator=generator)
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)

    def reset_parameters(self) -> None:  # nn.Linear calls this when it is made, and draws from the global generator
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class MaskedLinear(_Linear):
    """Linear layer :math:`y = (M \\odot W) x + b` with a fixed binary mask.

    Parameters
    ----------
    mask : Tensor of shape (n_out, n_in), dtype bool
        Which weights exist.
    generator : torch.Generator or None
        Source of the initial weights; None means zeros.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, generator: torch.Generator | None = None) -> None:
        super().__init__(mask.shape[1], mask.shape[0], generator)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class MLP(nn.Sequential):
    """Multilayer perceptron whose output is zero at the start.

    Parameters
    ----------
    n_in, n_out : int
        Number of inputs and outputs. With no inputs the outputs are free constants.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer.
    activation : str
        A key of ``ACTIVATIONS``.
    generator : torch.Generator
        Source of the initial weights.
    """

    def __init__(
        self, n_in: int, n_out: int, hidden_layer_sizes: Sequence[int], activation: str, generator: torch.Generator
    ) -> None:
        layers: list[nn.Module] = []
        for width in hidden_layer_sizes:
            layers += [_Linear(n_in, width, generator), ACTIVATIONS[activation]()]
            n_in = width
        super().__init__(*layers, _Linear(n_in, n_out))


class MADE(nn.Module):
    """Masked network whose outputs for feature :math:`i` see the inputs :math:`1, \\dots, i - 1` alone [1]_.

    The output is zero at the start.

    Parameters
    ----------
    n_features : int
        Number of features.
    n_parameters : int
        Number of outputs for each feature.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer.
    activation : str
        A key of ``ACTIVATIONS``.
    generator : torch.Generator
        Source of the initial weights.

    References
    ----------
    .. [1] Germain, Gregor, Murray and Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", ICML 2015:
       masks by degrees, eqs. 12-13.
    """

    def __init__(
        self,
        n_features: int,
        n_parameters: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_features, self.n_parameters = n_features, n_parameters
        # Degree m: an input's own number; a hidden unit of degree m sees inputs up to m. Hidden degrees run from
        # 1 to n_features - 1, sorted and evenly spread (the paper draws them at random, which wastes small layers).
        degrees = torch.arange(1, n_features + 1)
        inputs = degrees
        layers: list[nn.Module] = []
        for width in hidden_layer_sizes:
            hidden = 1 + torch.arange(width) * max(1, n_features - 1) // width
            layers += [MaskedLinear(hidden[:, None] >= inputs, generator), ACTIVATIONS[activation]()]
            inputs = hidden
        layers.append(MaskedLinear((degrees[:, None] > inputs).repeat_interleave(n_parameters, dim=0)))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the parameters of every feature.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_features)
            The features.

        Returns
        -------
        Tensor of shape (n_samples, n_features, n_parameters)
            Row ``[:, i]`` depends on ``x[:, :i]`` alone.
        """
        parameters: Tensor = self.layers(x)
        return parameters.view(x.shape[0], self.n_features, self.n_parameters)
