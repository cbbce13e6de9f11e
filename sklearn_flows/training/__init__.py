"""From (flow, rows) to fitted weights: the loop, its optimiser, its stopping rule and the rows it takes."""

from ._loop import DivergedError, TrainingResult, fit_flow
from ._mixture import choose_mixture
from ._rows import canonical_rows, split_off
from ._start import whitening_matrix

__all__ = [
    "DivergedError",
    "TrainingResult",
    "canonical_rows",
    "choose_mixture",
    "fit_flow",
    "split_off",
    "whitening_matrix",
]
