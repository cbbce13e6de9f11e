"""What a detector promises: thresholds, scores and answers for difficult tables."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.metrics import f1_score, make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from sklearn_flows import FlowOutlierDetector, MAFDensity, MixtureDensity


@pytest.fixture
def rows():
    return np.random.RandomState(0).standard_normal((200, 3))


@pytest.mark.parametrize("contamination", [0.05, 0.1, 0.3])
def test_so_many_training_rows_are_outliers(rows, contamination):
    detector = FlowOutlierDetector(contamination=contamination, random_state=0)
    assert (detector.fit_predict(rows) == -1).sum() == contamination * len(rows)
    assert (detector.predict(rows) == -1).sum() == contamination * len(rows)


def test_auto_is_tukeys_fence(rows):
    detector = FlowOutlierDetector(random_state=0).fit(rows)
    np.testing.assert_allclose(detector.training_scores_, np.sort(detector.score_samples(rows)))
    low, high = np.quantile(detector.training_scores_, [0.25, 0.75])
    assert detector.offset_ == pytest.approx(low - 1.5 * (high - low))
    # Of a normal distribution in three dimensions about 3 % are beyond.
    assert 0 < (detector.predict(rows) == -1).mean() < 0.08


def test_the_threshold_moves_without_a_fit(rows):
    moved = FlowOutlierDetector(random_state=0).fit(rows)
    assert moved.set_contamination(0.1) is moved
    fitted = FlowOutlierDetector(contamination=0.1, random_state=0).fit(rows)
    assert moved.offset_ == fitted.offset_
    assert moved.contamination == 0.1
    for wrong in (0.0, 0.6, "many", None):
        with pytest.raises(ValueError, match="contamination"):
            moved.set_contamination(wrong)
        assert moved.contamination == 0.1
    assert moved.set_contamination("auto").offset_ == FlowOutlierDetector(random_state=0).fit(rows).offset_


def test_the_score_is_the_mean_of_log_densities(rows):
    detector = FlowOutlierDetector(MixtureDensity(1), n_parts=3, random_state=0).fit(rows)
    members = [member for members in detector.estimators_ for member in members]
    assert len(members) == 3
    np.testing.assert_allclose(
        detector.score_samples(rows), np.mean([member.score_samples(rows) for member in members], axis=0)
    )
    truth = multivariate_normal(np.zeros(3)).logpdf(rows)
    assert np.abs(detector.score_samples(rows) - truth).mean() < 0.2


def test_one_part_sees_all_rows(rows):
    detector = FlowOutlierDetector(KernelDensity(bandwidth=0.5), n_parts=1).fit(rows)
    np.testing.assert_allclose(detector.score_samples(rows), KernelDensity(bandwidth=0.5).fit(rows).score_samples(rows))


def test_rows_are_a_set(rows):
    rows = np.vstack([rows, rows[:20]])
    detector = FlowOutlierDetector(random_state=0).fit(rows)
    reversed_ = FlowOutlierDetector(random_state=0).fit(rows[::-1])
    np.testing.assert_array_equal(detector.score_samples(rows), reversed_.score_samples(rows))


def test_threads_change_nothing(rows):
    detector = FlowOutlierDetector(random_state=0).fit(rows)
    threaded = FlowOutlierDetector(n_jobs=2, random_state=0).fit(rows)
    np.testing.assert_array_equal(detector.score_samples(rows), threaded.score_samples(rows))


def test_a_failed_fit_keeps_the_last(rows):
    detector = FlowOutlierDetector(random_state=0).fit(rows)
    before = detector.score_samples(rows)
    with pytest.raises(ValueError, match="NaN"):
        detector.fit(np.where(rows > 2, np.nan, rows))
    np.testing.assert_array_equal(detector.score_samples(rows), before)


def test_a_flow_serves_too(rows):
    flow = MAFDensity(n_transforms=1, hidden_layer_sizes=(8,), max_iter=5, n_teachers=0)
    detector = FlowOutlierDetector(flow, n_parts=2, contamination=0.1, random_state=0)
    assert (detector.fit_predict(rows) == -1).sum() == 20
    far = detector.score_samples([[9.0, -9.0, 9.0]])
    assert far < detector.offset_


def test_outliers_among_the_training_rows_are_found():
    rng = np.random.RandomState(0)
    normal = rng.standard_normal((500, 4)) @ rng.standard_normal((4, 4))
    # A group of its own, a twentieth of the rows.
    group = rng.standard_normal((25, 4)) * 0.1 + 6
    X, y = np.vstack([normal, group]), np.r_[np.zeros(500), np.ones(25)]
    score = FlowOutlierDetector(random_state=0).fit(X).score_samples(X)
    assert roc_auc_score(y, -score) > 0.9


def degenerate_tables():
    rng = np.random.RandomState(0)
    normal = rng.standard_normal((60, 3))
    return {
        "constant columns": np.column_stack([normal, np.full(60, 7.0), np.zeros(60)]),
        "all rows equal": np.ones((50, 4)),
        "integer grid": rng.randint(3, size=(100, 4)).astype(float),
        "binary columns": (rng.random_sample((100, 6)) < 0.1).astype(float),
        "duplicates": np.repeat(normal[:6], 20, axis=0),
        "one column": normal[:, :1],
        "ten rows": normal[:10],
        "two rows": normal[:2],
        "one row": normal[:1],
        "more columns than rows": rng.standard_normal((12, 30)),
        "more columns than a density sees": rng.standard_normal((60, 90)),
        "far from zero": normal + 1e9,
        "large": normal * 1e9,
        "small": normal * 1e-9,
        "linear dependence": np.column_stack([normal, normal.sum(axis=1)]),
        "heavy tails": rng.standard_cauchy((100, 3)),
    }


@pytest.mark.parametrize("name", degenerate_tables())
def test_scores_are_finite_for_difficult_tables(name):
    X = degenerate_tables()[name]
    detector = FlowOutlierDetector(random_state=0).fit(X)
    for query in (X, X + 1, X * 3 - 2, np.full_like(X, 1e30)):
        assert np.isfinite(detector.score_samples(query)).all()
    assert np.isfinite(detector.offset_)


def test_every_column_is_seen():
    X = np.random.RandomState(0).standard_normal((60, 90))
    detector = FlowOutlierDetector(random_state=0).fit(X)
    seen = np.concatenate([columns for features in detector.estimators_features_ for columns in features])
    assert np.bincount(seen, minlength=90).min() >= 6
    assert max(len(columns) for features in detector.estimators_features_ for columns in features) == 40


def test_discrete_columns_give_no_warning_and_no_infinite_peaks(recwarn):
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.standard_normal(300), rng.randint(4, size=300)])
    detector = FlowOutlierDetector(random_state=0).fit(X)
    assert len(recwarn) == 0
    # A continuous column out of range counts, although values of the discrete one are as likely as can be.
    assert detector.predict([[8.0, 1.0]]) == -1
    assert detector.predict([[0.0, 1.0]]) == 1


def test_in_a_pipeline_with_a_data_frame():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = X.iloc[:, :6].mask(np.random.RandomState(0).random_sample((len(X), 6)) < 0.02)
    detector = FlowOutlierDetector(contamination=0.1, random_state=0)
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), detector).set_output(transform="pandas").fit(X)
    assert list(pipeline[-1].feature_names_in_) == list(X.columns)
    assert (pipeline.predict(X) == -1).sum() == 57
    # 0 are the malignant ones.
    assert roc_auc_score(y, pipeline.decision_function(X)) > 0.7


def test_after_encoders():
    rng = np.random.RandomState(0)
    frame = pd.DataFrame({"kind": rng.choice(["a", "b", "c"], size=200), "size": rng.standard_normal(200)})
    frame["weight"] = frame["size"] + (frame["kind"] == "b") + 0.1 * rng.standard_normal(200)
    encode = make_column_transformer((OneHotEncoder(sparse_output=False), ["kind"]), remainder=StandardScaler())
    pipeline = make_pipeline(encode, FlowOutlierDetector(random_state=0)).fit(frame)
    odd = pd.DataFrame({"kind": ["a", "b"], "size": [0.0, 0.0], "weight": [1.0, 1.0]})
    # The weight is right for the second kind only.
    assert pipeline.predict(odd).tolist() == [-1, 1]


def test_grid_search_over_labelled_anomalies():
    X, y = load_breast_cancer(return_X_y=True)
    chosen = np.r_[np.flatnonzero(y == 1)[:150], np.flatnonzero(y == 0)[:30]]
    X, y = X[chosen, :5], np.where(y[chosen] == 1, 1, -1)
    search = GridSearchCV(
        make_pipeline(StandardScaler(), FlowOutlierDetector(MixtureDensity(1), n_parts=2, random_state=0)),
        {"flowoutlierdetector__estimator__margins": ["linear", "bent"], "flowoutlierdetector__max_samples": [50, "auto"]},
        scoring={"auc": "roc_auc", "f1": make_scorer(f1_score, pos_label=-1)},
        refit="auc",
        cv=StratifiedKFold(3),
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_auc"]).all()
    assert search.best_score_ > 0.8
    assert clone(search.best_estimator_).fit(X).predict(X).shape == y.shape
