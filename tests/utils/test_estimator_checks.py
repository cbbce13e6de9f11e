import ast
import copy
import os
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import solve_triangular
from sklearn import get_config
from sklearn.base import BaseEstimator, DensityMixin, TransformerMixin, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sklearn_flows import (
    FFJORDDensity,
    FlowMatchingDensity,
    GlowDensity,
    IAFDensity,
    MAFDensity,
    NeuralSplineFlowDensity,
    RealNVPDensity,
)
from sklearn_flows.utils import estimator_checks
from sklearn_flows.utils._sklearn import check_sample_weight

try:  # joblib < 1.6 carries its own copy
    from joblib.externals import cloudpickle
except ImportError:
    import cloudpickle

# Worker processes can't import this module, so its classes go to them whole.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SMALL = {"n_transforms": 2, "hidden_layer_sizes": (16,), "max_iter": 4, "n_teachers": 0}
FLOATS = [np.float64, np.float32]


@estimator_checks.parametrize_with_density_checks(
    [
        NeuralSplineFlowDensity(**SMALL),
        MAFDensity(**SMALL, early_stopping=True),
        IAFDensity(**SMALL),
        RealNVPDensity(**SMALL),
        GlowDensity(**SMALL),
        FFJORDDensity((4,), n_solver_steps=1, base="normal", max_iter=2),
        FlowMatchingDensity((4,), base="normal", max_iter=2),
        RealNVPDensity(n_teachers=0, max_iter=10),
    ]
)
def test_flow_densities_pass_every_check(estimator, check):
    check(estimator)


# A density that is right


class GaussianDensity(DensityMixin, BaseEstimator):
    """A Gaussian fitted by its moments; the correlation goes half of the way in each iteration, so that there are some."""

    def __init__(self, max_iter=100, tol=1e-12, warm_start=False, random_state=None):
        self.max_iter = max_iter
        self.tol = tol
        self.warm_start = warm_start
        self.random_state = random_state

    def fit(self, X, y=None, sample_weight=None):
        before = dict(vars(self))
        try:
            return self._fit(X, sample_weight)
        except Exception:
            vars(self).clear()
            vars(self).update(before)
            raise

    def _fit(self, X, sample_weight):
        continues = self.warm_start and hasattr(self, "correlation_")
        X = validate_data(self, X, reset=not continues, dtype=FLOATS, order="C", ensure_min_samples=2).astype(np.float64)
        weight = check_sample_weight(sample_weight, X)
        share = weight / weight.sum()
        self.mean_ = self._location(X, share)
        self.scale_ = self._scale(X, share)
        Z = (X - self.mean_) / self.scale_
        shrinkage = self._shrinkage(weight)
        target = (1 - shrinkage) * (Z * share[:, None]).T @ Z + shrinkage * np.eye(X.shape[1])
        self._iterate(target, continues)
        return self

    def _location(self, X, share):
        return share @ X

    def _scale(self, X, share):
        scale = np.sqrt(share @ np.square(X - self.mean_))
        floor = 1e-12 * np.abs(X).max(axis=0)
        return np.where(scale > floor, scale, 1e-3 * np.where(self.mean_ == 0, 1.0, np.abs(self.mean_)))

    def _shrinkage(self, weight):
        return 0.01

    def _iterate(self, target, continues):
        correlation = self.correlation_ if continues else np.eye(len(target))
        losses = list(self.loss_curve_) if continues else []
        for _ in range(self.max_iter):
            step = (target - correlation) / 2
            correlation = correlation + step
            losses.append(float(np.linalg.slogdet(correlation)[1] + np.trace(np.linalg.solve(correlation, target))))
            if np.abs(step).max() < self.tol:
                break
        else:
            self._warn_of_max_iter()
        self.correlation_, self.loss_curve_, self.n_iter_ = correlation, losses, len(losses)
        self.root_ = np.linalg.cholesky(correlation)

    def _warn_of_max_iter(self):
        warnings.warn("max_iter is too low", ConvergenceWarning, stacklevel=5)

    def _rows(self, X):
        check_is_fitted(self)
        return validate_data(self, X, reset=False, dtype=FLOATS, order="C")

    def _latents(self, X):
        with np.errstate(over="ignore"):
            Z = np.clip((X.astype(np.float64) - self.mean_) / self.scale_, -1e100, 1e100)
        return solve_triangular(self.root_, Z.T, lower=True).T

    def score_samples(self, X):
        X = self._rows(X)
        beyond = (np.abs(X - self.mean_) / 1e100 > self.scale_).any(axis=1)
        log_det = -np.log(self.scale_).sum() - np.log(np.diag(self.root_)).sum()
        log_density = log_det - 0.5 * (np.square(self._latents(X)).sum(axis=1) + X.shape[1] * np.log(2 * np.pi))
        return np.where(beyond, -np.inf, log_density).astype(X.dtype)

    def score(self, X, y=None, sample_weight=None):
        scores = self.score_samples(X).astype(np.float64)
        return float(np.average(scores, weights=check_sample_weight(sample_weight, scores)))

    def sample(self, n_samples=1, random_state=None):
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"Invalid value for 'n_samples': {n_samples}")
        Z = check_random_state(random_state).normal(size=(n_samples, len(self.mean_)))
        return self.mean_ + self.scale_ * (Z @ self.root_.T)


