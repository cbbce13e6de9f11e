"""Expectation-maximisation on compiled kernels, where these can serve."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ._trial import tried


def compiled_steps_of_mixtures() -> ModuleType | None:
    """Give what fits mixtures, ``first_groups`` and ``take_steps``, or None where it can't serve.

    Returns
    -------
    module or None
        They do what numpy does, to rounding, and hold no lock meanwhile, so that several threads can fit mixtures.
    """
    # Of a single normal component the density is known.
    rows = np.stack([np.cos(np.arange(9.0)), np.arange(9.0) / 9])
    centre, covariance = rows.mean(axis=1), np.cov(rows, ddof=0)

    def compile_it() -> ModuleType:
        from . import _expectation_maximisation

        return _expectation_maximisation

    def log_density(kernels: ModuleType) -> Tensor:
        statistics, weight = np.stack([rows[0] * rows[1], *rows**2, *rows, np.ones(9)]), np.ones(9)
        progress, n, weighted = np.array([-np.inf, 0, -np.inf]), np.array([9.0]), np.ones((1, 9))
        best = np.empty(1), np.empty((1, 2)), np.empty((1, 2, 2)), np.empty(9), np.empty((1, 9))
        kernels.take_steps(
            *(statistics, statistics, weight, weight / 9, centre, 1, 0.0, 0.0, 0.0, np.array([np.inf])),
            *(1, 0.0, 1, progress, n, weighted, np.ones((1, 9)), *best),
        )
        return torch.as_tensor(best[3])

    def expected() -> tuple[Tensor, float]:
        normal = torch.distributions.MultivariateNormal(torch.as_tensor(centre), torch.as_tensor(covariance))
        return normal.log_prob(torch.as_tensor(rows.T.copy())), 0.0

    return tried(("mixture",), compile_it, log_density, expected)
