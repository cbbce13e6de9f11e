"""Flows that learn from a teacher, and what they start from."""

import inspect

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import make_moons
from sklearn.exceptions import ConvergenceWarning

from sklearn_flows import MAFDensity, NeuralSplineFlowDensity, RealNVPDensity
from sklearn_flows.cross_fitting import draw_from_mixture
from sklearn_flows.density import _base, _scouting, _taught_start, _whole_fits
from sklearn_flows.density._defaults import default_n_teachers
from sklearn_flows.density._scouting import scout
from sklearn_flows.density._teacher import STARTS, Teacher
from sklearn_flows.density._whole_fits import best_flow_in_time, best_of_whole_fits
from sklearn_flows.encoding import TableEncoding
from sklearn_flows.training import DivergedError, canonical_rows
from sklearn_flows.utils.estimator_checks import parametrize_with_density_checks

SMALL = {"n_transforms": 2, "hidden_layer_sizes": (16,)}


@pytest.fixture(scope="module")
def moons():
    return make_moons(150, noise=0.1, random_state=0)[0]


@pytest.fixture(scope="module")
def teacher(moons):
    flow = NeuralSplineFlowDensity(max_iter=20, **SMALL)
    return Teacher(flow, 2, np.random.RandomState(0)).fit(moons, np.ones(len(moons)))


@parametrize_with_density_checks([MAFDensity(n_teachers=1, max_iter=3, n_transforms=1, hidden_layer_sizes=(4,))])
def test_density_contract(estimator, check):
    check(estimator)


def test_a_teacher_is_a_mixture_of_flows_and_simpler_densities(teacher):
    kinds = {(type(member).__name__, getattr(member, "base", None), member.margins) for member in teacher.members_}
    assert kinds == {
        ("NeuralSplineFlowDensity", "student", "bent"),
        ("NeuralSplineFlowDensity", "mixture", "linear"),
        ("NeuralSplineFlowDensity", "mixture", "smooth"),
        ("MixtureDensity", None, "linear"),
        ("MixtureDensity", None, "smooth"),
    }
    assert teacher.shares_.sum() == pytest.approx(1)
    assert (teacher.shares_ > 0).all()


def test_a_teacher_knows_what_its_flows_make_of_rows_they_have_not_seen(moons):
    flow = NeuralSplineFlowDensity(max_iter=20, **SMALL)
    teacher = Teacher(flow, 1, np.random.RandomState(0)).fit(moons, np.ones(len(moons)))
    unseen = moons[teacher.judges_]
    assert len(unseen) == len(moons) // 10
    assert teacher.likelihoods_of_flows_ == pytest.approx([flow.score(unseen) for flow in teacher.flows_])
    assert teacher.likelihoods_of_mixtures_ == pytest.approx({fit.margins: fit.score(unseen) for fit in teacher.mixtures_})


@pytest.mark.parametrize(("margins", "tolerance"), [("linear", 1e-5), ("smooth", 0.1)])
def test_the_mean_of_mixtures_is_the_mean_of_their_densities(teacher, moons, margins, tolerance):
    """Up to smooth columns, which each mixture knows from other rows."""
    encoding = TableEncoding.fit(moons, np.ones(len(moons)), margins)
    Z, log_det = encoding.encode(moons)
    mean = teacher.mean_of_mixtures(encoding, margins).double().log_prob(torch.as_tensor(Z)).numpy() + log_det
    each = [fit.score_samples(moons) for fit in teacher.mixtures_ if fit.margins == margins]
    assert len(each) == 5
    expected = logsumexp(each, axis=0) - np.log(5)
    assert np.abs(mean - expected).mean() < tolerance


