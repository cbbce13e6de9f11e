"""When a fit ends, what it watches, what "auto" means, and how a warm start goes on."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# Validation rows are scored in float32 during training, and in float64 afterwards.
FLOAT32 = 1e-4


@pytest.fixture(scope="module")
def moons():
    return make_moons(120, noise=0.1, random_state=0)[0]


@pytest.fixture(scope="module")
def other_moons():
    return make_moons(60, noise=0.1, random_state=1)[0]


# --- early stopping ---


def test_early_stopping_is_automatic_from_100_distinct_rows_on(make_density, moons):
    assert make_density().fit(moons[:99]).validation_scores_ is None
    assert make_density().fit(np.repeat(moons[:99], 2, axis=0)).validation_scores_ is None
    assert len(make_density().fit(moons[:100]).validation_scores_) == 5


def test_the_weights_of_the_best_epoch_are_kept(make_density, moons):
    # The start of every flow, the Gaussian of the moons' moments, suits these validation rows; moons don't.
    X_val = np.random.RandomState(0).multivariate_normal(moons.mean(axis=0), np.cov(moons.T), size=100)
    settings = {"early_stopping": True, "n_iter_no_change": np.inf}
    start = make_density(max_iter=1, learning_rate=1e-12, **settings).fit(moons, X_val=X_val).best_validation_score_
    density = make_density(max_iter=40, learning_rate=0.02, **settings).fit(moons, X_val=X_val)
    scores = density.validation_scores_
    assert len(scores) == 40
    assert density.best_validation_score_ == pytest.approx(max(start, *scores), abs=1e-6)
    assert scores[-1] < start - 0.1
    assert density.score(X_val) == pytest.approx(max(start, *scores), abs=FLOAT32)


def test_without_early_stopping_the_last_epoch_is_kept(make_density, moons, other_moons):
    density = make_density(max_iter=20, learning_rate=0.1, early_stopping=False).fit(moons, X_val=other_moons)
    assert density.n_iter_ == 20
    assert density.score(other_moons) == pytest.approx(density.validation_scores_[-1], abs=FLOAT32)


@pytest.mark.filterwarnings("ignore:A continuous density is not meaningful")
@pytest.mark.parametrize("constant", [0.0, 250.0])
def test_curves_are_in_the_units_of_x_with_constant_columns_too(make_density, moons, other_moons, constant):
    X = np.column_stack([1000 * moons, np.full(120, constant)])
    X_val = np.column_stack([1000 * other_moons, np.full(60, constant)])
    density = make_density(max_iter=1, learning_rate=1e-9, early_stopping=False).fit(X, X_val=X_val)
    assert density.score(X_val) == pytest.approx(density.validation_scores_[-1], abs=FLOAT32)
    assert density.score(X) == pytest.approx(-density.loss_curve_[-1], abs=FLOAT32)


@pytest.mark.filterwarnings("ignore:A continuous density is not meaningful")
def test_a_column_that_varies_in_one_row_alone_is_not_taken_for_constant_when_that_row_is_held_out(make_density):
    X = np.random.RandomState(0).randn(20, 2)
    X[:, 1] = np.arange(20) == 7
    for seed in range(10):
        density = make_density(max_iter=1, early_stopping=True, validation_fraction=0.5, random_state=seed).fit(X)
        # A constant column of width 1e-3 would give the odd row a log-density near -500,000.
        assert density.score_samples(X).min() > -1000


def test_x_val_takes_the_place_of_held_out_rows(make_density, moons, other_moons):
    density = make_density(early_stopping=False).fit(moons)
    watched = make_density(early_stopping=False).fit(moons, X_val=other_moons)
    np.testing.assert_array_equal(watched.score_samples(moons), density.score_samples(moons))
    assert density.validation_scores_ is None
    assert len(watched.validation_scores_) == 5


def test_the_order_of_x_val_does_not_matter(make_density, moons, other_moons):
    density = make_density(max_iter=10, learning_rate=0.1).fit(moons, X_val=other_moons)
    reversed_ = make_density(max_iter=10, learning_rate=0.1).fit(moons, X_val=other_moons[::-1].tolist())
    assert density.validation_scores_ == reversed_.validation_scores_
    np.testing.assert_array_equal(density.score_samples(moons), reversed_.score_samples(moons))


@pytest.mark.parametrize("columns", [["x", "z"], ["y", "x"], ["x"]], ids="-".join)
def test_x_val_with_other_columns_is_refused(make_density, moons, other_moons, columns):
    X = pd.DataFrame(moons, columns=["x", "y"])
    X_val = pd.DataFrame(other_moons[:, : len(columns)], columns=columns)
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        make_density().fit(X, X_val=X_val)


def test_x_val_that_is_not_finite_is_refused(make_density, moons):
    with pytest.raises(ValueError, match="NaN"):
        make_density().fit(moons, X_val=np.full((5, 2), np.nan))


@pytest.mark.parametrize("n_rows", [2, 3, 10])
def test_early_stopping_works_on_a_handful_of_rows(make_density, moons, n_rows):
    density = make_density(early_stopping=True, validation_fraction=0.9).fit(moons[:n_rows])
    assert np.isfinite(density.score_samples(moons[:n_rows])).all()
    assert density.best_validation_score_ is not None


# --- "auto" ---


def test_auto_is_resolved_beside_the_parameter(make_density, moons):
    density = make_density(max_iter="auto", batch_size="auto", early_stopping=False).fit(moons)
    assert (density.max_iter, density.batch_size) == ("auto", "auto")
    assert isinstance(density.batch_size_, int)
    assert density.batch_size_ >= 1
    assert density.n_iter_ >= 2
    assert make_density(batch_size=17).fit(moons).batch_size_ == 17


def test_a_batch_larger_than_the_table_is_the_table(make_density, moons):
    whole = make_density(batch_size=120, early_stopping=False).fit(moons).score_samples(moons)
    larger = make_density(batch_size=10_000, early_stopping=False).fit(moons).score_samples(moons)
    np.testing.assert_array_equal(larger, whole)


def test_max_iter_is_the_number_of_epochs(make_density, moons):
    for max_iter in (1, 7):
        density = make_density(max_iter=max_iter, early_stopping=False).fit(moons)
        assert density.n_iter_ == len(density.loss_curve_) == max_iter


def test_a_budget_chosen_by_auto_is_no_reason_to_warn(make_density, moons):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_density(max_iter="auto").fit(moons)


def test_too_small_a_budget_is(make_density, moons):
    with pytest.warns(ConvergenceWarning, match=f"{make_density.func.__name__} reached max_iter=2"):
        make_density(max_iter=2, learning_rate=1e-2, early_stopping=False).fit(moons)


# --- warm start ---


def test_the_first_fit_of_a_warm_start_is_a_cold_one(make_density, moons):
    np.testing.assert_array_equal(
        make_density(warm_start=True).fit(moons).score_samples(moons), make_density().fit(moons).score_samples(moons)
    )


def test_a_warm_start_goes_on(make_density, moons):
    density = make_density(max_iter=15, learning_rate=1e-2, early_stopping=False, warm_start=True).fit(moons)
    encoding, first = density.encoding_, list(density.loss_curve_)
    before = density.score(moons)
    density.set_params(learning_rate=1e-9, max_iter=1).fit(moons)
    assert density.encoding_ is encoding
    assert density.n_iter_ == 16
    assert density.loss_curve_[:15] == first
    # With a vanishing step the loss is that of the weights it began with; float32 against float64.
    assert -density.loss_curve_[-1] == pytest.approx(before, abs=FLOAT32)
    assert density.score(moons) == pytest.approx(before, abs=FLOAT32)


def test_a_cold_start_begins_anew(make_density, moons):
    density = make_density().fit(moons)
    scores = density.score_samples(moons)
    assert density.fit(moons).n_iter_ == 5
    np.testing.assert_array_equal(density.score_samples(moons), scores)


def test_a_warm_start_may_take_other_rows_and_other_training_parameters(make_density, moons, other_moons):
    density = make_density(warm_start=True).fit(moons)
    density.set_params(learning_rate=1e-4, batch_size=10, weight_decay=0.0, max_iter=2, tol=1e-3).fit(other_moons)
    assert density.n_iter_ == 7
    assert density.batch_size_ == 10


def test_a_warm_start_of_another_width_is_refused(make_density, moons):
    density = make_density(warm_start=True).fit(moons)
    with pytest.raises(ValueError, match=f"X has 1 features, but {make_density.func.__name__} is expecting 2 features"):
        density.fit(moons[:, :1])
    assert density.score_samples(moons).shape == (120,)


def test_a_warm_start_with_other_names_is_refused(make_density, moons):
    density = make_density(warm_start=True).fit(pd.DataFrame(moons, columns=["x", "y"]))
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        density.fit(pd.DataFrame(moons, columns=["y", "x"]))


@pytest.mark.parametrize(
    "changed",
    [
        {"n_transforms": 1},
        {"n_transforms": 3},
        {"hidden_layer_sizes": (9,)},
        {"hidden_layer_sizes": (8, 8)},
        {"n_bins": 4},
        {"layer": "coupling"},
    ],
    ids=str,
)
def test_a_warm_start_with_networks_of_another_shape_is_refused(make_density, moons, changed):
    density = make_density(warm_start=True).fit(moons)
    changed = {name: value for name, value in changed.items() if name in density.get_params()} or {"n_transforms": 4}
    scores = density.score_samples(moons)
    with pytest.raises(ValueError, match="warm_start=True continues the training of flow_, but parameters that shape it"):
        density.set_params(**changed).fit(moons)
    np.testing.assert_array_equal(density.score_samples(moons), scores)
    density.set_params(warm_start=False).fit(moons)
    assert density.n_iter_ == 5


@pytest.mark.parametrize("changed", [{"activation": "tanh"}, {"tail_bound": 2.0}], ids=str)
def test_a_warm_start_with_functions_of_another_kind_is_refused(make_density, moons, changed):
    # The weights would fit in, but mean another density: going on from there silently loses what was learned.
    density = make_density(warm_start=True).fit(moons)
    if not changed.keys() <= density.get_params().keys():
        changed = {"activation": "elu"}
    with pytest.raises(ValueError, match="warm_start=True continues the training of flow_, but parameters that shape it"):
        density.set_params(**changed).fit(moons)
