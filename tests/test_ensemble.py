"""Averages of densities are what they say, and estimators like the others."""

import warnings

import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.datasets import make_moons
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

from sklearn_flows import BaggingDensity, MAFDensity, MixtureDensity, NeuralSplineFlowDensity, StackingDensity
from sklearn_flows.training import mixture_weights
from sklearn_flows.utils.estimator_checks import parametrize_with_density_checks

MEMBER = MAFDensity(n_transforms=1, hidden_layer_sizes=(4,), max_iter=3, learning_rate=0.01, n_teachers=0)
KINDS = [("flow", MEMBER), ("mixture", MixtureDensity(2))]
pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:A continuous density is not meaningful"),
]


@pytest.fixture(scope="module")
def X():
    return make_moons(120, noise=0.1, random_state=0)[0]


@parametrize_with_density_checks([BaggingDensity(MEMBER, n_estimators=2), StackingDensity(KINDS, n_parts=2)])
def test_density_contract(estimator, check):
    check(estimator)


def test_the_density_is_the_mean_of_the_members(X):
    density = BaggingDensity(MEMBER, n_estimators=3, random_state=0).fit(X)
    each = np.array([member.score_samples(X) for member in density.estimators_])
    log_density, spread = density.score_samples(X, return_std=True)
    np.testing.assert_allclose(log_density, logsumexp(each, axis=0) - np.log(3), rtol=1e-12)
    np.testing.assert_allclose(spread, each.std(axis=0), rtol=1e-12)
    assert spread.max() > 0
    np.testing.assert_array_equal(density.score_samples(X), log_density)


class Recorder(GaussianMixture):
    """A density that remembers what it was fitted to."""

    def fit(self, X, y=None, sample_weight=None, *, X_val=None, sample_weight_val=None):
        self.seen_ = X, sample_weight, X_val, sample_weight_val
        return super().fit(X)


def test_each_row_stops_one_member_and_trains_the_others(X):
    weight = np.random.RandomState(0).randint(1, 4, size=len(X)).astype(float)
    density = BaggingDensity(Recorder(), n_estimators=4, random_state=0).fit(X, sample_weight=weight)
    weight_of = {tuple(row): w for row, w in zip(X, weight / weight.mean(), strict=True)}
    held_out = []
    for member in density.estimators_:
        rows, weights, rows_val, weights_val = member.seen_
        assert {*map(tuple, rows)} | {*map(tuple, rows_val)} == {*map(tuple, X)}
        assert len(rows) + len(rows_val) == len(X)
        for part, weights_of_part in ((rows, weights), (rows_val, weights_val)):
            np.testing.assert_allclose(weights_of_part, [weight_of[tuple(row)] for row in part], rtol=1e-12)
        held_out += map(tuple, rows_val)
    assert sorted(held_out) == sorted(map(tuple, X))
    assert len({member.random_state for member in density.estimators_}) == 4


@pytest.mark.parametrize("member", [GaussianMixture(2), KernelDensity(bandwidth=0.3)], ids=lambda member: type(member).__name__)
def test_members_of_scikit_learn(member, X):
    density = BaggingDensity(member, n_estimators=3, random_state=0).fit(X)
    assert np.isfinite(density.score(X))
    rows = density.sample(4000, random_state=0)
    np.testing.assert_array_equal(rows, density.sample(4000, random_state=0))
    # A standard error is about 0.015.
    np.testing.assert_allclose(rows.mean(axis=0), X.mean(axis=0), atol=0.1)
    reversed_rows = BaggingDensity(member, n_estimators=3, random_state=0).fit(X[::-1])
    np.testing.assert_allclose(reversed_rows.score_samples(X), density.score_samples(X), rtol=1e-9)


def test_equal_rows_count_for_members_without_weights():
    X = np.array([[0.0], [0.0], [0.0], [1.0], [2.0], [5.0]])
    density = BaggingDensity(GaussianMixture(reg_covar=1.0), n_estimators=1).fit(X)
    assert density.estimators_[0].means_[0, 0] == pytest.approx(X.mean())
    with pytest.raises(ValueError, match="takes no sample_weight"):
        density.fit(X, sample_weight=np.ones(6))


def test_more_members_than_rows():
    X = np.array([[0.0, 1.0], [1.0, 0.5], [2.0, 2.5], [2.0, 2.5]])
    density = BaggingDensity(MEMBER, n_estimators=10, random_state=0).fit(X)
    assert len(density.estimators_) == 3
    assert np.isfinite(density.score(X))
    assert len(BaggingDensity(MEMBER).fit(X[:1]).estimators_) == 1


