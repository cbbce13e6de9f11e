"""A composition of transforms on compiled kernels, as one step of autograd's tape."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..nets import MADE
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
from ._layers import ELU, RELU, SILU, TANH, invert_autoregressive, layer_gradient, map_by_layer
from ._linear_maps import from_panels, invert_lu, lu_gradient, map_by_lu, reorder, to_panels
from ._product import LANES, TILE_HEIGHT
from ._vector import REGISTER_BYTES

ACTIVATIONS = {"relu": RELU, "tanh": TANH, "silu": SILU, "elu": ELU}
# Panels that go through all layers together: their intermediate results stay in the second-level cache.
MAX_PANELS = 8
MAX_ROWS = MAX_PANELS * LANES


class _LU:
    """Steps through an ``LULinear``."""

    def __init__(self, transform, offsets):
        self.n = n = len(transform.bias)
        parameters = (transform.lower, transform.upper, transform.log_diagonal, transform.bias)
        self.places = tuple(offsets[id(parameter)] for parameter in parameters)
        self.stairs = np.array([n] * n + [0] * n)
        self.n_kept = n * n + n
        self.n_work = 0

    def forward(self, parameters, x, z, log_det, kept, work, n_panels):
        map_by_lu(parameters, *self.places, self.stairs, x, z, log_det, kept, n_panels, self.n)

    def backward(self, parameters, x, gradient, spare, log_gradient, kept, work, n_panels, out, needs_x_gradient):
        lu_gradient(
            *(parameters, *self.places, self.stairs, x, gradient, spare, log_gradient),
            *(kept, n_panels, self.n, needs_x_gradient, work, out),
        )
        return spare, gradient

    def inverse(self, parameters, z, x, log_det, kept, work, n_panels):
        invert_lu(parameters, *self.places, z, x, log_det, n_panels, self.n)


class _Reorder:
    """Steps through a ``Permutation``."""

    n_kept = n_work = 0

    def __init__(self, transform, offsets):
        self.order, self.inverse_order = transform.order.numpy(), transform.inverse_order.numpy()

    def forward(self, parameters, x, z, log_det, kept, work, n_panels):
        reorder(x, self.order, z, n_panels, len(self.order))

    def backward(self, parameters, x, gradient, spare, log_gradient, kept, work, n_panels, out, needs_x_gradient):
        reorder(gradient, self.inverse_order, spare, n_panels, len(self.order))
        return spare, gradient

    def inverse(self, parameters, z, x, log_det, kept, work, n_panels):
        reorder(z, self.inverse_order, x, n_panels, len(self.order))


class _Layer:
    """Steps through a coupling or an autoregressive layer."""

    def __init__(self, transform, offsets):
        conditioner, transformer = transform.conditioner, transform.transformer
        self.is_affine = isinstance(transformer, Affine)
        self.bound = transformer.log_scale_bound if self.is_affine else transformer.tail_bound
        self.n_parameters = transformer.n_parameters
        self.is_autoregressive = isinstance(transform, MaskedAutoregressive)
        if self.is_autoregressive:
            self.n = conditioner.n_features
            self.staying = self.moving = np.arange(self.n)
            self.units_up_to = np.array(conditioner.n_units_up_to, dtype=np.int64).reshape(-1, self.n)
        else:
            self.staying, self.moving = transform.staying.numpy(), transform.moving.numpy()
            self.n = len(self.staying) + len(self.moving)
        self.activation = ACTIVATIONS[conditioner.activation]
        table, stairs = [], []
        for layer in conditioner.layers:
            n_out, n_in = layer.weight.shape
            seen_by = np.searchsorted(layer.n_seen, np.arange(n_in), side="right")
            table.append([offsets[id(layer.weight)], offsets[id(layer.bias)], n_in, n_out, len(stairs), len(stairs) + n_out])
            stairs += [*layer.n_seen, *seen_by]
        self.table, self.stairs = np.array(table, dtype=np.int64), np.array(stairs, dtype=np.int64)
        *hidden, n_raw = self.table[:, 3]
        sizes = [len(self.staying), *(width for width in hidden for _ in range(2)), n_raw]
        ends = np.cumsum(sizes) * MAX_ROWS
        self.places, self.n_kept = np.array([0, *ends[:-1]], dtype=np.int64), int(ends[-1])
        self.n_work = max(LANES * max(self.table[:, 2]), self.n_parameters * REGISTER_BYTES // 4)

    def forward(self, parameters, x, z, log_det, kept, work, n_panels, inverse=False):
        map_by_layer(
            *(parameters, self.table, self.stairs, self.staying, self.moving, self.activation, CONDITIONER_BOUND),
            *(self.is_affine, self.n_parameters, self.bound, inverse, x, z, log_det, kept, self.places, work),
            *(n_panels, self.n),
        )

    def backward(self, parameters, x, gradient, spare, log_gradient, kept, work, n_panels, out, needs_x_gradient):
        layer_gradient(
            *(parameters, self.table, self.stairs, self.staying, self.moving, CONDITIONER_BOUND, self.is_affine),
            *(self.n_parameters, self.bound, x, gradient, log_gradient, kept, self.places, work, n_panels, self.n, out),
        )
        return gradient, spare

    def inverse(self, parameters, z, x, log_det, kept, work, n_panels):
        if not self.is_autoregressive:
            self.forward(parameters, z, x, log_det, kept, work, n_panels, inverse=True)
            return
        invert_autoregressive(
            *(parameters, self.table, self.stairs, self.units_up_to, self.activation, CONDITIONER_BOUND),
            *(self.is_affine, self.n_parameters, self.bound, z, x, log_det, kept, self.places, work, n_panels, self.n),
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

    values: list[Any]  # the rows before each step and after the last one
    kept: list[Any]  # what each step keeps
    log_det: Any


class CompiledTransform:
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
    """

    def __init__(self, transform: Transform, values: Tensor, offsets: dict[int, int], n_features: int) -> None:
        self.values = values
        self.n_features = n_features
        self._steps = _steps_for(transform, offsets)
        if self._steps is None:
            raise NotImplementedError(f"there are no compiled kernels for {transform}")
        self._tapes: list[_Tape] = []
        self._dtype = values.detach().numpy().dtype
        # A tile may be twice as wide as a register.
        n_work = (MAX_ROWS + TILE_HEIGHT) * 2 * REGISTER_BYTES // self._dtype.itemsize
        self._n_work = max([n_work, *(step.n_work for step in self._steps)])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Transform.forward``, differentiable in ``x`` and in ``values``."""
        result: tuple[Tensor, Tensor] = _ForwardMap.apply(x, self.values, self)
        return result

    @torch.no_grad()
    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Transform.inverse``, but not differentiable."""
        x, log_det = torch.empty_like(z), z.new_empty(len(z))
        self._map(z.numpy(), self.values.detach().numpy(), x.numpy(), log_det.numpy(), inverse=True, keep=False)
        return x, log_det

    def _empty(self, n):
        return np.empty(n, self._dtype)

    def _take_tape(self):
        # Memory is used again: fresh memory comes from the system page by page, each filled with zeros first.
        try:
            return self._tapes.pop()
        except IndexError:
            n = self.n_features * MAX_ROWS
            values = [self._empty(n) for _ in range(len(self._steps) + 1)]
            return _Tape(values, [self._empty(step.n_kept) for step in self._steps], self._empty(MAX_ROWS))

    def _map(self, x, parameters, y, log_det, *, inverse, keep):
        """Map rows in blocks; returns the tape of each block if they are to be kept."""
        tapes, work = [], self._empty(self._n_work)
        steps = list(enumerate(self._steps))
        for first in range(0, len(x), MAX_ROWS):
            rows = slice(first, min(first + MAX_ROWS, len(x)))
            n_panels = -(-(rows.stop - first) // LANES)
            tape = self._take_tape()
            values = tape.values
            to_panels(x[rows], values[0])
            tape.log_det[:] = 0
            for k, (i, step) in enumerate(reversed(steps) if inverse else steps):
                method = step.inverse if inverse else step.forward
                method(parameters, values[k], values[k + 1], tape.log_det, tape.kept[i], work, n_panels)
            from_panels(values[len(steps)], y[rows])
            log_det[rows] = tape.log_det[: rows.stop - first]
            if keep:
                tapes.append(tape)
            else:
                self._tapes.append(tape)
        return tapes

    def _gradients(self, parameters, tapes, g_y, g_log_det, g_x, g_parameters):
        work = self._empty(self._n_work)
        gradient, spare = (self._empty(self.n_features * MAX_ROWS) for _ in range(2))
        log_gradient = self._empty(MAX_ROWS)
        for block, tape in enumerate(tapes):
            rows = slice(block * MAX_ROWS, min((block + 1) * MAX_ROWS, len(g_y)))
            n_rows = rows.stop - rows.start
            n_panels = -(-n_rows // LANES)
            to_panels(g_y[rows], gradient)
            log_gradient[:n_rows], log_gradient[n_rows:] = g_log_det[rows], 0
            for i, step in reversed(list(enumerate(self._steps))):
                gradient, spare = step.backward(
                    *(parameters, tape.values[i], gradient, spare, log_gradient, tape.kept[i], work, n_panels, g_parameters),
                    i > 0 or g_x is not None,
                )
            if g_x is not None:
                from_panels(gradient, g_x[rows])
        self._tapes.extend(tapes)


class _ForwardMap(torch.autograd.Function):
    """All transforms as one step of the tape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, compiled: CompiledTransform) -> tuple[Tensor, Tensor]:
        y, log_det = torch.empty_like(x), x.new_empty(len(x))
        keep = any(ctx.needs_input_grad)
        ctx.tapes = compiled._map(x.numpy(), values.numpy(), y.numpy(), log_det.numpy(), inverse=False, keep=keep)
        ctx.compiled = compiled
        ctx.save_for_backward(values)
        return y, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        g_y, g_log_det = gradients
        (values,) = ctx.saved_tensors
        g_values = torch.zeros_like(values)
        g_x = torch.empty_like(g_y) if ctx.needs_input_grad[0] else None
        tapes, ctx.tapes = ctx.tapes, None
        ctx.compiled._gradients(
            *(values.numpy(), tapes, g_y.numpy(), g_log_det.contiguous().numpy()),
            *(None if g_x is None else g_x.numpy(), g_values.numpy()),
        )
        return g_x, g_values, None
