import math

import pytest
import torch

from sklearn_flows.flows import Rows, maf
from sklearn_flows.training import DivergedError, _likelihood, _loop, fit_flow
from sklearn_flows.training._loop import MAX_ROLLBACKS


def build(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return maf(torch.eye(2), n_transforms=2, hidden_layer_sizes=[8], activation="tanh", generator=generator).double()


def banana(n_rows, seed, weight=None):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_rows, 2, generator=generator, dtype=torch.float64)
    x[:, 1] = 0.3 * x[:, 1] + x[:, 0].square() - 1
    return Rows(x, torch.ones(n_rows, dtype=torch.float64) if weight is None else weight)


TRAIN, VALIDATION = banana(100, seed=1), banana(40, seed=2)
# With few rows and a high rate the validation score rises for some 40 epochs of 80, then falls.
FEW = Rows(TRAIN.values[:30], TRAIN.weight[:30])
OVERFITS = {"learning_rate": 0.05, "max_iter": 80}


def train(flow, rows=TRAIN, validation=None, *, seed=0, **changes):
    settings = {
        "max_iter": 6,
        "batch_size": 32,
        "learning_rate": 0.01,
        "weight_decay": 1e-4,
        "early_stopping": validation is not None,
        "n_iter_no_change": 20,
        "tol": 0.0,
    }
    return fit_flow(flow, rows, validation, generator=torch.Generator().manual_seed(seed), **settings | changes)


def weights(flow):
    return torch.cat([p.detach().reshape(-1) for p in flow.parameters()]).clone()


def mean_log_likelihood(flow, rows):
    with torch.no_grad():
        return float((rows.weight * flow.log_prob(rows.values)).sum() / rows.weight.sum())


class Snapshots:
    """Weights after each epoch; the answer to the loop, or an interrupt, is given at the end of the last one."""

    def __init__(self, flow, last=math.inf, answer=False):
        self.flow, self.last, self.answer = flow, last, answer
        self.weights = [weights(flow)]

    def __call__(self, result):
        self.weights.append(weights(self.flow))
        assert result.n_iter == len(self.weights) - 1
        if result.n_iter < self.last:
            return False
        if self.answer is KeyboardInterrupt:
            raise KeyboardInterrupt
        return self.answer


def test_likelihood_rises():
    flow = build()
    before = mean_log_likelihood(flow, TRAIN)
    result = train(flow, max_iter=30)
    assert (result.stop_reason, result.n_iter, result.best_epoch) == ("max_iter", 30, 30)
    # The Gaussian it starts with is about 0.5 nats below the truth.
    assert mean_log_likelihood(flow, TRAIN) > before + 0.3
    assert result.loss_curve[-1] < result.loss_curve[0]
    assert result.validation_scores == []


def test_curves_are_mean_log_likelihoods(monkeypatch):
    monkeypatch.setattr(_loop, "AVERAGED_STEPS", 1)  # what is scored are then the weights themselves
    flow = build()
    weight = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    validation = Rows(VALIDATION.values, weight)
    snapshots = Snapshots(flow)
    # One batch: the loss met during an epoch is that of the weights before it.
    result = train(flow, validation=validation, early_stopping=False, batch_size=1000, on_epoch_end=snapshots)
    replica = build()
    for epoch, snapshot in enumerate(snapshots.weights):
        torch.nn.utils.vector_to_parameters(snapshot, replica.parameters())
        if epoch < result.n_iter:
            assert result.loss_curve[epoch] == pytest.approx(-mean_log_likelihood(replica, TRAIN), rel=1e-12)
        if epoch > 0:
            assert result.validation_scores[epoch - 1] == pytest.approx(mean_log_likelihood(replica, validation), rel=1e-12)


