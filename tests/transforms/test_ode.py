import math

import pytest
import torch
import zuko

from sklearn_flows.distributions import StandardNormal
from sklearn_flows.flows import Flow
from sklearn_flows.transforms import Inverse, NeuralODE, StepLimitError, VectorField
from sklearn_flows.transforms._solver import solve_adaptively
from sklearn_flows.transforms._vector_field import bend


def linear_field(matrix, shift):
    """A field that is A x + b at all times, within the range that it sees unbent."""
    field = VectorField(len(shift), [], "tanh", torch.Generator(), n_frequencies=2).double()
    (layer,) = field.network.linear_layers()
    with torch.no_grad():
        layer.weight[:, 4:] = matrix
        layer.bias.copy_(shift)
    return field


def test_a_linear_field_is_solved_by_the_matrix_exponential(generator):
    n = 4
    matrix = 0.7 * torch.randn(n, n, generator=generator, dtype=torch.float64)
    shift = 0.3 * torch.randn(n, generator=generator, dtype=torch.float64)
    ode = NeuralODE(linear_field(matrix, shift), rtol=1e-9, atol=1e-9)
    z = 0.2 * torch.randn(20, n, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        x, log_det = ode.inverse(z)
    # (x, 1) follows a linear equation without a shift.
    extended = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    extended[:n, :n], extended[:n, n] = matrix, shift
    expected = torch.cat([z, torch.ones(20, 1, dtype=torch.float64)], dim=1) @ torch.linalg.matrix_exp(extended).T
    assert x.abs().max() < 4
    torch.testing.assert_close(x, expected[:, :n], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_det, matrix.trace().expand(20), rtol=1e-6, atol=1e-6)
    steps, log_det_of_steps, energy = ode.forward_in_steps(x, None, 50)
    torch.testing.assert_close(steps, z, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_det_of_steps, -matrix.trace().expand(20), rtol=1e-6, atol=1e-6)
    # Kinetic energy of the way, by Simpson's rule on its exact points.
    times = torch.linspace(0, 1, 201, dtype=torch.float64)
    start = torch.cat([z, torch.ones(20, 1, dtype=torch.float64)], dim=1)
    points = [start @ torch.linalg.matrix_exp(t * extended).T for t in times]
    speeds = torch.stack([(point[:, :n] @ matrix.T + shift).square().sum(dim=1) for point in points])
    simpson = torch.tensor([1.0, *([4.0, 2.0] * 100)[:-1], 1.0], dtype=torch.float64)[:, None] / 600
    torch.testing.assert_close(energy, (speeds * simpson).sum(dim=0), rtol=1e-6, atol=1e-6)


def test_a_linear_field_makes_a_gaussian_of_a_gaussian(generator):
    n = 3
    matrix = 0.5 * torch.randn(n, n, generator=generator, dtype=torch.float64)
    flow = Flow(NeuralODE(linear_field(matrix, torch.zeros(n)), rtol=1e-9, atol=1e-9), StandardNormal(n))
    end = torch.linalg.matrix_exp(matrix)
    x = torch.rand(50, n, generator=generator, dtype=torch.float64) @ end.T  # near enough that the field sees them unbent
    with torch.no_grad():
        log_density = flow.log_prob(x)
    expected = torch.distributions.MultivariateNormal(torch.zeros(n, dtype=torch.float64), end @ end.T).log_prob(x)
    torch.testing.assert_close(log_density, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("hidden_layer_sizes", [[], [7], [7, 5], [7, 5, 6]])
@pytest.mark.parametrize("activation", ["tanh", "silu", "gelu"])
def test_trace_is_that_of_the_autograd_jacobian(hidden_layer_sizes, activation, generator, randomise):
    field = randomise(VectorField(3, hidden_layer_sizes, activation, generator, n_context=2), generator)
    context = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    x = 3 * torch.randn(30, 3, generator=generator, dtype=torch.float64)  # some of them where inputs are bent, or beyond
    t = torch.rand(30, generator=generator, dtype=torch.float64)
    velocity, trace = field.with_trace(x, t, context)
    torch.testing.assert_close(velocity, field.velocity(x, t, context), rtol=1e-12, atol=1e-12)
    for i in range(30):
        jacobian = torch.autograd.functional.jacobian(
            lambda x, i=i: field.velocity(x[None], t[i : i + 1], context[i : i + 1])[0], x[i]
        )
        torch.testing.assert_close(trace[i], jacobian.trace(), rtol=1e-10, atol=1e-10)
        noise = torch.randn(1, 3, generator=generator, dtype=torch.float64)
        _, estimate = field.with_trace(x[i : i + 1], t[i : i + 1], context[i : i + 1], noise=noise)
        torch.testing.assert_close(estimate[0], noise[0] @ jacobian @ noise[0], rtol=1e-10, atol=1e-10)


def test_a_rows_trace_does_not_depend_on_whether_other_rows_are_bent(generator, randomise):
    field = randomise(VectorField(3, [7, 5], "silu", generator), generator)
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    far = torch.cat([x, 5 + x])
    t = torch.zeros(1, dtype=torch.float64)
    torch.testing.assert_close(field.with_trace(far, t)[1][:5], field.with_trace(x, t)[1], rtol=1e-13, atol=1e-13)


def test_hutchinsons_estimate_is_unbiased(generator, randomise):
    field = randomise(VectorField(4, [8, 8], "silu", generator), generator)
    n_draws = 10_000
    x = torch.randn(1, 4, generator=generator, dtype=torch.float64).expand(n_draws, -1)
    t = torch.full((1,), 0.3, dtype=torch.float64)
    noise = torch.randint(0, 2, (n_draws, 4), generator=generator).double() * 2 - 1
    with torch.no_grad():
        _, exact = field.with_trace(x[:1], t)
        _, estimates = field.with_trace(x, t, noise=noise)
    assert estimates.std() > 0.1
    assert (estimates.mean() - exact).abs() <= 3 * estimates.std() / math.sqrt(n_draws)


def test_agrees_with_zuko_given_the_same_weights(generator, randomise):
    n = 3
    peer = zuko.flows.CNF(
        n, freqs=3, hidden_features=(16, 16), activation=torch.nn.SiLU, atol=1e-8, rtol=1e-8, exact=True
    ).double()
    field = randomise(VectorField(n, [16, 16], "silu", generator, n_frequencies=3), generator, std=0.3)
    with torch.no_grad():
        layers = [layer for layer in peer.transform.ode if hasattr(layer, "weight")]
        for theirs, ours in zip(layers, field.network.linear_layers(), strict=True):
            theirs.weight.copy_(ours.weight)
            theirs.bias.copy_(ours.bias)
        # There data are at time 0.
        transform = Inverse(NeuralODE(field, rtol=1e-8, atol=1e-8))
        x = 0.5 * torch.randn(50, n, generator=generator, dtype=torch.float64)
        z, log_det = transform.forward(x)
        expected_z, expected_log_det = peer.transform().call_and_ladj(x)
    assert log_det.std() > 0.05
    torch.testing.assert_close(z, expected_z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(log_det, expected_log_det, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-7])
def test_the_error_follows_the_tolerance(tolerance, generator, randomise):
    field = randomise(VectorField(3, [16, 16], "silu", generator), generator, std=0.5)
    x = torch.randn(100, 3, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        z, log_det, n_evaluations = NeuralODE(field, tolerance, tolerance).solve(x, None, 1.0, 0.0)
        expected_z, expected_log_det, n_more = NeuralODE(field, 1e-11, 1e-11).solve(x, None, 1.0, 0.0)
    assert (n_more > n_evaluations).all()
    assert len(n_evaluations.unique()) > 1
    worst = max((z - expected_z).abs().max(), (log_det - expected_log_det).abs().max())
    # The tolerance is that of a step; this field takes a dozen, and rows that are close to each other apart.
    assert tolerance / 100 < worst < 300 * tolerance


def test_small_steps_of_equal_size_come_to_the_adaptive_solution(generator, randomise):
    ode = NeuralODE(randomise(VectorField(3, [8], "tanh", generator), generator), 1e-10, 1e-10)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    z, log_det = ode.forward(x)
    steps, log_det_of_steps, _ = ode.forward_in_steps(x, None, 100)
    torch.testing.assert_close(steps, z, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(log_det_of_steps, log_det, rtol=1e-7, atol=1e-7)


def test_solutions_have_their_orders():
    x = torch.ones(1, 1, dtype=torch.float64)
    ode = NeuralODE(linear_field(x, torch.zeros(1, dtype=torch.float64))).requires_grad_(False)

    def error_of_equal_steps(n):
        return abs(float(ode.forward_in_steps(x, None, n)[0]) - 1 / math.e)

    assert math.log2(error_of_equal_steps(8) / error_of_equal_steps(16)) == pytest.approx(4, abs=0.2)
    ends = [solve_adaptively(lambda y, t, rows: y, x, 0.0, 1.0, rtol=10.0**-k, atol=10.0**-k, max_steps=1000) for k in (6, 11)]
    (end, n_few), (exact, n_many) = ends
    assert abs(float(end) - math.e) < 1e-5
    assert abs(float(exact) - math.e) < 1e-10
    # Ten to the fifth in the tolerance is a factor of ten in the number of steps, for a method of order five.
    assert float(n_many / n_few) == pytest.approx(10, rel=0.4)


def test_evaluations_are_those_that_were_computed(generator, randomise):
    field = randomise(VectorField(2, [8], "tanh", generator), generator)
    x = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    computed = torch.zeros(30, dtype=torch.int64)

    def derivative(y, t, rows):
        computed[rows] += 1
        return field.velocity(y, t)

    _, n_evaluations = solve_adaptively(derivative, x, 0.0, 1.0, rtol=1e-6, atol=1e-6, max_steps=1000)
    assert len(computed.unique()) > 1
    assert torch.equal(n_evaluations, computed)


@pytest.mark.parametrize("t_start", [0.0, 1.0])
def test_a_row_does_not_depend_on_its_batch(t_start, generator, randomise):
    ode = NeuralODE(randomise(VectorField(3, [16, 16], "silu", generator), generator, std=0.5))
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        together = ode.solve(x, None, t_start, 1 - t_start)
        alone = [ode.solve(row[None], None, t_start, 1 - t_start) for row in x]
    assert len(together[2].unique()) > 1
    for joint, *single in zip(together, *alone, strict=True):
        torch.testing.assert_close(joint, torch.cat(single), rtol=1e-10, atol=1e-10)


def test_gradients_are_those_of_the_solution(generator, randomise):
    field = randomise(VectorField(3, [8, 8], "silu", generator, n_context=2), generator)
    x = torch.randn(10, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    context = torch.randn(10, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    wanted = [x, context, *field.parameters()]
    adaptive = NeuralODE(field, 1e-10, 1e-10).solve(x, context, 1.0, 0.0)
    in_steps = NeuralODE(field).forward_in_steps(x, context, 100)
    results = [torch.autograd.grad((z.sin().sum(dim=1) + log_det).sum(), wanted) for z, log_det, _ in (adaptive, in_steps)]
    for gradient, expected in zip(*results, strict=True):
        assert gradient.any()
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-6)


def test_bent_inputs_are_smooth_and_bounded():
    x = torch.linspace(-20, 20, 4001, dtype=torch.float64, requires_grad=True)
    bent, slope = bend(x)
    (expected,) = torch.autograd.grad(bent.sum(), x, create_graph=True)
    torch.testing.assert_close(slope, expected, rtol=1e-12, atol=1e-12)
    inside = x.abs() <= 4
    assert torch.equal(bent[inside], x[inside])
    assert (bent.abs() <= 6 + 1e-12).all()
    assert (slope >= 0).all()
    assert slope.diff().abs().max() < 0.01


def test_a_field_that_is_too_stiff_is_an_error(monkeypatch):
    monkeypatch.setattr("sklearn_flows.transforms._ode.MAX_STEPS", 50)
    field = linear_field(torch.full((1, 1), -1e6, dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    with pytest.raises(StepLimitError, match="more than 50 steps"):
        NeuralODE(field).inverse(torch.ones(3, 1, dtype=torch.float64))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_field_that_is_not_finite_is_an_error(value):
    field = linear_field(torch.eye(1, dtype=torch.float64), torch.full((1,), value, dtype=torch.float64))
    with pytest.raises(StepLimitError, match="smaller than rounding"):
        NeuralODE(field).forward(torch.ones(3, 1, dtype=torch.float64))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_an_error(value, generator):
    x = torch.zeros(3, 2)
    x[1, 0] = value
    with pytest.raises(StepLimitError, match=r"1 row\(s\) start at values that aren't finite"):
        NeuralODE(VectorField(2, [4], "tanh", generator)).forward(x)


def test_a_state_that_overflows_is_an_error():
    with pytest.raises(StepLimitError, match="smaller than rounding"):
        solve_adaptively(lambda y, t, rows: y.square(), torch.ones(1, 1), 0.0, 2.0, rtol=1e-4, atol=1e-4, max_steps=1000)


def test_no_rows_have_no_images(generator):
    z, log_det = NeuralODE(VectorField(2, [4], "tanh", generator)).forward(torch.empty(0, 2))
    assert z.shape == (0, 2)
    assert log_det.shape == (0,)
