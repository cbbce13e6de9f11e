"""How a flow starts that learns from a teacher: from what soonest comes closest to it."""

import copy

import numpy as np
import torch

from .._parallel import for_each
from ..compiled import compiled_flow
from ..encoding import TableEncoding
from ..training import DivergedError, fit_flow
from ..utils._random import draw_seed, torch_generator
from ..utils._threads import one_thread_if_small
from ._defaults import (
    BATCH_SIZE_OF_DRAWS,
    EPOCHS_OF_A_TRIAL,
    NEAR_BEST_START,
    SHARE_OF_TIME_FOR_TRIALS,
    VALIDATION_DRAWS,
    default_n_draws,
    default_n_repeats,
)
from ._start import Start, encode_parts, encode_rows
from ._starting_distribution import as_whitened, whitening_map
from ._teacher import InterruptedTeacherError, Teacher, diverged_for_every_start


def start_from_teacher(density, rows, weight, validation_rows, n_teachers, rng):
    """Fit a teacher, and find what comes closest to it in a short trial: one of its flows, or one on the mean of its mixtures.

    Parameters
    ----------
    density : BaseFlowDensity
        What shall be trained.
    rows, weight : ndarray of shape (n_samples, n_features), ndarray of shape (n_samples,)
        Canonical rows and their weights.
    validation_rows : tuple of ndarray or None
        Rows to validate on, and their weights.
    n_teachers : int
        How many parts the teacher leaves out.
    rng : numpy.random.RandomState
        Source of parts and of all seeds.

    Returns
    -------
    Start
        The flow after its trial, and rows that the teacher draws, among the table's.

    Raises
    ------
    InterruptedTeacherError
        If the user interrupts after there is a flow.
    DivergedError
        If training diverges from every start.
    """
    teacher = Teacher(density, n_teachers, rng).fit(rows, weight)
    lessons, judges = _lessons(teacher, rows, weight, validation_rows, n_teachers)
    early_stopping = density.early_stopping == "auto" or density.early_stopping
    candidates = _promising(density, teacher, rows, weight, judges, n_teachers, rng)
    seeds = [draw_seed(rng) for _ in candidates]
    trials = [None] * len(candidates)

    def try_flow(i):
        encoding, flow, *kind = candidates[i]
        train, validation, units, units_val = encode_parts(density, encoding, lessons, judges)
        flow = flow.requires_grad_(True).train().to(train.values.device)
        start = Start(encoding, flow, *kind, train, validation, units, units_val, early_stopping)
        if len(candidates) == 1:  # nothing to choose
            trials[i] = 0.0, start
            return
        try:
            result = _try_for_a_while(density, flow, train, validation, len(rows), seeds[i])
        except DivergedError:
            return
        if result.stop_reason == "interrupted":
            raise InterruptedTeacherError(teacher.best_flow_)
        trials[i] = result.best_score + units_val, start

    for_each(try_flow, len(trials), torch.get_num_threads())
    _, best = max(filter(None, trials), key=lambda trial: trial[0], default=(None, None))
    if best is None:
        raise diverged_for_every_start(density)
    return best