def test_the_start_is_the_best_by_draws_and_by_rows_left_out_together(moons, monkeypatch):
    """A start that draws like somewhat less is taken where rows like it much more, and the other way round."""

    def margins(encoding):
        return next(m for m, flow in zip(("bent", "linear", "smooth"), flows, strict=True) if flow.encoding_ is encoding)

    def mean_log_density(encoding, flow, judges):
        return {"bent": -1.0, "smooth": -2.0}.get(margins(encoding), -9.0)

    monkeypatch.setattr(_taught_start, "_mean_log_density", mean_log_density)

    fit = Teacher.fit
    for likelihoods, expected in (([-3.0, -3.0, -1.0], "smooth"), ([-3.0, -3.0, -2.5], "bent")):

        def fit_teacher(self, *arguments, likelihoods=likelihoods):
            nonlocal flows
            fit(self, *arguments)
            self.likelihoods_of_flows_, flows = np.array(likelihoods), self.flows_
            return self

        flows = []
        monkeypatch.setattr(Teacher, "fit", fit_teacher)
        assert NeuralSplineFlowDensity(n_teachers=1, max_iter=1, random_state=0, **SMALL).fit(moons).margins_ == expected


def test_a_teacher_draws_rows_near_the_table(teacher, moons):
    rows = teacher.draw(4000)
    assert 3600 < len(rows) <= 4000
    span = np.ptp(moons, axis=0)
    assert (rows >= moons.min(axis=0) - span).all()
    assert (rows <= moons.max(axis=0) + span).all()
    # A standard error is about 0.012.
    np.testing.assert_allclose(rows.mean(axis=0), moons.mean(axis=0), atol=0.1)


def test_a_teacher_draws_no_rows_off_what_the_table_lies_on(moons):
    """Where a column is the sum of others, but for rounding, a product of columns doesn't know."""
    total = moons.sum(axis=1) + 1e-3 * np.random.RandomState(0).randn(len(moons))
    table = np.column_stack([moons, total])
    flow, rng = NeuralSplineFlowDensity(max_iter=20, **SMALL), np.random.RandomState(0)
    teacher = Teacher(flow, 2, rng).fit(table, np.ones(len(table)))
    teacher.shares_ = np.full(len(teacher.members_), 1 / len(teacher.members_))
    off = draw_from_mixture(teacher.members_, teacher.shares_, 1000, np.random.RandomState(0)) @ [1, 1, -1]
    drawn_off = teacher.draw(1000) @ [1, 1, -1]
    assert np.mean(np.abs(off) > 0.1) > 0.05
    assert np.abs(drawn_off).max() < 0.1


@pytest.fixture
def diverges_from(monkeypatch):
    """Function that makes flows diverge which start from some bases."""

    def diverges_from(*bases):
        fit = NeuralSplineFlowDensity.fit

        def fit_or_diverge(self, *arguments, **keywords):
            if self.base in bases:
                raise DivergedError("it was too steep")
            return fit(self, *arguments, **keywords)

        fit_or_diverge.__signature__ = inspect.signature(fit)
        monkeypatch.setattr(NeuralSplineFlowDensity, "fit", fit_or_diverge)

    return diverges_from


def test_a_teacher_does_without_flows_that_diverge(moons, diverges_from):
    diverges_from("student")
    teacher = Teacher(NeuralSplineFlowDensity(max_iter=2, **SMALL), 2, np.random.RandomState(0)).fit(moons, np.ones(len(moons)))
    assert [flow.base for flow in teacher.flows_] == ["mixture", "mixture"]
    assert {getattr(member, "base", None) for member in teacher.members_} == {"mixture", None}
    assert len(teacher.members_) == len(teacher.shares_)
    assert teacher.shares_.sum() == pytest.approx(1)


def test_without_any_flow_the_error_says_what_to_do(moons, diverges_from):
    diverges_from("student", "mixture")
    with pytest.raises(ValueError, match=r"diverged for every start\. Lower learning_rate"):
        NeuralSplineFlowDensity(max_iter=2, **SMALL).fit(moons)


def test_scouts_that_diverge_are_not_followed(diverges_from):
    diverges_from("student")
    X = make_moons(1200, noise=0.1, random_state=0)[0]
    base, _ = scout(NeuralSplineFlowDensity(max_iter=1, **SMALL), X, np.ones(len(X)), np.random.RandomState(0))
    assert base == "mixture"


