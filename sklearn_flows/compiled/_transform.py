"""A composition of transforms on compiled kernels, as one step of autograd's tape."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..transforms import (
    Affine,
    Composed,
    Coupling,
    LULinear,
    MaskedAutoregressive,
    Permutation,
    RationalQuadraticSpline,
    Transform,
)
from ..transforms._elementwise import CONDITIONER_BOUND
from ._layers import ELU, RELU, SILU, TANH, add_layer_gradient, invert_autoregressive, layer_gradient, map_by_layer
from ._linear_maps import (
    add_lu_gradient,
    finish_lu_gradient,
    from_panels,
    invert_lu,
    lu_gradient,
    map_by_lu,
    prepare_lu,
    reorder,
    to_panels,
)
from ._product import LANES, TILE_HEIGHT
from ._threads import for_each
from ._vector import REGISTER_BYTES

ACTIVATIONS = {"relu": RELU, "tanh": TANH, "silu": SILU, "elu": ELU}
# Panels that go through all layers together: their intermediate results stay in the second-level cache.
MAX_PANELS = 8
MAX_ROWS = MAX_PANELS * LANES


class _Step:
    """One transform on kernels: ``forward``, ``backward`` and ``inverse``, and what concerns parameters, where it has any."""

    n_kept = n_work = 0  # numbers to keep of a block of rows, and to work with
    n_context = 0  # columns of the context that it needs

    def prepare(self, parameters):
        """What is computed once for all rows."""

    def add_gradient(self, prepared, x, log_gradient, kept, work, n_panels, out):
        """Add what a block of rows gives to the gradients of the parameters."""

    def finish_gradient(self, parameters, prepared, out):
        """Add what is computed once for all rows."""


class _LU(_Step):
    """Steps through an ``LULinear``."""

    def __init__(self, transform, offsets):
        self.n = n = len(transform.bias)
        parameters = (transform.lower, transform.upper, transform.log_diagonal, transform.bias)
        *self.factors, self.bias = (offsets[id(parameter)] for parameter in parameters)
        self.stairs = np.array([n] * n + [0] * n)
        self.n_kept = n * MAX_ROWS

    def prepare(self, parameters):
        prepared = np.empty(6 * self.n**2 + self.n + 2, parameters.dtype)
        prepare_lu(parameters, *self.factors, self.bias, self.n, prepared)
        return prepared

    def forward(self, parameters, prepared, context, x, z, log_det, kept, work, n_panels):
        map_by_lu(prepared, self.stairs, x, z, log_det, n_panels, self.n)

    def backward(self, parameters, prepared, x, gradient, spare, log_gradient, kept, work, n_panels):
        lu_gradient(prepared, self.stairs, gradient, spare, kept, n_panels, self.n)
        return spare, gradient

    def add_gradient(self, prepared, x, log_gradient, kept, work, n_panels, out):
        add_lu_gradient(prepared, self.stairs, x, kept, log_gradient, n_panels, self.n, work, out, self.bias)

    def finish_gradient(self, parameters, prepared, out):
        finish_lu_gradient(parameters, *self.factors, self.n, prepared, out)

    def inverse(self, parameters, prepared, context, z, x, log_det, kept, work, n_panels):
        invert_lu(parameters, *self.factors, self.bias, z, x, log_det, n_panels, self.n)


class _Reorder(_Step):
    """Steps through a ``Permutation``."""

    def __init__(self, transform, offsets):
        self.order, self.inverse_order = transform.order.numpy(), transform.inverse_order.numpy()

    def forward(self, parameters, prepared, context, x, z, log_det, kept, work, n_panels):
        reorder(x, self.order, z, n_panels, len(self.order))

    def backward(self, parameters, prepared, x, gradient, spare, log_gradient, kept, work, n_panels):
        reorder(gradient, self.inverse_order, spare, n_panels, len(self.order))
        return spare, gradient

    def inverse(self, parameters, prepared, context, z, x, log_det, kept, work, n_panels):
        reorder(z, self.inverse_order, x, n_panels, len(self.order))


class _Layer(_Step):
    """Steps through a coupling or an autoregressive layer."""

    def __init__(self, transform, offsets):
        conditioner, transformer = transform.conditioner, transform.transformer
        self.is_affine = isinstance(transformer, Affine)
        # A float: integers would compile kernels of their own.
        self.bound = float(transformer.log_scale_bound if self.is_affine else transformer.tail_bound)
        self.n_parameters = transformer.n_parameters
        self.is_autoregressive = isinstance(transform, MaskedAutoregressive)
        if self.is_autoregressive:
            self.n = conditioner.n_features
            self.staying = self.moving = np.arange(self.n)
            self.units_up_to = np.array(conditioner.n_units_up_to, dtype=np.int64).reshape(-1, self.n)
        else:
            self.staying, self.moving = transform.staying.numpy(), transform.moving.numpy()
            self.n = len(self.staying) + len(self.moving)
        self.n_context = conditioner.n_context
        self.activation = ACTIVATIONS[conditioner.activation]
        table, stairs = [], []
        for layer in conditioner.layers:
            n_out, n_in = layer.weight.shape
            seen_by = np.searchsorted(layer.n_seen, np.arange(n_in), side="right")
            table.append([offsets[id(layer.weight)], offsets[id(layer.bias)], n_in, n_out, len(stairs), len(stairs) + n_out])
            stairs += [*layer.n_seen, *seen_by]
        self.table, self.stairs = np.array(table, dtype=np.int64), np.array(stairs, dtype=np.int64)
        *hidden, n_raw = self.table[:, 3]
        sizes = [self.n_context + len(self.staying), *(width for width in hidden for _ in range(2)), n_raw]
        ends = np.cumsum(sizes) * MAX_ROWS
        self.places, self.n_kept = np.array([0, *ends[:-1]], dtype=np.int64), int(ends[-1])
        self.n_work = max(LANES * max(self.table[:, 2]), self.n_parameters * REGISTER_BYTES // 4)

    def forward(self, parameters, prepared, context, x, z, log_det, kept, work, n_panels, inverse=False):
        map_by_layer(
            *(parameters, self.table, self.stairs, self.staying, self.moving, self.activation, CONDITIONER_BOUND),
            *(self.is_affine, self.n_parameters, self.bound, inverse, context, self.n_context, x, z, log_det, kept),
            *(self.places, work, n_panels, self.n),
        )

    def backward(self, parameters, prepared, x, gradient, spare, log_gradient, kept, work, n_panels):
        layer_gradient(
            *(parameters, self.table, self.stairs, self.staying, self.moving, CONDITIONER_BOUND, self.is_affine),
            *(self.n_parameters, self.bound, self.n_context, x, gradient, log_gradient, kept, self.places, work),
            *(n_panels, self.n),
        )
        return gradient, spare

    def add_gradient(self, prepared, x, log_gradient, kept, work, n_panels, out):
        add_layer_gradient(self.table, self.stairs, kept, self.places, work, n_panels, out)

    def inverse(self, parameters, prepared, context, z, x, log_det, kept, work, n_panels):
        if not self.is_autoregressive:
            self.forward(parameters, prepared, context, z, x, log_det, kept, work, n_panels, inverse=True)
            return
        invert_autoregressive(
            *(parameters, self.table, self.stairs, self.units_up_to, self.staying, self.activation, CONDITIONER_BOUND),
            *(self.is_affine, self.n_parameters, self.bound, context, self.n_context, z, x, log_det, kept, self.places),
            *(work, n_panels, self.n),
        )


def _steps_for(transform, offsets):
    """Steps through a transform, or None where there are none for one of its parts."""
    if isinstance(transform, Composed):
        parts = [_steps_for(part, offsets) for part in transform.transforms]
        return None if None in parts else [step for part in parts for step in part]
    if isinstance(transform, LULinear):
        return [_LU(transform, offsets)]
    if isinstance(transform, Permutation):
        return [_Reorder(transform, offsets)]
    if isinstance(transform, MaskedAutoregressive | Coupling):
        known = isinstance(transform.transformer, Affine | RationalQuadraticSpline)
        if known and transform.conditioner.activation in ACTIVATIONS:
            return [_Layer(transform, offsets)]
    return None


class _Tape(NamedTuple):
    """What a block of rows leaves behind on its way through all steps."""

    states: list[Any]  # the rows before each step and after the last one
    kept: list[Any]  # what each step keeps
    context: Any
    log_det: Any
    log_gradient: Any


class CompiledTransform(Transform):
    """A composition of transforms on compiled kernels.

    Parameters
    ----------
    transform : Transform
        What to compile, on the CPU.
    values : Tensor of shape (n_parameters,)
        All its parameters as one vector, from which they are read in every call.
    offsets : dict
        For the ``id`` of each parameter its place in ``values``.
    n_features : int
        Number of features.
    n_threads : int
        How many threads may share the rows; answers don't depend on it.
    gradients : Tensor of shape (n_parameters,), default=None
        What gradients with respect to ``values`` are added to in every way back, without a copy. None means that autograd gets
        them.
    """

    def __init__(
        self,
        transform: Transform,
        values: Tensor,
        offsets: dict[int, int],
        n_features: int,
        n_threads: int,
        gradients: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.values = values
        self.gradients = gradients
        self.n_features = n_features
        self.n_threads = n_threads
        self._steps = _steps_for(transform, offsets)
        if self._steps is None:
            raise NotImplementedError(f"there are no compiled kernels for {transform}")
        self._n_context = max([0, *(step.n_context for step in self._steps)])
        self._tapes: list[_Tape] = []
        self._dtype = values.detach().numpy().dtype
        # What steps need of it, and what gradients of weights do: a tile is twice as wide as a register.
        self._n_work = (MAX_ROWS + TILE_HEIGHT) * 2 * REGISTER_BYTES // self._dtype.itemsize
        self._n_work += max([0, *(step.n_work for step in self._steps)])

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As ``Transform.forward``, differentiable in ``x`` and in ``values``, but not in ``context``."""
        context = self._check_context(x, context)
        if torch.is_grad_enabled() and (x.requires_grad or self.values.requires_grad):
            result: tuple[Tensor, Tensor] = _ForwardMap.apply(x, context, self.values, self)
            return result
        z, log_det, _ = self._map(x, context, self.values, inverse=False, keep=False)
        return z, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As ``Transform.inverse``, but without gradients."""
        if torch.is_grad_enabled() and (z.requires_grad or self.values.requires_grad):
            raise NotImplementedError("the compiled inverse has no gradients: call it under torch.no_grad()")
        x, log_det, _ = self._map(z, self._check_context(z, context), self.values, inverse=True, keep=False)
        return x, log_det

    def _check_context(self, rows: Tensor, context: Tensor | None) -> Tensor:
        if not self._n_context:
            return rows.new_empty(len(rows), 0)
        shape = (len(rows), self._n_context)
        if context is None or context.shape != shape:
            raise ValueError(
                f"The context must have the shape {shape}, but it is {context if context is None else context.shape}."
            )
        if context.requires_grad:
            raise NotImplementedError("compiled kernels have no gradients with respect to the context")
        return context

    def _empty(self, n):
        return np.empty(n, self._dtype)

    def _take_tape(self):
        # Memory is used again: fresh memory comes from the system page by page, each filled with zeros first.
        try:
            return self._tapes.pop()
        except IndexError:
            n = self.n_features * MAX_ROWS
            states = [self._empty(n) for _ in range(len(self._steps) + 1)]
            kept = [self._empty(step.n_kept) for step in self._steps]
            return _Tape(states, kept, *(self._empty(n) for n in (self._n_context * MAX_ROWS, MAX_ROWS, MAX_ROWS)))

    def _map(self, x, context, values, *, inverse, keep):
        """Map rows in blocks. Returns images, log-determinants and, if they are to be kept, what ``_gradients`` needs."""
        # Each layout of memory would compile kernels of its own.
        rows, parameters = x.detach().contiguous().numpy(), values.detach().numpy()
        contexts = context.to(x.dtype).contiguous().numpy()
        images, log_dets = torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(len(x))
        rows_after, sums = images.numpy(), log_dets.numpy()
        steps = list(enumerate(self._steps))
        if inverse:
            steps.reverse()
        prepared = [step.prepare(parameters) for step in self._steps]
        n_blocks = -(-len(x) // MAX_ROWS)
        tapes = [None] * n_blocks

        def map_block(block):
            part = slice(block * MAX_ROWS, (block + 1) * MAX_ROWS)
            n_panels = -(-len(rows[part]) // LANES)
            tape, work = self._take_tape(), self._empty(self._n_work)
            states = tape.states
            to_panels(rows[part], states[0])
            to_panels(contexts[part], tape.context)
            tape.log_det[:] = 0
            for k, (i, step) in enumerate(steps):
                method = step.inverse if inverse else step.forward
                method(
                    *(parameters, prepared[i], tape.context, states[k], states[k + 1], tape.log_det, tape.kept[i], work),
                    n_panels,
                )
            from_panels(states[len(steps)], rows_after[part])
            sums[part] = tape.log_det[: len(sums[part])]
            if keep:
                tapes[block] = tape
            else:
                self._tapes.append(tape)

        for_each(map_block, n_blocks, self.n_threads)
        return images, log_dets, (prepared, tapes)

    def _gradients(self, values, left_behind, g_images, g_log_dets, needs_x_gradient, g_values):
        """Gradients with respect to the rows, where they are needed; those with respect to the parameters are added up."""
        prepared, tapes = left_behind
        g_rows = torch.empty_like(g_images, memory_format=torch.contiguous_format) if needs_x_gradient else None
        g_x = None if g_rows is None else g_rows.numpy()
        g_y, g_log_det = g_images.contiguous().numpy(), g_log_dets.contiguous().numpy()
        parameters, out = values.detach().numpy(), g_values.numpy()
        in_threads = self.n_threads > 1 and len(tapes) > 1

        def panels_of(block):
            return -(-min(MAX_ROWS, len(g_y) - block * MAX_ROWS) // LANES)

        def add_gradient(i, block, work):
            tape, step = tapes[block], self._steps[i]
            step.add_gradient(prepared[i], tape.states[i], tape.log_gradient, tape.kept[i], work, panels_of(block), out)

        def go_back(block):
            part = slice(block * MAX_ROWS, (block + 1) * MAX_ROWS)
            tape, work, n_panels = tapes[block], self._empty(self._n_work), panels_of(block)
            gradient, spare = (self._empty(self.n_features * MAX_ROWS) for _ in range(2))
            to_panels(g_y[part], gradient)
            n_rows = len(g_y[part])
            tape.log_gradient[:n_rows], tape.log_gradient[n_rows:] = g_log_det[part], 0
            for i, step in reversed(list(enumerate(self._steps))):
                gradient, spare = step.backward(
                    *(parameters, prepared[i], tape.states[i], gradient, spare),
                    *(tape.log_gradient, tape.kept[i], work, n_panels),
                )
                if not in_threads:
                    add_gradient(i, block, work)
            if g_x is not None:
                from_panels(gradient, g_x[part])

        def add_gradients_of_step(i):
            work = self._empty(self._n_work)
            for block in range(len(tapes)):
                add_gradient(i, block, work)

        # The gradient of each parameter is summed over the blocks in their order, whoever computes it.
        for_each(go_back, len(tapes), self.n_threads)
        if in_threads:
            for_each(add_gradients_of_step, len(self._steps), self.n_threads)
        for i, step in enumerate(self._steps):
            step.finish_gradient(parameters, prepared[i], out)
        self._tapes.extend(tapes)
        return g_rows


class _ForwardMap(torch.autograd.Function):
    """All transforms as one step of the tape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, context: Tensor, values: Tensor, compiled: CompiledTransform) -> tuple[Tensor, Tensor]:
        y, log_det, ctx.left_behind = compiled._map(x, context, values, inverse=False, keep=True)
        ctx.compiled = compiled
        ctx.save_for_backward(x, context, values)
        return y, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, context, values = ctx.saved_tensors
        left_behind, ctx.left_behind = ctx.left_behind, None
        if left_behind is None:  # the way back overwrites it; with retain_graph there may be another one
            _, _, left_behind = ctx.compiled._map(x, context, values, inverse=False, keep=True)
        added_in_place = ctx.compiled.gradients is not None
        g_values = ctx.compiled.gradients if added_in_place else torch.zeros_like(values)
        g_x = ctx.compiled._gradients(values, left_behind, *gradients, ctx.needs_input_grad[0], g_values)
        return g_x, None, None if added_in_place else g_values, None
