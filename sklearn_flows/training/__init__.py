"""From (flow, rows) to fitted weights: the loop, its optimiser, its stopping rule and the rows it takes."""

from ._continuous import ContinuousLikelihood, FlowMatching, mean_evaluations
from ._gaussian_fit import NotFiniteError, fit_gaussian
from ._loop import DivergedError, TrainingResult, fit_flow
from ._mixture import choose_mixture
from ._reverse_kl import fit_reverse_kl
from ._rows import canonical_rows, split_off
from ._start import whitening_matrix
from ._weights import mixture_weights

__all__ = [
    "ContinuousLikelihood",
    "DivergedError",
    "FlowMatching",
    "NotFiniteError",
    "TrainingResult",
    "canonical_rows",
    "choose_mixture",
    "fit_flow",
    "fit_gaussian",
    "fit_reverse_kl",
    "mean_evaluations",
    "mixture_weights",
    "split_off",
    "whitening_matrix",
]
