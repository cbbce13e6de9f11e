import pytest
import torch

from sklearn_flows.transforms import RationalQuadraticSpline, rational_quadratic_spline, spline_knots

BOUND = 3.0


@pytest.fixture(params=[1, 2, 8])
def n_bins(request):
    return request.param


@pytest.fixture
def raw(n_bins, generator):
    """Parameters of 50 splines."""
    return 1.5 * torch.randn(50, 3 * n_bins - 1, generator=generator, dtype=torch.float64)


@pytest.fixture
def independent(raw, n_bins):
    """The same splines by zuko."""
    transforms = pytest.importorskip("zuko.transforms")
    widths, heights, derivatives = spline_knots(raw, n_bins)
    spline = transforms.MonotonicRQSTransform(widths, heights, derivatives[..., 1:-1], bound=BOUND)
    zero = torch.zeros(50, 1, dtype=torch.float64)
    spline.horizontal = BOUND * (2 * torch.cat([zero, widths.cumsum(-1)], dim=-1) - 1)
    spline.vertical = BOUND * (2 * torch.cat([zero, heights.cumsum(-1)], dim=-1) - 1)
    spline.derivatives = derivatives
    return spline


def arguments(knots, generator):
    """Points inside the box, outside it and on the knots, the edges of the box among them; one column for each spline."""
    spread = torch.linspace(-3 * BOUND, 3 * BOUND, 200, dtype=torch.float64)[:, None].expand(-1, 50)
    inside = BOUND * (2 * torch.rand(200, 50, generator=generator, dtype=torch.float64) - 1)
    far = torch.tensor([[-1e6], [1e6]], dtype=torch.float64).expand(-1, 50)
    return torch.cat([spread, inside, far, knots.T])


def test_value_and_log_derivative_agree_with_an_independent_implementation(raw, n_bins, independent, generator):
    x = arguments(independent.horizontal, generator)
    y, log_derivative = RationalQuadraticSpline(n_bins, BOUND).forward(x, raw.expand(len(x), -1, -1))
    expected_y, expected_log_derivative = independent.call_and_ladj(x)
    assert ((y - expected_y).abs() / x.abs().clamp(min=1)).max() <= 1e-10
    assert (log_derivative - expected_log_derivative).abs().max() <= 1e-10


def test_inverse_and_its_log_derivative_agree_with_an_independent_implementation(raw, n_bins, independent, generator):
    y = arguments(independent.vertical, generator)
    x, log_derivative = RationalQuadraticSpline(n_bins, BOUND).inverse(y, raw.expand(len(y), -1, -1))
    expected_x = independent.inv(y)
    assert ((x - expected_x).abs() / y.abs().clamp(min=1)).max() <= 1e-10
    assert (log_derivative + independent.log_abs_det_jacobian(expected_x, y)).abs().max() <= 1e-10


def test_knots_are_a_partition_of_the_box_with_derivative_one_at_its_ends(raw, n_bins):
    widths, heights, derivatives = spline_knots(raw, n_bins)
    for bins in (widths, heights):
        assert bins.shape == (50, n_bins)
        assert (bins > 0).all()
        torch.testing.assert_close(bins.sum(-1), torch.ones(50, dtype=torch.float64), rtol=0, atol=1e-14)
    assert derivatives.shape == (50, n_bins + 1)
    assert (derivatives > 0).all()
    assert (derivatives[:, [0, -1]] == 1).all()


def test_knots_are_interpolated_with_their_derivatives(raw, n_bins):
    widths, heights, derivatives = spline_knots(raw, n_bins)
    inner = 2 * BOUND * widths.cumsum(-1)[:, :-1] - BOUND
    y, log_derivative = rational_quadratic_spline(
        inner, *(values.unsqueeze(1).expand(-1, n_bins - 1, -1) for values in (widths, heights, derivatives)), BOUND
    )
    torch.testing.assert_close(y, 2 * BOUND * heights.cumsum(-1)[:, :-1] - BOUND, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_derivative, derivatives[:, 1:-1].log(), rtol=0, atol=1e-9)


def test_tails_are_exactly_the_identity(raw, n_bins):
    x = torch.tensor([-1e300, -1e6, -BOUND - 1e-9, BOUND + 1e-9, 17.0, 1e300], dtype=torch.float64)[:, None].expand(-1, 50)
    spline = RationalQuadraticSpline(n_bins, BOUND)
    for function in (spline.forward, spline.inverse):
        y, log_derivative = function(x, raw.expand(len(x), -1, -1))
        assert torch.equal(y, x)
        assert not log_derivative.any()


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_float32_splines_stay_increasing_with_finite_gradients_for_any_parameters(size, n_bins, generator):
    raw = size * torch.randn(100, 1, 3 * n_bins - 1, generator=generator)
    raw = raw.expand(-1, 300, -1).clone().requires_grad_(True)
    x = torch.linspace(-1.2 * BOUND, 1.2 * BOUND, 300).expand(100, -1).clone().requires_grad_(True)
    spline = RationalQuadraticSpline(n_bins, BOUND)
    y, _ = spline.forward(x, raw)
    # A few times the rounding of float32 at the edge of the box.
    assert y.diff(dim=1).min() >= -2e-6
    for function in (spline.forward, spline.inverse):
        y, log_derivative = function(x, raw)
        assert y.isfinite().all()
        assert log_derivative.isfinite().all()
        for gradient in torch.autograd.grad(y.sum() + log_derivative.sum(), [x, raw]):
            assert gradient.isfinite().all()
