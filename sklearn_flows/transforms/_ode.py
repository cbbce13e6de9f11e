"""The continuous transform: the solution of an ordinary differential equation, and its log-determinant."""

from __future__ import annotations

import torch
from torch import Tensor
from torchdiffeq import odeint

from ._base import Transform
from ._solver import StepLimitError, solve_adaptively
from ._vector_field import VectorField

# Steps that a row may try, whatever the tolerance: fields that ask for more are not worth their cost.
MAX_STEPS = 5_000


class NeuralODE(Transform):
    """Flow along a vector field, :math:`dx / dt = f(x, t, c)`, from latents at :math:`t = 0` to data at 1 [1]_ [2]_.

    The log-determinant is an integral of traces along the way ([1]_, theorem 1),

    .. math:: \\log \\left| \\det \\frac{\\partial x(1)}{\\partial x(0)} \\right| =
       \\int_0^1 \\operatorname{tr} \\frac{\\partial f}{\\partial x}(x(t), t, c) \\, dt .

    Both maps are solved adaptively, each row with steps of its own, so that no row's image depends on others, and with exact
    traces.

    Parameters
    ----------
    field : VectorField
        The field :math:`f`.
    rtol, atol : float
        What a step's error in a feature or in the log-determinant may be: ``atol`` plus ``rtol`` times the value.

    References
    ----------
    .. [1] Chen, Rubanova, Bettencourt and Duvenaud, "Neural Ordinary Differential Equations", NeurIPS 2018.
    .. [2] Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, "FFJORD: Free-form Continuous Dynamics for Scalable Reversible
       Generative Models", ICLR 2019.
    """

    def __init__(self, field: VectorField, rtol: float = 1e-5, atol: float = 1e-6) -> None:
        super().__init__()
        self.field = field
        self.rtol = rtol
        self.atol = atol

    def extra_repr(self) -> str:
        return f"rtol={self.rtol}, atol={self.atol}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_det, _ = self.solve(x, context, 1.0, 0.0)
        return z, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det, _ = self.solve(z, context, 0.0, 1.0)
        return x, log_det

    def solve(self, x: Tensor, context: Tensor | None, t_start: float, t_end: float) -> tuple[Tensor, Tensor, Tensor]:
        """Follow the field adaptively.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_features)
            Where rows are at ``t_start``.
        context : Tensor of shape (n_samples, n_context) or None
            What the field depends on besides.
        t_start, t_end : float
            Times.

        Returns
        -------
        x : Tensor of shape (n_samples, n_features)
            Where rows are at ``t_end``.
        log_det : Tensor of shape (n_samples,)
            Log-determinants of the map.
        n_evaluations : Tensor of shape (n_samples,)
            How often the field was computed for each row.

        Raises
        ------
        StepLimitError
            If a row can't be followed to the tolerance.
        """
        folded = self.field.fold()

        def derivative(state: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            seen = None if context is None else context[rows]
            velocity, trace = self.field.with_trace(state[:, :-1], t, seen, folded=folded)
            return torch.cat([velocity, trace[:, None]], dim=-1)

        start = torch.cat([x, x.new_zeros(len(x), 1)], dim=-1)
        rounding = 100 * torch.finfo(x.dtype).eps  # smaller errors than these can't be seen
        tolerances = {"rtol": max(self.rtol, rounding), "atol": max(self.atol, rounding)}
        try:
            end, n_evaluations = solve_adaptively(derivative, start, t_start, t_end, **tolerances, max_steps=MAX_STEPS)
        except StepLimitError as error:
            raise StepLimitError(
                f"The differential equation can't be solved to rtol={self.rtol} and atol={self.atol}: {error}. Raise rtol and"
                " atol, or train a smoother field: with a lower learning_rate, or with kinetic_weight where there is one."
            ) from error
        return end[:, :-1], end[:, -1], n_evaluations

    def forward_in_steps(
        self, x: Tensor, context: Tensor | None, n_steps: int, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map data to latents in steps of equal size, the way to train: gradients go through few evaluations.

        Parameters
        ----------
        x : Tensor of shape (n_samples, n_features)
            Points in data space.
        context : Tensor of shape (n_samples, n_context) or None
            What the field depends on besides.
        n_steps : int
            Number of steps of the Runge-Kutta method of order four, of four evaluations each.
        noise : Tensor of shape (n_samples, n_features), default=None
            Random signs, the same all along the way, for Hutchinson's estimate of the trace. None computes it exactly.

        Returns
        -------
        z : Tensor of shape (n_samples, n_features)
            Points in latent space.
        log_det : Tensor of shape (n_samples,)
            Log-determinants.
        energy : Tensor of shape (n_samples,)
            The kinetic energy :math:`\\int_0^1 \\lVert f(x(t), t) \\rVert^2 dt` of the way.
        """
        folded = self.field.fold() if noise is None else None

        def derivative(t: Tensor, state: Tensor) -> Tensor:
            velocity, trace = self.field.with_trace(state[:, :-2], t[None], context, noise=noise, folded=folded)
            energy = velocity.square().sum(dim=-1, keepdim=True)
            return torch.cat([velocity, trace[:, None], -energy], dim=-1)

        start = torch.cat([x, x.new_zeros(len(x), 2)], dim=-1)
        times = torch.linspace(1.0, 0.0, n_steps + 1, dtype=x.dtype, device=x.device)
        end = odeint(derivative, start, times, method="rk4")[-1]
        return end[:, :-2], end[:, -2], end[:, -1]