def test_threads_change_nothing(X):
    expected = BaggingDensity(MEMBER, n_estimators=3, random_state=0).fit(X)
    density = BaggingDensity(MEMBER, n_estimators=3, n_jobs=3, random_state=0).fit(X)
    np.testing.assert_array_equal(density.score_samples(X), expected.score_samples(X))


def test_discrete_columns_are_warned_about_once_and_by_name(X):
    import pandas as pd

    frame = pd.DataFrame({"length": X[:, 0], "grade": np.arange(len(X)) % 5})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        BaggingDensity(MEMBER, n_estimators=3, random_state=0).fit(frame)
    messages = [str(w.message) for w in caught if "discrete" in str(w.message)]
    assert len(messages) == 1
    assert "'grade'" in messages[0]


def test_the_mean_beats_the_members_in_the_mean():
    train, test = (make_moons(n, noise=0.1, random_state=n)[0] for n in (200, 1000))
    density = BaggingDensity(NeuralSplineFlowDensity(2, hidden_layer_sizes=(32,), n_teachers=0), random_state=0).fit(train)
    members = np.mean([member.score(test) for member in density.estimators_])
    # Jensen's inequality holds for any rows. Here the members differ by a few hundredths of a nat.
    assert density.score(test) > members + 0.01


def test_default_members_differ():
    X = make_moons(60, noise=0.1, random_state=0)[0]
    density = BaggingDensity(n_estimators=5, random_state=0).fit(X)
    kinds = [(member.base, member.margins) for member in density.estimators_]
    assert len(set(kinds)) == 3
    assert kinds[3:] == kinds[:2]
    named = BaggingDensity(NeuralSplineFlowDensity(margins="linear"), n_estimators=2, random_state=0).fit(X)
    assert {(member.base, member.margins) for member in named.estimators_} == {("auto", "linear")}


# --- stacking ---


@pytest.fixture(scope="module")
def stack(X):
    return StackingDensity([*KINDS, ("kernels", KernelDensity(bandwidth=0.2))], n_parts=4, random_state=0).fit(X)


def test_a_stack_is_the_weighted_mixture_of_what_it_holds(stack, X):
    assert stack.weights_.sum() == pytest.approx(1)
    assert [type(mean) for mean in stack.estimators_] == [BaggingDensity] * 3
    assert [len(mean.estimators_) for mean in stack.estimators_] == [8] * 3  # 4 parts, twice
    assert stack.named_estimators_.kernels is stack.estimators_[2]
    each = np.array([mean.score_samples(X) for mean in stack.estimators_])
    np.testing.assert_allclose(stack.score_samples(X), logsumexp(each + np.log(stack.weights_)[:, None], axis=0), rtol=1e-12)


def test_a_stack_of_one_is_that_density(X):
    stack = StackingDensity([("mixture", MixtureDensity(2, random_state=0))], n_parts=3, random_state=0).fit(X)
    assert stack.weights_ == pytest.approx([1])
    np.testing.assert_allclose(stack.score_samples(X), stack.estimators_[0].score_samples(X), rtol=1e-12)


def test_a_density_is_judged_by_rows_that_it_has_not_seen(X):
    # Kernels that narrow are nearly infinite at the rows they have seen, and nearly zero elsewhere.
    narrow = KernelDensity(bandwidth=1e-4)
    stack = StackingDensity([("narrow", narrow), ("mixture", MixtureDensity())], n_parts=5, random_state=0).fit(X)
    assert narrow.fit(X).score_samples(X).mean() > stack.named_estimators_.mixture.score(X) + 5
    assert stack.weights_[0] < 0.02
    assert stack.out_of_part_scores_[0] < stack.out_of_part_scores_[1] - 100


def test_rows_are_judged_by_the_mean_of_the_fits_without_them(X):
    stack = StackingDensity([("kernels", KernelDensity(bandwidth=0.2))], n_parts=4, n_repeats=3, random_state=0).fit(X)
    members = stack.estimators_[0].estimators_
    assert len(members) == 12
    unseen = [~np.isin(X[:, 0], np.asarray(member.tree_.data)[:, 0]) for member in members]
    np.testing.assert_array_equal(np.sum(unseen, axis=0), 3)
    assert len({tuple(mine) for mine in unseen}) == 12
    log_densities = np.array([np.where(mine, m.score_samples(X), -np.inf) for mine, m in zip(unseen, members, strict=True)])
    expected = logsumexp(log_densities, axis=0) - np.log(3)
    assert stack.out_of_part_scores_ == pytest.approx([expected.mean()])


