import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import make_moons

from sklearn_flows import FFJORDDensity, FlowMatchingDensity
from sklearn_flows.transforms import StepLimitError

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

PLAIN = {"base": "normal", "margins": "linear", "random_state": 0}


@pytest.fixture(scope="module")
def moons():
    return make_moons(400, noise=0.1, random_state=0)[0]


@pytest.fixture(scope="module", params=[FFJORDDensity, FlowMatchingDensity], ids=lambda Density: Density.__name__)
def fitted(request, moons):
    settings = {FFJORDDensity: {"n_solver_steps": 2, "max_iter": 15}, FlowMatchingDensity: {"batch_size": 256, "max_iter": 40}}
    return request.param((32, 32), **settings[request.param], rtol=1e-5, atol=1e-5, **PLAIN).fit(moons)


def test_training_leaves_the_gaussian_that_it_starts_from(fitted, moons):
    gaussian = type(fitted)(**fitted.get_params() | {"learning_rate": 1e-30, "max_iter": 1}).fit(moons)
    test = make_moons(400, noise=0.1, random_state=1)[0]
    assert fitted.score(test) > gaussian.score(test) + 0.3
    assert fitted.best_validation_score_ == max(fitted.validation_scores_)


def test_evaluations_are_those_of_the_tolerance(fitted, moons):
    assert 8 <= fitted.n_function_evaluations_ <= 200
    sharper = type(fitted)(**fitted.get_params() | {"rtol": 1e-8, "atol": 1e-8}).fit(moons)
    assert sharper.n_function_evaluations_ > 2 * fitted.n_function_evaluations_
    # The tolerance is the solver's: training doesn't see it, so the scores differ by it only.
    np.testing.assert_allclose(sharper.score_samples(moons), fitted.score_samples(moons), rtol=0, atol=1e-3)


def test_a_field_that_cannot_be_followed_is_an_error(fitted, moons, monkeypatch):
    monkeypatch.setattr("sklearn_flows.transforms._ode.MAX_STEPS", 2)
    with pytest.raises(StepLimitError, match=r"more than 2 steps\. Raise rtol and atol, or train a smoother field"):
        fitted.score_samples(moons)
    with pytest.raises(StepLimitError):
        fitted.sample(10, random_state=0)


def test_a_fit_that_ends_with_such_a_field_fails(fitted, moons, monkeypatch):
    monkeypatch.setattr("sklearn_flows.transforms._ode.MAX_STEPS", 1)
    before = fitted.flow_
    density = type(fitted)(**fitted.get_params() | {"early_stopping": False, "max_iter": 3})
    density.flow_ = before
    with pytest.raises(ValueError, match="has learned a field that nobody can follow"):
        density.fit(moons)
    assert density.flow_ is before


def test_with_held_out_rows_such_a_field_is_not_kept(fitted, moons, monkeypatch):
    # The field at the start is zero, and takes two steps: the first, which is the same for all fields, and the rest.
    monkeypatch.setattr("sklearn_flows.transforms._ode.MAX_STEPS", 2)
    density = type(fitted)(**fitted.get_params() | {"max_iter": 3}).fit(moons)
    assert density.validation_scores_ == [-np.inf] * 3
    assert np.isfinite(density.best_validation_score_)
    assert all(not p.any() for p in density.flow_.transform.transforms[1].field.network.linear_layers()[-1].parameters())


@pytest.mark.parametrize("Density", [FFJORDDensity, FlowMatchingDensity])
@pytest.mark.parametrize(("name", "value"), [("activation", "relu"), ("rtol", 0.0), ("atol", -1.0)])
def test_bad_settings(Density, name, value, moons):
    with pytest.raises(ValueError, match=f"The '{name}' parameter"):
        Density(**{name: value}).fit(moons)


def test_hutchinsons_estimate_serves_in_training_only(moons):
    density = FFJORDDensity((16,), trace="hutchinson", n_solver_steps=2, max_iter=3, **PLAIN).fit(moons)
    assert density.loss_curve_ != FFJORDDensity((16,), n_solver_steps=2, max_iter=3, **PLAIN).fit(moons).loss_curve_
    np.testing.assert_array_equal(density.score_samples(moons), density.score_samples(moons))


def test_kinetic_weight_makes_fields_cheaper(moons):
    evaluations = [
        FFJORDDensity((16,), kinetic_weight=weight, n_solver_steps=1, max_iter=10, learning_rate=1e-2, **PLAIN)
        .fit(moons)
        .n_function_evaluations_
        for weight in (0.0, 3.0)
    ]
    assert evaluations[1] < evaluations[0]


def test_the_loss_of_flow_matching_has_no_units(moons):
    plain, scaled = (FlowMatchingDensity((8,), batch_size=256, max_iter=2, **PLAIN).fit(factor * moons) for factor in (1, 1024))
    assert plain.loss_curve_ == scaled.loss_curve_
    np.testing.assert_allclose(np.subtract(plain.validation_scores_, scaled.validation_scores_), 2 * np.log(1024))


def test_optimal_pairs_make_shorter_ways(moons):
    independent, optimal = (
        FlowMatchingDensity((16,), coupling=coupling, batch_size=256, max_iter=2, **PLAIN).fit(moons)
        for coupling in ("independent", "optimal")
    )
    assert optimal.loss_curve_[0] < 0.5 * independent.loss_curve_[0]


def test_verbose_flow_matching_does_not_call_its_loss_a_likelihood(moons, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)  # before scikit-learn 1.9 a bar of it would take the place of the lines
    FlowMatchingDensity((8,), max_iter=1, verbose=2, **PLAIN).fit(moons)
    out = capsys.readouterr().out
    assert "epoch 1/1: loss " in out
    assert "validation" in out


def test_the_global_generator_is_not_touched(moons):
    state = torch.get_rng_state()
    FFJORDDensity((8,), trace="hutchinson", n_solver_steps=1, max_iter=1, **PLAIN).fit(moons)
    FlowMatchingDensity((8,), coupling="optimal", max_iter=1, **PLAIN).fit(moons)
    assert torch.equal(torch.get_rng_state(), state)
