"""scikit-learn's tests of its outlier detectors, with ours in their place: as they stand where possible, else by meaning."""

import importlib

import numpy as np
import pytest
from sklearn import config_context, datasets, svm
from sklearn.base import clone, is_outlier_detector
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

from sklearn_flows import FlowOutlierDetector

IFOREST = "sklearn.ensemble.tests.test_iforest"
LOF = "sklearn.neighbors.tests.test_lof"
ENVELOPE = "sklearn.covariance.tests.test_elliptic_envelope"


def in_their_place(**parameters):
    """Build a detector with what it knows of other detectors' keywords."""
    known = set(FlowOutlierDetector().get_params()) - {"max_samples"}
    return FlowOutlierDetector(**{"random_state": 0, **{k: v for k, v in parameters.items() if k in known}})


@pytest.mark.parametrize(
    ("module", "function", "replaced", "arguments"),
    [
        (IFOREST, "test_iforest", "IsolationForest", (0,)),
        (IFOREST, "test_iforest_performance", "IsolationForest", (0,)),
        (IFOREST, "test_iforest_works", "IsolationForest", (0.25, 0)),
        (IFOREST, "test_iforest_parallel_regression", "IsolationForest", (0,)),
        (IFOREST, "test_iforest_preserve_feature_names", "IsolationForest", ()),
        (IFOREST, "test_iforest_predict_parallel", "IsolationForest", (0, 0.25, 2)),
        (LOF, "test_lof_performance", "neighbors.LocalOutlierFactor", (np.float64,)),
        (LOF, "test_lof_performance", "neighbors.LocalOutlierFactor", (np.float32,)),
        (LOF, "test_score_samples", "neighbors.LocalOutlierFactor", (np.float64,)),
        (LOF, "test_score_samples", "neighbors.LocalOutlierFactor", (np.float32,)),
        (LOF, "test_predicted_outlier_number", "neighbors.LocalOutlierFactor", (30,)),
        (LOF, "test_predicted_outlier_number", "neighbors.LocalOutlierFactor", (53,)),
    ],
)
def test_passes_as_it_stands(module, function, replaced, arguments, monkeypatch):
    monkeypatch.setattr(f"{module}.{replaced}", in_their_place)
    getattr(importlib.import_module(module), function)(*arguments)


@pytest.mark.parametrize("module", [IFOREST, ENVELOPE, "sklearn.svm.tests.test_svm::test_oneclass_score_samples"])
def test_score_samples(module):
    # By meaning: upstream asks for equal bits of s and (s - offset) + offset.
    X_train, X_test = [[1, 1], [1, 2], [2, 1]], [[2.0, 2.0]]
    assert hasattr(importlib.import_module(module.partition("::")[0]), module.partition("::")[2] or "test_score_samples")
    some, auto = (in_their_place(contamination=c).fit(X_train) for c in (0.1, "auto"))
    np.testing.assert_array_equal(some.score_samples(X_test), auto.score_samples(X_test))
    for detector in (some, auto):
        scores, decisions = detector.score_samples(X_test), detector.decision_function(X_test)
        np.testing.assert_array_equal(decisions, scores - detector.offset_)


def test_iforest_with_uniform_data():
    # Rows like those seen are normal. Others aren't, where an isolation forest has no cut to tell them by.
    rng = np.random.RandomState(0)
    for X in (np.ones((100, 10)), np.repeat(rng.randn(1, 10), 100, 0), rng.randn(1, 10)):
        detector = in_their_place().fit(X)
        assert (detector.predict(X) == 1).all()
        assert (detector.predict(X + 1) == -1).all()
        assert (detector.predict(rng.randn(100, 10)) == -1).all()


def test_iforest_error():
    detector = in_their_place().fit(datasets.load_iris().data)
    with pytest.raises(ValueError, match="expecting 4 features"):
        detector.predict(datasets.load_iris().data[:, 1:])


def test_iforest_works_at_auto():
    # By meaning: the two far rows score lowest. Of eight rows Tukey's fence tells nothing.
    X = [[-2, -1], [-1, -1], [-1, -2], [1, 1], [1, 2], [2, 1], [7, 4], [-5, 9]]
    scores = in_their_place().fit(X).score_samples(X)
    assert scores[-2:].max() < scores[:-2].min()


