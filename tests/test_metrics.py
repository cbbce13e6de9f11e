"""Bits per dimension against densities that can be counted by hand."""

import numpy as np
import pytest

from sklearn_flows.metrics import bits_per_dim


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("step", [1.0, 1 / 255, 3.0])
def test_a_uniform_density_over_the_cells_of_all_levels_has_their_number_of_bits(bits, step):
    # Each of the 12 pixels is uniform over 2^bits cells of one step each.
    log_density = np.full(5, -12 * np.log(2**bits * step))
    assert bits_per_dim(log_density, n_features=12, step=step) == pytest.approx(bits, rel=1e-12)


def test_a_uniform_density_over_half_of_the_cells_has_a_bit_less():
    assert bits_per_dim([-64 * np.log(8.0)], 64) == bits_per_dim([-64 * np.log(16.0)], 64) - 1


def test_weights_are_repetitions():
    log_density = np.array([-10.0, -20.0, -np.inf])
    assert bits_per_dim(log_density, 3, sample_weight=[2, 1, 0]) == bits_per_dim([-10.0, -10.0, -20.0], 3)


def test_density_zero_takes_infinitely_many_bits():
    assert bits_per_dim([-10.0, -np.inf], 4) == np.inf


@pytest.mark.parametrize(
    ("log_density", "settings", "message"),
    [
        ([[1.0]], {}, "in one dimension. Got shape \\(1, 1\\)"),
        ([np.nan], {}, "below infinity"),
        ([np.inf], {}, "below infinity"),
        ([], {}, "0 sample"),
        ([1.0], {"n_features": 0}, "n_features must be an integer of at least 1, the number of pixels. Got 0"),
        ([1.0], {"n_features": 2.5}, "n_features must be an integer"),
        ([1.0], {"step": 0.0}, "step must be a positive number"),
        ([1.0], {"step": np.nan}, "step must be a positive number"),
        ([1.0], {"sample_weight": [0.0]}, "weight.*zero"),
    ],
)
def test_what_makes_no_sense_is_refused(log_density, settings, message):
    with pytest.raises(ValueError, match=message):
        bits_per_dim(log_density, **{"n_features": 4, **settings})
