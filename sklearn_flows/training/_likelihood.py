"""The likelihood of rows under a flow and its gradient, in torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .._workspace import Workspace
from ..flows import Flow, Rows

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
        total = rows.values.new_zeros(())
        for part in batch.split(rows_at_once(rows)):
            with self.workspace.round():
                loss = -(rows.weight[part] * self.flow.log_prob(*rows.given(part))).sum() / len(batch)
                torch.autograd.backward(loss)
            total += loss.detach()
        return total

    @torch.no_grad()
    def log_prob(self, rows: Rows) -> Tensor:
        """Log-density of rows, without gradients."""
        size = rows_at_once(rows)
        parts = [slice(start, start + size) for start in range(0, len(rows.values), size)]
        return torch.cat([self.flow.log_prob(*rows.given(part)) for part in parts])


def rows_at_once(rows: Rows) -> int:
    """Number of rows to take through a flow at once, for the sake of memory."""
    return max(1, min(ROWS_AT_ONCE, SCALARS_AT_ONCE // max(1, rows.values.shape[1])))
