"""The likelihood of rows under a flow and its gradient, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .._fusion import fused_kernels
from .._workspace import Workspace
from ..flows import Flow, Rows
from ._recording import CALLS_BEFORE_RECORDING, Recording, turn_to_record

# Rows that go through the flow at once, and their numbers: bounds the memory, whatever the number of rows and the size of
# images, of each of whose pixels a convolution makes as many numbers as it has channels.
ROWS_AT_ONCE = 2**13
SCALARS_AT_ONCE = 2**19


class Likelihood:
    """Log-likelihood of rows under a flow, and its gradient.

    Parameters
    ----------
    flow : Flow
        The flow; gradients are added to those of its parameters.
    """

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.workspace = Workspace()
        self._n_steps = 0
        self._recorded: dict[int, _RecordedGradient] = {}

    def add_gradient(self, rows: Rows, batch: Tensor) -> Tensor:
        """Add the gradient of the loss of a batch, its mean negative log-likelihood.

        Parameters
        ----------
        rows : Rows
            All rows.
        batch : Tensor of shape (n_batch,)
            Numbers of the rows that belong to the batch.

        Returns
        -------
        Tensor of shape ()
            The loss. It stays on the device: reading it would wait for the whole step.
        """
        self._n_steps += 1
        if not rows.values.is_cuda or self._n_steps <= CALLS_BEFORE_RECORDING:
            return _add_gradient(self.flow, rows, batch, self.workspace)
        recorded = self._recorded.get(len(batch))
        if recorded is None or recorded.rows is not rows:
            recorded = self._recorded[len(batch)] = _RecordedGradient(self.flow, rows, batch)
        return recorded.replay(batch)

    @torch.no_grad()
    def log_prob(self, rows: Rows) -> Tensor:
        """Log-density of rows, without gradients."""
        size = rows_at_once(rows)
        parts = [slice(start, start + size) for start in range(0, len(rows.values), size)]
        with fused_kernels(bool(self._recorded)):  # those of the way forward have been compiled then
            return torch.cat([self.flow.log_prob(*rows.given(part)) for part in parts])


def _add_gradient(flow: Flow, rows: Rows, batch: Tensor, workspace: Workspace) -> Tensor:
    total = rows.values.new_zeros(())
    for part in batch.split(rows_at_once(rows)):
        with workspace.round():
            loss = -(rows.weight[part] * flow.log_prob(*rows.given(part))).sum() / len(batch)
            torch.autograd.backward(loss)
        total += loss.detach()
    return total


class _RecordedGradient:
    """The gradient of batches of one size on CUDA, as a single launch, the kernels of splines fused before."""

    def __init__(self, flow: Flow, rows: Rows, batch: Tensor) -> None:
        self.rows = rows
        self._batch = batch.clone()
        with turn_to_record, fused_kernels():
            self._compile(flow)
            # What it computes stays in memory that belongs to the recording: a workspace of its own.
            self._recording = Recording(lambda: _add_gradient(flow, rows, self._batch, Workspace()))

    def _compile(self, flow: Flow) -> None:
        """Take the step once for the sake of its kernels, which can't be compiled while it is recorded.

        On a stream of its own, as torch asks for before recordings.
        """
        gradients = [p.grad for p in flow.parameters() if p.grad is not None]
        before = [gradient.clone() for gradient in gradients]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            _add_gradient(flow, self.rows, self._batch, Workspace())
        torch.cuda.current_stream().wait_stream(stream)
        for gradient, value in zip(gradients, before, strict=True):
            gradient.copy_(value)

    def replay(self, batch: Tensor) -> Tensor:
        """Add the gradient of another batch, and give its loss until the next call."""
        self._batch.copy_(batch)
        return self._recording.replay()


def rows_at_once(rows: Rows) -> int:
    """Number of rows to take through a flow at once, for the sake of memory."""
    return max(1, min(ROWS_AT_ONCE, SCALARS_AT_ONCE // max(1, rows.values.shape[1])))