class GaussianFlow(TransformerMixin, GaussianDensity):
    def transform(self, X):
        X = self._rows(X)
        return self._latents(X).astype(X.dtype)

    def inverse_transform(self, X):
        check_is_fitted(self)
        Z = check_array(X, dtype=FLOATS)
        if Z.shape[1] != self.n_features_in_:
            raise ValueError(f"X has {Z.shape[1]} features")
        return (self.mean_ + self.scale_ * (Z @ self.root_.T)).astype(Z.dtype)


# One fault each


class SamplesUnfitted(GaussianFlow):
    def sample(self, n_samples=1, random_state=None):
        if not hasattr(self, "mean_"):
            return np.zeros((n_samples, 1))
        return super().sample(n_samples, random_state)


class RemembersEarlierFit(GaussianFlow):
    def _location(self, X, share):
        location = super()._location(X, share)
        return location if self.warm_start else location + 1e-3 * getattr(self, "mean_", 0.0)


class CloneStaysFitted(GaussianFlow):
    def __sklearn_clone__(self):
        return copy.deepcopy(self)


class KeepsLambda(GaussianFlow):
    def _shrinkage(self, weight):
        self.shrink_ = lambda: 0.01
        return self.shrink_()


class WritesToItsArrays(GaussianFlow):
    def _rows(self, X):
        X = super()._rows(X)
        self.mean_ += 0.0
        return X


class DeepcopyRounds(GaussianFlow):
    def __deepcopy__(self, memo):
        copied = clone(self)
        vars(copied).update(vars(self))
        copied.mean_ = self.mean_.astype(np.float32)
        return copied


class CachesScores(GaussianFlow):
    def score_samples(self, X):
        self.scores_ = super().score_samples(X)
        return self.scores_


class CountsQueriesInPlace(GaussianFlow):
    def _fit(self, X, sample_weight):
        super()._fit(X, sample_weight)
        self.counts_ = {"queries": 0}
        return self

    def transform(self, X):
        Z = super().transform(X)
        self.counts_["queries"] += 1
        return Z


class FailedFitForgets(GaussianFlow):
    def fit(self, X, y=None, sample_weight=None):
        return self._fit(X, sample_weight)


class IgnoresWarmStart(GaussianFlow):
    def _iterate(self, target, continues):
        super()._iterate(target, False)


class WarmStartsInCurvesOnly(GaussianFlow):
    def _iterate(self, target, continues):
        before = self.loss_curve_ if continues else []
        super()._iterate(target, False)
        self.loss_curve_ = before + self.loss_curve_
        self.n_iter_ = len(self.loss_curve_)


class WarmStartTakesOtherWidths(GaussianFlow):
    def _fit(self, X, sample_weight):
        continues = hasattr(self, "n_features_in_") and check_array(X, dtype=None).shape[1] == self.n_features_in_
        if self.warm_start and not continues and hasattr(self, "correlation_"):
            del self.correlation_
        return super()._fit(X, sample_weight)


class NeverWarns(GaussianFlow):
    def _warn_of_max_iter(self):
        pass


class WarnsTwice(GaussianFlow):
    def _warn_of_max_iter(self):
        super()._warn_of_max_iter()
        warnings.warn("max_iter is really too low", ConvergenceWarning, stacklevel=5)