def _lessons(teacher, rows, weight, validation_rows, n_teachers):
    """What to learn from and what to judge by, each as rows, their weights and the indices of all visits in an epoch."""
    # A single part that nobody has seen judges better than draws: it tells whether to depart from the flow at all.
    judged_by_draws = validation_rows is None and n_teachers > 1
    drawn = teacher.draw(default_n_draws(len(rows)) + judged_by_draws * VALIDATION_DRAWS)
    own = np.arange(len(rows))
    if judged_by_draws:
        drawn, drawn_val = np.split(drawn, [len(drawn) - min(VALIDATION_DRAWS, len(drawn) // 2)])
        validation_rows = drawn_val, np.ones(len(drawn_val))
    elif validation_rows is None:
        validation_rows = rows[teacher.judges_], weight[teacher.judges_]
        own = np.delete(own, teacher.judges_)
    # The rows themselves, too: often enough that the flow sees what the teacher has blurred, too seldom to learn by heart.
    visits = np.append(np.tile(own, default_n_repeats(n_teachers)), np.arange(len(rows), len(rows) + len(drawn)))
    lessons = np.concatenate([rows, drawn]), np.append(weight, np.ones(len(drawn))), visits
    return lessons, (*validation_rows, np.arange(len(validation_rows[0])))


def _promising(density, teacher, rows, weight, judges, n_teachers, rng):
    """Flows that are worth a trial, each as its encoding, the flow, and the names of its base and its margins."""
    candidates = [(flow.encoding_, flow.flow_, flow.base, flow.margins) for flow in teacher.flows_]
    likelihood_of_unseen = list(teacher.likelihoods_of_flows_)
    if n_teachers > 1 and density.base in ("auto", "mixture"):
        for margins, likelihood in teacher.likelihoods_of_mixtures_.items():
            from_mixtures = _on_mean_of_mixtures(density, teacher, rows, weight, margins, rng)
            candidates += from_mixtures
            likelihood_of_unseen += [likelihood] * len(from_mixtures)
    likelihood_of_judges = np.empty(len(candidates))

    def look_at(i):
        encoding, flow, *_ = candidates[i]
        likelihood_of_judges[i] = _mean_log_density(encoding, flow, judges)

    for_each(look_at, len(candidates), torch.get_num_threads())
    # Draws alone would prefer a start as blurred as some of the teacher's densities are; the rows left out alone are few.
    promise = np.nan_to_num((likelihood_of_judges + likelihood_of_unseen) / 2, nan=-np.inf)
    near_best = promise >= promise.max() - NEAR_BEST_START * density.n_features_in_
    chosen = [candidates[i] for i in np.flatnonzero(near_best)]
    return [(encoding, copy.deepcopy(flow).float(), *kind) for encoding, flow, *kind in chosen]


def _mean_log_density(encoding, flow, part):
    rows, units = encode_rows(encoding, *part, torch.device("cpu"))
    values = rows.values.double()
    with torch.no_grad():
        log_prob = compiled_flow(flow, ["log_prob"], [values[:1]], 1).log_prob(values)
    return float((rows.weight * log_prob).mean()) + units


def _on_mean_of_mixtures(density, teacher, rows, weight, margins, rng):
    """The untrained flow on the mean of the teacher's mixtures, where it has such."""
    encoding = TableEncoding.fit(rows, weight, margins)
    base = teacher.mean_of_mixtures(encoding, margins)
    if base is None:
        return []
    values, _ = encode_rows(encoding, rows, weight, np.arange(len(rows)), torch.device("cpu"))
    whitening = whitening_map(values)
    flow = density._build_flow(whitening, as_whitened(base, whitening), torch_generator(draw_seed(rng)))
    return [(encoding, flow.double(), "mixture", margins)]


def _try_for_a_while(density, flow, train, validation, n_rows, seed):
    batch_size = BATCH_SIZE_OF_DRAWS if density.batch_size == "auto" else density.batch_size
    with one_thread_if_small(batch_size * max([density.n_features_in_, *density._widths_of_layers()])):
        return fit_flow(
            flow,
            train,
            validation,
            max_iter=EPOCHS_OF_A_TRIAL if density.max_iter == "auto" else min(density.max_iter, EPOCHS_OF_A_TRIAL),
            max_time=None if density.max_time is None else SHARE_OF_TIME_FOR_TRIALS * density.max_time,
            batch_size=batch_size,
            learning_rate=density._peak_learning_rate(from_draws=True),
            weight_decay=density.weight_decay,
            early_stopping=True,
            n_iter_no_change=density.n_iter_no_change,
            tol=density.tol,
            generator=torch_generator(seed),
            n_compiled_threads=torch.get_num_threads(),
            objective=density._build_objective(flow, torch_generator(seed)),
            n_visits=density._n_visits,
            orthogonalises=density._choose_optimizer(n_rows, from_draws=True) == "muon",
        )
