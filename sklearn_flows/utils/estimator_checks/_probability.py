"""Checks that a density is one: its mass, its units, its samples, its latents."""

import numpy as np
from scipy.integrate import cumulative_trapezoid
from scipy.stats import kstest

from ._answers import answers, assert_same_answers, fitted, must_raise, rows, takes


def check_density_score_is_mean(name, estimator_orig):
    """Check that ``score`` is the mean of ``score_samples``, weighted if it takes weights, as a float.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X = rows(20, seed=1)
    estimator = fitted(estimator_orig, rows())
    scores, weight = estimator.score_samples(X), np.random.RandomState(2).uniform(size=20)
    cases = [("score", estimator.score(X), scores.mean())]
    if takes(estimator, "score", "sample_weight"):
        weighted = estimator.score(X, sample_weight=weight)
        cases.append(("score with sample_weight", weighted, np.average(scores, weights=weight)))
    for case, actual, expected in cases:
        assert isinstance(actual, float), f"{name}: {case} must be a float, not {type(actual).__name__}."
        message = f"{name}: {case} must be the mean of score_samples."
        np.testing.assert_allclose(actual, expected, rtol=1e-10, err_msg=message)
    single = estimator.score(X.astype(np.float32))
    assert isinstance(single, float), f"{name}: score of float32 rows must be a float, not {type(single).__name__}."


def check_density_batch_invariance(name, estimator_orig):
    """Check that answers about a row don't depend on the rows that come with it, be they none or thousands.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X = rows(20, seed=1)
    estimator = fitted(estimator_orig, rows())
    by_row = ("score_samples", "transform", "inverse_transform")
    whole = {method: value for method, value in answers(estimator, X).items() if method in by_row}
    singly = [answers(estimator, row[None]) for row in X]
    one_by_one = {method: np.concatenate([single[method] for single in singly]) for method in whole}
    assert_same_answers(one_by_one, whole, f"{name} must answer row by row as for all rows at once", rtol=1e-7)
    n_copies = 107  # no divisor of usual sizes of chunks
    many = answers(estimator, np.tile(X, (n_copies, 1)))
    tiled = {method: np.concatenate([value] * n_copies) for method, value in whole.items()}
    assert_same_answers(many, tiled, f"{name} must answer for {len(X) * n_copies} rows as for {len(X)}", rtol=1e-7)


def check_sample_shape_and_seed(name, estimator_orig):
    """Check sizes of samples, what their seed does and that senseless numbers of rows are refused.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    estimator = fitted(estimator_orig, rows())
    for n_samples in (*range(1, 20), 63, 64, 65, 257, np.int64(7)):
        shape = estimator.sample(n_samples, random_state=0).shape
        assert shape == (n_samples, 2), f"{name}.sample({n_samples}) must have shape ({n_samples}, 2), not {shape}."
    assert estimator.sample(random_state=0).shape == (1, 2), f"{name}.sample() must draw one row."

    draws = estimator.sample(50, random_state=0)
    assert len(np.unique(draws, axis=0)) == 50, f"{name}.sample(50) must draw 50 different rows."
    assert np.array_equal(estimator.sample(50, random_state=0), draws), f"{name}.sample must repeat with an integer seed."
    assert not np.array_equal(estimator.sample(50, random_state=1), draws), f"{name}.sample must differ with another seed."
    state = np.random.RandomState(0)
    first, second = estimator.sample(50, random_state=state), estimator.sample(50, random_state=state)
    assert not np.array_equal(first, second), f"{name}.sample must advance the RandomState instance given."
    again = estimator.sample(50, random_state=np.random.RandomState(0))
    assert np.array_equal(again, first), f"{name}.sample must repeat with a RandomState instance of the same seed."
    # No seed set here: a check must leave numpy's global generator as any user would find it.
    assert not np.array_equal(estimator.sample(50), estimator.sample(50)), f"{name}.sample must vary without a seed."
    for n_samples in (0, -1):
        with must_raise(ValueError, "", f"{name}.sample({n_samples}) must raise ValueError"):
            estimator.sample(n_samples, random_state=0)


def check_density_affine_equivariance(name, estimator_orig):
    """Check that a change of units and origin shifts the log-density by the logarithm of the units, and no more.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X, X_new = rows(), rows(20, seed=1)
    expected = fitted(estimator_orig, X).score_samples(X_new)
    # Powers of two are exact in floating point, so only the logarithm itself rounds.
    for scale, loc, atol in (([8.0, 2.0**-4], 0.0, 1e-10), ([3.7, 0.013], np.array([100.0, -5.0]), 0.01)):
        scores = fitted(estimator_orig, X * scale + loc).score_samples(X_new * scale + loc)
        message = f"Scores of {name} must shift by -sum(log(scale)) where X is multiplied by {scale} and {loc} added."
        np.testing.assert_allclose(scores + np.log(scale).sum(), expected, rtol=0, atol=atol, err_msg=message)


def check_density_units(name, estimator_orig):
    """Check that the density is one in the units of ``X``, by that of a Gaussian whose columns have large units.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    rng = np.random.RandomState(0)
    scale = np.array([1e5, 1e3])
    score = fitted(estimator_orig, rng.normal(size=(60, 2)) * scale).score_samples(rng.normal(size=(60, 2)) * scale).mean()
    expected = -np.log(2 * np.pi * np.e) - np.log(scale).sum()
    # 60 rows teach little: the margin is wide, but far from the 18 nats that are lost with the units.
    assert abs(score - expected) < 3, (
        f"The mean log-density of {name} on normal rows of scales 1e5 and 1e3 must be near {expected:.1f}, but is {score:.1f}."
        " Is it in the units of X?"
    )


def check_density_integrates_to_one(name, estimator_orig):
    """Check that the density has mass one, by quadrature in one and in two dimensions.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    for X in (_two_humps(), _bent()):
        _, density, _, weights = _on_grid(fitted(estimator_orig, X), X)
        mass = (density * weights).sum()
        assert abs(mass - 1) < 1e-2, f"The density of {name} in {X.shape[1]}-D must integrate to one, but does to {mass:.4f}."


