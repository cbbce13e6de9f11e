"""Which columns make an outlier, and which values would not have."""

import sys

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal, norm
from sklearn.base import BaseEstimator
from sklearn.datasets import load_breast_cancer, load_wine

from sklearn_flows import FeatureSurpriseDisplay, FlowOutlierDetector, MAFDensity, MixtureDensity


class KnownNormal(BaseEstimator):
    """A density that needs no rows."""

    def __init__(self, covariance):
        self.covariance = covariance

    def fit(self, X):
        return self

    def score_samples(self, X):
        return multivariate_normal(np.zeros(len(self.covariance)), self.covariance).logpdf(X).reshape(-1)


COVARIANCE = np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def known():
    X = np.random.RandomState(0).multivariate_normal(np.zeros(3), COVARIANCE, size=2000)
    return FlowOutlierDetector(KnownNormal(COVARIANCE), n_parts=1).fit(X)


def correlated():
    rng = np.random.RandomState(0)
    return rng.standard_normal((400, 6)) @ rng.standard_normal((6, 6))


@pytest.mark.parametrize(
    "X", [correlated(), load_wine().data, load_breast_cancer().data[:, :8]], ids=["normal", "wine", "breast cancer"]
)
def test_a_planted_column_comes_first(X):
    rng = np.random.RandomState(0)
    detector = FlowOutlierDetector(random_state=0).fit(X[::2])
    planted = X[1::2][:30].copy()
    column = rng.randint(X.shape[1], size=len(planted))
    planted[np.arange(len(planted)), column] += 5 * X.std(axis=0)[column] * rng.choice([-1, 1], size=len(planted))
    reasons = detector.explain(planted)
    assert (reasons.contributions.argmax(axis=1) == column).mean() >= 0.9
    np.testing.assert_allclose(reasons.baseline - reasons.contributions.sum(axis=1), detector.score_samples(planted))
    np.testing.assert_allclose(reasons.baseline, detector.score_samples(reasons.repaired))
    # The value that was there before is mostly one that would have been ordinary.
    before, ends = X[1::2][:30][np.arange(30), column], reasons.ranges[np.arange(30), column]
    assert ((before >= ends[:, 0]) & (before <= ends[:, 1])).mean() > 0.75


def test_one_column_is_repaired_to_its_conditional_mode(known):
    reasons = known.explain([[1.5, -4.0, 0.3]])
    # Given the first, the second is normal about 0.9 * 1.5, with variance 1 - 0.81.
    np.testing.assert_allclose(reasons.repaired, [[1.5, 1.35, 0.3]], atol=0.1)
    centre, deviation = 1.35, np.sqrt(1 - 0.81)
    np.testing.assert_allclose(reasons.ranges[0, 1], norm.interval(0.95, centre, deviation), atol=0.2)
    assert np.isnan(reasons.ranges[0, [0, 2]]).all()
    expected = (-4.0 - centre) ** 2 / (2 * deviation**2)
    assert reasons.contributions[0, 1] == pytest.approx(expected, rel=0.01)
    np.testing.assert_array_equal(reasons.contributions[0, [0, 2]], 0)


def test_independent_columns_each_get_their_own(known):
    reasons = known.explain([[5.0, -4.5, -6.0]])
    assert (reasons.contributions > 0).sum() == 3
    assert reasons.contributions[0, 2] == pytest.approx(18, abs=0.5)
    assert reasons.contributions.sum() == pytest.approx((reasons.baseline - known.score_samples([[5.0, -4.5, -6.0]]))[0])


def test_typical_rows_need_no_reasons(known):
    reasons = known.explain(np.zeros((3, 3)))
    np.testing.assert_array_equal(reasons.contributions, 0)
    assert np.isnan(reasons.ranges).all()
    np.testing.assert_allclose(reasons.baseline, known.score_samples(np.zeros((3, 3))))


def test_rows_are_explained_one_by_one(known):
    X = np.random.RandomState(1).standard_normal((6, 3)) * 4
    together = known.explain(X)
    for i in range(6):
        alone = known.explain(X[i : i + 1])
        np.testing.assert_allclose(alone.contributions[0], together.contributions[i], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(alone.ranges[0], together.ranges[i])


def test_discrete_and_constant_columns_are_repaired_to_values_that_they_have():
    rng = np.random.RandomState(0)
    X = np.column_stack([rng.standard_normal(300), rng.randint(4, size=300), np.full(300, 5.0)])
    detector = FlowOutlierDetector(random_state=0).fit(X)
    assert detector.discrete_features_.tolist() == [False, True, True]
    reasons = detector.explain([[0.0, 40.0, 5.0], [0.0, 1.0, 6.0]])
    assert reasons.contributions.argmax(axis=1).tolist() == [1, 2]
    assert reasons.repaired[0, 1] in (0, 1, 2, 3)
    assert reasons.repaired[1, 2] == 5
    assert reasons.ranges[0, 1].tolist() == [0, 3]
    assert reasons.ranges[1, 2].tolist() == [5, 5]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(
    "density",
    [
        MixtureDensity(margins="smooth"),
        MAFDensity(n_transforms=1, hidden_layer_sizes=(8,), max_iter=3, n_teachers=0),
    ],
    ids=["mixture", "flow"],
)
def test_every_density_is_explained_exactly(density):
    X = correlated()[:100, :4]
    detector = FlowOutlierDetector(density, n_parts=2, random_state=0).fit(X)
    queries = X[:5] + 3 * X.std(axis=0) * np.eye(4)[[0, 1, 2, 3, 0]]
    reasons = detector.explain(queries)
    np.testing.assert_allclose(reasons.baseline - reasons.contributions.sum(axis=1), detector.score_samples(queries))


def test_one_row_is_drawn_as_bars(known):
    frame = pd.DataFrame([[0.0, 0.1, 9.0]], columns=["a", "b", "c"])
    detector = FlowOutlierDetector(KnownNormal(COVARIANCE), n_parts=1).fit(
        pd.DataFrame(np.random.RandomState(0).standard_normal((100, 3)), columns=["a", "b", "c"])
    )
    display = FeatureSurpriseDisplay.from_estimator(detector, frame, max_features=2)
    widths = [bar.get_width() for bar in display.ax_.patches]
    np.testing.assert_array_equal(widths, display.contributions[0, 2:])  # of the others there is nothing to say
    label = display.ax_.get_yticklabels()[0].get_text()
    assert label.startswith("c = 9\nordinary: ")
    assert display.figure_ is display.ax_.figure


def test_several_rows_are_drawn_as_a_heat_map(known):
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    display = FeatureSurpriseDisplay.from_estimator(known, [[0.0, 0.1, 9.0], [8.0, 0.0, 0.0]], ax=ax)
    assert display.ax_ is ax
    np.testing.assert_array_equal(ax.images[0].get_array(), display.contributions)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x0", "x1", "x2"]
    plt.close("all")


def test_without_matplotlib_the_error_says_what_to_install(known, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"sklearn-flows\[plot\]"):
        FeatureSurpriseDisplay.from_estimator(known, [[0.0, 0.0, 5.0]])
