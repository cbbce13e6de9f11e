"""Several whole fits, of which the best is kept: where each takes little time, or a teacher would take too much."""

import math
import time
import warnings
from functools import partial

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from ..cross_fitting import in_threads
from ..distributions import StudentMixture
from ..encoding import discrete_columns_warned_about
from ..training import DivergedError
from ..utils._random import draw_seed
from ._defaults import SHARES_OF_STEPS_TO_TELL_STARTS, TOO_CLOSE_TO_TELL
from ._mixture import MixtureDensity
from ._starting_distribution import MIN_PRIOR_ROWS
from ._teacher import diverged_for_every_start, starts_of

# A fit with a teacher takes about so many times as long as one without, for each part that the teacher leaves out.
FITS_PER_TEACHER = 5
# The start for tables that hold groups far narrower than others, and what the prior of a component may then count for.
NARROW_START, NARROW_PRIOR_ROWS = ("mixture", "linear"), 1e-8


def shares_of_steps_to_tell_starts(flow, n_rows):
    """Say how many of the usual steps tell from what a flow of so many rows should start, in each of one or more rounds.

    Parameters
    ----------
    flow : BaseFlowDensity
        An unfitted flow.
    n_rows : int
        Number of distinct rows.

    Returns
    -------
    tuple of float
        The shares, rising; 1 alone where no less will do.
    """
    takes_muon = flow._choose_optimizer(n_rows, from_draws=False) == "muon"
    return SHARES_OF_STEPS_TO_TELL_STARTS if takes_muon else (1.0,)


def still_in_question(starts, scores, n_features):
    """Say which starts may still be the best after a round.

    Parameters
    ----------
    starts : list
        Starts.
    scores : list of float
        Mean log-density of rows under what each has led to.
    n_features : int
        Number of columns.

    Returns
    -------
    list
        The best one, and those that are hardly behind.
    """
    least = max(scores, default=-math.inf) - TOO_CLOSE_TO_TELL * n_features
    return [start for start, score in zip(starts, scores, strict=True) if score >= least]


def flow_of_steps(share_of_steps, flow_class, parameters):
    """Give an unfitted flow that takes a share of the steps that it would usually take.

    Parameters
    ----------
    share_of_steps : float
        The share.
    flow_class : type
        Class of the flow.
    parameters : dict
        Its parameters.

    Returns
    -------
    BaseFlowDensity
        The flow.
    """
    if parameters["max_iter"] != "auto":
        parameters = parameters | {"max_iter": math.ceil(share_of_steps * parameters["max_iter"])}
    flow = flow_class(**parameters)
    flow._share_of_steps *= share_of_steps
    return flow


class _Candidates:
    """Flows that differ in their starts, or little else, validated on the same rows."""

    def __init__(self, flow, rows, weight, validation_rows, rng):
        self.flow, self.rows, self.weight, self.validation_rows = flow, rows, weight, validation_rows
        self.parameters = flow.get_params(deep=False) | {"n_teachers": 0, "warm_start": False, "random_state": draw_seed(rng)}
        self._bases = {}

    def fit(self, start, max_time=None, share_of_steps=1.0, min_prior_rows=MIN_PRIOR_ROWS):
        """Fit the flow from a start, a pair of base and margins; None where its training diverges."""
        base, margins = start
        parameters = self.parameters | {"base": base, "margins": margins, "max_time": max_time}
        candidate = flow_of_steps(share_of_steps, type(self.flow), parameters)
        candidate._base_found = self._bases.get((start, min_prior_rows))
        candidate._min_prior_rows = min_prior_rows
        X_val, weight_val = self.validation_rows or (None, None)
        try:
            candidate.fit(self.rows, sample_weight=self.weight, X_val=X_val, sample_weight_val=weight_val)
        except DivergedError:
            return None
        # Another fit from the same start would find the same mixture.
        if isinstance(candidate.flow_.base, StudentMixture):
            self._bases[start, min_prior_rows] = candidate.flow_.base
        return candidate

    def likelihood_of_narrow_mixture(self):
        """Mean log-density, under a mixture that may have narrow components, of the rows that validate all flows."""
        flow = type(self.flow)(**self.parameters)
        rng = np.random.RandomState(draw_seed(flow.random_state))
        (rows, weight, kept), (others, weight_of_others, judges), _ = flow._hold_out(
            self.rows, self.weight, self.validation_rows, rng
        )
        judging = others[judges], weight_of_others[judges]
        settings = {"margins": NARROW_START[1], "min_prior_rows": NARROW_PRIOR_ROWS, "combine": False, "background": False}
        mixture = MixtureDensity(**settings, random_state=flow.random_state)
        mixture.fit(rows[kept], sample_weight=weight[kept], X_val=judging[0], sample_weight_val=judging[1])
        return mixture.score(judging[0], sample_weight=judging[1])