def check_sample_matches_density(name, estimator_orig):
    """Check that samples follow the density: each margin, and the mean log-density.

    Both are compared with quadratures of the fitted density itself, so it doesn't matter how well it fits.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    n_samples = 2000
    for X in (_two_humps(), _bent()):
        n_features = X.shape[1]
        estimator = fitted(estimator_orig, X)
        drawn = estimator.sample(n_samples, random_state=0)
        axes, density, log_density, weights = _on_grid(estimator, X)
        masses = density * weights
        for i, axis in enumerate(axes):
            other = tuple(j for j in range(n_features) if j != i)
            cumulative = cumulative_trapezoid(masses.sum(axis=other), initial=0)
            # One in ten thousand right estimators would be refused by chance, but for the fixed seed.
            p_value = kstest(drawn[:, i], lambda x, axis=axis, cdf=cumulative / cumulative[-1]: np.interp(x, axis, cdf)).pvalue
            assert p_value > 1e-4, (
                f"Column {i} of {n_samples} samples of {name} in {n_features}-D must follow the density that it scores by"
                f" (Kolmogorov-Smirnov p-value {p_value:.1e})."
            )
        scores = estimator.score_samples(drawn)
        expected = (masses * np.where(density > 0, log_density, 0)).sum() / masses.sum()
        error = (scores.mean() - expected) / (scores.std() / np.sqrt(n_samples))
        assert abs(error) < 4.5, (
            f"The mean log-density of samples of {name} in {n_features}-D must be {expected:.3f}, the negative entropy of the"
            f" density, but is {scores.mean():.3f} ({error:.1f} standard errors off)."
        )


def _two_humps():
    rng = np.random.RandomState(0)
    return (rng.choice([-1.5, 1.0], size=(60, 1)) + 0.7 * rng.normal(size=(60, 1))) * 20


def _bent():
    rng = np.random.RandomState(0)
    x = rng.normal(size=60)
    return np.column_stack([x, 0.3 * x**2 + 0.8 * x + 0.7 * rng.normal(size=60)]) * [0.05, 3.0]


def _on_grid(estimator, X):
    """Density on a grid that is fine where the data are and reaches far, with the weights of the trapezoidal rule."""
    n_nodes, reach = (4001, 1000) if X.shape[1] == 1 else (161, 60)
    t = np.linspace(-np.arcsinh(reach), np.arcsinh(reach), n_nodes)
    axes = [x.mean() + x.std() * np.sinh(t) for x in X.T]
    steps = [x.std() * np.cosh(t) * (t[1] - t[0]) for x in X.T]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    log_density = estimator.score_samples(grid.reshape(-1, X.shape[1])).reshape(grid.shape[:-1])
    weights = np.prod(np.meshgrid(*steps, indexing="ij"), axis=0)
    return axes, np.exp(log_density), log_density, weights


def check_density_tails(name, estimator_orig):
    """Check that the density goes on falling however far a row is from the data, and is never NaN.

    Minus infinity is in order where a density is too low to be represented.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X = rows()
    estimator = fitted(estimator_orig, X)
    distances = np.array([0.0, 1e1, 1e3, 1e6, 1e12, 1e100, 1e300])
    for direction in ([1.0, 0.0], [0.0, -1.0], [-1.0, 1.0]):
        with np.errstate(all="ignore"):
            scores = estimator.score_samples(X.mean(axis=0) + distances[:, None] * direction)
        claim = f"Scores of {name} along {direction} at distances {distances} must fall and never be NaN, but are {scores}."
        assert not np.isnan(scores).any(), claim
        assert scores[0] > -np.inf, claim
        assert ((scores[1:] < scores[:-1]) | np.isneginf(scores[1:])).all(), claim


def check_density_transform_consistency(name, estimator_orig):
    """Check that ``transform`` maps to a standard normal, ``score_samples`` has its Jacobian, and the inverse undoes it.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X_train, X = rows(), rows(20, seed=1)
    estimator = fitted(estimator_orig, X_train)
    Z = np.asarray(estimator.transform(X))
    restored = np.asarray(estimator.inverse_transform(Z))
    message = f"inverse_transform of {name} must undo transform."
    np.testing.assert_allclose(restored, X, rtol=0, atol=1e-6 * np.abs(X).max(), err_msg=message)

    # Central differences: with this step their own error is near 1e-9.
    steps = 1e-5 * X_train.std(axis=0)
    columns = [
        (np.asarray(estimator.transform(X + step)) - np.asarray(estimator.transform(X - step))) / (2 * step.sum())
        for step in np.diag(steps)
    ]
    _, log_det = np.linalg.slogdet(np.stack(columns, axis=-1))
    log_normal = -0.5 * (np.square(Z).sum(axis=1) + Z.shape[1] * np.log(2 * np.pi))
    message = (
        f"score_samples of {name} must be the log-density of a standard normal at transform(X), plus log|det| of its Jacobian."
    )
    np.testing.assert_allclose(estimator.score_samples(X), log_normal + log_det, rtol=0, atol=1e-4, err_msg=message)
