"""What continuous flows are trained by: the likelihood along an equation's solution, or the regression of its field."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .._workspace import Workspace
from ..flows import Flow, Rows, starts_smooth
from ..transforms import Composed, NeuralODE, StepLimitError, Transform
from ._likelihood import rows_at_once

# Rows and draws that are paired with each other at once: the time that takes grows with the cube of their number.
ROWS_OF_A_PAIRING = 128


class ContinuousObjective(ABC):
    """What the loop asks for, of a continuous flow: gradients of a loss, and likelihoods.

    Parameters
    ----------
    flow : Flow
        Transforms with one ``NeuralODE`` among them; gradients are added to those of its parameters.
    generator : torch.Generator
        Source of what is drawn, a generator of the CPU.

    Attributes
    ----------
    loss_is_likelihood : bool
        Whether the loss is the negative log-likelihood of the rows.
    """

    loss_is_likelihood: bool

    def __init__(self, flow: Flow, generator: torch.Generator) -> None:
        self.flow = flow
        self.generator = generator
        self.before, self.ode, self.after = split_at_equation(flow)

    @abstractmethod
    def add_gradient(self, rows: Rows, batch: Tensor) -> Tensor:
        """Add the gradient of the loss of a batch.

        Parameters
        ----------
        rows : Rows
            All rows.
        batch : Tensor of shape (n_batch,)
            Numbers of the rows that belong to the batch.

        Returns
        -------
        Tensor of shape ()
            The loss.
        """

    @torch.no_grad()
    def log_prob(self, rows: Rows) -> Tensor:
        """Log-density of rows, as they are scored later: adaptively, with exact traces.

        Where the equation can't be solved, the density is none that anybody could use, so it counts as zero.
        """
        size = rows_at_once(rows)
        parts = []
        for start in range(0, len(rows.values), size):
            given = rows.given(slice(start, start + size))
            try:
                parts.append(self.flow.log_prob(*given))
            except StepLimitError:
                parts.append(torch.full_like(given[0][:, 0], -math.inf))
        return torch.cat(parts)


def split_at_equation(flow: Flow) -> tuple[list[Transform], NeuralODE, list[Transform]]:
    """Find the differential equation of a continuous flow.

    Parameters
    ----------
    flow : Flow
        Transforms with one ``NeuralODE`` among them.

    Returns
    -------
    before, ode, after : list of Transform, NeuralODE, list of Transform
        What maps data to where the equation ends, the equation, and what maps where it starts to the base.
    """
    assert isinstance(flow.transform, Composed)
    transforms = [part for part in flow.transform.transforms if isinstance(part, Transform)]
    (i,) = [i for i, part in enumerate(transforms) if isinstance(part, NeuralODE)]
    ode = transforms[i]
    assert isinstance(ode, NeuralODE)
    return transforms[:i], ode, transforms[i + 1 :]


@torch.no_grad()
def mean_evaluations(flow: Flow, rows: Rows) -> float:
    """How often the field of a continuous flow is computed to score a row, in the mean.

    Parameters
    ----------
    flow : Flow
        The flow.
    rows : Rows
        The rows.

    Returns
    -------
    float
        The mean.
    """
    before, ode, _ = split_at_equation(flow)
    x, *context = rows.given(slice(None))
    for transform in before:
        x, _ = transform.forward(x, *context)
    _, _, n_evaluations = ode.solve(x, context[0] if context else None, 1.0, 0.0)
    return float(n_evaluations.double().mean())


class ContinuousLikelihood(ContinuousObjective):
    """Log-likelihood of rows under a continuous flow, its gradient through a solution in few equal steps.

    Gradients are those of the discretised solution, not of the adjoint equation: they are exact for what is computed, and ask
    for no second solution.

    Parameters
    ----------
    flow : Flow
        The flow.
    n_steps : int
        Number of Runge-Kutta steps.
    trace : {"exact", "hutchinson"}
        How the trace is computed in training; "hutchinson" draws random signs for each row and solution [1]_ (section 3.1).
    kinetic_weight : float
        What the kinetic energy of the rows' ways, divided by the number of features, counts in the loss [2]_ (eq. 9).
    generator : torch.Generator
        Source of the signs, a generator of the CPU.

    References
    ----------
    .. [1] Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, "FFJORD: Free-form Continuous Dynamics for Scalable Reversible
       Generative Models", ICLR 2019.
    .. [2] Finlay, Jacobsen, Nurbekyan and Oberman, "How to Train Your Neural ODE: the World of Jacobian and Kinetic
       Regularization", ICML 2020.
    """

    loss_is_likelihood = True

    def __init__(self, flow: Flow, n_steps: int, trace: str, kinetic_weight: float, generator: torch.Generator) -> None:
        super().__init__(flow, generator)
        self.n_steps = n_steps
        self.trace = trace
        self.kinetic_weight = kinetic_weight

    def add_gradient(self, rows: Rows, batch: Tensor) -> Tensor:
        total = rows.values.new_zeros(())
        for part in batch.split(rows_at_once(rows)):
            x, *contexts = rows.given(part)
            context = contexts[0] if contexts else None
            noise = None
            if self.trace == "hutchinson":
                noise = (2 * torch.randint(0, 2, x.shape, generator=self.generator) - 1).to(x)
            log_det = x.new_zeros(len(x))
            for transform in self.before:
                x, term = transform.forward(x, context)
                log_det = log_det + term
            x, term, energy = self.ode.forward_in_steps(x, context, self.n_steps, noise)
            log_det = log_det + term
            for transform in self.after:
                x, term = transform.forward(x, context)
                log_det = log_det + term
            weight = rows.weight[part] / len(batch)
            loss = -(weight * (self.flow.base.log_prob(x) + log_det)).sum()
            cost = loss
            if self.kinetic_weight:
                cost = loss + self.kinetic_weight / max(1, x.shape[1]) * (weight * energy).sum()
            torch.autograd.backward(cost)
            total += loss.detach()
        return total


class FlowMatching(ContinuousObjective):
    """Regression of a field on the velocities of straight ways from draws of the base to rows [1]_ (eq. 23, without noise).

    A row :math:`x_1` and a draw :math:`x_0` are joined by :math:`x_t = (1 - t) x_0 + t x_1`, and the loss is
    :math:`\\lVert f(x_t, t) - (x_1 - x_0) \\rVert^2` for each feature, at random times :math:`t`. The minimiser is the mean
    velocity of all ways through a point, and its flow takes the base to the rows ([1]_, theorems 1 and 2).

    Whatever the times are drawn from, the minimiser is the same. From a single Gaussian or Student t distribution, fields are
    smooth at first and steep where the rows gather, so times are drawn with a density of :math:`1 / (2 \\sqrt{1 - t})`. A
    mixture may be as sharp as the rows: from it, times are uniform.

    Parameters
    ----------
    flow : Flow
        The flow.
    coupling : {"independent", "optimal"}
        Which draw meets which row. "optimal" pairs groups of 128 such that the sum of the squared distances is smallest
        [2]_ (section 3.3): ways cross less, so the field's flow is straighter.
    generator : torch.Generator
        Source of draws and times, a generator of the CPU.

    References
    ----------
    .. [1] Lipman, Chen, Ben-Hamu, Nickel and Le, "Flow Matching for Generative Modeling", ICLR 2023.
    .. [2] Tong, Fatras, Malkin, Huguet, Zhang, Rector-Brooks, Wolf and Bengio, "Improving and Generalizing Flow-Based
       Generative Models with Minibatch Optimal Transport", TMLR 2024.
    """

    loss_is_likelihood = False

    def __init__(self, flow: Flow, coupling: str, generator: torch.Generator) -> None:
        super().__init__(flow, generator)
        self.coupling = coupling
        self.starts_smooth = starts_smooth(flow.base)
        self.workspace = Workspace()

    def add_gradient(self, rows: Rows, batch: Tensor) -> Tensor:
        total = rows.values.new_zeros(())
        for part in batch.split(rows_at_once(rows)):
            x_1, *contexts = rows.given(part)
            with torch.no_grad():
                for transform in self.before:
                    x_1, _ = transform.forward(x_1, *contexts)
                x_0 = self.flow.base.sample(len(part), self.generator).to(x_1)
                for transform in reversed(self.after):
                    x_0, _ = transform.inverse(x_0, *contexts)
                if self.coupling == "optimal":
                    x_0 = x_0[_nearest_pairs(x_1, x_0)]
                velocity = x_1 - x_0
                t = self._times(len(part)).to(x_1)
                x_t = torch.lerp(x_0, x_1, t[:, None])
            with self.workspace.round():
                error = self.ode.field.velocity(x_t, t, *contexts) - velocity
                loss = (rows.weight[part] * error.square().sum(dim=-1)).sum() / (len(batch) * max(1, x_1.shape[1]))
                torch.autograd.backward(loss)
            total += loss.detach()
        return total

    def _times(self, n: int) -> Tensor:
        # One in each n-th of the unit interval: less noise than from independent ones.
        order = torch.randperm(n, generator=self.generator)
        uniform = (order + torch.rand(n, generator=self.generator)) / n
        return 1 - uniform.square() if self.starts_smooth else uniform


def _nearest_pairs(rows: Tensor, draws: Tensor) -> Tensor:
    """For each row the number of the draw that it is paired with, within groups."""
    pairs = []
    for start in range(0, len(rows), ROWS_OF_A_PAIRING):
        group = slice(start, start + ROWS_OF_A_PAIRING)
        _, partners = linear_sum_assignment(torch.cdist(rows[group], draws[group]).square().cpu().numpy())
        pairs.append(start + torch.as_tensor(partners))
    return torch.cat(pairs).to(rows.device)
