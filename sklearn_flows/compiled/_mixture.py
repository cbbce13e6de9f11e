"""Expectation-maximisation on compiled kernels, where these can serve."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ._trial import tried


def compiled_steps_of_mixtures() -> ModuleType | None:
    """Give the two halves of a step of expectation-maximisation, ``maximise`` and ``expect``, or None where they can't serve.

    Returns
    -------
    module or None
        They give what numpy gives, to rounding, and hold no lock meanwhile, so that several threads can take steps.
    """
    # Of a single normal component the density is known.
    rows = np.stack([np.cos(np.arange(9.0)), np.arange(9.0) / 9])
    centre, covariance = rows.mean(axis=1), np.cov(rows, ddof=0)

    def compile_it() -> ModuleType:
        from . import _expectation_maximisation

        return _expectation_maximisation

    def log_density(kernels: ModuleType) -> Tensor:
        statistics = np.stack([rows[0] * rows[1], *rows**2, *rows, np.ones(9)])
        n, weight, sums = np.array([9.0]), np.ones(9), statistics.sum(axis=1)[None]
        means, factors, coefficients = np.empty((1, 2)), np.zeros((1, 2, 2)), np.empty((1, 6))
        kernels.maximise(sums, 1, n, centre, 0.0, 0.0, 0.0, means, factors, coefficients)
        result, responsibility, weighted = np.empty(9), np.empty(9), np.empty(9)
        distances = (coefficients @ statistics).ravel()
        kernels.expect(distances, np.ones(1), factors, np.array([np.inf]), weight, result, responsibility, weighted, n)
        return torch.as_tensor(result)

    def expected() -> tuple[Tensor, float]:
        normal = torch.distributions.MultivariateNormal(torch.as_tensor(centre), torch.as_tensor(covariance))
        return normal.log_prob(torch.as_tensor(rows.T.copy())), 0.0

    return tried(("mixture",), compile_it, log_density, expected)
