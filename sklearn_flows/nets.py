"""Conditioners: the networks that choose the parameters of the scalar bijections."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ._workspace import empty

aten = torch.ops.aten


class Activation(NamedTuple):
    """An activation :math:`a = \\sigma(y)` and the way back through it.

    They can write to a tensor, which may be one of their arguments: ``apply(y, out=a)``, ``backward(g_a, y, a, out=g_y)``.
    """

    apply: Callable[..., Tensor]
    backward: Callable[..., Tensor]


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        lambda y, out=None: torch.clamp_min(y, 0, out=out),
        lambda g, y, a, out: aten.threshold_backward.grad_input(g, a, 0, grad_input=out),
    ),
    "tanh": Activation(
        lambda y, out=None: torch.tanh(y, out=out),
        lambda g, y, a, out: aten.tanh_backward.grad_input(g, a, grad_input=out),
    ),
    "silu": Activation(
        lambda y, out=None: aten.silu(y) if out is None else aten.silu.out(y, out=out),
        lambda g, y, a, out: aten.silu_backward.grad_input(g, y, grad_input=out),
    ),
    "gelu": Activation(
        lambda y, out=None: aten.gelu(y) if out is None else aten.gelu.out(y, out=out),
        lambda g, y, a, out: aten.gelu_backward.grad_input(g, y, grad_input=out),
    ),
    "elu": Activation(
        lambda y, out=None: aten.elu(y) if out is None else aten.elu.out(y, out=out),
        lambda g, y, a, out: aten.elu_backward.grad_input(g, 1, 1, 1, False, y, grad_input=out),
    ),
}


# Rows of a layer's weights that Muon makes orthonormal, at most: its steps in torch and the compiled ones agree on it. All rows
# of a matrix at once gain a little more, for many times the time.
MUON_BLOCK_SIZE = 16


class Linear(nn.Linear):
    """Linear layer :math:`y = W x + b`, initialised from a generator, never from torch's global one.

    Parameters
    ----------
    n_in, n_out : int
        Number of inputs and outputs.
    generator : torch.Generator or None
        Source of the initial weights; None means zeros.

    Attributes
    ----------
    n_seen : list of int
        How many inputs each output sees: the first ones.
    blocks : list of (int, int, int)
        Groups of outputs that are multiplied at once on the CPU: the first, one after the last, and how many inputs they see.
    """

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator | None = None) -> None:
        super().__init__(n_in, n_out, device="cpu", dtype=torch.float32)
        self.n_seen = [n_in] * n_out
        self.blocks = [(0, n_out, n_in)]
        if generator is not None and n_in > 0:
            bound = 1 / math.sqrt(n_in)
            nn.init.uniform_(self.weight, -bound, bound, generator=generator)
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)

    def reset_parameters(self) -> None:  # nn.Linear calls this when it is made, and draws from the global generator
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


class MaskedLinear(Linear):
    """Linear layer in which some weights don't exist: they are zero, and so are their gradients.

    Each output sees the first few inputs, later outputs as many or more, so the mask has the shape of stairs. On the CPU
    outputs are multiplied in groups, each with the inputs that any of the group sees: the rest is never touched.

    Parameters
    ----------
    mask : Tensor of shape (n_out, n_in), dtype bool
        Which weights exist: in each row the first few, in later rows as many or more.
    generator : torch.Generator or None
        Source of the initial weights; None means zeros.
    """

    mask: Tensor

    def __init__(self, mask: Tensor, generator: torch.Generator | None = None) -> None:
        super().__init__(mask.shape[1], mask.shape[0], generator)
        # As numbers: multiplying by them is faster than selecting.
        self.register_buffer("mask", mask.to(self.weight.dtype))
        with torch.no_grad():
            self.weight.mul_(self.mask)
        self.n_seen = mask.sum(dim=1).tolist()
        self.blocks = _blocks(self.n_seen, mask.shape[1])


# Weights of a block of a masked layer. Smaller blocks skip more zeros, but products of small matrices are slower.
_BLOCK_SIZE = 2**14
_MAX_BLOCKS = 8


def _blocks(n_seen: list[int], n_in: int) -> list[tuple[int, int, int]]:
    n_blocks = max(1, min(_MAX_BLOCKS, len(n_seen) * n_in // _BLOCK_SIZE))
    ends = [len(n_seen) * (i + 1) // n_blocks for i in range(n_blocks)]
    return [(start, end, max(n_seen[start:end], default=0)) for start, end in zip([0, *ends], ends, strict=False)]


def _blocks_on(x: Tensor, layer: Linear) -> list[tuple[int, int, int]]:
    # A kernel on CUDA takes less time than its launch: one product of everything, zeros included, is faster there.
    return [(0, layer.out_features, layer.in_features)] if x.is_cuda else layer.blocks


class _Network(torch.autograd.Function):
    """Linear layers with activations between them, as one step of the tape.

    Everything is transposed: units come before samples, so that the units that a block sees are one piece of memory, and so are
    the samples of each output. All arguments may have a leading axis of members.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, activation: Activation, layers: Sequence[Linear], *parameters: Tensor) -> Tensor:
        weights, biases = parameters[::2], parameters[1::2]
        if weights[0].ndim > x.ndim:
            x = x.expand(len(weights[0]), *x.shape)
        add_product = torch.addmm if x.ndim == 2 else torch.baddbmm
        inputs, outputs = [], []
        for layer, weight, bias in zip(layers, weights, biases, strict=True):
            inputs.append(x)
            y = empty((*x.shape[:-2], weight.shape[-2], x.shape[-1]), x)
            for start, end, n_seen in _blocks_on(x, layer):
                rows = slice(start, end)
                add_product(bias[..., rows, None], weight[..., rows, :n_seen], x[..., :n_seen, :], out=y[..., rows, :])
            outputs.append(y)
            if len(outputs) < len(layers):
                x = activation.apply(y, out=empty(y.shape, y))
        ctx.activation, ctx.layers = activation, layers
        ctx.save_for_backward(*weights, *inputs, *outputs[:-1])
        return outputs[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        (g_y,) = gradients
        layers = ctx.layers
        n = len(layers)
        weights, inputs, outputs = ctx.saved_tensors[:n], ctx.saved_tensors[n : 2 * n], ctx.saved_tensors[2 * n :]
        product, add_product = (torch.mm, torch.addmm) if g_y.ndim == 2 else (torch.bmm, torch.baddbmm)
        g_parameters: list[Tensor] = []
        g_x = None
        for i in reversed(range(n)):
            weight, x = weights[i], inputs[i]
            g_weight = empty(weight.shape, weight)
            g_x = empty(x.shape, x) if i > 0 or ctx.needs_input_grad[0] else None
            n_filled = 0
            # From the last block, which sees the most inputs, so that each part of g_x is filled before it is added to.
            for start, end, n_seen in reversed(_blocks_on(x, layers[i])):
                rows = slice(start, end)
                g_rows = g_y[..., rows, :]
                product(g_rows, x[..., :n_seen, :].mT, out=g_weight[..., rows, :n_seen])
                if n_seen < weight.shape[-1]:
                    g_weight[..., rows, n_seen:] = 0
                if g_x is not None:
                    part, transposed = g_x[..., :n_seen, :], weight[..., rows, :n_seen].mT
                    if n_filled:
                        add_product(part, transposed, g_rows, out=part)
                    else:
                        product(transposed, g_rows, out=part)
                        n_filled = n_seen
            if isinstance(layers[i], MaskedLinear):
                g_weight.mul_(layers[i].mask)
            g_parameters += [g_y.sum(dim=-1), g_weight]
            if g_x is not None:
                g_x[..., n_filled:, :] = 0
            if i > 0:
                g_y = ctx.activation.backward(g_x, outputs[i - 1], x, out=g_x)
        return (g_x, None, None, *reversed(g_parameters))


class Conditioner(nn.Module, ABC):
    """A network that makes the parameters of scalar bijections of the features that it sees."""

    @abstractmethod
    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the parameters.

        Parameters
        ----------
        x : Tensor of shape (..., n_samples, n_in)
            Inputs.
        context : Tensor of shape (..., n_samples, n_context), default=None
            Further inputs; ignored by a network that has none for it.

        Returns
        -------
        Tensor of shape (..., n_samples, n_out)
            The parameters, those of one feature next to each other.
        """


def check_context(context: Tensor | None, n_context: int) -> Tensor | None:
    """Give back the context that a network needs: a network without inputs for it ignores it.

    A wrong width must not pass: layers multiply the first few inputs, whatever comes after them.
    """
    if not n_context:
        return None
    width = "none" if context is None else f"shape {tuple(context.shape)}"
    if context is None or context.shape[-1] != n_context:
        raise ValueError(f"The context must have the shape (n_samples, {n_context}), but there is {width}.")
    return context


class FeedForward(Conditioner):
    """Linear layers with activations between them.

    Parameters
    ----------
    layers : sequence of Linear
        The layers.
    activation : str
        A key of ``ACTIVATIONS``.
    n_context : int, default=0
        How many of the inputs are a context: the first ones.
    """

    def __init__(self, layers: Sequence[Linear], activation: str, n_context: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.activation = activation
        self.n_context = n_context

    def extra_repr(self) -> str:
        context = f", n_context={self.n_context}" if self.n_context else ""
        return f"activation={self.activation!r}{context}"

    def linear_layers(self) -> list[Linear]:
        """The layers, from the inputs on."""
        return [layer for layer in self.layers if isinstance(layer, Linear)]  # ModuleList forgets the type

    def parameter_list(self) -> list[Tensor]:
        """Weights and biases of the layers, in turn."""
        return [parameter for layer in self.linear_layers() for parameter in (layer.weight, layer.bias)]

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the outputs of the last layer.

        Parameters
        ----------
        x : Tensor of shape (..., n_samples, n_in)
            Inputs.
        context : Tensor of shape (..., n_samples, n_context), default=None
            Inputs that every output may see; ignored by a network without inputs for it.

        Returns
        -------
        Tensor of shape (..., n_samples, n_out)
            Outputs; in memory units come before samples.
        """
        context = check_context(context, self.n_context)
        inputs = x.mT if context is None else torch.cat([context.mT, x.mT], dim=-2)
        y: Tensor = _Network.apply(inputs, ACTIVATIONS[self.activation], self.linear_layers(), *self.parameter_list())
        return y.mT


def split_by_feature(outputs: Tensor, n_features: int, n_parameters: int) -> Tensor:
    """View the outputs of a conditioner, (..., n_samples, n_features * n_parameters), as (..., n_features, n_parameters)."""
    by_feature: Tensor = outputs.mT.unflatten(-2, (n_features, n_parameters))
    return by_feature.movedim(-1, -3)


class MLP(FeedForward):
    """Multilayer perceptron whose output is zero at the start.

    Parameters
    ----------
    n_in, n_out : int
        Number of inputs and outputs. With no inputs and no context the outputs are free constants.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer.
    activation : str
        A key of ``ACTIVATIONS``.
    generator : torch.Generator
        Source of the initial weights.
    n_context : int, default=0
        Number of inputs from a context, besides the others.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        generator: torch.Generator,
        n_context: int = 0,
    ) -> None:
        n_in += n_context
        layers: list[Linear] = []
        for width in hidden_layer_sizes:
            layers.append(Linear(n_in, width, generator))
            n_in = width
        super().__init__([*layers, Linear(n_in, n_out)], activation, n_context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Same as ``outputs``."""
        return self.outputs(x, context)


class Convolution(nn.Conv2d):
    """Convolution of images that keeps their size, with zeros around them, initialised from a generator.

    Parameters
    ----------
    n_in, n_out : int
        Number of channels.
    size : int
        Side of the square of pixels that an output sees, odd.
    n_positions : int
        Height times width of the images.
    generator : torch.Generator or None
        Source of the initial weights; None means zeros.
    """

    def __init__(self, n_in: int, n_out: int, size: int, n_positions: int, generator: torch.Generator | None = None) -> None:
        super().__init__(n_in, n_out, size, padding=size // 2, device="cpu", dtype=torch.float32)
        self.n_positions = n_positions
        if generator is not None:
            bound = 1 / math.sqrt(n_in * size**2)
            nn.init.uniform_(self.weight, -bound, bound, generator=generator)
            assert self.bias is not None
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)

    def reset_parameters(self) -> None:  # as in Linear
        nn.init.zeros_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)


