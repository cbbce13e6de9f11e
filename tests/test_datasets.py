"""What must hold for densities that are said to be exact."""

import numpy as np
import pytest

from sklearn_flows.datasets import TOY_DENSITIES

every_toy = pytest.mark.parametrize("toy", TOY_DENSITIES.values(), ids=TOY_DENSITIES)
SIDE, N_CELLS = 12.0, 240


def grid():
    """Midpoints of the cells of a square around the origin, and the area of a cell.

    Edges of the checkerboard are edges of cells, and the other densities are smooth at this distance of 0.05.
    """
    middle = (np.arange(N_CELLS) + 0.5) * (SIDE / N_CELLS) - SIDE / 2
    return np.column_stack([axis.ravel() for axis in np.meshgrid(middle, middle)]), (SIDE / N_CELLS) ** 2


@every_toy
def test_the_density_integrates_to_one_and_is_that_of_the_draws(toy):
    points, area = grid()
    log_density = toy.score_samples(points)
    p = np.exp(log_density) * area
    assert p.sum() == pytest.approx(1, abs=1e-5)  # the sum over cells is that good for the sheared arms of the pinwheel

    # Three moments by integration, and means over draws: they differ by their standard errors.
    n_draws = 4_000
    X = toy.sample(n_draws, random_state=0)
    assert X.shape == (n_draws, 2)
    assert np.isfinite(toy.score_samples(X)).all()
    moments = {
        "log-density": lambda X, log_density: np.where(log_density > -np.inf, log_density, 0),
        "direction": lambda X, log_density: np.sin(3 * X[:, 0] + X[:, 1]),
        "cosine": lambda X, log_density: np.cos(2 * X[:, 0] - 5 * X[:, 1]),
    }
    for moment in moments.values():
        drawn = moment(X, toy.score_samples(X))
        expected = p @ moment(points, log_density)
        assert abs(drawn.mean() - expected) < 4 * drawn.std() / np.sqrt(n_draws) + 1e-6


@every_toy
def test_the_seed_decides_the_draws(toy):
    X = toy.sample(10, random_state=3)
    assert np.array_equal(toy.sample(10, random_state=3), X)
    assert not np.array_equal(toy.sample(10, random_state=4), X)
    assert np.array_equal(toy.sample(10, np.random.RandomState(3)), X)


@every_toy
@pytest.mark.parametrize(("X", "message"), [(np.zeros((3, 3)), "two columns, but has 3"), ([[np.nan, 0]], "NaN")])
def test_rows_that_are_no_points_of_the_plane_are_refused(toy, X, message):
    with pytest.raises(ValueError, match=message):
        toy.score_samples(X)
