"""Whole fits from several starts, of which the best is kept: where each takes little time, or a teacher would take too much."""

import math
import time
import warnings

from sklearn.exceptions import ConvergenceWarning

from ..encoding import discrete_columns_warned_about
from ..training import DivergedError
from ..utils._random import draw_seed
from ._teacher import diverged_for_every_start

# A fit with a teacher takes about so many times as long as one without, for each part that the teacher leaves out.
FITS_PER_TEACHER = 5


def best_whole_fit(flow, starts, rows, weight, validation_rows, rng, n_teachers=0, end=math.inf):
    """Fit flows to the rows themselves, from one start after the other, unless the first one is so fast that a teacher pays.

    Parameters
    ----------
    flow : BaseFlowDensity
        An unfitted flow.
    starts : list of (str, str)
        Pairs of base and margins.
    rows, weight : ndarray of shape (n_samples, n_features), ndarray of shape (n_samples,)
        Canonical rows and their weights.
    validation_rows : tuple of ndarray or None
        Rows to validate on, and their weights.
    rng : numpy.random.RandomState
        Source of a seed, the same for all flows: they are validated on the same rows.
    n_teachers : int, default=0
        How many parts a teacher would leave out; 0 if there shall be none.
    end : float, default=infinity
        What ``time.perf_counter()`` says when the time is over.

    Returns
    -------
    BaseFlowDensity or None
        The fitted flow that the validation rows like best; None if there is time for a teacher.

    Raises
    ------
    DivergedError
        If training diverges from every start.
    """
    parameters = flow.get_params(deep=False) | {"n_teachers": 0, "warm_start": False, "random_state": draw_seed(rng)}
    validation = {} if validation_rows is None else dict(zip(("X_val", "sample_weight_val"), validation_rows, strict=True))
    best, longest = None, 0.0
    for i, (base, margins) in enumerate(starts):
        begin = time.perf_counter()
        left = end - begin
        if i > 0 and left < longest:
            break
        max_time = max(left, 1e-3) if left < math.inf else None
        candidate = type(flow)(**parameters | {"base": base, "margins": margins, "max_time": max_time})
        try:
            with warnings.catch_warnings(), discrete_columns_warned_about():
                # What there is to say is said by the flow that takes over what one of them has learned.
                warnings.simplefilter("ignore", ConvergenceWarning)
                warnings.filterwarnings("ignore", message="Training interrupted by the user")
                candidate.fit(rows, sample_weight=weight, **validation)
        except DivergedError:
            continue
        except KeyboardInterrupt:  # before the training of this one, which keeps what it has learned
            if best is None:
                raise
            best.stop_reason_ = "interrupted"
            break
        longest = max(longest, time.perf_counter() - begin)
        if i == 0 and n_teachers and FITS_PER_TEACHER * n_teachers * longest <= left:
            return None
        if best is None or candidate.best_validation_score_ > best.best_validation_score_:
            best = candidate
        if candidate.stop_reason_ == "interrupted":
            best.stop_reason_ = "interrupted"
            break
        if candidate.best_validation_score_ is None:  # nothing tells starts apart
            break
    if best is None:
        raise diverged_for_every_start(flow)
    return best
