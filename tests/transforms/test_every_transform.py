"""What must hold for every transform: a new one costs one line of the registry."""

import inspect

import pytest
import torch

import sklearn_flows.transforms as public
from sklearn_flows.nets import MADE, MLP
from sklearn_flows.transforms import (
    ActNorm,
    Affine,
    Composed,
    Coupling,
    FactorOut,
    Inverse,
    LULinear,
    MaskedAutoregressive,
    NeuralODE,
    Permutation,
    PerPosition,
    RationalQuadraticSpline,
    Transform,
    VectorField,
)

SPLINE = RationalQuadraticSpline(n_bins=4, tail_bound=4.0)


# Width of the context of transforms that take one.
N_CONTEXT = 3


def autoregressive(transformer, activation, n_features, generator, n_context=0):
    made = MADE(n_features, transformer.n_parameters, [6, 5], activation, generator, n_context)
    return MaskedAutoregressive(transformer, made)


def coupling(transformer, activation, n_features, generator, n_context=0):
    stays = (torch.arange(n_features) % 2 == 0) & (n_features > 1)
    n_staying = int(stays.sum())
    n_out = (n_features - n_staying) * transformer.n_parameters
    return Coupling(transformer, MLP(n_staying, n_out, [6], activation, generator, n_context), stays)


def continuous(hidden_layer_sizes, activation, n_features, generator, n_context=0):
    # The tolerance is what the checks below ask of maps without one.
    field = VectorField(n_features, hidden_layer_sizes, activation, generator, n_frequencies=1, n_context=n_context)
    return NeuralODE(field, rtol=1e-11, atol=1e-11)


def shuffled(n_features, generator):
    return Permutation(torch.randperm(n_features, generator=generator))


