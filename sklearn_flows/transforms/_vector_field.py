"""The network of a continuous flow: a vector field that changes with time, and the trace of its Jacobian."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..nets import MLP, check_context
from ._elementwise import CONDITIONER_BOUND


def _tanh(y: Tensor) -> tuple[Tensor, Tensor]:
    a = torch.tanh(y)
    return a, 1 - a.square()


def _silu(y: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(y)
    a = y * s
    return a, torch.addcmul(s, a, 1 - s)


def _gelu(y: Tensor) -> tuple[Tensor, Tensor]:
    share = 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    return y * share, share + y * torch.exp(-0.5 * y.square()) / math.sqrt(2 * math.pi)


# Values and derivatives of the activations that have two derivatives everywhere: a solver takes short steps across kinks of the
# trace, and the field's gradient asks for the derivative of its Jacobian. Unlike those of ``nets``, they are differentiable.
SMOOTH_ACTIVATIONS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {"tanh": _tanh, "silu": _silu, "gelu": _gelu}


def bend(x: Tensor) -> tuple[Tensor, Tensor]:
    """Bring the inputs of a field into the range that it knows from training, smoothly.

    As ``clip_for_conditioner``, but between the bound :math:`B` and :math:`2 B` the slope falls from one to zero along a
    polynomial with two derivatives, since a solver stumbles over kinks. Beyond, the field is that at the edge.

    Parameters
    ----------
    x : Tensor of shape (n_samples, n_features)
        Points.

    Returns
    -------
    bent : Tensor of shape (n_samples, n_features)
        Their images, at most :math:`3 B / 2` from zero.
    slope : Tensor of shape (n_samples, n_features)
        Derivatives, exactly one within the bound.
    """
    excess = ((x.abs() - CONDITIONER_BOUND) / CONDITIONER_BOUND).clamp(0, 1)
    slope = 1 - excess**3 * (10 - excess * (15 - 6 * excess))
    inside = x.clamp(-CONDITIONER_BOUND, CONDITIONER_BOUND)
    beyond = excess - excess**4 * (2.5 - excess * (3 - excess))
    return inside + x.sign() * CONDITIONER_BOUND * beyond, slope


class VectorField(nn.Module):
    """A vector field :math:`f(x, t, c)`: a network that sees the point, Fourier features of the time, and perhaps a context.

    The time enters as :math:`\\cos k \\pi t` and :math:`\\sin k \\pi t`. The last layer starts at zero, so the field does.

    Parameters
    ----------
    n_features : int
        Number of features of a point.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer.
    activation : {"tanh", "silu", "gelu"}
        Activation.
    generator : torch.Generator
        Source of the initial weights.
    n_frequencies : int, default=3
        Number of frequencies :math:`k` of the time.
    n_context : int, default=0
        Width of the context.
    steepness : float, default=4.0
        How much wider than usual the first layer's weights for the point, and its biases, are drawn: units then bend within the
        range of standardised points, at different places. As usually drawn they are nearly linear there, and detail takes long
        to learn.
    """

    def __init__(
        self,
        n_features: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        generator: torch.Generator,
        n_frequencies: int = 3,
        n_context: int = 0,
        steepness: float = 4.0,
    ) -> None:
        super().__init__()
        self.n_features = n_features
        self.n_frequencies = n_frequencies
        self.n_context = n_context
        # Its inputs are the time, the context and the point, in this order.
        n_in = 2 * n_frequencies + n_context + n_features
        self.network = MLP(n_in, n_features, hidden_layer_sizes, activation, generator)
        first = self.network.linear_layers()[0]
        with torch.no_grad():
            first.weight[:, n_in - n_features :].mul_(steepness)
            first.bias.mul_(steepness)

    def extra_repr(self) -> str:
        return f"n_frequencies={self.n_frequencies}, n_context={self.n_context}"

    def _surroundings(self, t: Tensor, context: Tensor | None) -> Tensor:
        """What the network sees besides the point."""
        angles = t[:, None] * (math.pi * torch.arange(1, self.n_frequencies + 1, dtype=t.dtype, device=t.device))
        time = torch.cat([angles.cos(), angles.sin()], dim=-1)
        context = check_context(context, self.n_context)
        return time if context is None else torch.cat([time.expand(len(context), -1), context], dim=-1)

    def velocity(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """Compute the field.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_features)
            Points.
        t : Tensor of shape (n_samples,)
            Times, one for each point.
        context : Tensor of shape (n_samples, n_context), default=None
            What the field depends on besides; ignored by a field that depends on none.

        Returns
        -------
        Tensor of shape (n_samples, n_features)
            The field. Its gradient is one step of autograd's tape, and has no derivative in turn.
        """
        bent, _ = bend(x)
        return self.network.outputs(torch.cat([self._surroundings(t, context), bent], dim=-1))

    def with_trace(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        folded: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the field and the trace of its Jacobian by the point.

        With hidden layers :math:`a_l = \\sigma(W_l a_{l-1} + b_l)`, diagonal matrices :math:`D_l` of the activations'
        derivatives and an output layer :math:`W_{L+1}`, the Jacobian is :math:`W_{L+1} D_L W_L \\cdots D_1 W_1`. The factors
        of a product may be turned round under the trace, so for two hidden layers

        .. math:: \\operatorname{tr}(W_3 D_2 W_2 D_1 W_1) = d_2^\\top \\left(W_2 \\circ (W_1 W_3)^\\top\\right) d_1 ,

        which costs as much as the hidden layer itself, whatever the number of features. More hidden layers take one tangent
        for each feature through all of them.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_features)
            Points.
        t : Tensor of shape (n_samples,) or (1,)
            Times, one for each point or one for all.
        context : Tensor of shape (n_samples, n_context), default=None
            What the field depends on besides; ignored by a field that depends on none.
        noise : Tensor of shape (n_samples, n_features), default=None
            Random signs :math:`\\varepsilon`. With them the trace is Hutchinson's estimate
            :math:`\\varepsilon^\\top J \\varepsilon` instead [1]_ (eq. 7).
        folded : Tensor, default=None
            What ``fold`` gives, where it is known already.

        Returns
        -------
        velocity : Tensor of shape (n_samples, n_features)
            The field.
        trace : Tensor of shape (n_samples,)
            The trace, or its estimate.

        References
        ----------
        .. [1] Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, "FFJORD: Free-form Continuous Dynamics for Scalable
           Reversible Generative Models", ICLR 2019.
        """
        bent, slope = bend(x)
        first, *others = self.network.linear_layers()
        n_around = first.in_features - self.n_features
        # Surroundings that all rows share are a single row.
        around = functional.linear(self._surroundings(t, context), first.weight[:, :n_around], first.bias)
        y = bent @ first.weight[:, n_around:].T + around
        derivatives: list[Tensor] = []
        activation = SMOOTH_ACTIVATIONS[self.network.activation]
        for layer in others:
            a, derivative = activation(y)
            derivatives.append(derivative)
            y = functional.linear(a, layer.weight, layer.bias)
        if noise is not None:
            return y, (noise * self._tangent(noise * slope, derivatives)).sum(dim=-1)
        return y, self._trace(derivatives, slope, self.fold() if folded is None else folded)

    def _jacobian_weights(self) -> tuple[Tensor, list[Tensor]]:
        first, *others = [layer.weight for layer in self.network.linear_layers()]
        return first[:, first.shape[1] - self.n_features :], others

    def fold(self) -> Tensor:
        """Compute what the traces at all points have in common.

        Returns
        -------
        Tensor
            :math:`W_2 \\circ (W_1 W_3)^\\top` where there are two hidden layers; less where there are fewer, and nothing where
            there are more.
        """
        first, others = self._jacobian_weights()
        if not others:
            return first.diagonal().sum()
        if len(others) == 1:
            return (first * others[0].T).sum(dim=1)
        if len(others) == 2:
            return others[0] * (first @ others[1]).T
        return first.new_empty(0)

    def _trace(self, derivatives: list[Tensor], slope: Tensor, folded: Tensor) -> Tensor:
        if len(derivatives) > 2:
            return self._diagonal_sum(slope, derivatives)
        # Where the bent inputs have a slope of one, which is nearly everywhere.
        if not derivatives:
            trace = folded.expand(len(slope))
        elif len(derivatives) == 1:
            trace = derivatives[0] @ folded
        else:
            trace = (derivatives[1] * functional.linear(derivatives[0], folded)).sum(dim=-1)
        bends = (slope != 1).any(dim=-1).nonzero()[:, 0]
        if len(bends):
            corrected = self._diagonal_sum(slope[bends], [derivative[bends] for derivative in derivatives])
            trace = trace.index_copy(0, bends, corrected)
        return trace

    def _tangent(self, tangent: Tensor, derivatives: list[Tensor]) -> Tensor:
        """The Jacobian, without what bends the inputs, times a tangent for each row."""
        first, others = self._jacobian_weights()
        tangent = tangent @ first.T
        for weight, derivative in zip(others, derivatives, strict=True):
            tangent = (tangent * derivative) @ weight.T
        return tangent

    def _diagonal_sum(self, slope: Tensor, derivatives: list[Tensor]) -> Tensor:
        """The sum of the Jacobian's diagonal, each element times a slope."""
        first, others = self._jacobian_weights()
        if not others:
            return slope @ first.diagonal()
        *inner, last = others
        tangents = first.T[:, None, :].expand(-1, len(slope), -1)
        for weight, derivative in zip(inner, derivatives, strict=False):
            tangents = (tangents * derivative) @ weight.T
        diagonal = ((tangents * derivatives[-1]) * last[:, None, :]).sum(dim=-1)
        return (slope * diagonal.T).sum(dim=-1)
