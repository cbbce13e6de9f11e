"""Scalar bijections steered by a network: what coupling and autoregressive layers have in common."""

from __future__ import annotations

from torch import Tensor

from ..nets import Conditioner, split_by_feature
from ._elementwise import Transformer, clip_for_conditioner


def map_conditioned(
    transformer: Transformer,
    conditioner: Conditioner,
    inputs: Tensor,
    context: Tensor | None,
    x: Tensor,
    *,
    inverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Map features by scalar bijections whose parameters a network makes of ``inputs`` and ``context``.

    Parameters
    ----------
    transformer : Transformer
        The scalar bijections.
    conditioner : Conditioner
        The network, with ``transformer.n_parameters`` outputs for each feature of ``x``.
    inputs : Tensor of shape (..., n_samples, n_inputs)
        The features that the network sees.
    context : Tensor of shape (..., n_samples, n_context) or None
        What it sees besides, if it is made to.
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
    outputs = conditioner.outputs(clip_for_conditioner(inputs), None if context is None else clip_for_conditioner(context))
    parameters = split_by_feature(outputs, x.shape[-1], transformer.n_parameters)
    y, log_derivatives = (transformer.inverse if inverse else transformer.forward)(x, parameters)
    return y, log_derivatives.sum(dim=-1)