def best_of_whole_fits(flow, starts, shares_of_steps, rows, weight, validation_rows, rng):
    """Fit flows from all starts, several at the same time; if in so few steps that more may help, another from the best start.

    Parameters
    ----------
    flow : BaseFlowDensity
        An unfitted flow that validates.
    starts : list of (str, str)
        Pairs of base and margins.
    shares_of_steps : tuple of float
        How many of the usual steps flows take in each round, in which only starts are left that may still be the best.
    rows, weight : ndarray of shape (n_samples, n_features), ndarray of shape (n_samples,)
        Canonical rows and their weights.
    validation_rows : tuple of ndarray or None
        Rows to validate on, and their weights.
    rng : numpy.random.RandomState
        Source of a seed, the same for all flows.

    Returns
    -------
    BaseFlowDensity
        The fitted flow that the validation rows like best, or the best so far where the user interrupts.

    Raises
    ------
    DivergedError
        If training diverges from every start.
    """
    candidates = _Candidates(flow, rows, weight, validation_rows, rng)
    fitted = []

    def best_so_far():
        return max(filter(None, fitted), key=lambda candidate: candidate.best_validation_score_, default=None)

    def fit_from(starts, share_of_steps, min_prior_rows=MIN_PRIOR_ROWS, beside=()):
        first = len(fitted)
        fitted.extend([None] * len(starts))

        def fit(i):
            fitted[first + i] = candidate = candidates.fit(starts[i], None, share_of_steps, min_prior_rows)
            if candidate is not None and candidate.stop_reason_ == "interrupted":  # the others shall not begin
                raise KeyboardInterrupt

        tasks = [*(partial(fit, i) for i in range(len(starts))), *beside]
        in_threads(lambda i: tasks[i](), len(tasks), None)
        found = list(filter(None, fitted[first:]))
        scores = [candidate.best_validation_score_ for candidate in found]
        return still_in_question([(f.base, f.margins) for f in found], scores, rows.shape[1])

    of_narrow_mixture = -math.inf

    def judge_narrow_mixture():
        nonlocal of_narrow_mixture
        of_narrow_mixture = candidates.likelihood_of_narrow_mixture()

    beside = [judge_narrow_mixture] if NARROW_START in starts else []
    is_interrupted = False
    with warnings.catch_warnings(), discrete_columns_warned_about():
        _leave_the_last_word_to_the_flow()
        try:
            for share_of_steps in shares_of_steps:
                starts, beside = fit_from(starts, share_of_steps, beside=beside), []
                if len(starts) < 2:
                    break
            best = best_so_far()
            # What few steps learn by heart before their rate has fallen, more of them learn no better.
            if best is not None and shares_of_steps[-1] < 1 and best.stop_reason_ != "early_stopping":
                fit_from([(best.base, best.margins)], 1.0)
                # Some tables are learned by heart before the rate falls. Then more steps than in the first round may be best.
                if best_so_far() is best and share_of_steps < shares_of_steps[-1]:
                    fit_from([(best.base, best.margins)], shares_of_steps[-1])
            # Groups so narrow that no flow has come close to what a mixture makes of them.
            if best is not None and of_narrow_mixture > best_so_far().best_validation_score_:
                fit_from([NARROW_START], shares_of_steps[0], NARROW_PRIOR_ROWS)
        except KeyboardInterrupt:
            is_interrupted = True
            if best_so_far() is None:
                raise
    best = best_so_far()
    if best is None:
        raise diverged_for_every_start(flow)
    if is_interrupted:
        best.stop_reason_ = "interrupted"
    return best


def best_flow_in_time(flow, rows, weight, validation_rows, n_teachers, end, rng):
    """Fit flows to the rows themselves, from one start after the other, unless the first one is so fast that a teacher pays.

    Parameters
    ----------
    flow : BaseFlowDensity
        An unfitted flow with limited time.
    rows, weight : ndarray of shape (n_samples, n_features), ndarray of shape (n_samples,)
        Canonical rows and their weights.
    validation_rows : tuple of ndarray or None
        Rows to validate on, and their weights.
    n_teachers : int
        How many parts the teacher would leave out.
    end : float
        What ``time.perf_counter()`` says when the time is over.
    rng : numpy.random.RandomState
        Source of a seed, the same for all flows.

    Returns
    -------
    BaseFlowDensity or None
        The fitted flow that the validation rows like best; None if there is time for a teacher.

    Raises
    ------
    DivergedError
        If training diverges from every start.
    """
    candidates = _Candidates(flow, rows, weight, validation_rows, rng)
    best, longest = None, 0.0
    for i, start in enumerate(starts_of(flow)):
        begin = time.perf_counter()
        left = end - begin
        if i > 0 and left < longest:
            break
        try:
            with warnings.catch_warnings(), discrete_columns_warned_about():
                _leave_the_last_word_to_the_flow()
                candidate = candidates.fit(start, max(left, 1e-3))
        except KeyboardInterrupt:  # before the training of this one, which keeps what it has learned
            if best is None:
                raise
            best.stop_reason_ = "interrupted"
            break
        if candidate is None:
            continue
        longest = max(longest, time.perf_counter() - begin)
        if i == 0 and FITS_PER_TEACHER * n_teachers * longest <= left:
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


def _leave_the_last_word_to_the_flow():
    # What there is to say is said by the flow that takes over what one of them has learned.
    warnings.simplefilter("ignore", ConvergenceWarning)
    warnings.filterwarnings("ignore", message="Training interrupted by the user")
