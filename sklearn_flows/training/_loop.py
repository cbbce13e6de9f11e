"""The training loop: a flow, rows and a budget in; the same flow, trained, and its curves out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..compiled import compiled_likelihood
from ..flows import Flow, Rows
from ..utils._threads import one_thread
from ._continuous import ContinuousObjective
from ._early_stopping import EarlyStopping
from ._likelihood import Likelihood
from ._optim import AdamW, FlatParameters, MovingAverage, Muon, warmup_cosine

if TYPE_CHECKING:
    from ..compiled._likelihood import CompiledLikelihood

# How often a diverged epoch is undone and tried again at half the step before training gives up.
MAX_ROLLBACKS = 8
# Steps over which weights are averaged: what is scored and kept is the average, which a high learning rate doesn't shake.
AVERAGED_STEPS = 50
# Rows that compiled kernels learn from in one call, in which nobody can interrupt them, or look at the clock where time is
# limited.
ROWS_AT_ONCE, ROWS_AT_ONCE_ON_THE_CLOCK = 12_800, 1_280
# How often the learning rate falls, and by what factor, before a score that no longer rises ends training.
MAX_DECAYS = 2
DECAY = 5.0

StopReason = Literal["max_iter", "max_time", "early_stopping", "callback", "interrupted"]


class DivergedError(ValueError):
    """Training met a loss that isn't finite at every step size tried."""


@dataclass
class TrainingResult:
    """What training saw; the flow itself holds the weights it kept.

    Attributes
    ----------
    loss_curve : list of float
        Mean negative log-likelihood of the training rows in each epoch, as met during the epoch.
    validation_scores : list of float
        Mean log-likelihood of the validation rows after each epoch; empty without validation rows.
    best_epoch : int
        The epoch whose weights were kept, from 1; 0 if these are the initial ones.
    best_score : float
        Mean log-likelihood of the validation rows under the weights kept; NaN without validation rows.
    stop_reason : str
        Why training ended.
    """

    loss_curve: list[float] = field(default_factory=list)
    validation_scores: list[float] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = math.nan
    stop_reason: StopReason = "max_iter"

    @property
    def n_iter(self) -> int:
        """Number of finished epochs."""
        return len(self.loss_curve)