def test_starts_that_the_user_sets_are_kept(moons):
    flow = RealNVPDensity(base="mixture", max_iter=2, **SMALL)
    teacher = Teacher(flow, 1, np.random.RandomState(0)).fit(moons, np.ones(len(moons)))
    flows = [member for member in teacher.members_ if isinstance(member, RealNVPDensity)]
    assert {flow.base for flow in flows} == {"mixture"}
    assert {flow.margins for flow in flows} == {"bent", "linear", "smooth"}


def test_a_part_that_nobody_has_seen_judges_what_is_learned_from_a_single_teacher(moons, monkeypatch):
    teachers = []

    def keep_teacher(self, *arguments):
        teachers.append(self)
        return fit_teacher(self, *arguments)

    fit_teacher = Teacher.fit
    monkeypatch.setattr(Teacher, "fit", keep_teacher)
    density = NeuralSplineFlowDensity(n_teachers=1, max_iter=4, random_state=0, **SMALL).fit(moons)
    (teacher,) = teachers
    judges = canonical_rows(moons, np.ones(len(moons)))[0][teacher.judges_]
    assert len(judges) == 15
    assert len(teacher.members_) == 8  # one of each kind, all without the same part
    assert density.best_validation_score_ == pytest.approx(density.score(judges), abs=1e-4)
    # What is kept is never worse, for these rows, than any flow of the mixture.
    assert density.best_validation_score_ >= max(flow.score(judges) for flow in teacher.flows_) - 1e-4


@pytest.mark.parametrize(("n_teachers", "n_repeats", "n_seen"), [(1, 20, 135), (2, 10, 150)])
def test_a_flow_learns_from_the_rows_too_but_not_from_those_that_judge(moons, monkeypatch, n_teachers, n_repeats, n_seen):
    lessons = []
    encode_parts = _taught_start.encode_parts

    def keep_lessons(density, encoding, part, part_val):
        lessons.append((part, part_val))
        return encode_parts(density, encoding, part, part_val)

    monkeypatch.setattr(_taught_start, "encode_parts", keep_lessons)
    weight = np.arange(1.0, 151.0)
    density = NeuralSplineFlowDensity(n_teachers=n_teachers, max_iter=1, random_state=0, **SMALL)
    density.fit(moons, sample_weight=weight)
    (values, weights, visits), (judges, *_) = lessons[-1]
    rows, counts = np.unique(values[visits], axis=0, return_counts=True)
    own = np.array([(row == moons).all(axis=1).any() for row in rows])
    assert own.sum() == n_seen
    assert set(counts[own]) == {n_repeats}
    assert set(counts[~own]) == {1}
    assert not {tuple(row) for row in judges} & {tuple(row) for row in rows}
    # A row counts as much as its weight says, and as one draw in the mean.
    order, order_given = np.lexsort(values[:150].T), np.lexsort(moons.T)
    np.testing.assert_allclose(weights[:150][order], weight[order_given] / weight.mean())
    assert (weights[150:] == 1).all()


def test_a_flow_that_has_a_teacher_beats_one_that_has_none():
    rng = np.random.RandomState(0)
    mixing = rng.randn(6, 6)
    train, test = (np.exp(0.5 * rng.randn(n, 6) @ mixing) for n in (150, 2000))
    alone, taught = (NeuralSplineFlowDensity(n_teachers=n, random_state=0).fit(train).score(test) for n in (0, 2))
    # By about a nat.
    assert taught > alone + 0.3


def test_fitted_values_say_what_was_chosen(moons):
    density = NeuralSplineFlowDensity(random_state=0, max_iter=2, **SMALL).fit(moons)
    assert density.n_teachers_ == 10
    assert density.base_ in ("student", "mixture")
    assert density.margins_ in ("linear", "bent", "smooth")
    assert NeuralSplineFlowDensity(max_iter=2, **SMALL).fit(moons[:99]).n_teachers_ == 0
    n_rows = 99, 100, 150, 333, 334, 1000, 1001, 3000, 3001
    assert [default_n_teachers(n, 4) for n in n_rows] == [0, 10, 6, 3, 2, 2, 1, 1, 0]
    assert [default_n_teachers(n, 3) for n in n_rows] == [0, 10, 10, 6, 5, 2, 1, 1, 0]
    plain = NeuralSplineFlowDensity(base="normal", margins="linear", n_teachers=0, max_iter=2, **SMALL).fit(moons)
    assert (plain.base_, plain.margins_, plain.n_teachers_) == ("normal", "linear", 0)