class ConvolutionalNetwork(Conditioner):
    """Conditioner of images: from the pixels that stay to the parameters of the others, zero at the start.

    Convolutions of 3x3 pixels come first and last, and between them such of single pixels, as in Glow [1]_ (section 4). What
    moves is zero in the image that they see. The first layer has a bias for each position, since images of one table are
    often aligned.

    Parameters
    ----------
    image_shape : tuple of (int, int, int)
        Channels, height and width.
    stays : Tensor of shape (channels * height * width,), dtype bool
        Which pixels of the flattened image stay.
    n_parameters : int
        Number of outputs for each pixel that moves.
    hidden_layer_sizes : sequence of int
        Channels of each hidden layer.
    activation : str
        A key of ``ACTIVATIONS``.
    generator : torch.Generator
        Source of the initial weights.

    References
    ----------
    .. [1] Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018.
    """

    seen: Tensor
    moving: Tensor

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        stays: Tensor,
        n_parameters: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        channels, self.height, self.width = image_shape
        self.n_parameters = n_parameters
        self.activation = activation
        by_channel = stays.view(channels, -1)
        # Channels of which nothing stays needn't be seen, and those of which nothing moves need no outputs.
        inputs, outputs = by_channel.any(dim=1), ~by_channel.all(dim=1)
        self.register_buffer("seen", by_channel[inputs].flatten().nonzero().squeeze(-1))
        self.register_buffer("moving", (~by_channel[outputs]).flatten().nonzero().squeeze(-1))
        n_in, n_out, n_positions = int(inputs.sum()), int(outputs.sum()) * n_parameters, self.height * self.width
        self.n_in = n_in
        n_first = [*hidden_layer_sizes, n_out][0]
        self.positions = nn.Parameter(torch.zeros(n_first, self.height, self.width, dtype=torch.float32))
        layers = []
        for i, width in enumerate(hidden_layer_sizes):
            layers.append(Convolution(n_in, width, 3 if i == 0 else 1, n_positions, generator))
            n_in = width
        self.layers = nn.ModuleList([*layers, Convolution(n_in, n_out, 3, n_positions)])

    def extra_repr(self) -> str:
        return f"activation={self.activation!r}"

    def outputs(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the parameters of the pixels that move.

        Parameters
        ----------
        x : Tensor of shape (..., n_samples, n_staying)
            The pixels that stay.
        context : Tensor of shape (..., n_samples, n_context), default=None
            Ignored.

        Returns
        -------
        Tensor of shape (..., n_samples, n_moving * n_parameters)
            Outputs, those of one pixel next to each other.
        """
        n_seen = self.n_in * self.height * self.width
        if x.shape[-1] < n_seen:
            x = x.new_zeros(*x.shape[:-1], n_seen).index_copy(-1, self.seen, x)
        y = x.reshape(-1, self.n_in, self.height, self.width)
        apply = ACTIVATIONS[self.activation].apply
        first, *others = self.layers
        y = first(y) + self.positions
        for layer in others:
            y = layer(apply(y))
        y = y.view(len(y), -1, self.n_parameters, self.height * self.width).mT.flatten(1, 2)
        if len(self.moving) < y.shape[1]:
            y = y.index_select(1, self.moving)
        result: Tensor = y.reshape(*x.shape[:-1], -1)
        return result


class MADE(FeedForward):
    """Masked network whose outputs for feature :math:`i` see the inputs :math:`1, \\dots, i - 1` alone [1]_.

    With a context, all outputs see that too. The output is zero at the start.

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
    n_context : int, default=0
        Number of inputs that all outputs see, besides the features.

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
        n_context: int = 0,
    ) -> None:
        # Degree m: an input's own number; a hidden unit of degree m sees inputs up to m. Hidden degrees run from
        # 1 to n_features - 1, sorted and evenly spread (the paper draws them at random, which wastes small layers).
        # A context has degree 0, and then so have some hidden units: the first feature's parameters depend on it too.
        lowest = 0 if n_context else 1
        degrees = torch.arange(1, n_features + 1)
        inputs = torch.cat([torch.zeros(n_context, dtype=torch.int64), degrees])
        layers: list[Linear] = []
        # How many units of each hidden layer have a degree of at most 0, 1, 2, …: being sorted, they are the first ones.
        n_units_up_to: list[list[int]] = []
        for width in hidden_layer_sizes:
            hidden = lowest + torch.arange(width) * max(1, n_features - lowest) // width
            layers.append(MaskedLinear(hidden[:, None] >= inputs, generator))
            n_units_up_to.append([int((hidden <= m).sum()) for m in range(n_features)])
            inputs = hidden
        layers.append(MaskedLinear((degrees[:, None] > inputs).repeat_interleave(n_parameters, dim=0)))
        super().__init__(layers, activation, n_context)
        self.n_features, self.n_parameters = n_features, n_parameters
        self.n_units_up_to = n_units_up_to

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the parameters of every feature.

        Parameters
        ----------
        x : Tensor of shape (..., n_samples, n_features)
            The features.
        context : Tensor of shape (..., n_samples, n_context), default=None
            What all parameters may depend on.

        Returns
        -------
        Tensor of shape (..., n_samples, n_features, n_parameters)
            Row ``[..., i, :]`` depends on ``x[..., :i]`` and the context alone; in memory samples come last.
        """
        return split_by_feature(self.outputs(x, context), self.n_features, self.n_parameters)

    def in_order(self, like: Tensor, solve: Callable[[int, Tensor], Tensor], context: Tensor | None = None) -> None:
        """Compute the parameters of one feature after another, where each feature follows from its own parameters.

        A feature becomes an input as soon as it is known, and each hidden unit is computed once, when all that it sees is
        known: all features together take the arithmetic of one ``forward``, where a ``forward`` for each would take
        ``n_features`` of them.

        Parameters
        ----------
        like : Tensor of shape (..., n_samples, n_features)
            Any tensor of the shape of the inputs, on their device and of their dtype.
        solve : callable
            Called as ``solve(i, parameters)`` for each feature ``i`` in order, with its parameters, shape
            ``(..., n_samples, 1, n_parameters)``; returns feature ``i``, shape ``(..., n_samples, 1)``.
        context : Tensor of shape (..., n_samples, n_context), default=None
            What all parameters may depend on.
        """
        context = check_context(context, self.n_context)
        *hidden_layers, output = self.linear_layers()
        activation = ACTIVATIONS[self.activation]
        members, n_samples = like.shape[:-2], like.shape[-2]
        # What is known so far, units first: the first ones are then one piece of memory. Inputs, then each hidden layer.
        known = [
            like.new_empty(*members, n, n_samples)
            for n in (self.n_context + self.n_features, *(layer.out_features for layer in hidden_layers))
        ]
        n_known = [0] * len(known)

        def add(level: int, values: Tensor) -> None:
            start, n_known[level] = n_known[level], n_known[level] + values.shape[-2]
            if values.requires_grad:  # the tape forbids to write into what it has seen
                known[level] = torch.cat([known[level][..., :start, :], values], dim=-2)
            else:
                known[level][..., start : n_known[level], :] = values

        def outputs(layer: Linear, units: slice, level: int) -> Tensor:
            inputs = slice(n_known[level])
            bias = layer.bias[..., units, None]
            return matrix_product_plus(layer.weight[..., units, inputs], known[level][..., inputs, :], bias)

        if context is not None:
            add(0, context.mT.expand(*members, -1, -1))
        for i in range(self.n_features):
            for level, (layer, n_units_up_to) in enumerate(zip(hidden_layers, self.n_units_up_to, strict=True)):
                # Units of degree i see the context and the inputs 1 to i, which are known now; what they don't see isn't.
                units = slice(n_known[level + 1], n_units_up_to[i])
                if units.start < units.stop:
                    add(level + 1, activation.apply(outputs(layer, units, level)))
            rows = slice(i * self.n_parameters, (i + 1) * self.n_parameters)
            parameters = split_by_feature(outputs(output, rows, len(hidden_layers)).mT, 1, self.n_parameters)
            add(0, solve(i, parameters).mT)


def matrix_product_plus(matrix: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """Compute ``matrix @ x + bias``, where all may have a leading axis of members."""
    return torch.addmm(bias, matrix, x) if matrix.ndim == x.ndim == 2 else matrix @ x + bias