def fit_flow(
    flow: Flow,
    train: Rows,
    validation: Rows | None,
    *,
    max_iter: int | None,
    max_time: float | None = None,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    early_stopping: bool,
    n_iter_no_change: float,
    tol: float,
    generator: torch.Generator,
    n_compiled_threads: int = 0,
    objective: ContinuousObjective | None = None,
    n_visits: int = 1,
    orthogonalises: bool = False,
    on_epoch_end: Callable[[TrainingResult], bool] | None = None,
) -> TrainingResult:
    """Train a flow, by maximum likelihood unless another objective is given.

    AdamW, or Muon, with warm-up and a cosine schedule over ``max_iter`` epochs or ``max_time``, whichever ends first; scored
    and kept is the moving average of the weights [1]_. Where the validation score no longer rises, training goes back to the
    best weights and on at a lower rate, and at last stops. Rows stay on the device, each epoch visits them in a new random
    order, and nothing is read back before its end. An epoch whose loss isn't finite is undone and the step halved.
    ``KeyboardInterrupt`` ends training as early stopping does.

    Parameters
    ----------
    flow : Flow
        Trained in place, in its own dtype and on its own device.
    train : Rows
        Rows to fit.
    validation : Rows or None
        Rows to score after each epoch.
    max_iter : int or None
        Number of epochs; None where only the time is limited.
    max_time : float or None
        Seconds.
    batch_size : int
        Largest batch; an epoch's batches are equally large, but for one row.
    learning_rate : float
        Peak of the schedule.
    weight_decay : float
        Decoupled weight decay on the conditioners' weights.
    early_stopping : bool
        Whether to stop when the validation score no longer rises, and to keep the weights of the best epoch
        (the initial ones included).
    n_iter_no_change : float
        Patience, in epochs; half of it after the learning rate has fallen.
    tol : float
        Smallest rise of the validation score that counts, in nats.
    generator : torch.Generator
        Source of the order of rows, a generator of the CPU.
    n_compiled_threads : int, default=0
        How many threads compiled kernels may use, where they can serve: worth their loading in long fits. 0 keeps to torch.
    objective : ContinuousObjective, default=None
        What takes the place of the likelihood's gradient. It must have been made of this flow.
    n_visits : int, default=1
        How often an epoch visits each row.
    orthogonalises : bool, default=False
        Whether the weights of networks take the steps of Muon: many times as effective as AdamW's, where rows are so many that
        they aren't learned by heart.
    on_epoch_end : callable or None
        Called with the result so far; a true answer ends training.

    Returns
    -------
    TrainingResult
        Curves and the reason for stopping.

    Raises
    ------
    DivergedError
        If no step size tried gives a finite loss.

    References
    ----------
    .. [1] Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM Journal on Control and
       Optimization 30(4), 1992.
    """
    parameters = FlatParameters(flow)
    compiled = None
    if n_compiled_threads and objective is None:
        compiled = compiled_likelihood(flow, parameters, train, n_compiled_threads)
    likelihood = objective or compiled or Likelihood(flow)
    optimiser = (Muon if orthogonalises else AdamW)(parameters, weight_decay)
    stopping = EarlyStopping(n_iter_no_change, tol)
    result = TrainingResult()
    kept, average = parameters.values.clone(), MovingAverage(parameters.values, AVERAGED_STEPS)
    if early_stopping and validation is not None:
        result.best_score = _mean_log_likelihood(likelihood, validation)
        stopping.update(0, result.best_score)

    n_batches = math.ceil(len(train.values) * n_visits / batch_size)
    n_epochs = math.inf if max_iter is None else max_iter
    clock = _Clock(n_epochs * n_batches, max_time)
    n_at_once = 1
    if compiled is not None:
        n_at_once = max(1, (ROWS_AT_ONCE if max_time is None else ROWS_AT_ONCE_ON_THE_CLOCK) // batch_size)
    step_scale, n_rollbacks, n_decays = 1.0, 0, 0
    threads = ExitStack()
    try:
        if compiled is not None:  # kernels have threads of their own, between which torch only adds up a few vectors
            threads.enter_context(one_thread())
        while result.n_iter < n_epochs and result.stop_reason == "max_iter":
            epoch_start = parameters.values.clone(), average.values.clone()
            visits = [torch.randperm(len(train.values), generator=generator) for _ in range(n_visits)]
            order = torch.cat(visits).to(train.values.device)
            total: Tensor | float = 0.0
            n_seen = 0
            batches = order.tensor_split(n_batches)
            for i in range(0, n_batches, n_at_once):
                some, first = batches[i : i + n_at_once], result.n_iter * n_batches + i
                n_steps = clock.total_steps(first + 1)
                rates = [step_scale * learning_rate * warmup_cosine(first + j, n_steps) for j in range(len(some))]
                if compiled is not None:
                    total += compiled.take_steps(train, some, rates, optimiser, average)
                else:
                    total += likelihood.add_gradient(train, some[0]) * len(some[0])
                    optimiser.step(rates[0])
                    average.add(parameters.values)
                n_seen += sum(map(len, some))
                if clock.is_over:
                    break
            epoch_loss = float(total) / n_seen
            # A sum is finite only if all its terms are, and takes a fraction of the time of asking each.
            if not math.isfinite(epoch_loss + float(parameters.values.sum())):
                n_rollbacks += 1
                if n_rollbacks > MAX_ROLLBACKS:
                    raise DivergedError(f"the loss was {epoch_loss} at every step size down to {step_scale * learning_rate:g}")
                step_scale /= 2
                parameters.values.copy_(epoch_start[0])
                average.values.copy_(epoch_start[1])
                optimiser.reset()
                continue

            current = parameters.values.clone()
            parameters.values.copy_(average.values)
            score = _mean_log_likelihood(likelihood, validation) if validation is not None else None
            result.loss_curve.append(epoch_loss)
            if score is not None:
                result.validation_scores.append(score)
            # Without early stopping the last weights are the ones to keep.
            if not early_stopping or score is None or stopping.update(result.n_iter, score):
                kept.copy_(parameters.values)
                result.best_epoch = result.n_iter
                result.best_score = math.nan if score is None else score
            if clock.is_over:
                result.stop_reason = "max_time"
            elif early_stopping and score is not None and stopping.should_stop:
                n_decays += 1
                if n_decays > MAX_DECAYS:
                    result.stop_reason = "early_stopping"
                step_scale /= DECAY
                stopping.start_again(n_iter_no_change / 2)
                current.copy_(kept)
                average.start_again(kept)
                optimiser.reset()
            if on_epoch_end is not None and on_epoch_end(result):
                result.stop_reason = "callback"
            parameters.values.copy_(current)
    except KeyboardInterrupt:
        result.stop_reason = "interrupted"
    finally:
        threads.close()
    parameters.values.copy_(kept)
    return result


class _Clock:
    """How many steps there are, in a number of steps and a number of seconds from now on."""

    def __init__(self, max_steps: float, max_time: float | None) -> None:
        self.max_steps = max_steps
        self.max_time = math.inf if max_time is None else max_time
        self.start = time.perf_counter()

    def total_steps(self, n_done: int) -> float:
        """Steps in all, as far as can be told after ``n_done``, the current one included."""
        share = (time.perf_counter() - self.start) / self.max_time
        return min(self.max_steps, max(n_done, n_done / share)) if share > 0 else self.max_steps

    @property
    def is_over(self) -> bool:
        """Whether the time is used up."""
        return self.max_time < math.inf and time.perf_counter() - self.start >= self.max_time


def _mean_log_likelihood(likelihood: Likelihood | CompiledLikelihood | ContinuousObjective, rows: Rows) -> float:
    return float((rows.weight * likelihood.log_prob(rows)).sum(dtype=torch.float64)) / float(
        rows.weight.sum(dtype=torch.float64)
    )
