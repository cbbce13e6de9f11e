"""Estimators that start from a mixture are estimators like the others, and start where they say."""

import numpy as np
import pytest
from sklearn.base import clone

from sklearn_flows import GlowDensity, IAFDensity, MAFDensity, NeuralSplineFlowDensity, RealNVPDensity
from sklearn_flows.distributions import StandardNormal, StudentMixture
from sklearn_flows.training import _loop
from sklearn_flows.training._optim import AdamW, Muon
from sklearn_flows.transforms import MaskedAutoregressive
from sklearn_flows.utils.estimator_checks import parametrize_with_density_checks

SETTINGS = {"base": "mixture", "margins": "bent", "n_teachers": 0, "n_transforms": 2, "hidden_layer_sizes": (8,), "max_iter": 5}
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:A continuous density is not meaningful"),
]


@parametrize_with_density_checks([MAFDensity(**SETTINGS)])
def test_density_contract(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def ring():
    rng = np.random.RandomState(0)
    angle = 2 * np.pi * rng.rand(600)
    return np.stack([10 * np.cos(angle), np.sin(angle)], axis=1) + [0.5, 0.05] * rng.randn(600, 2)


@pytest.fixture(params=[MAFDensity, IAFDensity, NeuralSplineFlowDensity, RealNVPDensity, GlowDensity])
def density(request):
    return request.param(random_state=0, **SETTINGS)


def test_a_ring_is_started_from_a_mixture(density, ring):
    train, test = ring[:400], ring[400:]
    density.fit(train)
    assert isinstance(density.flow_.base, StudentMixture)
    assert density.flow_.base.n_components > 3
    single = clone(density).set_params(base="normal").fit(train)
    assert isinstance(single.flow_.base, StandardNormal)
    # A mixture puts nothing into the middle; five epochs of a small net don't get that far.
    assert density.score(test) > single.score(test) + 0.3


def test_latents_are_normal_and_lead_back(density, ring):
    density.fit(ring)
    latents = density.transform(ring)
    np.testing.assert_allclose(density.inverse_transform(latents), ring, rtol=0, atol=1e-6)
    np.testing.assert_allclose(latents.mean(axis=0), 0, atol=0.15)
    np.testing.assert_allclose(latents.std(axis=0), 1, atol=0.15)
    samples = density.sample(4000, random_state=0)
    np.testing.assert_allclose(samples.std(axis=0), ring.std(axis=0), rtol=0.1)


def test_the_start_is_a_candidate(density, ring):
    density.set_params(learning_rate=1e-30, weight_decay=0.0).fit(ring)
    assert density.best_validation_score_ == pytest.approx(density.validation_scores_[0], abs=1e-4)


def test_a_warm_start_keeps_the_base(density, ring):
    density.set_params(warm_start=True).fit(ring)
    means = density.flow_.base.means.clone()
    first = density.n_iter_
    density.fit(ring)
    assert density.n_iter_ > first
    assert (density.flow_.base.means == means).all()


def test_without_held_out_rows_it_is_one_gaussian(density, ring):
    density.set_params(early_stopping=False).fit(ring)
    assert isinstance(density.flow_.base, StandardNormal)


def test_rows_are_a_set(density, ring):
    scores = density.fit(ring).score_samples(ring)
    np.testing.assert_array_equal(density.fit(ring[::-1]).score_samples(ring), scores)
    repeated = np.concatenate([ring, ring[:100]])
    weight = np.r_[np.full(100, 2.0), np.ones(500)]
    np.testing.assert_allclose(
        density.fit(repeated).score_samples(ring), density.fit(ring, sample_weight=weight).score_samples(ring)
    )


@pytest.mark.parametrize(("n_transforms", "most_for_few", "expected"), [("auto", 600, 3), ("auto", 599, 5), (2, 599, 2)])
def test_many_rows_are_fitted_by_more_layers(monkeypatch, ring, n_transforms, most_for_few, expected):
    monkeypatch.setattr("sklearn_flows.density._defaults.MAX_ROWS_FOR_FEW_TRANSFORMS", most_for_few)
    density = NeuralSplineFlowDensity(random_state=0, **SETTINGS | {"n_transforms": n_transforms, "max_iter": 1}).fit(ring)
    assert density.n_transforms_ == expected
    assert sum(isinstance(part, MaskedAutoregressive) for part in density.flow_.modules()) == expected
    assert density.set_params(warm_start=True).fit(ring[:300]).n_transforms_ == expected


@pytest.fixture
def optimisers(monkeypatch):
    """What has taken the steps of fits, one after the other."""
    taken = []

    def tells(optimiser):
        def make(*given, **settings):
            taken.append(optimiser)
            return optimiser(*given, **settings)

        return make

    for optimiser in (AdamW, Muon):
        monkeypatch.setattr(_loop, optimiser.__name__, tells(optimiser))
    return taken


ONE_START = {"base": "student", "margins": "bent", "max_iter": 1, "random_state": 0}


@pytest.mark.parametrize(
    ("optimizer", "most", "expected"), [("auto", 600, "adamw"), ("auto", 599, "muon"), ("adamw", 599, "adamw")]
)
def test_many_rows_are_fitted_by_muon(monkeypatch, ring, optimisers, optimizer, most, expected):
    monkeypatch.setattr(NeuralSplineFlowDensity, "_max_rows_for_adamw", most)
    density = NeuralSplineFlowDensity(optimizer=optimizer, **SETTINGS | ONE_START | {"n_teachers": 0}).fit(ring)
    assert density.optimizer_ == expected
    assert optimisers == [{"adamw": AdamW, "muon": Muon}[expected]]


@pytest.mark.parametrize("density_class", [NeuralSplineFlowDensity, MAFDensity])
def test_draws_of_a_teacher_are_learned_by_muon_and_few_rows_by_adamw(ring, optimisers, density_class):
    density = density_class(warm_start=True, **SETTINGS | ONE_START | {"n_teachers": 2}).fit(ring)
    assert (density.optimizer_, optimisers[-1], set(optimisers[:-2])) == ("muon", Muon, {AdamW})
    assert density.set_params(n_teachers=0).fit(ring).optimizer_ == "adamw"
    assert optimisers[-1] is AdamW
    optimisers.clear()
    assert density.set_params(warm_start=False, n_teachers=2, optimizer="adamw").fit(ring).optimizer_ == "adamw"
    assert set(optimisers) == {AdamW}


@pytest.mark.parametrize(("n_bins", "most_for_few", "expected"), [("auto", 600, 5), ("auto", 599, 8), (3, 599, 3)])
@pytest.mark.parametrize("n_teachers", [0, 1])
def test_many_rows_are_fitted_by_more_bins(monkeypatch, ring, n_teachers, n_bins, most_for_few, expected):
    # What the flow starts from has seen fewer rows than there are, but is as large.
    monkeypatch.setattr("sklearn_flows.density._defaults.MAX_ROWS_FOR_FEW_BINS", most_for_few)
    settings = SETTINGS | {"n_bins": n_bins, "n_teachers": n_teachers, "max_iter": 1}
    density = NeuralSplineFlowDensity(random_state=0, **settings).fit(ring)
    assert density.n_bins_ == expected
    layers = [part for part in density.flow_.modules() if isinstance(part, MaskedAutoregressive)]
    assert {layer.transformer.n_bins for layer in layers} == {expected}
    assert density.set_params(warm_start=True).fit(ring[:300]).n_bins_ == expected


@pytest.mark.parametrize(("shape", "width"), [((1_000, 16), 64), ((1_001, 16), 128), ((1_000, 17), 128)])
def test_few_rows_of_few_columns_get_narrow_networks(shape, width):
    assert NeuralSplineFlowDensity()._choose_size(*shape)["hidden_layer_sizes"] == (width, width)
    assert NeuralSplineFlowDensity(hidden_layer_sizes=(7,))._choose_size(*shape)["hidden_layer_sizes"] == (7,)


def test_networks_have_the_width_that_was_chosen(ring):
    density = NeuralSplineFlowDensity(n_teachers=0, base="normal", margins="linear", max_iter=1, random_state=0).fit(ring)
    assert density.hidden_layer_sizes_ == (64, 64)
    assert {m.out_features for m in density.flow_.modules() if hasattr(m, "out_features")} >= {64}
