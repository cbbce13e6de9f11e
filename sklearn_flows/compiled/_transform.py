"""A composition of transforms on compiled kernels, for answers without gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .._parallel import for_each
from ..transforms import Transform
from ._linear_maps import from_panels, to_panels
from ._product import LANES
from ._program import BACKWARD, FORWARD, MAX_ROWS, check_context, map_forward, map_inverse, prepare, program_of


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
    """

    def __init__(self, transform: Transform, values: Tensor, offsets: dict[int, int], n_features: int, n_threads: int) -> None:
        super().__init__()
        self._parameters_at = values.detach().numpy()
        self._program = program_of(transform, offsets, n_features, self._parameters_at.itemsize)
        self.n_threads = n_threads
        # Memory is used again: fresh memory comes from the system page by page, each filled with zeros first.
        self._spare: list[tuple[np.ndarray, ...]] = []

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As ``Transform.forward``, but without gradients."""
        return self._map(x, context, FORWARD, map_forward)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As ``Transform.inverse``, but without gradients."""
        return self._map(z, context, BACKWARD, map_inverse)

    def _take_memory(self):
        try:
            return self._spare.pop()
        except IndexError:
            program = self._program
            n_states = (len(program.steps) + 1) * program.n_features * MAX_ROWS
            sizes = program.n_context * MAX_ROWS, n_states, MAX_ROWS, program.n_kept, program.n_work
            return tuple(np.empty(size, self._parameters_at.dtype) for size in sizes)

    def _map(self, x, context, purpose, map_panels):
        program = self._program
        program.load(purpose, self._parameters_at.dtype)
        # Each layout of memory would compile kernels of its own.
        rows, parameters = x.detach().contiguous().numpy(), self._parameters_at
        images, log_dets = torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(len(x))
        rows_after, sums = images.numpy(), log_dets.numpy()
        n_features, n_steps = program.n_features, len(program.steps)
        contexts = check_context(context, len(x), program.n_context, parameters.dtype)
        prepared = np.empty(program.n_prepared, parameters.dtype)
        prepare(program.steps, parameters, prepared, n_features)

        def map_block(block):
            part = slice(block * MAX_ROWS, (block + 1) * MAX_ROWS)
            n_panels = -(-len(rows[part]) // LANES)
            memory = given, states, log_det, kept, work = self._take_memory()
            to_panels(rows[part], states)
            to_panels(contexts[part], given)
            log_det[:] = 0
            map_panels(
                *(program.steps, program.numbers, program.bounds, parameters, prepared, given),
                *(states, log_det, kept, work, n_panels, n_features),
            )
            from_panels(states[n_steps * n_features * MAX_ROWS :], rows_after[part])
            sums[part] = log_det[: len(sums[part])]
            self._spare.append(memory)

        for_each(map_block, -(-len(x) // MAX_ROWS), self.n_threads)
        return images, log_dets