class ScoresNaN(GaussianFlow):
    def score_samples(self, X):
        check_is_fitted(self)
        validate_data(self, X, reset=False, ensure_all_finite="allow-nan", skip_check_array=False)
        missing = np.isnan(check_array(X, dtype=FLOATS, ensure_all_finite="allow-nan")).any(axis=1)
        return np.full(len(missing), np.nan) if missing.any() else super().score_samples(X)


class TransformsOneRow(GaussianFlow):
    def transform(self, X):
        return super().transform(np.atleast_2d(X) if isinstance(X, np.ndarray) and X.size == 2 else X)


class InvertsOneDimension(GaussianFlow):
    def inverse_transform(self, X):
        X = np.asarray(X.todense()) if hasattr(X, "todense") else X
        return super().inverse_transform(X)


class IgnoresNames(GaussianFlow):
    def _rows(self, X):
        if isinstance(X, pd.DataFrame) and len(self.feature_names_in_) == len(X.columns):
            X = X.set_axis(self.feature_names_in_, axis=1)
        return super()._rows(X)


class ScoresInFloat64(GaussianFlow):
    def score_samples(self, X):
        return super().score_samples(X).astype(np.float64)


class ComputesInFloat16(GaussianFlow):
    def score_samples(self, X):
        scores = super().score_samples(X)
        return scores if scores.dtype == np.float64 else scores.astype(np.float16).astype(np.float32)