def test_weight_two_is_a_repeated_row_in_the_loss():
    double = Rows(TRAIN.values, torch.tensor([2.0, 1.0], dtype=torch.float64).repeat_interleave(50))
    repeated = torch.cat([TRAIN.values[:50], TRAIN.values])
    # Weights have a mean of one.
    weighted, plain = build(), build()
    train(weighted, Rows(double.values, double.weight / double.weight.mean()), batch_size=1000, max_iter=3)
    train(plain, Rows(repeated, torch.ones(150, dtype=torch.float64)), batch_size=1000, max_iter=3)
    torch.testing.assert_close(weights(weighted), weights(plain), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "sizes"), [(100, 32, [25] * 4), (100, 33, [25] * 4), (10, 4, [4, 3, 3]), (5, 8, [5])]
)
def test_each_epoch_visits_each_row_once_in_even_batches(n_rows, batch_size, sizes, monkeypatch):
    flow = build()
    rows = banana(n_rows, seed=3)
    batches = []
    log_prob = flow.log_prob

    def spy(x):
        batches.append(x)
        return log_prob(x)

    monkeypatch.setattr(flow, "log_prob", spy)
    train(flow, rows, max_iter=2, batch_size=batch_size)
    assert [len(batch) for batch in batches] == 2 * sizes
    epochs = torch.cat(batches).split(n_rows)
    for epoch in epochs:
        assert sorted(epoch[:, 0].tolist()) == sorted(rows.values[:, 0].tolist())
    assert not torch.equal(*epochs)
    assert not torch.equal(epochs[0], rows.values)


def test_the_average_of_the_last_weights_is_kept(monkeypatch):
    monkeypatch.setattr(_loop, "AVERAGED_STEPS", 1)
    flow = build()
    raw = Snapshots(flow)
    train(flow, max_iter=3, batch_size=1000, on_epoch_end=raw)
    monkeypatch.setattr(_loop, "AVERAGED_STEPS", 2)
    flow = build()
    train(flow, max_iter=3, batch_size=1000)
    expected = ((raw.weights[1] + raw.weights[2]) / 2 + raw.weights[3]) / 2
    torch.testing.assert_close(weights(flow), expected, rtol=1e-6, atol=1e-8)


def test_the_learning_rate_falls_before_training_stops():
    best = []
    for max_decays in (0, 2):
        flow = build()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_loop, "MAX_DECAYS", max_decays)
            result = train(flow, FEW, VALIDATION, n_iter_no_change=10, **OVERFITS | {"max_iter": 500})
        assert result.stop_reason == "early_stopping"
        best.append(result)
    first, all_ = best
    assert all_.validation_scores[: first.n_iter] == first.validation_scores
    assert all_.n_iter >= first.n_iter + 10
    # After the rate has fallen, training goes on from the best weights, which the last ones are far from.
    assert all_.validation_scores[first.n_iter] > first.validation_scores[-1] + 0.03
    assert all_.best_score >= first.best_score


def test_the_weights_of_the_best_epoch_are_kept(monkeypatch):
    monkeypatch.setattr(_loop, "MAX_DECAYS", 0)
    flow = build()
    snapshots = Snapshots(flow)
    result = train(flow, FEW, VALIDATION, n_iter_no_change=10, on_epoch_end=snapshots, **OVERFITS)
    assert result.stop_reason == "early_stopping"
    assert 0 < result.best_epoch == result.n_iter - 10
    assert result.validation_scores[result.best_epoch - 1] == max(result.validation_scores)
    assert torch.equal(weights(flow), snapshots.weights[result.best_epoch])
    assert mean_log_likelihood(flow, VALIDATION) == pytest.approx(max(result.validation_scores), rel=1e-12)


