import math

import pytest
import torch

from sklearn_flows.transforms import Affine


def test_log_scale_stays_within_its_bound_for_any_parameter():
    raw = torch.tensor([[0.0, -1e30], [0.0, -3.0], [0.0, 3.0], [0.0, 1e30]])
    _, log_derivative = Affine(log_scale_bound=4.0).forward(torch.ones(4), raw)
    assert (log_derivative.abs() <= 4.0).all()
    assert (log_derivative.diff() < 0).all()


def test_small_parameters_are_shift_and_log_scale():
    # a / (1 + |a| / bound) differs from a by a**2 / bound.
    z, log_derivative = Affine().forward(torch.tensor(2.0).double(), torch.tensor([0.5, 1e-4], dtype=torch.float64))
    assert float(log_derivative) == pytest.approx(-1e-4, abs=1e-8)
    assert float(z) == pytest.approx(1.5 * math.exp(-1e-4), abs=1e-8)
