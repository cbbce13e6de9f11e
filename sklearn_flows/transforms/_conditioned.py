"""Scalar bijections steered by a network: what coupling and autoregressive layers have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..nets import FeedForward, split_by_feature
from ._compiled import compiled_layer
from ._elementwise import Transformer, clip_for_conditioner

if TYPE_CHECKING:
    from ._compiled_layer import CompiledLayer


def map_conditioned(
    transformer: Transformer, conditioner: FeedForward, inputs: Tensor, x: Tensor, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """Map features by scalar bijections whose parameters a network makes of ``inputs``.

    Parameters
    ----------
    transformer : Transformer
        The scalar bijections.
    conditioner : FeedForward
        The network, with ``transformer.n_parameters`` outputs for each feature of ``x``.
    inputs : Tensor of shape (..., n_samples, n_inputs)
        What the network sees.
    x : Tensor of shape (..., n_samples, n_features)
        What is mapped.
    inverse : bool, default=False
        Whether to map towards the data.

    Returns
    -------
    y : Tensor of shape (..., n_samples, n_features)
        The images.
    log_det : Tensor of shape (..., n_samples)
        Sum of the logarithms of the derivatives.
    """
    layer = compiled_layer(transformer, conditioner, x, differentiable=not inverse)
    if layer is None:
        outputs = conditioner.outputs(clip_for_conditioner(inputs))
        parameters = split_by_feature(outputs, x.shape[-1], transformer.n_parameters)
        y, log_derivatives = (transformer.inverse if inverse else transformer.forward)(x, parameters)
        return y, log_derivatives.sum(dim=-1)
    if inverse:
        y, log_det, _ = layer.forward(inputs, x, conditioner.parameter_list(), inverse=True)
        return y, log_det
    result: tuple[Tensor, Tensor] = _ConditionedMap.apply(inputs, x, layer, *conditioner.parameter_list())
    return result


class _ConditionedMap(torch.autograd.Function):
    """A compiled layer as one step of the tape."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, x: Tensor, layer: CompiledLayer, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det, kept = layer.forward(inputs, x, parameters)
        ctx.layer = layer
        ctx.save_for_backward(inputs, x, *parameters, *kept)
        ctx.n_parameters = len(parameters)
        return z, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        inputs, x, *saved = ctx.saved_tensors
        parameters, kept = saved[: ctx.n_parameters], saved[ctx.n_parameters :]
        g_inputs, g_x, g_parameters = ctx.layer.backward(inputs, x, parameters, kept, *gradients)
        return (g_inputs, g_x, None, *g_parameters)
