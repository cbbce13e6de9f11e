import copy
import math

import numba
import numpy as np
import pytest
import torch

from sklearn_flows.compiled._optimiser import address_of_step, call_step, factor_of_clipped
from sklearn_flows.flows import spline_flow
from sklearn_flows.training._optim import MOMENTUM, SIZE_OF_STEPS, AdamW, FlatParameters, MovingAverage, Muon, warmup_cosine


@pytest.fixture
def flow(generator, randomise):
    flow = spline_flow(
        torch.eye(3),
        layer="coupling",
        n_transforms=2,
        hidden_layer_sizes=[5],
        activation="tanh",
        n_bins=3,
        tail_bound=3.0,
        generator=generator,
    )
    return randomise(flow, generator)


@numba.njit(error_model="numpy")
def take_parts_of_step(
    step, values, gradients, first_moment, second_moment, n_decaying, blocks, n_seen, n_in_blocks, coefficients, rate,
    weight_decay, max_norm, beta1, beta2, eps, beta_of_blocks, n_iterations, size_of_blocks, n_steps,
):  # fmt: skip
    clip = factor_of_clipped(gradients, max_norm)
    for part in range(3):
        call_step(
            *(
                step,
                values,
                gradients,
                first_moment,
                second_moment,
                n_decaying,
                blocks,
                n_seen,
                n_in_blocks,
                coefficients,
                rate,
            ),
            *(weight_decay, clip, beta1, beta2, eps, beta_of_blocks, n_iterations, size_of_blocks, n_steps, part, 3),
        )


def step_in_torch(optimiser, learning_rate):
    optimiser.step(learning_rate)


def step_on_kernels(optimiser, learning_rate):
    """The same in three parts, as threads share it."""
    optimiser.n_steps += 1
    arguments = [*optimiser.vectors, *optimiser.parts, learning_rate, *optimiser.settings, int(optimiser.n_steps)]
    take_parts_of_step(address_of_step(np.dtype(np.float64)), *arguments)


def test_flat_vectors_and_parameters_share_their_memory(flow):
    before = {name: p.detach().clone() for name, p in flow.named_parameters()}
    identities = [id(p) for p in flow.parameters()]
    flat = FlatParameters(flow)
    assert [id(p) for p in flow.parameters()] == identities
    assert all(torch.equal(p, before[name]) for name, p in flow.named_parameters())
    with torch.no_grad():
        flat.values.mul_(2)
    assert all(torch.equal(p, 2 * before[name]) for name, p in flow.named_parameters())

    (flow.log_prob(torch.ones(4, 3, dtype=torch.float64)).sum() * 1.0).backward()
    assert flat.gradients.any()
    for p in flow.parameters():
        assert p.grad.untyped_storage().data_ptr() == flat.gradients.untyped_storage().data_ptr()
    assert sum(p.grad.square().sum() for p in flow.parameters()) == pytest.approx(flat.gradients.square().sum().item())


def test_only_weights_of_networks_decay(flow):
    flat = FlatParameters(flow)
    first = flat.values.data_ptr()
    end = first + flat.n_decaying * flat.values.element_size()
    decays = {name: first <= p.data_ptr() < end for name, p in flow.named_parameters()}
    assert decays == {name: "conditioner" in name and name.endswith("weight") for name in decays}
    assert any(decays.values())


