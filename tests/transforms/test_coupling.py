import math

import pytest
import torch

from sklearn_flows.nets import MLP
from sklearn_flows.transforms import Affine, Coupling
from sklearn_flows.transforms._elementwise import CONDITIONER_BOUND


@pytest.mark.parametrize("stays", [[True, False], [False, True, True], [False, True, False, False, True], [False]])
def test_agrees_with_one_scalar_at_a_time(stays, generator, randomise):
    stays = torch.tensor(stays)
    n_staying, n_moving = int(stays.sum()), int((~stays).sum())
    conditioner = MLP(n_staying, 2 * n_moving, [4], "tanh", generator)
    coupling = randomise(Coupling(Affine(log_scale_bound=2.0), conditioner, stays), generator)
    x = 4 * torch.randn(20, len(stays), generator=generator, dtype=torch.float64)
    z, log_det = coupling.forward(x)

    for row, z_row, log_det_row in zip(x.tolist(), z.tolist(), log_det.tolist(), strict=True):
        kept = [max(-CONDITIONER_BOUND, min(value, CONDITIONER_BOUND)) for value, s in zip(row, stays, strict=True) if s]
        raw = iter(conditioner(torch.tensor([kept], dtype=torch.float64))[0].tolist())
        expected, expected_log_det = [], 0.0
        for value, s in zip(row, stays, strict=True):
            if s:
                expected.append(value)
                continue
            mu, a = next(raw), next(raw)
            alpha = a / (1 + abs(a) / 2.0)
            expected.append((value - mu) / math.exp(alpha))
            expected_log_det -= alpha
        assert z_row == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert log_det_row == pytest.approx(expected_log_det, rel=1e-12, abs=1e-12)


def test_features_that_stay_are_untouched(generator, randomise):
    stays = torch.tensor([False, True, False, True])
    coupling = randomise(Coupling(Affine(), MLP(2, 4, [4], "tanh", generator), stays), generator)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    for function in (coupling.forward, coupling.inverse):
        y, _ = function(x)
        assert torch.equal(y[:, stays], x[:, stays])
        assert not torch.isclose(y[:, ~stays], x[:, ~stays]).any()