def test_a_warm_start_goes_on_with_the_rows_themselves(moons):
    density = NeuralSplineFlowDensity(warm_start=True, random_state=0, max_iter=2, **SMALL).fit(moons)
    before = density.base_, density.margins_
    density.fit(moons)
    assert (density.base_, density.margins_, density.n_iter_, density.n_teachers_) == (*before, 4, 0)


@pytest.mark.parametrize(("n_teachers", "rate"), [(0, 1e-3), (2, None)])
def test_the_rate_of_affine_flows_is_higher_where_they_learn_from_a_teacher(moons, n_teachers, rate):
    flow = MAFDensity(n_teachers=n_teachers, max_iter=2, random_state=0, **SMALL)
    by_default, by_hand = flow.fit(moons).loss_curve_, clone(flow).set_params(learning_rate=1e-3).fit(moons).loss_curve_
    assert (by_default == by_hand) == (rate is not None)


def test_a_short_fit_warns_once(moons):
    with pytest.warns(ConvergenceWarning) as caught:
        NeuralSplineFlowDensity(max_iter=1, random_state=0, **SMALL).fit(moons)
    assert len([warning for warning in caught if warning.category is ConvergenceWarning]) == 1


# --- whole fits ---


@pytest.fixture
def without_narrow_mixtures(monkeypatch):
    """Don't ask what a mixture of narrow components makes of the rows: of few, more than short fits do."""
    monkeypatch.setattr(_whole_fits, "NARROW_START", None)


@pytest.fixture
def fits(monkeypatch):
    """The flows of this module that were fitted, the outermost last."""
    fit, fitted = NeuralSplineFlowDensity.fit, []

    def fit_and_tell(self, *arguments, **keywords):
        fit(self, *arguments, **keywords)
        fitted.append(self)
        return self

    monkeypatch.setattr(NeuralSplineFlowDensity, "fit", fit_and_tell)
    return fitted


def test_of_a_few_thousand_rows_the_best_of_whole_fits_is_kept(moons, monkeypatch, fits):
    monkeypatch.setattr(_base, "MIN_ROWS_FOR_WHOLE_FITS", 150)
    flow = NeuralSplineFlowDensity(n_teachers=0, max_iter=1, random_state=0, **SMALL)
    with pytest.warns(ConvergenceWarning) as caught:
        flow.fit(moons)
    assert sum(warning.category is ConvergenceWarning for warning in caught) == 1
    *tried, kept = fits
    assert {(fit.base, fit.margins) for fit in tried} == set(STARTS)
    best = max(tried, key=lambda fit: fit.best_validation_score_)
    assert (kept.base_, kept.margins_, kept.best_validation_score_) == (best.base, best.margins, best.best_validation_score_)
    np.testing.assert_array_equal(kept.score_samples(moons), best.score_samples(moons))