# A norm of 0.01 clips every step, one of 1e9 none.
@pytest.mark.parametrize("max_norm", [0.01, 5.0, 1e9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
@pytest.mark.parametrize("take_step", [step_in_torch, step_on_kernels])
def test_steps_are_those_of_torch(flow, weight_decay, max_norm, take_step, generator):
    reference = copy.deepcopy(flow)
    weights = [p for name, p in reference.named_parameters() if "conditioner" in name and name.endswith("weight")]
    others = [p for p in reference.parameters() if not any(p is weight for weight in weights)]
    expected = torch.optim.AdamW(
        [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}], foreach=False
    )
    flat = FlatParameters(flow)
    optimiser = AdamW(flat, weight_decay, max_norm=max_norm)
    for step in range(30):
        x = 2 * torch.randn(16, 3, generator=generator, dtype=torch.float64)
        learning_rate = 0.05 * warmup_cosine(step, 30)

        expected.zero_grad()
        (-reference.log_prob(x).mean()).backward()
        torch.nn.utils.clip_grad_norm_(reference.parameters(), max_norm)
        for group in expected.param_groups:
            group["lr"] = learning_rate
        expected.step()

        (-flow.log_prob(x).mean()).backward()
        take_step(optimiser, learning_rate)
        assert not flat.gradients.any()
        for p, other in zip(flow.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(p, other, rtol=0, atol=1e-6)


def flow_of_shape(n_features, hidden_layer_sizes, generator, **settings):
    settings = {"layer": "autoregressive", "n_transforms": 1, "activation": "tanh", "n_bins": 3, "tail_bound": 3.0} | settings
    return spline_flow(torch.eye(n_features), hidden_layer_sizes=hidden_layer_sizes, generator=generator, **settings).double()


def steps_with(optimiser, gradients, learning_rate, take_step=step_in_torch):
    """What each step, along given gradients, adds to the parameters."""
    flat, steps = optimiser.parameters, []
    for gradient in gradients:
        before = flat.values.clone()
        flat.gradients.copy_(gradient)
        take_step(optimiser, learning_rate)
        assert not flat.gradients.any()
        steps.append(flat.values - before)
    return steps


def existing(flat):
    """Which of the parameters exist: all but those that masks forbid."""
    result = torch.ones(len(flat.values), dtype=torch.bool)
    for first, first_row, n_rows, n_columns in flat.blocks.tolist():
        n_seen = torch.as_tensor(flat.n_seen[first_row : first_row + n_rows])
        result[first : first + n_rows * n_columns] = (torch.arange(n_columns) < n_seen[:, None]).flatten()
    return result


SHAPES = [(1, (5,), {}), (3, (40, 17), {}), (5, (30, 20), {"layer": "coupling"}), (20, (33, 64), {})]


@pytest.mark.parametrize(("n_features", "hidden_layer_sizes", "others"), SHAPES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_compiled_steps_of_muon_are_those_in_torch(n_features, hidden_layer_sizes, others, weight_decay, generator):
    flow = flow_of_shape(n_features, hidden_layer_sizes, generator, **others)
    optimisers = {Muon(FlatParameters(copy.deepcopy(flow)), weight_decay): step for step in (step_in_torch, step_on_kernels)}
    exists = existing(FlatParameters(flow))
    gradients = torch.randn(4, len(exists), generator=generator, dtype=torch.float64) * exists
    gradients[1] = 0  # a step on momentum alone
    in_torch, compiled = (steps_with(optimiser, gradients, 0.01, take_step) for optimiser, take_step in optimisers.items())
    for a, b in zip(in_torch, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)
        assert a.any()
        assert not a[~exists].any()


@pytest.mark.parametrize(("n_in", "shape"), [(20, (16, 20)), (3, (60, 3))], ids=["wide", "tall"])
def test_muon_moves_a_block_by_nearly_orthonormal_steps(n_in, shape, generator):
    """All singular values of a step are nearly one, and its singular vectors are those of the momentum."""
    flow = flow_of_shape(n_in + 1, (shape[0],), generator, layer="coupling", n_transforms=1)
    network = next(layer for layer in flow.modules() if hasattr(layer, "n_seen") and layer.weight.shape[0] == shape[0])
    flat = FlatParameters(flow)
    n_columns = network.weight.shape[1]
    offset = flat.offsets[id(network.weight)]
    block = slice(offset, offset + shape[0] * n_columns)
    gradient = torch.zeros(len(flat.values), dtype=torch.float64)
    gradient[block] = torch.randn(shape[0] * n_columns, generator=generator, dtype=torch.float64)
    optimiser = Muon(flat, 0.0, max_norm=1e9)
    steps_with(optimiser, [gradient], 0.01)
    (step,) = steps_with(optimiser, [gradient], 0.01)
    left, _, right = torch.linalg.svd(-gradient[block].view(-1, n_columns), full_matrices=False)
    size = 0.01 * SIZE_OF_STEPS * math.sqrt(max(shape[0], n_columns))
    values = left.T @ step[block].view(-1, n_columns) @ right.T / size
    torch.testing.assert_close(values, values.diagonal().diag(), rtol=0, atol=1e-6)
    assert values.diagonal().min() > 0.6
    assert values.diagonal().max() < 1.3


@pytest.mark.parametrize("take_step", [step_in_torch, step_on_kernels])
def test_without_gradients_weights_in_blocks_only_decay(flow, take_step):
    flat = FlatParameters(flow)
    before = flat.values.clone()
    steps_with(Muon(flat, 0.5), [torch.zeros_like(before)], 0.1, take_step)
    torch.testing.assert_close(flat.values[: flat.n_in_blocks], 0.95 * before[: flat.n_in_blocks])


def test_what_is_in_no_block_takes_steps_of_adamw(flow, generator):
    muon, adamw = (cls(FlatParameters(copy.deepcopy(flow)), 0.1) for cls in (Muon, AdamW))
    n_in_blocks = muon.parameters.n_in_blocks
    assert 0 < n_in_blocks < len(muon.parameters.values)
    gradients = torch.randn(3, len(muon.parameters.values), generator=generator, dtype=torch.float64)
    for a, b in zip(steps_with(muon, gradients, 0.01), steps_with(adamw, gradients, 0.01), strict=True):
        torch.testing.assert_close(a[n_in_blocks:], b[n_in_blocks:], rtol=0, atol=1e-12)
        assert not torch.allclose(a[:n_in_blocks], b[:n_in_blocks])


def test_momentum_of_muon_looks_ahead():
    """A block of a single row: its step is the normalised sum of the momentum and the gradient."""
    flow = flow_of_shape(2, (1,), torch.Generator().manual_seed(0), layer="coupling")
    flat = FlatParameters(flow)
    first, _, n_rows, n_columns = next(block for block in flat.blocks.tolist() if block[2] == 1)
    assert (n_rows, n_columns) == (1, 1)
    optimiser = Muon(flat, 0.0, max_norm=1e9)
    gradients = torch.zeros(2, len(flat.values), dtype=torch.float64)
    gradients[0, first], gradients[1, first] = 1.0, -(MOMENTUM**2) / (1 + MOMENTUM) - 0.01
    before, after = steps_with(optimiser, gradients, 0.01)
    assert before[first] < 0 < after[first]  # (1 + b) g + b^2 turns negative where g < -b^2 / (1 + b)


@pytest.mark.parametrize("optimiser_class", [AdamW, Muon])
def test_reset_forgets_the_past(flow, optimiser_class):
    flat = FlatParameters(flow)
    start = flat.values.clone()
    gradient = torch.linspace(-1, 1, len(start), dtype=torch.float64)
    optimiser = optimiser_class(flat, 0.0)

    def step_from_start():
        flat.values.copy_(start)
        flat.gradients.copy_(gradient)
        optimiser.step(0.1)
        return flat.values.clone()

    first = step_from_start()
    flat.gradients.copy_(-3 * gradient)
    optimiser.step(0.1)
    assert not torch.equal(step_from_start(), first)
    optimiser.reset()
    assert torch.equal(step_from_start(), first)


@pytest.mark.parametrize("n_steps", [1, 2, 7, 100, 1000])
def test_schedule_rises_to_one_and_falls_without_reaching_zero(n_steps):
    factors = torch.tensor([warmup_cosine(step, n_steps) for step in range(n_steps)], dtype=torch.float64)
    peak = int(factors.argmax())
    assert factors[peak] == 1.0
    assert factors.min() > 0
    assert (factors[: peak + 1].diff() > 0).all()
    # The first step of the cosine is at its peak, too.
    assert (factors[peak + 1 :].diff() < 0).all()
    assert peak + 1 == max(1, round(0.05 * n_steps))


def test_schedule_is_half_a_cosine_after_the_warm_up():
    assert warmup_cosine(2, 100) == pytest.approx(3 / 5)
    assert warmup_cosine(5, 100) == 1.0
    # Of 300 steps the cosine takes 285, from step 15 on; a third of them later it is at cos(60°).
    assert warmup_cosine(110, 300) == pytest.approx(0.75)
    assert warmup_cosine(299, 300) < 1e-4


def test_a_moving_average_is_the_mean_at_first():
    vectors = torch.arange(8.0).reshape(4, 2)
    average = MovingAverage(vectors[0], 3)
    assert torch.equal(average.values, vectors[0])
    for n in range(1, 4):
        average.add(vectors[n])
        torch.testing.assert_close(average.values, vectors[1 : n + 1].mean(dim=0))
    average.add(torch.zeros(2))
    torch.testing.assert_close(average.values, vectors[1:].mean(dim=0) * 2 / 3)
    average.start_again(vectors[0])
    average.add(vectors[1])
    assert torch.equal(average.values, vectors[1])
