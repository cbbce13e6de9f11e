"""A composition of transforms as a table of numbers, which compiled functions go through step by step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..nets import FeedForward
from ..transforms import (
    ActNorm,
    Affine,
    Composed,
    Coupling,
    Inverse,
    LULinear,
    MaskedAutoregressive,
    Permutation,
    RationalQuadraticSpline,
    Transform,
)
from ._functions import called_from_python, inner
from ._layers import ELU, RELU, SILU, TANH
from ._product import LANES, TILE_HEIGHT
from ._steps import (
    ACTIVATION,
    AUTOREGRESSIVE,
    BIAS,
    COUPLING,
    FINISH,
    GRADIENT,
    INVERSE_AUTOREGRESSIVE,
    INVERSE_ORDER,
    INVERT,
    IS_AFFINE,
    KEPT,
    LOG_DIAGONAL,
    LOWER,
    LU,
    LU_STAIRS,
    MAP,
    MOVING,
    N_COLUMNS,
    N_CONTEXT,
    N_LAYERS,
    N_MOVING,
    N_RAW,
    N_STAYING,
    ORDER,
    PLACES,
    PREPARE,
    PREPARED,
    RAW_LOG_SCALE,
    REORDER,
    SCALE,
    SHIFT,
    STAIRS,
    STAYING,
    SUMS,
    TABLE,
    UNITS,
    UPPER,
    StepKernels,
    call_finish,
    call_gradient,
    call_map,
    call_preparation,
)
from ._vector import REGISTER_BYTES

Integers = npt.NDArray[np.int64]

ACTIVATIONS = {"relu": RELU, "tanh": TANH, "silu": SILU, "elu": ELU}
# Panels that go through all steps together: their intermediate results stay in the second-level cache, and a batch of 256 rows
# is work for two threads.
MAX_PANELS = 4
MAX_ROWS = MAX_PANELS * LANES

# What a program may be for, and the kernels that it takes.
FORWARD, BACKWARD, TRAINING = (PREPARE, MAP), (INVERT,), (PREPARE, MAP, GRADIENT, FINISH)


class Program(NamedTuple):
    """What compiled functions need to know of a composition of transforms.

    Attributes
    ----------
    steps : ndarray of shape (n_steps, N_COLUMNS)
        A row for each transform.
    kernels : list of StepKernels
        Those of each transform.
    numbers : ndarray of shape (n_numbers,)
        Tables that the steps point to.
    bounds : ndarray of shape (n_steps,)
        Bounds of scalar bijections.
    n_features : int
        Number of features.
    n_context : int
        Number of columns of the context.
    n_kept, n_prepared, n_sums, n_work : int
        Sizes of the memory for what a block of rows keeps for the way back, for what is computed once for all rows, for sums
        over rows that aren't gradients yet, and to work with.
    """

    steps: Integers
    numbers: Integers
    bounds: npt.NDArray[np.float64]
    kernels: list[StepKernels]
    n_features: int
    n_context: int
    n_kept: int
    n_prepared: int
    n_sums: int
    n_work: int

    def load(self, purpose: tuple[int, ...], dtype: np.dtype) -> None:
        """Compile the kernels that a purpose takes, if need be, and write down where they are, in this process.

        Parameters
        ----------
        purpose : FORWARD, BACKWARD or TRAINING
            What the program is for from now on. Other kernels may not be called.
        dtype : dtype
            Precision.
        """
        for step, kernels in zip(self.steps, self.kernels, strict=True):
            for column in purpose:
                kernel = kernels[column]
                if kernel is not None:
                    step[column] = kernel.address(dtype)


class _Writer:
    """Collects the tables of a program."""

    def __init__(self, offsets: dict[int, int], n_features: int, itemsize: int) -> None:
        self.offsets = offsets
        self.n_features = n_features
        self.steps: list[list[int]] = []
        self.kernels: list[StepKernels] = []
        self.numbers: list[int] = []
        self.bounds: list[float] = []
        self.n_context = self.n_kept = self.n_prepared = self.n_sums = 0
        # What gradients of weights need: a tile is twice as wide as a register.
        self.n_work = (MAX_ROWS + TILE_HEIGHT) * 2 * REGISTER_BYTES // itemsize

    def put(self, numbers) -> int:
        """Add a table, and say where it is."""
        place = len(self.numbers)
        self.numbers += np.asarray(numbers, dtype=np.int64).ravel().tolist()
        return place

    def add_step(self, kernels: StepKernels, columns: dict[int, int], n_kept: int, bound: float = 0.0) -> None:
        step = [0] * N_COLUMNS
        step[KEPT] = self.n_kept
        for column, value in columns.items():
            step[column] = int(value)
        self.steps.append(step)
        self.kernels.append(kernels)
        self.bounds.append(float(bound))
        self.n_kept += n_kept

    def write(self, transform: Transform) -> None:
        """Add the steps of a transform."""
        if isinstance(transform, Composed):
            for part in transform.transforms:
                assert isinstance(part, Transform)  # ModuleList forgets the type
                self.write(part)
        elif isinstance(transform, LULinear):
            self._write_lu(transform)
        elif isinstance(transform, ActNorm):
            places = {RAW_LOG_SCALE: self.offsets[id(transform.raw_log_scale)], SHIFT: self.offsets[id(transform.bias)]}
            self.add_step(SCALE, places, 0, transform.log_scale_bound)
        elif isinstance(transform, Permutation):
            orders = {ORDER: self.put(transform.order), INVERSE_ORDER: self.put(transform.inverse_order)}
            self.add_step(REORDER, orders, 0)
        elif (
            isinstance(transform, MaskedAutoregressive | Coupling)
            and isinstance(transform.transformer, Affine | RationalQuadraticSpline)
            and isinstance(transform.conditioner, FeedForward)
            and transform.conditioner.activation in ACTIVATIONS
        ):
            self._write_layer(transform, AUTOREGRESSIVE if isinstance(transform, MaskedAutoregressive) else COUPLING)
        elif (
            isinstance(transform, Inverse)
            and isinstance(transform.transform, MaskedAutoregressive)
            and isinstance(transform.transform.transformer, Affine)
            and transform.transform.conditioner.activation in ACTIVATIONS
        ):
            self._write_layer(transform.transform, INVERSE_AUTOREGRESSIVE)
        else:
            raise NotImplementedError(f"there are no compiled kernels for {transform}")

    def _write_lu(self, transform):
        n = self.n_features
        columns = {
            LOWER: self.offsets[id(transform.lower)],
            UPPER: self.offsets[id(transform.upper)],
            LOG_DIAGONAL: self.offsets[id(transform.log_diagonal)],
            BIAS: self.offsets[id(transform.bias)],
            PREPARED: self.n_prepared,
            SUMS: self.n_sums,
            LU_STAIRS: self.put([n] * n + [0] * n),
        }
        self.add_step(LU, columns, n * MAX_ROWS)
        self.n_prepared += 2 * n * n + n + 1
        self.n_sums += n * n + 1
        self.n_work = max(self.n_work, 3 * n * n)

    def _write_layer(self, transform, kernels):
        conditioner, transformer = transform.conditioner, transform.transformer
        is_affine = isinstance(transformer, Affine)
        if kernels is not COUPLING:
            staying = moving = np.arange(self.n_features)
            units = self.put(conditioner.n_units_up_to)
        else:
            staying, moving, units = transform.staying.numpy(), transform.moving.numpy(), 0
        table, stairs = [], []
        for layer in conditioner.layers:
            n_out, n_in = layer.weight.shape
            seen_by = np.searchsorted(layer.n_seen, np.arange(n_in), side="right")
            places = [self.offsets[id(layer.weight)], self.offsets[id(layer.bias)]]
            table.append([*places, n_in, n_out, len(stairs), len(stairs) + n_out])
            stairs += [*layer.n_seen, *seen_by]
        widths_in, widths_out = [row[2] for row in table], [row[3] for row in table]
        # Inputs, of each hidden layer activations and their derivatives, and raw parameters.
        sizes = [conditioner.n_context + len(staying), *(width for width in widths_out[:-1] for _ in range(2)), widths_out[-1]]
        ends = np.cumsum(sizes) * MAX_ROWS
        columns = {
            TABLE: self.put(table),
            N_LAYERS: len(table),
            STAIRS: self.put(stairs),
            PLACES: self.put([0, *ends[:-1]]),
            STAYING: self.put(staying),
            N_STAYING: len(staying),
            MOVING: self.put(moving),
            N_MOVING: len(moving),
            UNITS: units,
            ACTIVATION: ACTIVATIONS[conditioner.activation],
            IS_AFFINE: is_affine,
            N_RAW: transformer.n_parameters,
            N_CONTEXT: conditioner.n_context,
        }
        self.n_context = max(self.n_context, conditioner.n_context)
        bound = transformer.log_scale_bound if is_affine else transformer.tail_bound
        self.add_step(kernels, columns, int(ends[-1]), bound)
        self.n_work = max(self.n_work, LANES * max(widths_in), transformer.n_parameters * REGISTER_BYTES // 4)


def program_of(transform: Transform, offsets: dict[int, int], n_features: int, itemsize: int) -> Program:
    """Write a transform as a program, which can then be loaded.

    Parameters
    ----------
    transform : Transform
        The transform, on the CPU.
    offsets : dict
        For the ``id`` of each parameter its place in the vector of all.
    n_features : int
        Number of features.
    itemsize : int
        Bytes of a number.

    Returns
    -------
    Program
        The program.

    Raises
    ------
    NotImplementedError
        If there are no kernels for one of its parts.
    """
    writer = _Writer(offsets, n_features, itemsize)
    writer.write(transform)
    return Program(
        np.array(writer.steps, dtype=np.int64).reshape(-1, N_COLUMNS),
        np.array(writer.numbers, dtype=np.int64),
        np.array(writer.bounds),
        writer.kernels,
        n_features,
        writer.n_context,
        writer.n_kept,
        writer.n_prepared,
        writer.n_sums,
        writer.n_work,
    )


def check_context(context: Tensor | None, n_rows: int, n_context: int, dtype: np.dtype) -> npt.NDArray[np.floating]:
    """Give the context of rows as kernels want it, of no columns where there is none."""
    if n_context == 0:
        return np.empty((n_rows, 0), dtype)
    if context is None or context.shape != (n_rows, n_context):
        raise ValueError(
            f"The context must have the shape {(n_rows, n_context)}, but it is {context if context is None else context.shape}."
        )
    if context.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError("compiled kernels have no gradients with respect to the context")
    return np.ascontiguousarray(context.detach().numpy(), dtype=dtype)


@called_from_python
def prepare(steps, parameters, prepared, n_features):
    """Compute what is the same for all rows."""
    for i in range(len(steps)):
        if steps[i, PREPARE] != 0:
            call_preparation(steps[i, PREPARE], steps[i], parameters, prepared, n_features)


@called_from_python
def map_forward(steps, numbers, bounds, parameters, prepared, context, states, log_det, kept, work, n_panels, n_features):
    """Take the first of ``states``, panels of rows, through all steps, given their context; ``log_det`` is added to."""
    size = n_features * MAX_ROWS
    for i in range(len(steps)):
        x, z = states[i * size : (i + 1) * size], states[(i + 1) * size : (i + 2) * size]
        call_map(
            *(steps[i, MAP], steps[i], numbers, bounds[i], parameters, prepared),
            *(context, x, z, log_det, kept, work, n_panels, n_features),
        )


@called_from_python
def map_inverse(steps, numbers, bounds, parameters, prepared, context, states, log_det, kept, work, n_panels, n_features):
    """Take the first of ``states`` through all steps in the other direction; ``log_det`` is added to."""
    size = n_features * MAX_ROWS
    for k in range(len(steps)):
        i = len(steps) - 1 - k
        z, x = states[k * size : (k + 1) * size], states[(k + 1) * size : (k + 2) * size]
        call_map(
            *(steps[i, INVERT], steps[i], numbers, bounds[i], parameters, prepared),
            *(context, z, x, log_det, kept, work, n_panels, n_features),
        )


@inner
def go_back(
    steps, numbers, bounds, parameters, prepared,
    states, gradient, spare, log_gradient, kept, work, out, sums, n_panels, n_features,
):  # fmt: skip
    """Carry gradients back through ``map_forward``.

    ``gradient``, with respect to the last of the states, serves as memory, as ``spare`` does; ``log_gradient`` is that with
    respect to the log-determinants. What the rows give to the gradients of the parameters is added to ``out`` and ``sums``.
    """
    size = n_features * MAX_ROWS
    for i in range(len(steps) - 1, -1, -1):
        is_in_spare = call_gradient(
            *(steps[i, GRADIENT], steps[i], numbers, bounds[i], parameters, prepared),
            *(states[i * size : (i + 1) * size], gradient, spare, log_gradient, kept, work, out, sums),
            *(n_panels, n_features),
        )
        if is_in_spare:
            gradient, spare = spare, gradient


@called_from_python
def finish_gradient(steps, parameters, prepared, sums, work, out, n_features):
    """Add to ``out`` what follows from sums over all rows."""
    for i in range(len(steps)):
        if steps[i, FINISH] != 0:
            call_finish(steps[i, FINISH], steps[i], parameters, prepared, sums, work, out, n_features)
