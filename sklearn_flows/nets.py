"""Conditioners: the networks that choose the parameters of the scalar bijections."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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
        # How many units of each hidden layer have a degree of at most 0, 1, 2, …: being sorted, they are the first ones.
        self._n_units_up_to: list[list[int]] = []
        for width in hidden_layer_sizes:
            hidden = 1 + torch.arange(width) * max(1, n_features - 1) // width
            layers += [MaskedLinear(hidden[:, None] >= inputs, generator), ACTIVATIONS[activation]()]
            self._n_units_up_to.append([int((hidden <= m).sum()) for m in range(n_features)])
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

    def in_order(self, n_samples: int, solve: Callable[[int, Tensor], Tensor]) -> None:
        """Compute the parameters of one feature after another, where each feature follows from its own parameters.

        A feature becomes an input as soon as it is known, and each hidden unit is computed once, when all that it sees is
        known: all features together take the arithmetic of one ``forward``, where a ``forward`` for each would take
        ``n_features`` of them.

        Parameters
        ----------
        n_samples : int
            Number of rows.
        solve : callable
            Called as ``solve(i, parameters)`` for each feature ``i`` in order, with its parameters, shape
            ``(n_samples, n_parameters)``; returns feature ``i``, shape ``(n_samples,)``.
        """
        *hidden_layers, output = [layer for layer in self.layers if isinstance(layer, MaskedLinear)]
        activation = self.layers[1] if hidden_layers else None
        # Transposed, units first: the units known so far are then a contiguous block. Those of the inputs come first.
        known = [output.weight.new_empty(0, n_samples) for _ in range(len(hidden_layers) + 1)]
        for i in range(self.n_features):
            for level, (layer, n_units_up_to) in enumerate(zip(hidden_layers, self._n_units_up_to, strict=True)):
                # Units of degree i see the inputs 1 to i, which are known now; what they don't see isn't in `known` yet.
                units = slice(known[level + 1].shape[0], n_units_up_to[i])
                if units.start < units.stop:
                    assert activation is not None
                    weight = layer.weight[units, : known[level].shape[0]]
                    new = activation(torch.addmm(layer.bias[units, None], weight, known[level]))
                    known[level + 1] = torch.cat([known[level + 1], new])
            rows = slice(i * self.n_parameters, (i + 1) * self.n_parameters)
            weight = output.weight[rows, : known[-1].shape[0]]
            parameters = torch.addmm(output.bias[rows, None], weight, known[-1]).T.contiguous()
            known[0] = torch.cat([known[0], solve(i, parameters)[None]])
