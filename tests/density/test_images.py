"""Estimators whose rows are images."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import qmc
from sklearn.datasets import load_digits

from sklearn_flows import GlowDensity, RealNVPDensity
from sklearn_flows.density._images import resolve_n_levels
from sklearn_flows.encoding import ImageEncoding, PixelLevels
from sklearn_flows.flows import glow, glow_of_images
from sklearn_flows.metrics import bits_per_dim
from sklearn_flows.training import whitening_matrix
from sklearn_flows.transforms import ActNorm, FactorOut, LULinear, PerPosition

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

PLAIN = {
    "n_transforms": 2,
    "hidden_layer_sizes": (6,),
    "max_iter": 3,
    "learning_rate": 5e-3,
    "base": "normal",
    "random_state": 0,
}


@pytest.fixture(scope="module")
def X():
    """150 digits, several of whose pixels are constant."""
    X = load_digits().data[:150]
    assert (np.ptp(X, axis=0) == 0).any()
    return X


@pytest.fixture(scope="module", params=[RealNVPDensity, GlowDensity], ids=lambda Density: Density.__name__)
def Density(request):
    return request.param


@pytest.fixture(scope="module")
def fitted(Density, X):
    return Density(image_shape=(1, 8, 8), **PLAIN).fit(X)


def test_digits_are_fitted_without_a_warning_about_discrete_columns(Density, X):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="A continuous density is not meaningful")
        density = Density(image_shape=(1, 8, 8), **PLAIN).fit(X)
    assert density.score_samples(X).shape == (150,)
    assert np.isfinite(density.score_samples(X)).all()


def test_samples_fill_the_cells_of_the_levels(fitted):
    samples = fitted.sample(200, random_state=0)
    assert samples.shape == (200, 64)
    assert set(range(17)) <= set(np.unique(np.rint(samples)))
    # Few are beyond the cells of the levels, none is far from them.
    assert ((samples < -0.5) | (samples > 16.5)).mean() < 0.02
    assert np.abs(samples - 8).max() < 8.5 + 17 / 18
    np.testing.assert_array_equal(samples, fitted.sample(200, random_state=0))


def test_transform_and_back(fitted, X):
    latents = fitted.transform(X)
    assert latents.shape == X.shape
    np.testing.assert_allclose(fitted.inverse_transform(latents), X, atol=1e-8)


def test_a_score_is_the_change_of_variables(fitted, X):
    x = X[3]
    h = 1e-6
    steps = np.concatenate([x + h * np.eye(64), x - h * np.eye(64)])
    above, below = np.split(fitted.transform(steps), 2)
    _, log_det = np.linalg.slogdet((above - below) / (2 * h))
    latent = fitted.transform(x[None])[0]
    expected = -0.5 * (latent @ latent + 64 * np.log(2 * np.pi)) + log_det
    assert fitted.score_samples(x[None])[0] == pytest.approx(expected, abs=1e-3)


def test_scores_do_not_depend_on_the_batch_nor_on_chance(fitted, X):
    scores = fitted.score_samples(X)
    np.testing.assert_array_equal(scores, fitted.score_samples(X))
    np.testing.assert_allclose([fitted.score(x[None]) for x in X[:5]], scores[:5], rtol=1e-10)
    assert fitted.score_samples(X.astype(np.float32)).dtype == np.float32


def test_pixels_far_beyond_the_outermost_cells_have_density_zero(fitted, X):
    rows = X[:3].copy()
    rows[0, 5] = 17.5
    rows[1, 5] = -1.5
    assert np.isneginf(fitted.score_samples(rows)).tolist() == [True, True, False]


def test_the_density_integrates_to_one(Density):
    # Four pixels of four levels each, two of them nearly always equal: the density lives in a box around four cells.
    side = 4 / 0.9
    rng = np.random.RandomState(0)
    X = rng.randint(4, size=(400, 4)).astype(float)
    X[:, 2] = np.where(rng.uniform(size=400) < 0.9, X[:, 1], X[:, 2])
    density = Density(image_shape=(1, 2, 2), **PLAIN).fit(X)
    points = side * qmc.Sobol(4, seed=0).random(2**15) - (side - 3) / 2
    mass = np.exp(density.score_samples(points)) * side**4 / 2**15
    assert mass.sum() == pytest.approx(1, abs=0.02)
    # A uniform density would have a quarter there.
    assert mass[np.rint(points[:, 1]) == np.rint(points[:, 2])].sum() > 0.4


def test_scaled_levels_give_the_same_density_in_their_units(Density, X):
    in_sixteenths = Density(image_shape=(1, 8, 8), **PLAIN).fit(X / 16)
    expected = Density(image_shape=(1, 8, 8), **PLAIN).fit(X)
    np.testing.assert_allclose(in_sixteenths.score_samples(X / 16), expected.score_samples(X) + 64 * np.log(16), rtol=1e-9)
    assert bits_per_dim(in_sixteenths.score_samples(X / 16), 64, step=1 / 16) == pytest.approx(
        bits_per_dim(expected.score_samples(X), 64), rel=1e-9
    )


def test_weights_are_repetitions_and_the_order_of_rows_does_not_matter(Density, X):
    weight = np.random.RandomState(0).randint(3, size=len(X))
    repeated = np.random.RandomState(1).permutation(np.repeat(X, weight, axis=0))
    weighted = Density(image_shape=(1, 8, 8), **PLAIN).fit(X, sample_weight=weight)
    np.testing.assert_array_equal(
        weighted.score_samples(X), Density(image_shape=(1, 8, 8), **PLAIN).fit(repeated).score_samples(X)
    )


def test_networks_may_be_single_convolutions(Density, X):
    density = Density(image_shape=(1, 8, 8), **PLAIN | {"hidden_layer_sizes": ()}).fit(X)
    np.testing.assert_allclose(density.inverse_transform(density.transform(X)), X, atol=1e-8)


def test_one_image_alone_and_one_level_alone_can_be_fitted(Density, X):
    density = Density(image_shape=(1, 8, 8), **PLAIN)
    assert np.isfinite(density.fit(X[:1]).score(X[:1]))
    assert np.isfinite(density.fit(np.zeros((5, 64))).score(np.zeros((5, 64))))


def test_continuous_pixels_are_images_too(Density):
    rng = np.random.RandomState(0)
    X = rng.uniform(size=(120, 1, 1, 1)) + 0.1 * rng.uniform(size=(120, 3, 4, 6))
    X[:, 0, 0, 0] = 0.5
    density = Density(image_shape=(3, 4, 6), **PLAIN).fit(X.reshape(120, 72))
    assert np.isfinite(density.score(X.reshape(120, 72)))
    np.testing.assert_allclose(density.sample(10, random_state=0)[:, 0], 0.5, atol=1e-4)


def test_a_pickle_answers_alike(fitted, X):
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).score_samples(X), fitted.score_samples(X))


def test_a_warm_start_goes_on(Density, X):
    density = Density(image_shape=(1, 8, 8), **PLAIN | {"warm_start": True}).fit(X)
    before = density.loss_curve_
    density.fit(X)
    assert density.loss_curve_[:3] == before
    assert density.n_iter_ == 6
    with pytest.raises(
        ValueError, match=r"Pixels range from 0 to 20, but the fit that warm_start=True continues has density zero"
    ):
        density.fit(np.where(X == 16, 20, X))


def test_given_validation_images_widen_the_range_of_levels(Density, X):
    density = Density(image_shape=(1, 8, 8), **PLAIN).fit(np.minimum(X, 10), X_val=X)
    assert density.encoding_.levels.high > 16.5
    assert np.isfinite(density.score(X))


@pytest.mark.parametrize("base", ["auto", "student", "mixture"])
def test_training_may_start_from_other_densities(Density, X, base):
    density = Density(image_shape=(1, 8, 8), **PLAIN | {"base": base}).fit(X)
    assert density.base_ == ("mixture" if base == "auto" else base)
    assert np.isfinite(density.score(X))


def test_copies_of_images_do_not_hide_that_these_are_few():
    # Counted as so many images, they would leave the mixture a single component.
    start = PLAIN | {"max_iter": 1, "learning_rate": 1e-30, "image_shape": (1, 8, 8)}
    X = load_digits().data[:400]
    gaussian, mixture = (GlowDensity(**start | {"base": base}).fit(X) for base in ("normal", "auto"))
    assert mixture.flow_.base.n_components >= 8
    assert mixture.best_validation_score_ > gaussian.best_validation_score_ + 2


def test_what_actnorm_sees_of_images_has_mean_0_and_variance_1_at_the_start(X, generator):
    levels = PixelLevels.fit(X)
    noisy = np.concatenate([levels.dequantise(X, np.random.RandomState(i)) for i in range(10)])
    Z, _ = ImageEncoding.fit(levels, noisy, np.ones(len(noisy)), "linear").encode(noisy)
    network = {"n_transforms": 3, "hidden_layer_sizes": [4], "activation": "relu", "generator": generator}
    flow = glow_of_images(torch.eye(64), image_shape=(1, 8, 8), n_levels=2, **network).double()
    seen = inputs_of_actnorms(flow.transform, torch.as_tensor(Z))
    assert [x.shape[1] for x in seen] == 3 * [4] + 3 * [8]
    for x in seen:
        torch.testing.assert_close(x.mean(dim=0), x.new_zeros(x.shape[1]), rtol=0, atol=1e-6)
        torch.testing.assert_close(x.var(dim=0, correction=0), x.new_ones(x.shape[1]), rtol=0, atol=1e-6)


def test_what_actnorm_sees_of_a_table_is_whitened_at_the_start(generator):
    Z = np.random.RandomState(0).randn(5_000, 4) @ np.linalg.cholesky(0.5 + 0.5 * np.eye(4)).T
    Z = (Z - Z.mean(axis=0)) / Z.std(axis=0)
    whitening = torch.as_tensor(whitening_matrix(Z, np.ones(len(Z))))
    flow = glow(whitening, n_transforms=4, hidden_layer_sizes=[4], activation="relu", generator=generator).double()
    seen = inputs_of_actnorms(flow.transform, torch.as_tensor(Z))
    assert len(seen) == 3
    for x in seen:
        torch.testing.assert_close(x.mean(dim=0), x.new_zeros(4), rtol=0, atol=1e-6)
        # But for the shrinkage of the covariance.
        torch.testing.assert_close(torch.cov(x.T, correction=0), torch.eye(4, dtype=x.dtype), rtol=0, atol=5e-3)


@torch.no_grad()
def inputs_of_actnorms(transform, x):
    """What every ActNorm in a composition is given, features of channels in rows of their own."""
    seen = []
    for part in getattr(transform, "transforms", [transform]):
        if isinstance(part, ActNorm):
            seen.append(x)
        elif isinstance(part, PerPosition):
            seen += inputs_of_actnorms(part.transform, x.unflatten(-1, (-1, part.n_positions)).mT.flatten(0, 1))
        elif isinstance(part, FactorOut):
            seen += inputs_of_actnorms(part.transform, x[:, : part.n_features])
        x, _ = part.forward(x)
    return seen


BAD_SETTINGS = {
    "product": (
        {"image_shape": (1, 8, 9)},
        r"image_shape=\(1, 8, 9\) asks for rows of 72 pixels, the product of channels, height and width, but X has 64 features",
    ),
    "two numbers": ({"image_shape": (8, 8)}, r"three integers of at least 1, \(channels, height, width\). Got \(8, 8\)"),
    "no integers": ({"image_shape": (1, 8.0, 8)}, "three integers"),
    "zero": ({"image_shape": (0, 8, 8)}, "three integers"),
    "odd": ({"image_shape": (64, 1, 1)}, r"1 x 1 pixels can be halved 0 time\(s\). Crop or pad the images"),
    "too many levels": (
        {"image_shape": (1, 8, 8), "n_levels": 4},
        r"n_levels=4 .* 8 x 8 pixels can be halved 3 time\(s\). Set",
    ),
    "teachers": ({"image_shape": (1, 8, 8), "n_teachers": 2}, "n_teachers=2 is for tables"),
    "no levels": ({"image_shape": (1, 8, 8), "n_levels": 0}, "'n_levels' parameter"),
    "a number": ({"image_shape": 64}, "'image_shape' parameter"),
}


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_refused_and_nothing_is_lost(Density, fitted, X, settings, message):
    density = pickle.loads(pickle.dumps(fitted))
    expected = density.score_samples(X)
    with pytest.raises(ValueError, match=message):
        density.set_params(**settings).fit(X)
    np.testing.assert_array_equal(density.score_samples(X), expected)


@pytest.mark.parametrize(("image_shape", "n_levels"), [((1, 28, 20), 2), ((1, 8, 8), 2), ((3, 32, 32), 3), ((1, 2, 2), 1)])
def test_levels_by_default(image_shape, n_levels):
    assert resolve_n_levels("auto", image_shape) == n_levels
    assert resolve_n_levels(1, image_shape) == 1


@pytest.mark.filterwarnings("ignore:A continuous density is not meaningful")
@pytest.mark.parametrize(("settings", "rate"), [({"image_shape": (1, 8, 8)}, 1e-2), ({"n_teachers": 0}, 1e-3)])
def test_images_take_a_higher_learning_rate_than_tables(Density, X, settings, rate):
    settings = PLAIN | {"max_iter": 1} | settings
    by_default = Density(**settings | {"learning_rate": "auto"}).fit(X)
    assert by_default.loss_curve_ == Density(**settings | {"learning_rate": rate}).fit(X).loss_curve_


def test_the_last_map_of_a_flow_over_images_whitens(fitted):
    assert isinstance(fitted.flow_.transform.transforms[-1], LULinear)
