"""sklearn.tests.test_metadata_routing, by meaning."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.datasets import load_iris
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.metadata_routing import get_routing_for_object

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:A continuous density is not meaningful"),
]

NAME = "sample_weight"


@pytest.fixture(autouse=True)
def routing():
    with config_context(enable_metadata_routing=True):
        yield


@pytest.fixture(scope="module")
def iris():
    return load_iris().data


@pytest.fixture(scope="module")
def weight():
    return np.random.RandomState(0).uniform(0.1, 2, size=150)


def test_default_requests(make_density):
    requests = get_routing_for_object(make_density())
    assert requests.fit.requests == {NAME: None, "X_val": None, "sample_weight_val": None}
    assert requests.score.requests == {NAME: None}


def test_simple_metadata_routing(make_density, iris, weight):
    # Neither asked for nor refused: an error says so.
    with pytest.raises(UnsetMetadataPassedError, match="but are not explicitly set as requested or not requested for"):
        make_pipeline(StandardScaler(), make_density()).fit(iris, sample_weight=weight)

    def scaler():
        return StandardScaler().set_fit_request(sample_weight=False)

    Z = StandardScaler().fit_transform(iris)
    asked = make_density().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    pipe = make_pipeline(scaler(), asked).fit(iris, sample_weight=weight)
    alone = make_density().fit(Z, sample_weight=weight)
    np.testing.assert_array_equal(pipe.score_samples(iris), alone.score_samples(Z))
    assert pipe.score(iris, sample_weight=weight) == alone.score(Z, sample_weight=weight)

    refused = make_density().set_fit_request(sample_weight=False).set_score_request(sample_weight=False)
    pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=True), refused).fit(iris, sample_weight=weight)
    Z_weighted = StandardScaler().fit(iris, sample_weight=weight).transform(iris)
    np.testing.assert_array_equal(pipe.score_samples(iris), make_density().fit(Z_weighted).score_samples(Z_weighted))

    renamed = make_density().set_fit_request(sample_weight="alternative_weight")
    pipe = make_pipeline(scaler(), renamed).fit(iris, alternative_weight=weight)
    np.testing.assert_array_equal(pipe.score_samples(iris), alone.score_samples(Z))


def test_nested_routing(make_density, iris, weight):
    density = make_density().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
    pipe = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), density)
    if hasattr(pipe, "set_score_request"):  # older pipelines take the weights of scores as their own
        pipe.set_score_request(sample_weight=True)
    step = pipe.steps[-1][0]
    search = GridSearchCV(pipe, {f"{step}__n_transforms": [1, 2]}, cv=2).fit(iris, sample_weight=weight)

    # The same by hand: weights in the fits and in the scores of each fold.
    first, second = np.arange(75), np.arange(75, 150)
    for index, n_transforms in enumerate([1, 2]):
        for split, (train, test) in enumerate([(second, first), (first, second)]):
            scaled = StandardScaler().fit(iris[train])
            by_hand = make_density(n_transforms=n_transforms).fit(scaled.transform(iris[train]), sample_weight=weight[train])
            expected = by_hand.score(scaled.transform(iris[test]), sample_weight=weight[test])
            assert search.cv_results_[f"split{split}_test_score"][index] == pytest.approx(expected, rel=1e-9)

    scores = cross_validate(density, iris, params={NAME: weight}, cv=2)["test_score"]
    assert scores.shape == (2,)


def test_no_feature_flag_raises_error(make_density):
    with config_context(enable_metadata_routing=False):
        for setter in ("set_fit_request", "set_score_request"):
            with pytest.raises(RuntimeError, match="This method is only available"):
                getattr(make_density(), setter)(sample_weight=True)


def test_none_metadata_passed(make_density, iris):
    pipe = make_pipeline(StandardScaler(), make_density()).fit(iris, sample_weight=None)
    assert np.isfinite(pipe.score(iris, sample_weight=None))