@pytest.mark.usefixtures("without_narrow_mixtures")
@pytest.mark.parametrize(
    ("optimizer", "max_iter", "too_close"), [("auto", "auto", 0), ("muon", 6, 0), ("muon", 6, np.inf), ("adamw", 6, np.inf)]
)
def test_few_of_muons_steps_tell_starts_apart(moons, monkeypatch, fits, optimizer, max_iter, too_close):
    monkeypatch.setattr(_base, "MIN_ROWS_FOR_WHOLE_FITS", 150)
    monkeypatch.setattr(_whole_fits, "TOO_CLOSE_TO_TELL", too_close)
    monkeypatch.setattr(NeuralSplineFlowDensity, "_max_rows_for_adamw", 130)
    settings = SMALL | {"n_teachers": 0, "max_iter": max_iter, "n_iter_no_change": np.inf, "random_state": 0}
    flow = NeuralSplineFlowDensity(optimizer=optimizer, **settings).fit(moons)
    *tried, kept = fits
    assert kept is flow
    n, whole = len(STARTS), max(tried, key=lambda fit: fit.max_iter_)
    best = max(tried[: tried.index(whole) + 1], key=lambda fit: fit.best_validation_score_)
    shares = [1] * n if optimizer == "adamw" else [1 / 12] * n + [1 / 4] * (n if too_close else 0) + [1]
    if best is not whole and not too_close:
        shares.append(1 / 4)
    assert {(fit.base, fit.margins) for fit in tried[:n]} == set(STARTS)
    assert {fit.optimizer_ for fit in tried} == {"adamw" if optimizer == "adamw" else "muon"}
    assert [fit.max_iter_ for fit in tried] == pytest.approx([share * whole.max_iter_ for share in shares], abs=1)
    best = max(tried, key=lambda fit: fit.best_validation_score_)
    assert kept.best_validation_score_ == best.best_validation_score_
    if optimizer != "adamw":
        best_start = max(tried[: tried.index(whole)], key=lambda fit: fit.best_validation_score_)
        assert (whole.base, whole.margins) == (best_start.base, best_start.margins)


@pytest.mark.usefixtures("without_narrow_mixtures")
def test_where_a_whole_fit_brings_nothing_fewer_steps_are_tried(moons, monkeypatch, fits):
    monkeypatch.setattr(_base, "MIN_ROWS_FOR_WHOLE_FITS", 150)
    monkeypatch.setattr(_whole_fits, "TOO_CLOSE_TO_TELL", 0)
    monkeypatch.setattr(NeuralSplineFlowDensity, "_max_rows_for_adamw", 130)
    fit = NeuralSplineFlowDensity.fit

    def fail_in_many_epochs(self, *arguments, **keywords):
        fit(self, *arguments, **keywords)
        if self.max_iter == 12:
            self.best_validation_score_ = -np.inf
        return self

    monkeypatch.setattr(NeuralSplineFlowDensity, "fit", fail_in_many_epochs)
    flow = NeuralSplineFlowDensity(n_teachers=0, max_iter=12, random_state=0, **SMALL)
    fail_in_many_epochs(flow, moons)
    *tried, _ = fits
    assert [fit.max_iter_ for fit in tried] == [1] * len(STARTS) + [12, 3]


def test_groups_too_narrow_for_flows_are_left_to_a_mixture(monkeypatch, fits):
    monkeypatch.setattr(_base, "MIN_ROWS_FOR_WHOLE_FITS", 150)
    monkeypatch.setattr(NeuralSplineFlowDensity, "_max_rows_for_adamw", 130)
    rng = np.random.RandomState(0)
    X, X_new = (np.concatenate([rng.randn(600, 2), 1 + 1e-4 * rng.randn(150, 2)]) for _ in range(2))
    flow = NeuralSplineFlowDensity(n_teachers=0, max_iter=12, random_state=0, **SMALL).fit(X)
    *tried, narrow, _ = fits
    best_of_others = max(tried, key=lambda fit: fit.best_validation_score_)
    assert flow.best_validation_score_ == narrow.best_validation_score_ > best_of_others.best_validation_score_ + 0.1
    assert flow.score(X_new) > best_of_others.score(X_new) + 0.1
    assert (flow.base_, flow.margins_) == ("mixture", "linear")


@pytest.mark.usefixtures("without_narrow_mixtures")
def test_there_is_no_whole_fit_where_few_steps_are_too_many(moons, monkeypatch, fits):
    monkeypatch.setattr(_base, "MIN_ROWS_FOR_WHOLE_FITS", 150)
    monkeypatch.setattr(_whole_fits, "TOO_CLOSE_TO_TELL", np.inf)
    monkeypatch.setattr(NeuralSplineFlowDensity, "_max_rows_for_adamw", 130)
    settings = SMALL | {"n_teachers": 0, "max_iter": 60, "n_iter_no_change": 1, "tol": 1e3, "random_state": 0}
    flow = NeuralSplineFlowDensity(**settings).fit(moons)
    *tried, _ = fits
    assert {fit.stop_reason_ for fit in tried} == {"early_stopping"}
    assert [fit.max_iter_ for fit in tried] == [5] * len(STARTS) + [15] * len(STARTS)
    assert flow.best_validation_score_ == max(fit.best_validation_score_ for fit in tried)


