"""The likelihood of rows under a flow and its gradient, on compiled kernels: what training computes in each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .._parallel import for_each
from ..flows import Flow, Rows
from ._distributions import call_log_density, describe_base
from ._functions import called_from_python, inner
from ._optimiser import address_of_step, call_step, factor_of_clipped
from ._product import LANES
from ._program import MAX_ROWS, TRAINING, check_context, finish_gradient, go_back, map_forward, prepare, program_of
from ._team import (
    dismiss,
    new_team,
    open_tasks,
    take_task,
    tell_that_one_is_done,
    wait_for_a_task,
    wait_until_all_are_done,
)

Array = npt.NDArray[np.floating]


# Blocks that even a batch of a single one's size is shared by, unless it has few rows.
N_BLOCKS_OF_SMALL_BATCH = 2
# Parts of the parameters that take a step each, in any thread.
N_PARTS_OF_STEP = 8


class _Memory(NamedTuple):
    """What a block of rows needs on its way forth and back."""

    context: Array
    states: Array
    log_det: Array
    log_prob: Array
    gradient: Array
    spare: Array
    kept: Array
    work: Array


class CompiledLikelihood:
    """Log-likelihood of rows under a flow, and its gradient, on compiled kernels.

    Parameters
    ----------
    flow : Flow
        The flow, on the CPU.
    values, gradients : Tensor of shape (n_parameters,)
        All its parameters as one vector, from which they are read in every call, and their gradients, which are added to.
    offsets : dict
        For the ``id`` of each parameter its place in ``values``.
    n_threads : int
        How many threads may share the rows; answers don't depend on it.
    """

    def __init__(self, flow: Flow, values: Tensor, gradients: Tensor, offsets: dict[int, int], n_threads: int) -> None:
        self._parameters, self._gradients = values.detach().numpy(), gradients.numpy()
        dtype = self._parameters.dtype
        self._program = program_of(flow.transform, offsets, flow.base.n_features, dtype.itemsize)
        self._program.load(TRAINING, dtype)
        self._base = describe_base(flow.base, dtype)
        self.n_threads = n_threads
        self._prepared = np.empty(self._program.n_prepared, dtype)
        n_work = max(self._program.n_work, (2 * flow.base.n_features + 2) * LANES)
        n_state = flow.base.n_features * MAX_ROWS
        n_states = (len(self._program.steps) + 1) * n_state
        self._sizes = (
            self._program.n_context * MAX_ROWS,
            n_states,
            MAX_ROWS,
            MAX_ROWS,
            n_state,
            n_state,
            self._program.n_kept,
            n_work,
        )
        # Memory is used again: fresh memory comes from the system page by page, each filled with zeros first.
        self._spare: list[_Memory] = []
        # What each block of rows gives to the gradients, and behind that its sums.
        self._parts: Array = np.empty((0, 0), dtype)

    def _empty(self, size: int) -> Array:
        return np.empty(size, self._parameters.dtype)

    def _take_memory(self) -> _Memory:
        try:
            return self._spare.pop()
        except IndexError:
            return _Memory(*(self._empty(size) for size in self._sizes))

    def _prepare(self) -> None:
        prepare(self._program.steps, self._parameters, self._prepared, self._program.n_features)

    def add_gradient(self, rows: Rows, batch: Tensor) -> float:
        """Add the gradient of the loss of a batch, its mean negative log-likelihood, in one thread.

        Parameters
        ----------
        rows : Rows
            All rows.
        batch : Tensor of shape (n_batch,)
            Numbers of the rows that belong to the batch.

        Returns
        -------
        float
            The loss.
        """
        given = [rows.values.numpy(), self._check_context(rows), rows.weight.numpy(), batch.numpy()]
        memory = self._take_memory()
        n = len(self._parameters)
        of_block = self._empty(n + self._program.n_sums)
        total = np.zeros_like(of_block)
        loss = 0.0
        self._prepare()
        for first in range(0, len(batch), MAX_ROWS):
            loss += _gradient_of_block(
                *(*self._program[:3], *self._base, self._parameters, self._prepared, *given),
                *(first, min(first + MAX_ROWS, len(batch)), *memory, of_block, self._program.n_features),
            )
            total += of_block
        finish_gradient(
            *(self._program.steps, self._parameters, self._prepared, total[n:], memory.work, total[:n]),
            self._program.n_features,
        )
        self._spare.append(memory)
        self._gradients += total[:n]
        return loss

    def take_steps(self, rows: Rows, batches: Sequence[Tensor], rates: Sequence[float], optimiser: Any, average: Any) -> float:
        """Take a step of the optimiser for each of several batches, without coming back to Python in between.

        Parameters
        ----------
        rows : Rows
            All rows.
        batches : sequence of Tensor
            Numbers of the rows of each batch.
        rates : sequence of float
            Learning rate of each step.
        optimiser : AdamW or Muon
            The optimiser of the parameters, that of training.
        average : MovingAverage
            What the parameters are added to after each step.

        Returns
        -------
        float
            Sum over the rows of their losses.
        """
        given = [rows.values.numpy(), self._check_context(rows), rows.weight.numpy()]
        given += [torch.cat(list(batches)).numpy(), np.cumsum([0, *map(len, batches)])]
        largest = max(map(len, batches))
        n_blocks = -(-largest // (MAX_ROWS if largest > MAX_ROWS else MAX_ROWS // N_BLOCKS_OF_SMALL_BATCH))
        if len(self._parts) != n_blocks:
            self._parts = np.empty((n_blocks, len(self._parameters) + self._program.n_sums), self._parameters.dtype)
        team, losses, clip = new_team(), np.empty(n_blocks), np.empty(1)
        step = address_of_step(self._parameters.dtype)
        of_step = [step, *optimiser.vectors, *optimiser.parts, np.array(rates), *optimiser.settings, int(optimiser.n_steps)]
        of_average = [average.values.numpy(), average.n_added, average.n_averaged]
        sums = [0.0]

        def work(i):
            memory = self._take_memory()
            try:
                result = _take_steps(
                    *(i == 0, team, *self._program[:3], *self._base, self._prepared, *given, *memory),
                    *(self._parts, losses, self._program.n_features, *of_step, clip, *of_average),
                )
            finally:
                if i == 0:
                    dismiss(team)
            self._spare.append(memory)
            if i == 0:
                sums[0] = result

        n_workers = min(self.n_threads, n_blocks)
        for_each(work, n_workers, n_workers)
        optimiser.n_steps += len(batches)
        average.n_added = min(average.n_added + len(batches), average.n_averaged)
        return float(sums[0])

    def _check_context(self, rows: Rows) -> Array:
        return check_context(rows.context, len(rows.values), self._program.n_context, self._parameters.dtype)

    def log_prob(self, rows: Rows) -> Tensor:
        """Log-density of rows, without gradients."""
        values, contexts = rows.values.numpy(), self._check_context(rows)
        result = torch.empty(len(values), dtype=rows.values.dtype)
        out = result.numpy()
        self._prepare()

        def score_block(block):
            memory = self._take_memory()
            _log_prob_of_block(
                *(*self._program[:3], *self._base, self._parameters, self._prepared, values, contexts, block),
                *(*memory, out, self._program.n_features),
            )
            self._spare.append(memory)

        for_each(score_block, -(-len(values) // MAX_ROWS), self.n_threads)
        return result


@inner
def _log_prob_of_rows(
    steps, numbers, bounds, density, base, stairs, n_components, parameters, prepared,
    rows, contexts, chosen, first, n_rows, wants_gradient, context, states, log_det, log_prob, gradient, kept, work, n_features,
):  # fmt: skip
    """Log-density of up to ``MAX_ROWS`` rows and, where it is wanted, the gradient of the base's with respect to the images."""
    n_panels = (n_rows + LANES - 1) // LANES
    for lane in range(n_panels * LANES):
        row = chosen[min(first + lane, first + n_rows - 1)] if len(chosen) > 0 else min(first + lane, first + n_rows - 1)
        log_det[lane] = 0.0
        place = lane // LANES * n_features * LANES + lane % LANES
        for i in range(n_features):
            states[place + i * LANES] = rows[row, i]
        n_context = contexts.shape[1]
        place = lane // LANES * n_context * LANES + lane % LANES
        for i in range(n_context):
            context[place + i * LANES] = contexts[row, i]
    map_forward(steps, numbers, bounds, parameters, prepared, context, states, log_det, kept, work, n_panels, n_features)
    images = states[len(steps) * n_features * MAX_ROWS :]
    call_log_density(
        density, base, stairs, n_components, images, log_prob, gradient, wants_gradient, work, n_panels, n_features
    )
    for lane in range(n_rows):
        log_prob[lane] += log_det[lane]