class RefusesNegativeStrides(GaussianFlow):
    def score_samples(self, X):
        check_is_fitted(self)
        checked = validate_data(self, X, reset=False, dtype=FLOATS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.from_numpy(checked)
        return super().score_samples(X)


class NormalisesWeightsInPlace(GaussianFlow):
    def _fit(self, X, sample_weight):
        super()._fit(X, sample_weight)
        if isinstance(sample_weight, np.ndarray) and sample_weight.dtype == np.float64:
            sample_weight /= sample_weight.mean()
        return self


class RoundsFrames(GaussianFlow):
    def _rows(self, X):
        return super()._rows(X.astype(np.float32).astype(np.float64) if hasattr(X, "set_axis") else X)


class AlignsWeights(GaussianFlow):
    def _fit(self, X, sample_weight):
        return super()._fit(X, sample_weight.loc[X.index] if hasattr(sample_weight, "loc") else sample_weight)


class LeansToFirstRow(GaussianFlow):
    def _location(self, X, share):
        location = super()._location(X, share)
        return location + 1e-3 * (X[share > 0][0] - location)


class ShrinksBySumOfWeights(GaussianFlow):
    def _shrinkage(self, weight):
        return 1 / weight.sum()


class TakesNegativeWeights(GaussianFlow):
    def _fit(self, X, sample_weight):
        if sample_weight is not None and np.ndim(sample_weight) == 1 and np.isfinite(sample_weight).all():
            sample_weight = np.abs(sample_weight)
        return super()._fit(X, sample_weight)


class IgnoresWeights(GaussianFlow):
    def _fit(self, X, sample_weight):
        check_sample_weight(sample_weight, np.asarray(X))
        return super()._fit(X, None)


class ShrinksByNumberOfRows(GaussianFlow):
    def _shrinkage(self, weight):
        return 1 / len(weight)


class TakesYForWeights(GaussianFlow):
    def fit(self, X, y=None, sample_weight=None):
        return super().fit(X, sample_weight=y if sample_weight is None else sample_weight)


class DividesByZero(GaussianFlow):
    def _scale(self, X, share):
        scale = np.sqrt(share @ np.square(X - self.mean_))
        return np.where(scale > 1e-12 * np.abs(X).max(axis=0), scale, 1e-300)


class ScoresAgainstTheBatch(GaussianDensity):
    def score_samples(self, X):
        scores = super().score_samples(X)
        return scores + 1e-5 * np.tanh(np.median(scores - scores.max()))


class AddsToStandardDeviation(GaussianFlow):
    def _scale(self, X, share):
        return super()._scale(X, share) + 0.05


class ClipsLowDensities(GaussianDensity):
    def score_samples(self, X):
        scores = super().score_samples(X)
        return np.where(scores > -1e3, np.maximum(scores, -15), scores)


class ForgetsTheUnits(GaussianDensity):
    def score_samples(self, X):
        scores = super().score_samples(X)
        return (scores + np.log(self.scale_).sum()).astype(scores.dtype)


class HasMassAboveOne(GaussianDensity):
    def score_samples(self, X):
        scores = super().score_samples(X)
        return scores + scores.dtype.type(0.02)


class FlatFarAway(GaussianDensity):
    def score_samples(self, X):
        scores = super().score_samples(X)
        return np.maximum(scores, -800).astype(scores.dtype)


class NaNFarAway(GaussianDensity):
    def score_samples(self, X):
        scores = super().score_samples(X)
        return np.where(np.isneginf(scores), np.nan, scores).astype(scores.dtype)


class ScoreIsSum(GaussianFlow):
    def score(self, X, y=None, sample_weight=None):
        return super().score(X, y, sample_weight) * len(X)


class ScoreIgnoresWeights(GaussianFlow):
    def score(self, X, y=None, sample_weight=None):
        return super().score(X)


class ScoreIsNotAFloat(GaussianFlow):
    def score(self, X, y=None, sample_weight=None):
        return np.array(super().score(X, y, sample_weight))


class FlattensOneRow(GaussianFlow):
    def sample(self, n_samples=1, random_state=None):
        drawn = super().sample(n_samples, random_state)
        return drawn[0] if n_samples == 1 else drawn


class SamplesWithOneSeed(GaussianFlow):
    def sample(self, n_samples=1, random_state=None):
        return super().sample(n_samples, 0 if random_state is None else random_state)


class RepeatsOneRow(GaussianFlow):
    def sample(self, n_samples=1, random_state=None):
        drawn = super().sample(n_samples, random_state)
        return np.repeat(drawn[:1], n_samples, axis=0) if n_samples < 100 else drawn


class SamplesNothing(GaussianFlow):
    def sample(self, n_samples=1, random_state=None):
        return super().sample(n_samples, random_state) if n_samples else np.empty((0, len(self.mean_)))


class SamplesTooWidely(GaussianFlow):
    def sample(self, n_samples=1, random_state=None):
        drawn = super().sample(n_samples, random_state)
        return self.mean_ + 1.2 * (drawn - self.mean_)


class SamplesMirrored(GaussianFlow):
    def sample(self, n_samples=1, random_state=None):
        drawn = super().sample(n_samples, random_state)
        drawn[:, 0] = 2 * self.mean_[0] - drawn[:, 0]  # each column is as it should be, their correlation isn't
        return drawn


class LatentsTooWide(GaussianFlow):
    def transform(self, X):
        return 2 * super().transform(X)

    def inverse_transform(self, X):
        check_array(X)
        return super().inverse_transform(np.asarray(X) / np.asarray(X).dtype.type(2))


class InverseIsNone(GaussianFlow):
    def inverse_transform(self, X):
        return super().inverse_transform(X) + np.float32(0.01)


class WorksInMainThreadOnly(GaussianFlow):
    def _location(self, X, share):
        return super()._location(X, share) + (threading.current_thread() is not threading.main_thread())


class DependsOnTheProcess(GaussianFlow):
    def _location(self, X, share):
        return super()._location(X, share) + 1e-12 * os.getpid() * self._scale_of_rows(X, share)

    def _scale_of_rows(self, X, share):
        return np.sqrt(share @ np.square(X - share @ X))


class FitSeedsNumpy(GaussianFlow):
    def _fit(self, X, sample_weight):
        np.random.seed(0)
        return super()._fit(X, sample_weight)


class FitDrawsFromTorch(GaussianFlow):
    def _fit(self, X, sample_weight):
        torch.rand(1)
        return super()._fit(X, sample_weight)


class ScoringDrawsFromNumpy(GaussianFlow):
    def score_samples(self, X):
        np.random.uniform()
        return super().score_samples(X)


class CentresChunks(GaussianFlow):
    def transform(self, X):
        Z = super().transform(X)
        return Z + Z.dtype.type(1e-4 * (get_config()["working_memory"] < 1))


# The check that must fail, the estimator, and checks that then must fail as well since they test the same along the way.
FAULTS = [
    ("check_density_unfitted", SamplesUnfitted, ()),
    ("check_density_idempotent", RemembersEarlierFit, ()),
    ("check_density_clone", CloneStaysFitted, ()),
    ("check_density_pickle", KeepsLambda, ("check_density_joblib_mmap",)),
    ("check_density_joblib_mmap", WritesToItsArrays, ()),
    ("check_density_deepcopy", DeepcopyRounds, ()),
    ("check_density_dict_unchanged", CachesScores, ()),
    ("check_density_dict_unchanged", CountsQueriesInPlace, ()),
    ("check_density_refit_failure_keeps_model", FailedFitForgets, ()),
    ("check_density_warm_start", IgnoresWarmStart, ()),
    ("check_density_warm_start", WarmStartsInCurvesOnly, ()),
    ("check_density_warm_start", WarmStartTakesOtherWidths, ()),
    ("check_density_convergence_warning", NeverWarns, ()),
    ("check_density_convergence_warning", WarnsTwice, ()),
    ("check_density_query_validation", ScoresNaN, ()),
    ("check_density_query_validation", TransformsOneRow, ()),
    ("check_density_query_validation", InvertsOneDimension, ()),
    ("check_density_query_validation", IgnoresNames, ()),
    ("check_density_dtypes", ScoresInFloat64, ()),
    ("check_density_dtypes", ComputesInFloat16, ()),
    ("check_density_input_layouts", RefusesNegativeStrides, ()),
    ("check_density_inputs_unmodified", NormalisesWeightsInPlace, ()),
    ("check_density_frames", RoundsFrames, ()),
    ("check_density_frames", AlignsWeights, ()),
    ("check_density_row_order", LeansToFirstRow, ()),
    ("check_density_weights", ShrinksBySumOfWeights, ("check_density_weights_are_repetitions",)),
    ("check_density_weights", TakesNegativeWeights, ()),
    ("check_density_weights", IgnoresWeights, ("check_density_weights_are_repetitions",)),
    ("check_density_weights_are_repetitions", ShrinksByNumberOfRows, ()),
    ("check_density_y_ignored", TakesYForWeights, ()),
    ("check_density_degenerate", DividesByZero, ()),
    ("check_density_batch_invariance", ScoresAgainstTheBatch, ()),
    ("check_density_affine_equivariance", AddsToStandardDeviation, ()),
    ("check_density_units", ClipsLowDensities, ()),
    ("check_density_units", ForgetsTheUnits, ("check_density_affine_equivariance", "check_density_integrates_to_one")),
    ("check_density_integrates_to_one", HasMassAboveOne, ()),
    ("check_density_tails", FlatFarAway, ()),
    ("check_density_tails", NaNFarAway, ()),
    ("check_density_score_is_mean", ScoreIsSum, ()),
    ("check_density_score_is_mean", ScoreIgnoresWeights, ()),
    ("check_density_score_is_mean", ScoreIsNotAFloat, ()),
    ("check_sample_shape_and_seed", FlattensOneRow, ()),
    ("check_sample_shape_and_seed", SamplesWithOneSeed, ()),
    ("check_sample_shape_and_seed", RepeatsOneRow, ()),
    ("check_sample_shape_and_seed", SamplesNothing, ()),
    ("check_sample_matches_density", SamplesTooWidely, ()),
    ("check_sample_matches_density", SamplesMirrored, ()),
    ("check_density_transform_consistency", LatentsTooWide, ()),
    ("check_density_transform_consistency", InverseIsNone, ()),
    ("check_density_thread_safety", WorksInMainThreadOnly, ()),
    ("check_density_n_jobs_invariance", DependsOnTheProcess, ()),
    ("check_density_global_rng_untouched", FitSeedsNumpy, ()),
    ("check_density_global_rng_untouched", FitDrawsFromTorch, ()),
    ("check_density_global_rng_untouched", ScoringDrawsFromNumpy, ()),
    ("check_density_working_memory", CentresChunks, ()),
]


def failing_checks(estimator):
    failing = set()
    for estimator_orig, check in estimator_checks.density_checks_generator(estimator):
        try:
            with np.errstate(all="ignore"):
                check(estimator_orig)
        except Exception:
            failing.add(check.func.__name__)
    return failing


def names_of_checks(estimator):
    return [check.func.__name__ for _, check in estimator_checks.density_checks_generator(estimator)]


def test_right_density_passes_every_check():
    estimator_checks.check_density_estimator(GaussianFlow())
    estimator_checks.check_density_estimator(GaussianDensity())


@pytest.mark.parametrize(("check", "broken", "also"), FAULTS, ids=lambda value: getattr(value, "__name__", None))
def test_fault_is_found_by_its_check_and_no_other(check, broken, also):
    assert failing_checks(broken()) == {check, *also}


def test_every_check_has_a_fault_that_it_finds():
    public = {name for name in estimator_checks.__all__ if name.startswith("check_")} - {"check_density_estimator"}
    assert {check for check, _, _ in FAULTS} == public
    assert set(names_of_checks(GaussianFlow())) == public


def test_check_density_estimator_raises_what_the_first_failing_check_raises():
    with pytest.raises(AssertionError, match=r"score must be the mean of score_samples"):
        estimator_checks.check_density_estimator(ScoreIsSum())


class OnlyScoresSamples(BaseEstimator):
    def fit(self, X):
        X = validate_data(self, X, dtype=FLOATS)
        self.gaussian_ = GaussianDensity().fit(X)
        return self

    def score_samples(self, X):
        check_is_fitted(self)
        return self.gaussian_.score_samples(X)


def test_checks_of_what_an_estimator_lacks_are_left_out():
    left_out = set(names_of_checks(GaussianFlow())) - set(names_of_checks(OnlyScoresSamples()))
    assert left_out == {
        "check_density_convergence_warning",
        "check_density_n_jobs_invariance",
        "check_density_score_is_mean",
        "check_density_transform_consistency",
        "check_density_warm_start",
        "check_density_weights",
        "check_density_weights_are_repetitions",
        "check_density_y_ignored",
        "check_sample_matches_density",
        "check_sample_shape_and_seed",
    }


def test_kernel_density_fails_only_where_it_is_documented_to_differ():
    assert failing_checks(KernelDensity()) == {
        "check_density_affine_equivariance",  # one bandwidth for all columns, in their units
        "check_density_units",  # the same: a bandwidth of one is far too narrow for scales of 1e5
        "check_density_dict_unchanged",  # its tree counts the calls
        "check_density_dtypes",  # always float64
        "check_density_refit_failure_keeps_model",  # names are taken before the values are looked at
        "check_density_score_is_mean",  # a sum
        "check_density_weights",  # equal up to the last bit only
        "check_sample_shape_and_seed",  # sample(0) is empty
    }


def test_gaussian_mixture_fails_only_where_it_is_documented_to_differ():
    assert failing_checks(GaussianMixture()) == {
        "check_density_affine_equivariance",  # reg_covar is in the units of the columns
        "check_density_dtypes",  # always float64
        "check_density_refit_failure_keeps_model",  # names are taken before the values are looked at
        "check_density_warm_start",  # n_iter_ is that of the last fit
    }
    # Its sample takes no seed and returns components too.
    assert "check_sample_matches_density" not in names_of_checks(GaussianMixture())


def test_a_class_in_place_of_an_instance_is_refused():
    with pytest.raises(TypeError, match=r"pass GaussianFlow\(\)"):
        estimator_checks.parametrize_with_density_checks([GaussianFlow])


def test_ids_of_tests_are_the_estimator_and_the_check():
    parameters = estimator_checks.parametrize_with_density_checks([GaussianFlow(max_iter=7)])
    to_id = parameters.kwargs["ids"]
    ids = [[to_id(value) for value in parameter.values] for parameter in parameters.args[1]]
    assert ids[0] == ["GaussianFlow(max_iter=7)", "check_density_unfitted"]
    assert len({tuple(pair) for pair in ids}) == len(ids)


def test_expected_failures_are_marked_and_nothing_else_is():
    # KernelDensity.score is defined as the sum over n rows, n times their mean: it can't be both.
    decorator = estimator_checks.parametrize_with_density_checks(
        [KernelDensity()],
        expected_failed_checks=lambda estimator: {"check_density_score_is_mean": "a sum over n rows is n times their mean"},
    )
    marked = {
        parameter.values[1].func.__name__: mark.kwargs["reason"] for parameter in decorator.args[1] for mark in parameter.marks
    }
    assert marked == {"check_density_score_is_mean": "a sum over n rows is n times their mean"}


def test_checks_import_neither_pytest_nor_anything_else_of_the_package():
    (folder,) = estimator_checks.__path__
    for path in Path(folder).glob("*.py"):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Import):
                assert not {"pytest", "sklearn_flows"} & {alias.name.partition(".")[0] for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom):
                assert statement.level <= 1
                assert (statement.module or "").partition(".")[0] not in {"pytest", "sklearn_flows"}
