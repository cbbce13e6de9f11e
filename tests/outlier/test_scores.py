"""Each kind of score is what it says, and everything that is built on scores holds for it."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import config_context
from sklearn.base import BaseEstimator
from sklearn.neighbors import KernelDensity

from sklearn_flows import FlowOutlierDetector, MAFDensity, MixtureDensity
from sklearn_flows.outlier._scores import SCORES

SCORE_TYPES = sorted(SCORES)


class ProductOfNormals(BaseEstimator):
    """A density that is fitted in no time, with latents."""

    def fit(self, X):
        self.loc_, self.scale_ = X.mean(axis=0), X.std(axis=0)
        return self

    def transform(self, X):
        return (X - self.loc_) / self.scale_

    def score_samples(self, X):
        return norm.logpdf(X, self.loc_, self.scale_).sum(axis=1)


@pytest.fixture
def rows():
    return np.random.RandomState(0).standard_normal((300, 3))


def by_hand(detector, X):
    """The definitions, from the fitted densities."""
    densities = [density for densities in detector.estimators_ for density in densities]
    log_densities = np.array([density.score_samples(X) for density in densities])
    match detector.score_type:
        case "log_density":
            return log_densities.mean(axis=0)
        case "typicality":
            distances = [np.abs(s - m) for s, m in zip(log_densities, detector.typical_log_densities_.ravel(), strict=True)]
            return -np.mean(distances, axis=0)
        case "latent":
            return -np.mean([(density.transform(X) ** 2).sum(axis=1) / 2 for density in densities], axis=0)
        case "waic":
            return log_densities.mean(axis=0) - log_densities.var(axis=0)


@pytest.mark.parametrize("score_type", SCORE_TYPES)
def test_the_score_is_as_defined(score_type, rows):
    detector = FlowOutlierDetector(n_parts=2, score_type=score_type, random_state=0).fit(rows)
    queries = np.vstack([rows[:20], 2 * rows[20:40]])
    scores = detector.score_samples(queries)
    np.testing.assert_allclose(scores, by_hand(detector, queries))
    np.testing.assert_array_equal(detector.decision_function(queries), scores - detector.offset_)
    np.testing.assert_allclose(detector.training_scores_, np.sort(by_hand(detector, rows)))


def test_a_log_density_is_typical_as_the_median_row_is(rows):
    detector = FlowOutlierDetector(ProductOfNormals(), n_parts=1, score_type="typicality").fit(rows)
    log_density = ProductOfNormals().fit(rows).score_samples(rows)
    np.testing.assert_allclose(detector.typical_log_densities_, [[np.median(log_density)]])
    assert FlowOutlierDetector(ProductOfNormals()).fit(rows).typical_log_densities_ is None


def test_latents_differ_from_normal_densities_by_the_volume(rows):
    # For normal densities of equal scales the volume is a constant, and the order the same.
    detector = FlowOutlierDetector(ProductOfNormals(), n_parts=1, score_type="latent").fit(rows)
    density = ProductOfNormals().fit(rows)
    constant = 1.5 * np.log(2 * np.pi) + np.log(density.scale_).sum()
    np.testing.assert_allclose(detector.score_samples(rows), density.score_samples(rows) + constant)


@pytest.mark.parametrize("score_type", SCORE_TYPES)
def test_outliers_score_lowest(score_type, rows):
    detector = FlowOutlierDetector(score_type=score_type, contamination=0.1, random_state=0)
    assert (detector.fit_predict(rows) == -1).sum() == 30
    far = [[8.0, 0.0, 0.0], [-6.0, 6.0, -6.0]]
    assert detector.score_samples(far).max() < detector.training_scores_[0]
    assert detector.predict(far).tolist() == [-1, -1]
    assert detector.p_values(far).max() <= 1 / 300


def test_only_typicality_finds_rows_that_are_too_likely():
    noise = np.random.RandomState(0).standard_normal((500, 40))
    blank = np.zeros((1, 40))
    found = {
        score_type: FlowOutlierDetector(MixtureDensity(1), score_type=score_type, random_state=0).fit(noise).predict(blank)[0]
        for score_type in SCORE_TYPES
    }
    assert found == {"log_density": 1, "latent": 1, "waic": 1, "typicality": -1}


def test_the_variance_is_low_where_densities_agree(rows):
    # Equal densities leave the mean, and so does one for each part in p-values.
    one = FlowOutlierDetector(KernelDensity(), n_parts=1, score_type="waic").fit(rows)
    np.testing.assert_allclose(one.score_samples(rows), KernelDensity().fit(rows).score_samples(rows))
    several = FlowOutlierDetector(ProductOfNormals(), score_type="waic", random_state=0).fit(rows)
    plain = FlowOutlierDetector(ProductOfNormals(), random_state=0).fit(rows)
    lost = plain.score_samples([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]) - several.score_samples([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]])
    assert 0 < lost[0] < 0.1 < lost[1]
    np.testing.assert_array_equal(several.p_values(rows), plain.p_values(rows))


@pytest.mark.parametrize(
    ("score_type", "support_fraction"),
    [("log_density", 0.8), ("typicality", 1.0), ("typicality", 0.8), ("latent", 0.8), ("waic", 1.0)],
)
@pytest.mark.parametrize(("n_rows", "n_parts"), [(60, 5), (2000, 2)], ids=["cross-conformal", "split"])
def test_p_values_are_valid(n_rows, n_parts, score_type, support_fraction):
    rng = np.random.RandomState(0)
    n_sets = 200
    detector = FlowOutlierDetector(
        ProductOfNormals(), n_parts=n_parts, score_type=score_type, support_fraction=support_fraction, random_state=rng
    )
    p = np.array([detector.fit(rng.gamma(2, size=(n_rows, 2))).p_values(rng.gamma(2, size=(50, 2))) for _ in range(n_sets)])
    for alpha in (0.01, 0.05, 0.1):
        share = (p <= alpha).mean(axis=1)
        standard_error = share.std() / np.sqrt(n_sets)
        assert share.mean() <= alpha + 2 * standard_error
        # Not by refusing: with 60 rows the lowest p-value is 1/61.
        assert share.mean() >= 0.8 * alpha - 2 * standard_error or alpha < 1 / 61


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", [None, MAFDensity(n_transforms=1, max_iter=3, n_teachers=0)], ids=["default", "flow"])
@pytest.mark.parametrize("score_type", SCORE_TYPES)
def test_reasons_add_up(score_type, estimator, rows):
    detector = FlowOutlierDetector(estimator, n_parts=2, score_type=score_type, random_state=0).fit(rows)
    odd = [[0.2, 6.0, -0.3], [-5.0, 0.1, 5.0], [0.5, -0.5, 1.0]]
    reasons = detector.explain(odd)
    np.testing.assert_allclose(reasons.baseline - reasons.contributions.sum(axis=1), detector.score_samples(odd))
    np.testing.assert_allclose(reasons.baseline, detector.score_samples(reasons.repaired))
    assert reasons.contributions[:2].argmax(axis=1)[0] == 1
    assert (reasons.contributions[1] > 0).tolist() == [True, False, True]
    # Ordinary values are a matter of the densities, whatever the score: about two standard deviations on both sides.
    low, high = reasons.ranges[0, 1]
    assert -3.5 < low < -1.2
    assert 1.2 < high < 3.5


def test_latents_need_a_transform(rows):
    detector = FlowOutlierDetector(KernelDensity(), score_type="latent")
    with pytest.raises(ValueError, match=r"score_type='latent' needs a density with a method transform.*KernelDensity\(\) has"):
        detector.fit(rows)
    with config_context(transform_output="pandas"):
        FlowOutlierDetector(MixtureDensity(1), score_type="latent", n_parts=1).fit(rows).score_samples(rows)


def test_parameters_changed_after_the_fit_change_nothing(rows):
    detector = FlowOutlierDetector(ProductOfNormals(), random_state=0).fit(rows)
    before = detector.score_samples(rows)
    np.testing.assert_array_equal(detector.set_params(score_type="typicality").score_samples(rows), before)


@pytest.mark.parametrize("estimator", [None, ProductOfNormals()], ids=["default", "normal"])
def test_the_support_leaves_planted_outliers_out(estimator):
    rng = np.random.RandomState(0)
    normal, planted = rng.standard_normal((270, 2)), 0.5 * rng.standard_normal((30, 2)) + 8
    X = np.vstack([normal, planted])
    all_rows = FlowOutlierDetector(estimator, random_state=0).fit(X)
    trimmed = FlowOutlierDetector(estimator, support_fraction=0.85, random_state=0).fit(X)
    clean = FlowOutlierDetector(estimator, random_state=0).fit(normal)
    # The fit is nearly that without them, and they are further under the rest.
    centre = [[0.0, 0.0]]
    gaps = [(d.score_samples(centre) - d.score_samples(planted).max())[0] for d in (all_rows, trimmed, clean)]
    assert gaps[0] < 0.7 * gaps[1]
    assert trimmed.score_samples(planted).max() < trimmed.score_samples(normal).min()
    # Rows left out count in all else: the threshold and the p-values.
    assert len(trimmed.training_scores_) == sum(len(scores) for scores in trimmed.calibration_scores_) == 300
    assert (trimmed.set_contamination(0.1).predict(X) == -1).nonzero()[0].tolist() == list(range(270, 300))


def test_rows_are_left_out_by_densities_that_have_not_seen_the_part(rows):
    # Or p-values would depend on their own rows.
    class Recording(ProductOfNormals):
        def fit(self, X):
            self.rows_ = X[np.lexsort(X.T)]
            return super().fit(X)

    all_rows = FlowOutlierDetector(Recording(), n_parts=3, random_state=0).fit(rows)
    trimmed = FlowOutlierDetector(Recording(), n_parts=3, support_fraction=0.75, random_state=0).fit(rows)
    for (first,), (second,) in zip(all_rows.estimators_, trimmed.estimators_, strict=True):
        scores = first.score_samples(first.rows_)
        assert len(first.rows_) == 200
        np.testing.assert_array_equal(second.rows_, first.rows_[scores >= np.sort(scores)[50]])


def test_a_support_of_all_rows_changes_nothing_and_is_a_share(rows):
    plain = FlowOutlierDetector(ProductOfNormals(), random_state=0).fit(rows)
    nearly_all = FlowOutlierDetector(ProductOfNormals(), support_fraction=0.9999, random_state=0).fit(rows)
    np.testing.assert_array_equal(plain.score_samples(rows), nearly_all.score_samples(rows))
    for wrong in (0, 1.5, "many"):
        with pytest.raises(ValueError, match="support_fraction"):
            FlowOutlierDetector(support_fraction=wrong).fit(rows)