@called_from_python
def _log_prob_of_block(
    steps, numbers, bounds, density, base, stairs, n_components, parameters, prepared,
    rows, contexts, block, context, states, log_det, log_prob, gradient, spare, kept, work, out, n_features,
):  # fmt: skip
    first = block * MAX_ROWS
    n_rows = min(MAX_ROWS, len(rows) - first)
    everyone = numbers[:0]
    _log_prob_of_rows(
        *(steps, numbers, bounds, density, base, stairs, n_components, parameters, prepared),
        *(rows, contexts, everyone, first, n_rows, False, context, states, log_det, log_prob, gradient, kept, work, n_features),
    )
    for lane in range(n_rows):
        out[first + lane] = log_prob[lane]


@called_from_python
def _gradient_of_block(
    steps, numbers, bounds, density, base, stairs, n_components, parameters, prepared,
    rows, contexts, weights, chosen, first, last, context, states, log_det, log_prob, gradient, spare, kept, work, out,
    n_features,
):  # fmt: skip
    """Loss of a block of a batch; ``out`` gets its gradient and, behind it, sums that aren't gradients yet."""
    n_rows = max(0, last - first)
    n_panels = (n_rows + LANES - 1) // LANES
    _log_prob_of_rows(
        *(steps, numbers, bounds, density, base, stairs, n_components, parameters, prepared),
        *(rows, contexts, chosen, first, n_rows, True, context, states, log_det, log_prob, gradient, kept, work, n_features),
    )
    loss = 0.0
    log_gradient = log_det
    for lane in range(n_panels * LANES):
        share = weights[chosen[first + lane]] / len(chosen) if lane < n_rows else 0.0
        if lane < n_rows:
            loss -= share * log_prob[lane]
        log_gradient[lane] = -share
        place = lane // LANES * n_features * LANES + lane % LANES
        for i in range(n_features):
            gradient[place + i * LANES] *= -share
    for i in range(len(out)):
        out[i] = 0.0
    n_parameters = len(parameters)
    go_back(
        *(steps, numbers, bounds, parameters, prepared, states, gradient, spare, log_gradient, kept, work),
        *(out[:n_parameters], out[n_parameters:], n_panels, n_features),
    )
    return loss


