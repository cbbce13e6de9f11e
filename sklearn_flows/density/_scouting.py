"""What a flow should start from if the rows are many: whatever does best with a few of them."""

import time
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..cross_fitting import fit_members
from ..utils._random import MAX_SEED
from ._defaults import N_PARTS
from ._teacher import STARTS, starts_of
from ._whole_fits import flow_of_steps, shares_of_steps_to_tell_starts, still_in_question

# With fewer rows than these there is nothing to spare for it.
MIN_ROWS = 1_000
# Rows that the scouts see: a tenth, but at least and at most so many, and half of the rows at most. With a fifth of 5,000 they
# would often choose wrong.
MIN_SEEN = 5_000
MAX_SEEN = 100_000
# Share of the time that they have together at most, where time is limited.
SHARE_OF_TIME = 0.2
# Rows that judge them, of those that they haven't seen, at most.
MAX_JUDGES = 5_000


def scout(flow, rows, weight, rng):
    """Fit flows from different starts to a part of the rows, and find out which one the others like best.

    Parameters
    ----------
    flow : BaseFlowDensity
        An unfitted flow, some of whose ``base`` and ``margins`` are "auto".
    rows, weight : ndarray of shape (n_samples, n_features), ndarray of shape (n_samples,)
        Canonical rows and their weights.
    rng : numpy.random.RandomState
        Source of the parts and of all seeds.

    Returns
    -------
    base, margins : str
        The best start.
    """
    starts = [
        (base, margins)
        for base, margins in (*STARTS, ("student", "smooth"))
        if flow.base in ("auto", base) and flow.margins in ("auto", margins)
    ]
    if len(starts) < 2 or len(rows) <= MIN_ROWS:
        return starts_of(flow)[0]
    # As large as the flow that is fitted to all rows afterwards.
    parameters = flow.get_params(deep=False) | flow._choose_size(*rows.shape)
    parameters |= {"n_teachers": 0, "verbose": 0, "warm_start": False}
    until = None if flow.max_time is None else time.perf_counter() + SHARE_OF_TIME * flow.max_time
    n_seen = min(max(MIN_SEEN, len(rows) // 10), MAX_SEEN, len(rows) // 2)
    seen, judges = np.split(rng.permutation(len(rows))[: n_seen + MAX_JUDGES].copy(), [n_seen])
    # The last part stops them.
    part = np.arange(n_seen) % N_PARTS

    def scores_of(starts, share_of_steps, max_time):
        scouts = [
            flow_of_steps(
                share_of_steps,
                type(flow),
                parameters | {"base": base, "margins": margins, "max_time": max_time, "random_state": rng.randint(MAX_SEED)},
            )
            for base, margins in starts
        ]
        for scout in scouts:
            scout._takes_all_the_time = False
        fit_members(scouts, [N_PARTS - 1] * len(scouts), rows[seen], weight[seen], part, n_seen, may_diverge=True)
        return [
            scout.score(rows[judges], sample_weight=weight[judges]) if hasattr(scout, "flow_") else -np.inf for scout in scouts
        ]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the flow that is fitted afterwards has the same settings
        best = starts[0]
        for share_of_steps in shares_of_steps_to_tell_starts(flow, n_seen):
            max_time = None if until is None else (until - time.perf_counter()) / len(starts)
            if max_time is not None and max_time <= 0:
                break
            scores = scores_of(starts, share_of_steps, max_time)
            best = starts[int(np.argmax(scores))]
            starts = still_in_question(starts, scores, rows.shape[1])
            if len(starts) < 2:
                break
    return best
