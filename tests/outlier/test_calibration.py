"""P-values and false discoveries, by simulation with a density that is fitted in no time."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.base import BaseEstimator

from sklearn_flows import FlowOutlierDetector
from sklearn_flows.outlier._calibration import benjamini_hochberg, conformal_p_values


class ProductOfNormals(BaseEstimator):
    """As simple a density as there is: its worth doesn't matter."""

    def fit(self, X):
        self.loc_, self.scale_ = X.mean(axis=0), X.std(axis=0)
        return self

    def score_samples(self, X):
        return norm.logpdf(X, self.loc_, self.scale_).sum(axis=1)


def draws(rng, n):
    """Nothing like a product of normals."""
    return rng.standard_exponential((n, 2)) * rng.choice([-1, 3], size=(n, 1))


@pytest.mark.parametrize(("n_rows", "n_parts"), [(60, 5), (2000, 2)], ids=["cross-conformal", "split"])
def test_p_values_are_valid(n_rows, n_parts):
    rng = np.random.RandomState(0)
    n_sets = 1000
    # Valid over divisions into parts too, so another one for each set.
    detector = FlowOutlierDetector(ProductOfNormals(), n_parts=n_parts, random_state=rng)
    p = np.array([detector.fit(draws(rng, n_rows)).p_values(draws(rng, 50)) for _ in range(n_sets)])
    for alpha in (0.01, 0.05, 0.1):
        share = (p <= alpha).mean(axis=1)
        standard_error = share.std() / np.sqrt(n_sets)
        assert share.mean() <= alpha + 2 * standard_error
        # Not by refusing: with 60 rows the lowest p-value is 1/61.
        assert share.mean() >= 0.8 * alpha - 2 * standard_error or alpha < 1 / 61


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_false_discoveries_are_as_rare_as_asked_for(alpha):
    rng = np.random.RandomState(1)
    n_sets = 300
    wrong, found = np.empty(n_sets), np.empty(n_sets)
    detector = FlowOutlierDetector(ProductOfNormals(), random_state=rng)
    for i in range(n_sets):
        detector.fit(rng.standard_normal((400, 2)))
        X = np.vstack([rng.standard_normal((80, 2)), rng.standard_normal((20, 2)) + 6])
        flagged = detector.predict_fdr(X, alpha) == -1
        wrong[i], found[i] = flagged[:80].sum() / max(1, flagged.sum()), flagged[80:].mean()
    assert wrong.mean() <= alpha + 2 * wrong.std() / np.sqrt(n_sets)
    assert found.mean() > 0.9


def test_the_default_detector_has_valid_p_values():
    rng = np.random.RandomState(0)
    p = np.concatenate([FlowOutlierDetector(random_state=0).fit(draws(rng, 100)).p_values(draws(rng, 100)) for _ in range(8)])
    assert (p <= 0.1).mean() <= 0.1 + 2 * np.sqrt(0.1 * 0.9 / 400)
    assert (p > 0).all()
    assert (p <= 1).all()


def test_p_values_count_rows_that_score_as_low():
    p = conformal_p_values([np.array([1.0, 2.0]), np.array([10.0, 30.0])], np.array([[0.0, 1.0, 5.0], [9.0, 20.0, 40.0]]))
    np.testing.assert_allclose(p, [1 / 5, 3 / 5, 1.0])


def test_benjamini_and_hochbergs_own_example():
    # The fifteen p-values of their section 4.3: four are rejected at 0.05.
    p = np.array(
        [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    )
    order = np.random.RandomState(0).permutation(15)
    assert set(p[order][benjamini_hochberg(p[order], 0.05)]) == {0.0001, 0.0004, 0.0019, 0.0095}
    assert not benjamini_hochberg(p[4:], 0.05).any()
    assert not benjamini_hochberg(np.array([]), 0.05).any()


def test_without_parts_there_are_no_p_values():
    X = np.random.RandomState(0).standard_normal((50, 2))
    with pytest.raises(ValueError, match="n_parts=1 and 50 rows"):
        FlowOutlierDetector(ProductOfNormals(), n_parts=1).fit(X).p_values(X)
    with pytest.raises(ValueError, match="and 2 rows"):
        FlowOutlierDetector(random_state=0).fit(X[:2]).p_values(X)


@pytest.mark.parametrize("alpha", [0, 1, -0.5, "many", None])
def test_alpha_is_a_share(alpha):
    X = np.random.RandomState(0).standard_normal((50, 2))
    detector = FlowOutlierDetector(ProductOfNormals()).fit(X)
    with pytest.raises(ValueError, match="alpha must be a number between 0 and 1"):
        detector.predict_fdr(X, alpha)
