"""Searches over a real table, in one process and in two."""

import numpy as np
import pytest
import sklearn.experimental.enable_halving_search_cv
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

GRID = {"n_transforms": [1, 2], "learning_rate": [1e-7, 1e-2]}


@pytest.fixture(scope="module")
def X():
    return load_breast_cancer(as_frame=True).data.iloc[:200, :4]


def test_grid_search_of_the_estimator_in_two_processes_is_that_in_one(make_density, X):
    one, two = (GridSearchCV(make_density(max_iter=15), GRID, cv=2, n_jobs=n_jobs).fit(X) for n_jobs in (1, 2))
    np.testing.assert_array_equal(two.cv_results_["mean_test_score"], one.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(two.score_samples(X), one.score_samples(X))
    assert two.best_params_ == one.best_params_
    # At 1e-7 the flow stays the Gaussian that it starts as, which these skewed columns are not.
    assert two.best_params_["learning_rate"] == 1e-2


def test_grid_search_of_a_pipeline_in_two_processes(make_density, X):
    pipe = make_pipeline(StandardScaler(), make_density(max_iter=15))
    step = pipe.steps[-1][0]
    search = GridSearchCV(pipe, {f"{step}__{name}": values for name, values in GRID.items()}, cv=2, n_jobs=2).fit(X)
    assert search.best_params_[f"{step}__learning_rate"] == 1e-2
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    # Scores are in the units of the step's input: those of the table differ by the scaler's Jacobian.
    alone = make_density(max_iter=15, **{name: search.best_params_[f"{step}__{name}"] for name in GRID}).fit(X)
    shift = np.log(search.best_estimator_[0].scale_).sum()
    np.testing.assert_allclose(search.score_samples(X).mean() - shift, alone.score_samples(X).mean(), atol=0.01)


def test_halving_search_gives_the_survivors_more_epochs(make_density, X):
    search = sklearn.model_selection.HalvingGridSearchCV(
        make_density(), GRID, resource="max_iter", min_resources=2, max_resources=18, factor=3, cv=2, random_state=0
    ).fit(X)
    assert search.n_resources_ == [2, 6]
    assert search.best_estimator_.max_iter == 6
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_cross_validation_scores_are_mean_log_densities_of_the_folds(make_density, X):
    scores = cross_val_score(make_density(), X, cv=2)
    first, second = X.iloc[:100], X.iloc[100:]
    assert scores[0] == make_density().fit(second).score(first)
    assert scores[1] == make_density().fit(first).score(second)
