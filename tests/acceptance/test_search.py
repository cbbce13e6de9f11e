"""sklearn.model_selection.tests.test_search, by meaning."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_blobs
from sklearn.model_selection import GridSearchCV, KFold, RandomizedSearchCV

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:A continuous density is not meaningful"),
]


@pytest.fixture(scope="module")
def iris():
    return load_iris(as_frame=True).data


def test_gridsearch_no_predict(make_density):
    def custom_scoring(estimator, X):
        return 42 if estimator.n_transforms == 2 else 0

    X, _ = make_blobs(cluster_std=0.1, random_state=1, centers=[[0, 1], [1, 0], [0, 0]])
    search = GridSearchCV(make_density(), {"n_transforms": [1, 2, 3]}, scoring=custom_scoring, cv=2).fit(X)
    assert search.best_params_["n_transforms"] == 2
    assert search.best_score_ == 42


def test_unsupervised_grid_search(make_density):
    X, y = make_blobs(cluster_std=0.1, random_state=0)
    search = GridSearchCV(make_density(max_iter=30, early_stopping=False), {"learning_rate": [1e-7, 1e-2]}, cv=2)
    # With labels, which a density ignores, and without.
    with_labels, without = search.fit(X, y).cv_results_["mean_test_score"], search.fit(X).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(with_labels, without)
    # At 1e-7 the flow stays the Gaussian that it starts as.
    assert search.best_params_["learning_rate"] == 1e-2
    assert search.best_score_ == without.max()


@pytest.mark.parametrize("Search", [GridSearchCV, RandomizedSearchCV])
def test_search_cv_score_samples_error(make_density, Search, iris):
    parameters = {"n_iter": 2, "random_state": 0} if Search is RandomizedSearchCV else {}
    search = Search(make_density(), {"n_transforms": [1, 2]}, cv=2, **parameters).fit(iris)
    with pytest.raises(AttributeError, match=f"'{Search.__name__}' has no attribute 'predict'|predict") as info:
        search.predict(iris)
    assert "has no attribute 'predict'" in str(info.value.__cause__ or info.value)


@pytest.mark.parametrize("Search", [GridSearchCV, RandomizedSearchCV])
def test_pickle(make_density, Search, iris):
    parameters = {"n_iter": 2, "random_state": 0} if Search is RandomizedSearchCV else {}
    search = Search(make_density(), {"n_transforms": [1, 2]}, cv=2, **parameters).fit(iris)
    copied = pickle.loads(pickle.dumps(search))
    np.testing.assert_array_equal(search.score_samples(iris), copied.score_samples(iris))
    np.testing.assert_array_equal(search.transform(iris), copied.transform(iris))


def test_pandas_input(make_density, iris):
    search = GridSearchCV(make_density(), {"n_transforms": [1, 2]}, cv=2).fit(iris)
    assert list(search.best_estimator_.feature_names_in_) == list(iris.columns)
    assert search.score(iris) == pytest.approx(search.score_samples(iris).mean(), rel=1e-12)
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        search.score(iris[iris.columns[::-1]])


def test_X_as_list(make_density, iris):
    cv = KFold(n_splits=3, shuffle=True, random_state=0)
    search = GridSearchCV(make_density(), {"n_transforms": [1, 2]}, cv=cv)
    of_list = search.fit(iris.to_numpy().tolist()).cv_results_["mean_test_score"]
    of_array = search.fit(iris.to_numpy()).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(of_list, of_array)


def test_search_callbacks_receive_sample_weight(make_density, iris):
    pytest.importorskip("sklearn.callback")
    from sklearn.callback.tests._utils import RecordingAutoPropagatedCallback

    callback = RecordingAutoPropagatedCallback()
    density = make_density(max_iter=2)
    search = GridSearchCV(density, {"n_transforms": [1, 2]}, cv=2).set_callbacks(callback)
    weight = np.random.RandomState(0).randint(1, 5, size=len(iris))
    search.fit(iris, sample_weight=weight)
    epochs = [entry for entry in callback.record if entry["context"].task_name == "epoch"]
    assert epochs
    for entry in epochs:
        kwargs = entry["kwargs"]
        assert len(kwargs["metadata"]["sample_weight"]) == len(kwargs["X"])
    np.testing.assert_array_equal(epochs[-1]["kwargs"]["metadata"]["sample_weight"], weight)