def test_many_rows_are_divided_once():
    rows = np.random.RandomState(0).randn(1_001, 1)
    kernels = [("kernels", KernelDensity())]
    n_fits = [len(StackingDensity(kernels, n_parts=2).fit(rows[:n]).estimators_[0].estimators_) for n in (1_000, 1_001)]
    assert n_fits == [4, 2]


def test_weights_are_the_likeliest():
    rng = np.random.RandomState(0)
    log_densities, weight = rng.randn(3, 400), rng.rand(400) * 2
    shares = mixture_weights(log_densities, weight / weight.mean())
    assert shares.sum() == pytest.approx(1)

    def likelihood(shares):
        # Each density counts for a tenth of a row beforehand.
        return weight / weight.mean() @ logsumexp(log_densities + np.log(shares)[:, None], axis=0) + 0.1 * np.log(shares).sum()

    for direction in np.eye(3):
        moved = shares + 1e-3 * (direction - 1 / 3)
        assert likelihood(shares) > likelihood(moved)


def test_a_row_that_nothing_thinks_possible_says_nothing_about_the_weights():
    log_densities = np.random.RandomState(0).randn(2, 50)
    with_it = np.column_stack([log_densities, [-np.inf, -np.inf]])
    np.testing.assert_allclose(mixture_weights(with_it, np.ones(51)), mixture_weights(log_densities, np.ones(50)), atol=1e-6)


def test_samples_of_a_stack_are_the_mixtures(stack, X):
    rows = stack.sample(4000, random_state=0)
    np.testing.assert_array_equal(rows, stack.sample(4000, random_state=0))
    np.testing.assert_allclose(rows.mean(axis=0), X.mean(axis=0), atol=0.1)
    # Draws of the mixture have its own likelihood, on average: another density's would differ by what it diverges.
    own, other = (stack.score(stack.sample(4000, random_state=seed)) for seed in (1, 2))
    assert own == pytest.approx(other, abs=0.15)


def test_a_stack_is_hardly_worse_than_its_best(X):
    test = make_moons(2000, noise=0.1, random_state=5)[0]
    estimators = [("single", MixtureDensity(1)), ("mixture", MixtureDensity()), ("kernels", KernelDensity(bandwidth=0.15))]
    stack = StackingDensity(estimators, random_state=0).fit(X)
    assert stack.score(test) > max(mean.score(test) for mean in stack.estimators_) - 0.02


def test_parameters_of_densities_in_a_stack():
    stack = StackingDensity(KINDS)
    assert stack.get_params()["flow__max_iter"] == 3
    stack.set_params(mixture__n_components=5)
    assert stack.estimators[1][1].n_components == 5
    KINDS[1][1].set_params(n_components=2)
    assert StackingDensity().get_params()["estimators"] is None


@pytest.mark.parametrize(
    ("estimators", "message"),
    [
        ([], "estimators is empty"),
        ([MEMBER], "must be a list of pairs"),
        ([("a", MEMBER), ("a", MEMBER)], "Names provided are not unique"),
        ([("a__b", MEMBER)], "must not contain __"),
        ([("a", np.zeros(3))], "'a' is no density: ndarray has no fit"),
    ],
)
def test_what_cannot_be_stacked_is_refused(X, estimators, message):
    with pytest.raises(ValueError, match=message):
        StackingDensity(estimators).fit(X)


def test_weights_that_a_density_cannot_take_are_refused(X):
    stack = StackingDensity([*KINDS, ("gaussian", GaussianMixture())], n_parts=2)
    with pytest.raises(ValueError, match="takes no sample_weight"):
        stack.fit(X, sample_weight=np.ones(len(X)))


class Undefined(GaussianMixture):
    """A density that doesn't know itself."""

    def score_samples(self, X):
        return np.full(len(X), np.nan)


def test_a_density_that_scores_with_nan_is_refused(X):
    with pytest.raises(ValueError, match="'lost' scores 120 rows with NaN"):
        StackingDensity([*KINDS, ("lost", Undefined())], n_parts=2).fit(X)


def test_the_default_densities_differ():
    X = make_moons(60, noise=0.1, random_state=0)[0]
    stack = StackingDensity(n_parts=2, random_state=0).fit(X)
    assert list(stack.named_estimators_)[:3] == ["flow", "flow_on_mixture", "flow_on_smooth_mixture"]
    assert len(stack.weights_) == 8
    assert np.isfinite(stack.score(X))
