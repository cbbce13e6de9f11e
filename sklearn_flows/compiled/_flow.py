"""Flows on compiled kernels, where these can serve."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..flows import Flow, Rows
from ._trial import tried

if TYPE_CHECKING:
    from ._likelihood import CompiledLikelihood


def compiled_flow(flow: Flow, methods: Sequence[str], point: Sequence[Tensor], n_threads: int) -> Flow:
    """Give the same flow on kernels compiled for the CPU, or itself where they can't serve.

    They give what torch gives, to rounding, in a fraction of the time, but no gradients; and they must be loaded, which takes a
    good part of a second, and the first time on a machine compiled, which takes many. Parameters are those of now.

    Parameters
    ----------
    flow : Flow
        The flow. Kernels serve on the CPU, for the activations and transformers that there are kernels for.
    methods : sequence of str
        What will be asked of the result. The first time in a process that this is asked of a flow of this kind, both answer it
        for a point: where the kernels fail or give something else than torch, a warning says so and torch serves.
    point : sequence of Tensor
        Arguments of the methods: a row, and its context where there is one.
    n_threads : int
        How many threads may share the rows. Answers don't depend on it.

    Returns
    -------
    Flow
        With the same base distribution.
    """
    values, offsets = _copied(flow)
    if not _on_cpu(values, flow):
        return flow

    def compile_it() -> Flow:
        from ._transform import CompiledTransform

        return Flow(CompiledTransform(flow.transform, values, offsets, flow.base.n_features, n_threads), flow.base)

    def answer(flow: Flow) -> Tensor:
        return torch.cat([getattr(flow, method)(*point).flatten() for method in methods])

    # Whether kernels serve depends on the machine and on the kind of the flow, not on its weights.
    result = tried((tuple(methods), values.dtype, repr(flow)), compile_it, answer, lambda: (answer(flow), 0.0))
    return flow if result is None else result


def compiled_likelihood(flow: Flow, parameters: Any, rows: Rows, n_threads: int) -> CompiledLikelihood | None:
    """Give the likelihood of a flow and its gradient on kernels compiled for the CPU, or None where they can't serve.

    Parameters
    ----------
    flow : Flow
        The flow.
    parameters : FlatParameters
        All its parameters as one vector. They are read from there in every call, and get their gradients there.
    rows : Rows
        The one nearest to zero is what it is tried with, as in ``compiled_flow``: far ones have gradients full of rounding. How
        much there is in this one's is told by torch in double precision, and by rows next to it.
    n_threads : int
        How many threads may share the rows. Answers don't depend on it.

    Returns
    -------
    CompiledLikelihood or None
        The likelihood.
    """
    if not _on_cpu(parameters.values, flow):
        return None

    def compile_it() -> CompiledLikelihood:
        from ._likelihood import CompiledLikelihood

        return CompiledLikelihood(flow, parameters.values, parameters.gradients, parameters.offsets, n_threads)

    def nearest() -> Tensor:
        return rows.values.abs().amax(dim=1).argmin(dim=0, keepdim=True)

    def trial(likelihood: CompiledLikelihood) -> Tensor:
        parameters.gradients.zero_()
        likelihood.add_gradient(rows, nearest())
        found = parameters.gradients.to(torch.float64, copy=True)
        parameters.gradients.zero_()
        return found / (1 + found.norm())

    def by_torch(dtype: torch.dtype, shift: Tensor | float = 0.0) -> Tensor:
        copied, row = copy.deepcopy(flow).to(dtype), nearest()
        values, *context = (given.to(dtype) for given in rows.given(row))
        values = values + shift * (1 + values.abs())
        loss = -(rows.weight[row].to(dtype) * copied.log_prob(values, *context)).sum()
        gradients = torch.autograd.grad(loss, list(copied.parameters()), allow_unused=True, materialize_grads=True)
        found = parameters.values.new_zeros(len(parameters.values), dtype=torch.float64)
        for parameter, gradient in zip(flow.parameters(), gradients, strict=True):
            first = parameters.offsets[id(parameter)]
            found[first : first + parameter.numel()] = gradient.flatten()
        return found / (1 + found.norm())

    def expected() -> tuple[Tensor, float]:
        exact = by_torch(torch.float64)
        # On a knot, where two bins have different gradients, it is rounding that chooses the bin, here one and there the other.
        dtype, signs = parameters.values.dtype, torch.tensor([1.0, -1.0]).repeat(rows.values.shape[1])
        shifts = [torch.finfo(dtype).eps * signs[i : i + rows.values.shape[1]] for i in range(2)]
        others = [by_torch(dtype), *(by_torch(torch.float64, shift) for shift in shifts)]
        return exact, max(float((other - exact).abs().max()) for other in others)

    return tried(("gradient", parameters.values.dtype, repr(flow)), compile_it, trial, expected)


def _copied(module: nn.Module) -> tuple[Tensor, dict[int, int]]:
    values, offsets, n = [], {}, 0
    for parameter in module.parameters():
        values.append(parameter.detach().reshape(-1))
        offsets[id(parameter)] = n
        n += parameter.numel()
    return torch.cat(values), offsets


def _on_cpu(values: Tensor, flow: Flow) -> bool:
    return values.device.type == "cpu" and flow.base.n_features > 0
