"""How the flows of a conditional density are fitted: each without a part of the rows, which tells it when to stop."""

import math
from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import RidgeCV

from ..flows import Flow, Rows, conditional_spline_flow
from ..training import TrainingResult, fit_flow, whitening_matrix
from ..transforms import CONDITIONER_BOUND
from ..utils._random import torch_generator
from ..utils._threads import one_thread_if_small

# Penalties that the regression may choose from, by leave-one-out errors.
PENALTIES = np.logspace(-3, 4, 8)
# Compiled kernels serve where they save more time than it takes to load them.
MIN_STEPS_FOR_COMPILED_KERNELS = 100


class Member(NamedTuple):
    """A fitted flow, and what its training saw."""

    flow: Flow
    training: TrainingResult


class Plan(NamedTuple):
    """What follows from the rows and is the same for all members."""

    max_iter: int
    batch_size: int
    device: torch.device


def regression_start(Z, C, weight):
    """Ridge regression of encoded targets on encoded features, and a map that whitens what it leaves.

    Parameters
    ----------
    Z : ndarray of shape (n_samples, n_targets)
        Encoded targets.
    C : ndarray of shape (n_samples, n_context)
        Encoded features.
    weight : ndarray of shape (n_samples,)
        Weights.

    Returns
    -------
    coefficients, intercept : ndarray of shape (n_targets, n_context), ndarray of shape (n_targets,)
        The regression.
    whitening : ndarray of shape (n_targets, n_targets)
        Lower triangular, with a positive diagonal.
    """
    if not Z.shape[1] or not C.shape[1] or len(Z) < 2:
        intercept = np.average(Z, axis=0, weights=weight)
        return np.zeros((Z.shape[1], C.shape[1])), intercept, whitening_matrix(Z - intercept, weight)
    C = np.clip(C, -CONDITIONER_BOUND, CONDITIONER_BOUND)  # as the flow's conditioners see them
    # An intercept, though encoded columns are centred: of few centred rows each follows from the others, and the errors of rows
    # left out would vanish.
    ridge = RidgeCV(PENALTIES, store_cv_results=True).fit(C, Z, sample_weight=weight)
    coefficients, intercept = ridge.coef_.reshape(Z.shape[1], C.shape[1]), np.reshape(ridge.intercept_, Z.shape[1])
    residuals = Z - C @ coefficients.T - intercept
    # Where features are many, residuals are smaller than errors of new rows: they get the size of the leave-one-out errors,
    # which scikit-learn multiplies by the weights.
    errors = ridge.cv_results_.reshape(len(Z), Z.shape[1], len(PENALTIES))[:, :, list(PENALTIES).index(ridge.alpha_)]
    tiny = np.finfo(np.float64).tiny
    growth = np.sqrt((errors.sum(axis=0) + tiny) / (weight @ np.square(residuals) + tiny))
    return coefficients, intercept, whitening_matrix(residuals * growth, weight)


def held_out_rows(k, n_members, order, fraction):
    """Rows that a member doesn't learn from: each leaves out others, as far as they go.

    Parameters
    ----------
    k, n_members : int
        Number of the member, from 0, and how many there are.
    order : ndarray of shape (n_samples,)
        A random order of the rows.
    fraction : float
        Share to hold out; at least one row is, and at least one is left.

    Returns
    -------
    kept, held_out : ndarray of int
        Indices.
    """
    n_held_out = min(max(1, math.ceil(fraction * len(order))), len(order) - 1)
    turned = np.roll(order, -(k * len(order) // n_members))
    return turned[n_held_out:], turned[:n_held_out]


def fit_member(estimator, plan, Z, C, weight, kept, held_out, seed):
    """Fit one flow.

    Parameters
    ----------
    estimator : ConditionalFlowDensity
        Its parameters shape the flow and its training.
    plan : Plan
        What its parameters mean for these rows.
    Z, C : ndarray of shape (n_samples, n_targets), ndarray of shape (n_samples, n_context)
        Encoded targets and features.
    weight : ndarray of shape (n_samples,)
        Weights.
    kept, held_out : ndarray of int
        Rows to learn from and rows to watch; of the latter there may be none.
    seed : int
        Seed of the initial weights and of the order of rows.

    Returns
    -------
    Member
        Its flow is in float64, on the CPU.
    """

    def rows(part):
        if not len(part):
            return None
        share = weight[part] / weight[part].mean()
        return Rows(*(torch.as_tensor(a, dtype=torch.float32, device=plan.device) for a in (Z[part], share, C[part])))

    generator = torch_generator(seed)
    coefficients, intercept, whitening = regression_start(Z[kept], C[kept], weight[kept])
    # Threads have modes of their own, and the caller may have switched gradients off, or autocast on.
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(plan.device.type, enabled=False):
        flow = conditional_spline_flow(
            torch.as_tensor(whitening),
            torch.as_tensor(coefficients),
            torch.as_tensor(intercept),
            n_transforms=estimator.n_transforms,
            hidden_layer_sizes=estimator.hidden_layer_sizes,
            activation=estimator.activation,
            n_bins=estimator.n_bins,
            tail_bound=estimator.tail_bound,
            generator=generator,
        ).to(plan.device)
        n_steps = plan.max_iter * math.ceil(len(kept) / plan.batch_size)
        widest_layer = max([C.shape[1] + Z.shape[1], *estimator.hidden_layer_sizes])
        with one_thread_if_small(plan.batch_size * widest_layer):
            training = fit_flow(
                flow,
                rows(kept),
                rows(held_out),
                max_iter=plan.max_iter,
                batch_size=plan.batch_size,
                learning_rate=estimator.learning_rate,
                weight_decay=estimator.weight_decay,
                early_stopping=estimator.early_stopping,
                n_iter_no_change=estimator.n_iter_no_change,
                tol=estimator.tol,
                generator=generator,
                n_compiled_threads=torch.get_num_threads() if n_steps >= MIN_STEPS_FOR_COMPILED_KERNELS else 0,
            )
        return Member(flow.to(device="cpu", dtype=torch.float64).requires_grad_(False).eval(), training)