def test_a_mixture_that_is_known_from_another_fit_changes_nothing(moons, monkeypatch, fits):
    monkeypatch.setattr(_base, "MIN_ROWS_FOR_WHOLE_FITS", 150)
    monkeypatch.setattr(NeuralSplineFlowDensity, "_max_rows_for_adamw", 130)
    NeuralSplineFlowDensity(n_teachers=0, base="mixture", max_iter=2, random_state=0, **SMALL).fit(moons)
    whole = max(fits[:-1], key=lambda fit: fit.max_iter_)
    alone = clone(whole).fit(moons)
    np.testing.assert_array_equal(whole.score_samples(moons), alone.score_samples(moons))


@pytest.mark.parametrize("max_rows_for_adamw", [150, 130])
@pytest.mark.parametrize("settings", [{"max_time": 100.0}, {"early_stopping": False}, {"base": "student", "margins": "bent"}])
def test_there_is_one_whole_fit_where_more_would_not_do(moons, monkeypatch, fits, settings, max_rows_for_adamw):
    monkeypatch.setattr(_base, "MIN_ROWS_FOR_WHOLE_FITS", 150)
    monkeypatch.setattr(NeuralSplineFlowDensity, "_max_rows_for_adamw", max_rows_for_adamw)
    NeuralSplineFlowDensity(n_teachers=0, max_iter=1, random_state=0, **SMALL, **settings).fit(moons)
    assert len(fits) == 1


@pytest.fixture(params=["before training", "in training"])
def interrupt_at_mixtures(request, monkeypatch):
    """Interrupt the fit of every flow that starts from a mixture."""
    fit = NeuralSplineFlowDensity.fit

    def interrupt(self, *given, **more):
        if self.base == "mixture" and request.param == "before training":
            raise KeyboardInterrupt
        fit(self, *given, **more)
        if self.base == "mixture":
            self.stop_reason_, self.best_validation_score_ = "interrupted", -np.inf
        return self

    monkeypatch.setattr(NeuralSplineFlowDensity, "fit", interrupt)


@pytest.mark.usefixtures("interrupt_at_mixtures")
def test_an_interrupted_whole_fit_leaves_the_best_so_far(moons, monkeypatch):
    monkeypatch.setattr(_base, "MIN_ROWS_FOR_WHOLE_FITS", 150)
    density = NeuralSplineFlowDensity(n_teachers=0, max_iter=1, random_state=0, **SMALL)
    with pytest.warns(UserWarning, match="interrupted by the user"):
        density.fit(moons)
    assert (density.base_, density.stop_reason_) == ("student", "interrupted")


def test_whole_fits_that_diverge_are_left_out(moons, diverges_from):
    flow, rng = NeuralSplineFlowDensity(max_iter=1, random_state=0, **SMALL), np.random.RandomState(0)
    diverges_from("student")
    starts = [("student", "bent"), ("mixture", "linear")]
    best = best_of_whole_fits(flow, starts, (1.0,), moons, np.ones(150), None, rng)
    assert best.base_ == "mixture"
    with pytest.raises(DivergedError, match="diverged for every start"):
        best_of_whole_fits(flow, starts[:1], (1.0,), moons, np.ones(150), None, rng)


# --- scouts ---


TRUTHS = {
    "heavy tails in all directions": (stats.multivariate_t(np.zeros(3), np.eye(3) + 0.5, df=2), {"linear"}),
    "groups": (None, {"linear", "smooth"}),
}