# (id, how to build it from a number of features and a generator). Its parameters are drawn by the fixture below.
REGISTRY = [
    ("permutation", shuffled),
    ("lu-linear", lambda d, g: LULinear(d)),
    ("act-norm", lambda d, g: ActNorm(d)),
    ("per-position", lambda d, g: PerPosition(ActNorm(1), d)),
    ("factor-out", lambda d, g: FactorOut(LULinear(d - d // 2), d - d // 2)),
    ("affine-autoregressive", lambda d, g: autoregressive(Affine(), "tanh", d, g)),
    ("affine-autoregressive-relu", lambda d, g: autoregressive(Affine(), "relu", d, g)),
    ("spline-autoregressive", lambda d, g: autoregressive(SPLINE, "silu", d, g)),
    ("spline-autoregressive-relu", lambda d, g: autoregressive(SPLINE, "relu", d, g)),
    ("affine-coupling", lambda d, g: coupling(Affine(), "elu", d, g)),
    ("spline-coupling", lambda d, g: coupling(SPLINE, "gelu", d, g)),
    ("affine-autoregressive-in-context", lambda d, g: autoregressive(Affine(), "tanh", d, g, N_CONTEXT)),
    ("spline-autoregressive-in-context", lambda d, g: autoregressive(SPLINE, "silu", d, g, N_CONTEXT)),
    ("affine-coupling-in-context", lambda d, g: coupling(Affine(), "tanh", d, g, N_CONTEXT)),
    ("spline-coupling-in-context", lambda d, g: coupling(SPLINE, "silu", d, g, N_CONTEXT)),
    ("per-position-in-context", lambda d, g: PerPosition(coupling(Affine(), "tanh", 1, g, N_CONTEXT), d)),
    ("factor-out-in-context", lambda d, g: FactorOut(coupling(Affine(), "tanh", d - d // 2, g, N_CONTEXT), d - d // 2)),
    ("inverse-affine-autoregressive", lambda d, g: Inverse(autoregressive(Affine(), "tanh", d, g))),
    ("inverse-spline-coupling", lambda d, g: Inverse(coupling(SPLINE, "silu", d, g))),
    ("continuous-in-context", lambda d, g: continuous([4], "tanh", d, g, N_CONTEXT)),
    ("composed-of-nothing", lambda d, g: Composed([])),
    ("maf", lambda d, g: Composed([LULinear(d), autoregressive(Affine(), "tanh", d, g), shuffled(d, g)])),
    ("spline-flow", lambda d, g: Composed([LULinear(d), coupling(SPLINE, "relu", d, g), shuffled(d, g), LULinear(d)])),
    (
        "conditional",
        lambda d, g: Composed([coupling(Affine(), "relu", d, g, N_CONTEXT), LULinear(d), autoregressive(SPLINE, "relu", d, g)]),
    ),
    ("nested", lambda d, g: Composed([shuffled(d, g), Composed([LULinear(d), autoregressive(SPLINE, "tanh", d, g)])])),
]

# Rows at these multiples of a standard normal: deep inside a spline's box, across its edge, and far out in its tails.
MAGNITUDES = (0.1, 1.0, 3.0, 30.0, 1e6)


@pytest.fixture(params=[1, 2, 5])
def n_features(request):
    return request.param


@pytest.fixture(params=[build for _, build in REGISTRY], ids=[name for name, _ in REGISTRY])
def transform(request, n_features, generator, randomise):
    return randomise(request.param(n_features, generator), generator)


class Direction(torch.nn.Module):
    """One direction of a transform as a module of its own. All rows are in one context, which is among its parameters."""

    def __init__(self, transform, name, generator):
        super().__init__()
        self.transform = transform
        self.name = name
        takes_context = any(getattr(part, "n_context", 0) for part in transform.modules())
        context = torch.randn(N_CONTEXT, generator=generator, dtype=torch.float64) if takes_context else None
        self.context = None if context is None else torch.nn.Parameter(context)

    def forward(self, x):
        return self.map_by(self.name, x)

    def undo(self, y):
        return self.map_by({"forward": "inverse", "inverse": "forward"}[self.name], y)

    def map_by(self, name, x):
        return getattr(self.transform, name)(x, None if self.context is None else self.context.expand(len(x), -1))


@pytest.fixture(params=["forward", "inverse"])
def direction(request, transform, generator):
    return Direction(transform, request.param, generator)


@pytest.fixture
def rows(n_features, generator):
    def draw(n_rows):
        return torch.randn(n_rows, n_features, generator=generator, dtype=torch.float64)

    one_far_out = draw(4 * n_features) + 1e6 * torch.eye(n_features, dtype=torch.float64).repeat(4, 1)
    return torch.cat([*(magnitude * draw(20) for magnitude in MAGNITUDES), one_far_out])


def jacobians(function, x):
    x = x.clone().requires_grad_(True)
    y, _ = function(x)
    gradients = [torch.autograd.grad(y[:, i].sum(), x, retain_graph=True)[0] for i in range(y.shape[1])]
    return torch.stack(gradients, dim=1)


def size_of(rows):
    # The largest number of a row sets the rounding of all that is computed from it.
    return rows.abs().amax(dim=1).clamp(min=1)


def test_the_registry_holds_every_public_transform(generator):
    held = {type(part) for _, build in REGISTRY for part in build(2, generator).modules()}
    classes = [c for _, c in inspect.getmembers(public, inspect.isclass) if issubclass(c, Transform) and c is not Transform]
    assert classes
    assert [c.__name__ for c in classes if c not in held] == []


def test_log_det_is_that_of_the_autograd_jacobian(direction, rows):
    y, log_det = direction(rows)
    assert y.shape == rows.shape
    assert log_det.shape == (len(rows),)
    _, expected = torch.linalg.slogdet(jacobians(direction, rows))
    assert (log_det - expected).abs().max() <= 1e-8


def test_round_trip(direction, rows):
    back, _ = direction.undo(direction(rows)[0])
    assert ((back - rows).abs().amax(dim=1) / size_of(rows)).max() <= 1e-9


def test_log_dets_of_both_directions_cancel(direction, rows):
    y, log_det = direction(rows)
    _, back = direction.undo(y)
    assert (log_det + back).abs().max() <= 1e-9


def test_gradients_by_inputs_and_parameters(direction, n_features, generator):
    x = torch.randn(3, n_features, generator=generator, dtype=torch.float64, requires_grad=True)
    # Weights of networks without inputs have no elements.
    parameters = {name: p for name, p in direction.named_parameters() if p.numel()}
    masks = {name.replace(".mask", ".weight"): mask for name, mask in direction.named_buffers() if name.endswith(".mask")}

    def function(x, *values):
        # Weights that don't exist may not move: layers count on their being zero.
        values = {name: value * masks.get(name, 1) for name, value in zip(parameters, values, strict=True)}
        return torch.func.functional_call(direction, values, (x,))

    # The fast mode compares random projections of both Jacobians, from a fixed seed: the whole ones have 1e5 entries.
    assert torch.autograd.gradcheck(function, (x, *parameters.values()), fast_mode=True)


def test_a_row_does_not_depend_on_its_batch(direction, rows):
    rows = rows[:: len(rows) // 8]
    y, log_det = direction(rows)
    for i, row in enumerate(rows):
        y_alone, log_det_alone = direction(row[None])
        torch.testing.assert_close(y_alone[0], y[i], rtol=1e-12, atol=1e-12 * float(size_of(y)[i].detach()))
        torch.testing.assert_close(log_det_alone[0], log_det[i], rtol=0, atol=1e-9)


# All but the random permutations, and what is composed with them.
STARTS_AS_IDENTITY = [(name, build) for name, build in REGISTRY if "-" in name and name != "spline-flow"]


@pytest.mark.parametrize("build", [build for _, build in STARTS_AS_IDENTITY], ids=[name for name, _ in STARTS_AS_IDENTITY])
def test_layers_start_as_the_identity(build, n_features, generator, rows):
    fresh = build(n_features, generator).double()
    for name in ("forward", "inverse"):
        y, log_det = Direction(fresh, name, generator)(rows)
        # A spline's knots are sums of rounded shares of its box: a few ulps of its side.
        assert ((y - rows).abs().amax(dim=1) / size_of(rows)).max() <= 1e-14
        assert log_det.abs().max() <= 1e-13
