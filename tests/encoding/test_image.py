"""Pixel levels, their noise and their logit."""

import numpy as np
import pytest
from scipy import stats

from sklearn_flows.encoding import ImageEncoding, PixelLevels


@pytest.fixture
def rng():
    return np.random.RandomState(0)


@pytest.mark.parametrize("scale", [1.0, 1 / 255, 3.0, 1e-200, 1e200])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_levels_are_found_in_any_unit(scale, dtype, rng):
    if dtype == np.float32 and not 1e-30 < scale < 1e30:
        scale = 1 / 16
    X = (scale * rng.choice([8, 9, 11, 238], size=(20, 6))).astype(dtype)
    levels = PixelLevels.fit(X)
    # 231 cells, and a twentieth of the interval free on both sides.
    free = 231 / 18
    assert (levels.low, levels.high, levels.step) == pytest.approx(
        ((7.5 - free) * scale, (238.5 + free) * scale, scale), rel=1e-5
    )


def test_a_single_level_has_the_width_of_integers():
    levels = PixelLevels.fit(np.full((3, 4), 5.0))
    assert (levels.low, levels.high, levels.step) == pytest.approx((4.5 - 1 / 18, 5.5 + 1 / 18, 1.0))


def test_continuous_pixels_get_cells_that_hardly_matter(rng):
    X = rng.uniform(2, 4, size=(50, 9))
    levels = PixelLevels.fit(X)
    assert levels.step == pytest.approx((X.max() - X.min()) / 65535)
    assert levels.low < X.min() - levels.step / 2


def test_noise_is_uniform_in_the_cell_of_each_level(rng):
    X = rng.choice([0.0, 1.0, 16.0], size=(500, 8))
    levels = PixelLevels.fit(X)
    noise = levels.dequantise(X, np.random.RandomState(1)) - X
    assert np.abs(noise).max() <= 0.5
    assert stats.kstest(noise.ravel(), stats.uniform(-0.5, 1).cdf).pvalue > 0.01
    np.testing.assert_array_equal(np.rint(X + noise), X)


def test_log_det_is_that_of_finite_differences(rng):
    levels = PixelLevels(-0.5, 16.5, 1.0)
    X = rng.uniform(-0.4, 16.4, size=(30, 4))
    h = 1e-5
    slopes = (levels.encode(X + h)[0] - levels.encode(X - h)[0]) / (2 * h)
    np.testing.assert_allclose(levels.encode(X)[1], np.log(slopes).sum(axis=1), rtol=1e-6)


def test_the_logit_is_that_of_the_share_of_the_interval(rng):
    levels = PixelLevels(-0.5, 16.5, 1.0)
    X = rng.uniform(-0.4, 16.4, size=(30, 4))
    share = (X + 0.5) / 17
    np.testing.assert_allclose(levels.encode(X)[0], np.log(share / (1 - share)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(levels.decode(levels.encode(X)[0]), X, rtol=1e-12, atol=1e-12)


def test_beyond_the_outermost_cells_the_density_is_zero():
    levels = PixelLevels(-0.5, 16.5, 1.0)
    inside = np.full((1, 3), 8.0)
    for value in (-0.5, 16.5, -3.0, 1e300, -1e300):
        X = inside.copy()
        X[0, 1] = value
        Z, log_det = levels.encode(X)
        assert log_det[0] == -np.inf
        assert np.isfinite(Z).all()


@pytest.mark.parametrize("margins", ["linear", "bent", "smooth"])
def test_pixels_are_standardised_after_the_logit_and_log_dets_add_up(margins, rng):
    X = rng.binomial(16, [0.0, 0.1, 0.5, 0.9], size=(200, 4)).astype(float)
    weight = rng.exponential(size=200)
    levels = PixelLevels.fit(X)
    noisy = levels.dequantise(X, rng)
    encoding = ImageEncoding.fit(levels, noisy, weight, margins)
    assert encoding.varies.all()
    Z, log_det = encoding.encode(noisy)
    np.testing.assert_allclose(np.average(Z, axis=0, weights=weight), 0, atol=0.1)
    np.testing.assert_allclose(np.average(Z**2, axis=0, weights=weight), 1, atol=0.3)
    h = 1e-6
    slopes = (encoding.encode(noisy + h)[0] - encoding.encode(noisy - h)[0]) / (2 * h)
    np.testing.assert_allclose(log_det, np.log(slopes).sum(axis=1), atol=1e-2)
    np.testing.assert_allclose(encoding.decode(Z), noisy, rtol=1e-8, atol=1e-8)