@pytest.mark.parametrize("name", TRUTHS)
def test_scouts_find_a_start(name, monkeypatch):
    rng = np.random.RandomState(0)
    truth, margins = TRUTHS[name]
    if truth is None:
        X = 4 * rng.randn(6, 3)[rng.randint(6, size=1200)] + 0.3 * rng.randn(1200, 3)
    else:
        X = truth.rvs(1200, random_state=rng)
    monkeypatch.setattr(_scouting, "MIN_SEEN", 300)
    flow = NeuralSplineFlowDensity(max_iter=15, **SMALL)
    assert scout(flow, X, np.ones(len(X)), rng)[1] in margins
    assert scout(flow.set_params(margins="smooth"), X, np.ones(len(X)), rng)[1] == "smooth"
    assert scout(flow.set_params(margins="bent", base="normal"), X, np.ones(len(X)), rng) == ("normal", "bent")


@pytest.mark.parametrize(
    ("optimizer", "max_time", "too_close", "epochs"),
    [
        ("muon", None, 0, [1] * 4),
        ("muon", None, np.inf, [1] * 4 + [3] * 4),
        ("muon", 100.0, 0, [1] * 4),
        ("muon", 1e-9, np.inf, []),
        ("adamw", None, np.inf, [12] * 4),
    ],
)
def test_few_of_muons_steps_are_enough_for_scouts(moons, monkeypatch, fits, optimizer, max_time, too_close, epochs):
    monkeypatch.setattr(_scouting, "MIN_ROWS", 100)
    monkeypatch.setattr(_whole_fits, "TOO_CLOSE_TO_TELL", too_close)
    flow = NeuralSplineFlowDensity(optimizer=optimizer, max_iter=12, max_time=max_time, **SMALL)
    scout(flow, moons, np.ones(len(moons)), np.random.RandomState(0))
    assert [fit.optimizer_ for fit in fits] == [optimizer] * len(epochs)
    assert [fit.max_iter_ for fit in fits] == epochs