@pytest.mark.parametrize("mebibytes", [1e-3, 1.0])
def test_iforest_chunks(mebibytes):
    X = np.random.RandomState(0).standard_normal((300, 3))
    detector = in_their_place(contamination=0.25).fit(X)
    expected = detector.score_samples(X)
    with config_context(working_memory=mebibytes):
        np.testing.assert_allclose(detector.score_samples(X), expected, rtol=1e-7)


def test_lof():
    X = [[-2, -1], [-1, -1], [-1, -2], [1, 1], [1, 2], [2, 1], [5, 3], [-4, 2]]
    detector = in_their_place(contamination=0.25)
    np.testing.assert_array_equal(detector.fit_predict(X), 6 * [1] + 2 * [-1])


@pytest.mark.parametrize("contamination", [0.5, "auto"])
def test_lof_dtype_equivalence(contamination):
    inliers = np.random.RandomState(0).randn(50, 10)
    outliers = 2.5 + 0.5 * np.random.RandomState(1).randn(10, 10)
    # The same numbers: a mixture that is chosen by trial may be another one for rounded ones.
    X32 = np.concatenate([inliers, outliers]).astype(np.float32)
    for X in (X32, X32.astype(np.float64)):
        detector = in_their_place(contamination=contamination).fit(X)
        assert detector.score_samples(X).dtype == np.float64
    other = in_their_place(contamination=contamination).fit(X32)
    np.testing.assert_array_equal(other.decision_function(X32), detector.decision_function(X32.astype(np.float64)))


def test_lof_duplicate_samples():
    rng = np.random.default_rng(0)
    x = rng.permutation(np.hstack([[0.1] * 1000, np.linspace(0.1, 0.3, num=3000), rng.random(100) * 100]))
    detector = in_their_place().fit(x.reshape(-1, 1))
    scores = detector.score_samples(x.reshape(-1, 1))
    assert np.isfinite(scores).all()
    assert roc_auc_score(x > 0.4, -scores) > 0.95


def test_elliptic_envelope():
    X = np.random.RandomState(0).randn(100, 10)
    detector = in_their_place(contamination=0.1)
    for method in ("predict", "decision_function", "score_samples"):
        with pytest.raises(NotFittedError):
            getattr(detector, method)(X)
    detector.fit(X)
    assert (detector.predict(X) == -1).sum() == (detector.decision_function(X) < 0).sum() == 10


def test_oneclass():
    X = [[-2, -1], [-1, -1], [-1, -2], [1, 1], [1, 2], [2, 1]]
    predicted = in_their_place().fit(X).predict([[-1, -1], [20, 20], [3, -20]])
    np.testing.assert_array_equal(predicted, [1, -1, -1])
    assert predicted.dtype == np.dtype("intp")


def test_oneclass_decision_function():
    rng = np.random.RandomState(2)
    X = 0.3 * rng.randn(100, 2)
    detector = in_their_place(contamination=0.05).fit(np.r_[X + 2, X - 2])
    X = 0.3 * rng.randn(20, 2)
    X_test, X_outliers = np.r_[X + 2, X - 2], rng.uniform(low=-4, high=4, size=(20, 2))
    assert (detector.predict(X_test) == 1).mean() > 0.85
    assert (detector.predict(X_outliers) == -1).mean() > 0.9
    for rows in (X_test, X_outliers):
        np.testing.assert_array_equal(detector.decision_function(rows) >= 0, detector.predict(rows) == 1)


def test_clone_oneclass():
    # A third of the training rows of a one-class machine with nu = 1/3 are support vectors; so many are outliers here.
    X = datasets.make_blobs(90, centers=1, random_state=0)[0]
    assert svm.OneClassSVM(nu=1 / 3).fit(X).support_.size >= 30
    detector = clone(in_their_place(contamination=1 / 3)).fit(X)
    assert (detector.predict(X) == -1).sum() == 30
    assert is_outlier_detector(detector)