def test_the_initial_weights_are_kept_if_training_only_hurts(monkeypatch):
    monkeypatch.setattr(_loop, "MAX_DECAYS", 0)
    flow = build()
    start = weights(flow)
    gaussian = torch.randn(400, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # The start is the exact density of the validation rows; the training rows are others.
    validation = Rows(gaussian, torch.ones(400, dtype=torch.float64))
    result = train(flow, validation=validation, learning_rate=0.1, n_iter_no_change=3)
    assert (result.stop_reason, result.n_iter, result.best_epoch) == ("early_stopping", 3, 0)
    assert torch.equal(weights(flow), start)
    assert max(result.validation_scores) < mean_log_likelihood(flow, validation)


def test_without_early_stopping_the_last_weights_are_kept():
    flow = build()
    snapshots = Snapshots(flow)
    result = train(flow, FEW, VALIDATION, early_stopping=False, n_iter_no_change=1, on_epoch_end=snapshots, **OVERFITS)
    assert (result.stop_reason, result.n_iter, result.best_epoch) == ("max_iter", 80, 80)
    assert max(result.validation_scores) > result.validation_scores[-1]
    assert torch.equal(weights(flow), snapshots.weights[80])


def test_interrupt_keeps_the_best_so_far():
    flow = build()
    snapshots = Snapshots(flow, last=60, answer=KeyboardInterrupt)
    result = train(flow, FEW, VALIDATION, n_iter_no_change=math.inf, on_epoch_end=snapshots, **OVERFITS)
    assert (result.stop_reason, result.n_iter) == ("interrupted", 60)
    assert 0 < result.best_epoch < 60
    assert torch.equal(weights(flow), snapshots.weights[result.best_epoch])


def test_interrupt_without_validation_keeps_the_last_finished_epoch():
    flow = build()
    snapshots = Snapshots(flow, last=4, answer=KeyboardInterrupt)
    result = train(flow, on_epoch_end=snapshots)
    assert (result.stop_reason, result.n_iter, result.best_epoch) == ("interrupted", 4, 4)
    assert torch.equal(weights(flow), snapshots.weights[4])


@pytest.mark.parametrize("n_finished", [0, 2])
def test_interrupt_in_the_middle_of_an_epoch_keeps_the_one_before(n_finished, monkeypatch):
    flow = build()
    snapshots = Snapshots(flow)
    log_prob, n_calls = flow.log_prob, 0

    def interrupted(x):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 4 * n_finished + 3:  # four batches an epoch
            raise KeyboardInterrupt
        return log_prob(x)

    monkeypatch.setattr(flow, "log_prob", interrupted)
    result = train(flow, on_epoch_end=snapshots)
    assert (result.stop_reason, result.n_iter, result.best_epoch) == ("interrupted", n_finished, n_finished)
    assert torch.equal(weights(flow), snapshots.weights[n_finished])


def test_callback_ends_training():
    flow = build()
    snapshots = Snapshots(flow, last=3, answer=True)
    result = train(flow, on_epoch_end=snapshots)
    assert (result.stop_reason, result.n_iter, result.best_epoch) == ("callback", 3, 3)
    assert torch.equal(weights(flow), snapshots.weights[3])


class Faulty:
    """``log_prob`` with a loss that isn't finite in the calls told, counted from 0; it notes the weights of each call."""

    def __init__(self, flow, is_faulty, value=math.nan):
        self.flow, self.log_prob, self.is_faulty, self.value = flow, flow.log_prob, is_faulty, value
        self.weights = []

    def __call__(self, x):
        self.weights.append(weights(self.flow))
        result = self.log_prob(x)
        return result * self.value if self.is_faulty(len(self.weights) - 1) else result


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_epoch_is_undone_and_tried_again(value, monkeypatch):
    flow = build()
    # Four batches an epoch: the fault is in the middle of the third.
    faulty = Faulty(flow, lambda call: call == 9, value)
    monkeypatch.setattr(flow, "log_prob", faulty)
    result = train(flow)
    assert (result.stop_reason, result.n_iter) == ("max_iter", 6)
    assert len(faulty.weights) == 4 * (6 + 1)
    assert torch.equal(faulty.weights[12], faulty.weights[8])
    assert all(math.isfinite(loss) for loss in result.loss_curve)
    assert weights(flow).isfinite().all()
    # The first step after a reset has the length of the rate in all parameters that have a gradient.
    first_steps = [(faulty.weights[call + 1] - faulty.weights[call]).abs().max() for call in (8, 12)]
    assert first_steps[1] < first_steps[0]


def test_a_diverged_epoch_is_not_the_best_one(monkeypatch):
    flow = build()
    # Five calls an epoch, the last for validation, and one before the first.
    faulty = Faulty(flow, lambda call: call in {7, 8})
    monkeypatch.setattr(flow, "log_prob", faulty)
    result = train(flow, validation=VALIDATION)
    assert result.n_iter == len(result.validation_scores) == 6
    assert all(math.isfinite(score) for score in result.validation_scores)
    monkeypatch.undo()
    assert mean_log_likelihood(flow, VALIDATION) == pytest.approx(max(result.validation_scores), rel=1e-12)


def test_divergence_at_every_step_size_is_an_error(monkeypatch):
    flow = build()
    faulty = Faulty(flow, lambda call: True)
    monkeypatch.setattr(flow, "log_prob", faulty)
    with pytest.raises(DivergedError, match="nan"):
        train(flow)
    assert len(faulty.weights) == 4 * (MAX_ROLLBACKS + 1)


def test_same_seed_same_curve_and_weights():
    flows = [build(), build(), build()]
    curves = [train(flow, validation=VALIDATION, seed=seed) for flow, seed in zip(flows, (5, 5, 6), strict=True)]
    assert curves[0] == curves[1]
    assert torch.equal(weights(flows[0]), weights(flows[1]))
    assert curves[0].loss_curve != curves[2].loss_curve


def test_the_global_random_state_stays():
    before = torch.get_rng_state()
    train(build(), validation=VALIDATION)
    assert torch.equal(torch.get_rng_state(), before)


def test_validation_does_not_change_the_training():
    alone, watched = build(), build()
    expected = train(alone)
    result = train(watched, validation=VALIDATION, early_stopping=False)
    assert result.loss_curve == expected.loss_curve
    assert torch.equal(weights(watched), weights(alone))


def test_one_row_can_be_fitted():
    flow = build()
    result = train(flow, Rows(TRAIN.values[:1], TRAIN.weight[:1]), max_iter=3)
    assert result.n_iter == 3
    assert weights(flow).isfinite().all()


def test_validation_scores_of_many_rows_are_those_of_all_of_them():
    many = banana(10_000, seed=4, weight=torch.rand(10_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    flow = build()
    result = train(flow, validation=many, early_stopping=False, max_iter=1)
    assert result.validation_scores[0] == pytest.approx(mean_log_likelihood(flow, many), rel=1e-12)


def test_rows_that_go_through_at_once_change_nothing(monkeypatch):
    together, apart = build(), build()
    expected = train(together, validation=VALIDATION)
    monkeypatch.setattr(_likelihood, "ROWS_AT_ONCE", 7)
    found = train(apart, validation=VALIDATION)
    torch.testing.assert_close(weights(apart), weights(together), rtol=1e-9, atol=1e-9)
    assert found.loss_curve == pytest.approx(expected.loss_curve, rel=1e-9)
    assert found.validation_scores == pytest.approx(expected.validation_scores, rel=1e-9)


def test_compiled_kernels_train_as_torch_does():
    torchs, compileds = build(), build()
    expected = train(torchs, banana(700, seed=1), VALIDATION, batch_size=350)
    found = train(compileds, banana(700, seed=1), VALIDATION, batch_size=350, n_compiled_threads=1)
    torch.testing.assert_close(weights(compileds), weights(torchs), rtol=1e-9, atol=1e-9)
    assert found.loss_curve == pytest.approx(expected.loss_curve, rel=1e-9)
    assert found.validation_scores == pytest.approx(expected.validation_scores, rel=1e-9)
    assert found.loss_curve[-1] < found.loss_curve[0]


def test_the_number_of_threads_changes_no_bit_of_a_fit():
    one, many = build(), build()
    train(one, banana(1500, seed=1), batch_size=750, n_compiled_threads=1)
    train(many, banana(1500, seed=1), batch_size=750, n_compiled_threads=4)
    assert torch.equal(weights(one), weights(many))


@pytest.mark.parametrize(("n_compiled_threads", "n_of_torch"), [(0, 2), (2, 1)])
def test_torch_has_one_thread_beside_those_of_kernels(n_compiled_threads, n_of_torch):
    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(2)

    def look(result):
        seen.append(torch.get_num_threads())
        return False

    train(build(), banana(300, seed=1), batch_size=150, n_compiled_threads=n_compiled_threads, on_epoch_end=look)
    assert set(seen) == {n_of_torch}
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