def test_scouts_take_no_more_than_the_usual_steps_of_a_long_time(moons, monkeypatch, fits):
    monkeypatch.setattr(_scouting, "MIN_ROWS", 100)
    flow = NeuralSplineFlowDensity(optimizer="adamw", max_time=1000.0, **SMALL)
    scout(flow, moons, np.ones(len(moons)), np.random.RandomState(0))
    usual = NeuralSplineFlowDensity(optimizer="adamw", n_teachers=0, base="normal", margins="linear", **SMALL)
    usual.fit(moons[: len(moons) // 2])
    assert {fit.max_iter_ for fit in fits} == {usual.max_iter_}


def test_few_rows_send_no_scouts(moons):
    assert scout(NeuralSplineFlowDensity(), moons, np.ones(len(moons)), np.random.RandomState(0)) == ("student", "bent")


# --- limited time ---


class Clock:
    """A clock that goes on, by a tenth of a second, only when somebody looks at it."""

    def __init__(self):
        self.now, self.tick = 0.0, 0.1

    def perf_counter(self):
        self.now += self.tick
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_base.time, "perf_counter", clock.perf_counter)
    return clock


def test_a_fit_ends_when_its_time_is_up(clock, moons):
    density = NeuralSplineFlowDensity(max_time=10.0, n_teachers=0, n_iter_no_change=np.inf, random_state=0, **SMALL).fit(moons)
    assert density.max_iter_ is None
    assert 9.5 < clock.now < 12
    assert np.isfinite(density.score(moons))


def test_the_time_is_shared_with_teachers(clock, moons):
    clock.tick = 0.01  # many look at it
    density = NeuralSplineFlowDensity(n_teachers=6, max_time=20.0, n_iter_no_change=np.inf, random_state=0, **SMALL).fit(moons)
    assert density.n_teachers_ == 6
    assert clock.now < 25
    assert density.n_iter_ >= 1


def test_where_time_is_short_the_best_of_several_starts_takes_the_place_of_a_teacher(moons, monkeypatch):
    monkeypatch.setattr(_whole_fits, "FITS_PER_TEACHER", np.inf)
    settings = {"max_time": 1e4, "max_iter": 3, "random_state": 0, **SMALL}
    density = NeuralSplineFlowDensity(**settings).fit(moons)
    assert density.n_teachers_ == 0
    assert (density.base_, density.margins_) in STARTS
    with pytest.warns(ConvergenceWarning):
        worst = NeuralSplineFlowDensity(**settings, n_teachers=0, base="student", margins="bent").fit(moons)
    # Moons are nothing like a Student t distribution, and three epochs change little.
    assert density.base_ == "mixture"
    assert density.score(moons) > worst.score(moons) + 0.1


def test_where_a_single_flow_is_fitted_soon_enough_there_is_a_teacher(moons, monkeypatch):
    monkeypatch.setattr(_whole_fits, "FITS_PER_TEACHER", 0)
    assert NeuralSplineFlowDensity(max_time=5.0, max_iter=1, random_state=0, **SMALL).fit(moons).n_teachers_ == 10


def test_no_other_start_is_tried_when_the_time_is_over(clock, moons):
    density = NeuralSplineFlowDensity(max_time=5.0, n_iter_no_change=np.inf, random_state=0, **SMALL).fit(moons)
    assert (density.base_, density.margins_) == STARTS[0]
    assert clock.now < 6


def test_a_start_that_diverges_is_left_out(moons, monkeypatch):
    fit = NeuralSplineFlowDensity.fit

    def diverges(self, *given, **more):
        if self.base == "student":
            raise DivergedError
        return fit(self, *given, **more)

    monkeypatch.setattr(NeuralSplineFlowDensity, "fit", diverges)
    density = NeuralSplineFlowDensity(max_time=1e4, max_iter=1, random_state=0, **SMALL)
    assert density.fit(moons).base_ == "mixture"
    density.set_params(base="student")
    with pytest.raises(DivergedError, match="diverged for every start"):
        best_flow_in_time(density, moons, np.ones(150), None, 6, np.inf, np.random.RandomState(0))


@pytest.mark.usefixtures("interrupt_at_mixtures")
def test_where_a_later_start_is_interrupted_the_best_flow_is_kept(moons, monkeypatch):
    monkeypatch.setattr(_whole_fits, "FITS_PER_TEACHER", np.inf)
    density = NeuralSplineFlowDensity(max_time=1e4, max_iter=1, random_state=0, **SMALL)
    with pytest.warns(UserWarning, match="interrupted by the user"):
        density.fit(moons)
    assert (density.base_, density.stop_reason_) == ("student", "interrupted")
    assert np.isfinite(density.score(moons))


@pytest.mark.parametrize("n_rows", [150, 1200])
def test_mixtures_that_training_starts_from_are_ready_in_half_of_the_time(clock, n_rows):
    X = make_moons(n_rows, noise=0.1, random_state=0)[0]
    settings = {"n_teachers": 0, "base": "mixture", "margins": "linear", "random_state": 0}
    quick, slow = (NeuralSplineFlowDensity(max_time=t, max_iter=1, **settings, **SMALL).fit(X) for t in (2.0, 1e4))
    assert quick.flow_.base.n_components < slow.flow_.base.n_components


def test_the_learning_rate_falls_to_zero_within_the_time(clock, moons, monkeypatch):
    from sklearn_flows.training import _loop

    factors = []
    factor = _loop.warmup_cosine
    monkeypatch.setattr(_loop, "warmup_cosine", lambda *given: factors.append(factor(*given)) or factors[-1])
    MAFDensity(max_time=10.0, n_teachers=0, n_iter_no_change=np.inf, random_state=0, **SMALL).fit(moons)
    assert max(factors) > 0.8
    assert factors[-1] < 0.1
    assert np.argmax(factors) < len(factors) / 4


@pytest.mark.parametrize("max_time", [0, -1.0, "long"])
def test_a_time_that_is_none_is_refused(moons, max_time):
    with pytest.raises(ValueError, match="max_time"):
        NeuralSplineFlowDensity(max_time=max_time).fit(moons)


def test_a_little_time_is_enough_for_a_density(moons):
    density = NeuralSplineFlowDensity(max_time=1e-6, random_state=0, **SMALL).fit(moons)
    assert np.isfinite(density.score(moons))
