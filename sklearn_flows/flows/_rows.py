"""Rows as flows see them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Encoded rows on one device, with weights of mean one and, for conditional flows, the context of each.

    Parameters
    ----------
    values : Tensor of shape (n_samples, n_features)
        The rows.
    weight : Tensor of shape (n_samples,)
        Their weights.
    context : Tensor of shape (n_samples, n_context), default=None
        What the flow is conditioned on.
    """

    values: Tensor
    weight: Tensor
    context: Tensor | None = None

    def given(self, part: Tensor | slice) -> tuple[Tensor, ...]:
        """Arguments of ``Flow.log_prob`` for some of the rows."""
        return (self.values[part],) if self.context is None else (self.values[part], self.context[part])