@inner
def _work_on_open_tasks(
    team, flow, prepared, given, chosen, ends, memory, parts, losses, n_features, step, optimised, rates, settings, n_steps,
    clip,
):  # fmt: skip
    """Do what is open: of each step first the gradients of blocks of rows, then parts of the step itself."""
    n_blocks = len(parts)
    weight_decay, beta1, beta2, eps, beta_of_blocks, n_iterations, size_of_blocks = settings
    task = take_task(team)
    while task >= 0:
        i, part = task // (n_blocks + N_PARTS_OF_STEP), task % (n_blocks + N_PARTS_OF_STEP)
        if part < n_blocks:
            batch = chosen[ends[i] : ends[i + 1]]
            n_panels = (len(batch) + LANES - 1) // LANES
            first, last = part * n_panels // n_blocks * LANES, (part + 1) * n_panels // n_blocks * LANES
            losses[part] = _gradient_of_block(
                *(*flow, optimised[0], prepared, *given, batch, first, min(last, len(batch))),
                *(*memory, parts[part], n_features),
            )
        else:
            call_step(
                *(step, *optimised, rates[i], weight_decay, clip[0], beta1, beta2, eps, beta_of_blocks),
                *(n_iterations, size_of_blocks, n_steps + i + 1, part - n_blocks, N_PARTS_OF_STEP),
            )
        tell_that_one_is_done(team)
        task = take_task(team)


@inner
def _do_together(n_tasks, shared):
    open_tasks(shared[0], n_tasks)
    _work_on_open_tasks(*shared)
    wait_until_all_are_done(shared[0])


@called_from_python
def _take_steps(
    leads, team, steps, numbers, bounds, density, base, stairs, n_components, prepared, rows, contexts, weights, chosen, ends,
    context, states, log_det, log_prob, gradient, spare, kept, work, parts, losses, n_features,
    step, values, gradients, first_moment, second_moment, n_decaying, blocks, n_seen, n_in_blocks, coefficients, rates,
    weight_decay, max_norm, beta1, beta2, eps, beta_of_blocks, n_iterations, size_of_blocks, n_steps, clip,
    averaged, n_added, n_averaged,
):  # fmt: skip
    """Lead a team through steps, or help it; the sum of the rows' losses is for who leads.

    Python gives no tuples: of them some versions of numba take one kind for another, and refuse it.
    """
    flow = steps, numbers, bounds, density, base, stairs, n_components
    given = rows, contexts, weights
    memory = context, states, log_det, log_prob, gradient, spare, kept, work
    optimised = values, gradients, first_moment, second_moment, n_decaying, blocks, n_seen, n_in_blocks, coefficients
    settings = weight_decay, beta1, beta2, eps, beta_of_blocks, n_iterations, size_of_blocks
    shared = (
        *(team, flow, prepared, given, chosen, ends, memory, parts, losses, n_features, step, optimised, rates, settings),
        *(n_steps, clip),
    )
    if not leads:
        while wait_for_a_task(team):
            _work_on_open_tasks(*shared)
        return 0.0
    n_parameters = len(values)
    of_parameters, sums = parts[0, :n_parameters], parts[0, n_parameters:]
    total = 0.0
    for i in range(len(rates)):
        prepare(steps, values, prepared, n_features)
        _do_together(len(parts), shared)
        total += losses.sum() * (ends[i + 1] - ends[i])
        # Summed over the blocks in their order, whoever has computed them.
        for block in range(1, len(parts)):
            for j in range(parts.shape[1]):
                parts[0, j] += parts[block, j]
        finish_gradient(steps, values, prepared, sums, work, of_parameters, n_features)
        for j in range(n_parameters):
            gradients[j] += of_parameters[j]
        clip[0] = factor_of_clipped(gradients, max_norm)
        _do_together(N_PARTS_OF_STEP, shared)
        n_added = min(n_added + 1, n_averaged)
        share = values.dtype.type(1.0 / n_added)
        for j in range(n_parameters):
            averaged[j] += share * (values[j] - averaged[j])
    return total
