import warnings
from types import SimpleNamespace

import pytest
import torch

from sklearn_flows import nets
from sklearn_flows.nets import ACTIVATIONS, MADE, MLP, FeedForward


def jacobian_by_feature(made, x):
    """Whether each feature's parameters (rows) depend on each input (columns)."""
    return torch.autograd.functional.jacobian(lambda x: made(x[None])[0], x).abs().sum(dim=1)


@pytest.mark.parametrize("n_features", [1, 2, 3, 7])
@pytest.mark.parametrize("hidden", [[], [1], [2], [5, 3], [16], [16, 9, 20]])
def test_parameters_of_a_feature_depend_on_the_features_before_it_alone(n_features, hidden, generator, randomise):
    made = randomise(MADE(n_features, 3, hidden, "tanh", generator), generator)
    x = torch.randn(n_features, generator=generator, dtype=torch.float64)
    depends = jacobian_by_feature(made, x)
    assert torch.equal(depends, depends.tril(-1))


@pytest.mark.parametrize("n_features", [1, 2, 3, 7])
@pytest.mark.parametrize("hidden", [[], [6], [16], [6, 6], [16, 9, 20]])
def test_wide_networks_let_a_feature_depend_on_all_before_it(n_features, hidden, generator, randomise):
    made = randomise(MADE(n_features, 3, hidden, "tanh", generator), generator)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.abs_()  # positive weights and an increasing activation: paths can't cancel
    x = torch.randn(n_features, generator=generator, dtype=torch.float64)
    depends = jacobian_by_feature(made, x) > 0
    assert torch.equal(depends, torch.ones(n_features, n_features, dtype=torch.bool).tril(-1))


@pytest.mark.parametrize("n_features", [1, 2, 3, 7])
@pytest.mark.parametrize("hidden", [[], [7], [16, 9, 20]])
def test_parameters_of_every_feature_depend_on_the_context(n_features, hidden, generator, randomise):
    made = randomise(MADE(n_features, 3, hidden, "tanh", generator, 2), generator)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.abs_()
    x, context = (torch.randn(1, n, generator=generator, dtype=torch.float64) for n in (n_features, 2))
    by_x, by_context = torch.autograd.functional.jacobian(lambda x, context: made(x, context)[0], (x, context))
    assert (by_context != 0).all()
    assert torch.equal(by_x[:, :, 0].sum(dim=1) > 0, torch.ones(n_features, n_features, dtype=torch.bool).tril(-1))


@pytest.mark.parametrize("width", range(1, 6))
def test_narrow_networks_waste_no_hidden_unit(width, generator, randomise):
    made = randomise(MADE(7, 2, [width], "tanh", generator), generator)
    first, last = made.layers[0], made.layers[-1]
    assert first.mask.any(dim=1).all()
    assert last.mask.any(dim=0).all()


@pytest.mark.parametrize("wrong", [None, 1, 3])
def test_a_missing_context_or_one_of_another_width_is_an_error(wrong, generator):
    x = torch.randn(5, 3, generator=generator)
    context = None if wrong is None else torch.randn(5, wrong, generator=generator)
    for network in (MADE(3, 2, [8], "relu", generator, 2), MLP(3, 6, [8], "relu", generator, 2)):
        with pytest.raises(ValueError, match=r"must have the shape \(n_samples, 2\)"):
            network(x, context)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_outputs_are_zero_at_the_start_but_hidden_units_are_not(activation, generator):
    x = torch.randn(5, 3, generator=generator)
    made, mlp = MADE(3, 2, [8, 8], activation, generator), MLP(3, 6, [8, 8], activation, generator)
    assert not made(x).any()
    assert not mlp(x).any()
    for network in (made, mlp):
        assert FeedForward(network.layers[:-1], activation).outputs(x).any()


def test_mlp_without_inputs_gives_free_constants(generator, randomise):
    mlp = randomise(MLP(0, 4, [5], "relu", generator), generator)
    y = mlp(torch.empty(3, 0, dtype=torch.float64))
    assert y.shape == (3, 4)
    assert y[0].all()
    assert torch.equal(y, y[:1].expand(3, -1))


@pytest.mark.parametrize(
    "build", [lambda g: MADE(3, 2, [8], "relu", g), lambda g: MLP(3, 2, [8], "relu", g)], ids=["MADE", "MLP"]
)
def test_weights_come_from_the_generator_and_the_global_state_stays(build):
    before = torch.get_rng_state()
    one, same, other = (build(torch.Generator().manual_seed(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("n_in", [0, 1, 3])
def test_building_a_network_does_not_warn(n_in, generator):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLP(n_in, 4, [5], "relu", generator)
        MADE(max(1, n_in), 2, [5], "relu", generator)


@pytest.mark.parametrize("hidden_layer_sizes", [[], [2], [16], [16, 3, 20]])
@pytest.mark.parametrize("n_features", [1, 2, 3, 7])
@pytest.mark.parametrize("n_context", [0, 2])
def test_made_in_order_gives_what_it_gives_at_once(n_features, hidden_layer_sizes, n_context, generator, randomise):
    made = randomise(MADE(n_features, 3, hidden_layer_sizes, "silu", generator, n_context), generator)
    context = torch.randn(5, n_context, generator=generator, dtype=torch.float64) if n_context else None
    x = torch.randn(5, n_features, generator=generator, dtype=torch.float64)
    in_order = []

    def solve(i, parameters):
        in_order.append(parameters)
        return x[:, i : i + 1]

    made.in_order(x, solve, context)
    torch.testing.assert_close(torch.cat(in_order, dim=1), made(x, context), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_context", [0, 3])
def test_made_in_order_computes_each_unit_once(n_context, generator, monkeypatch):
    made, rows, multiplied = MADE(6, 2, [10, 10], "relu", generator, n_context), 4, []
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda b, W, x: multiplied.append(W.numel()) or addmm(b, W, x))
    made.in_order(torch.empty(rows, 6), lambda i, parameters: parameters[:, :, 0], torch.zeros(rows, n_context))
    n_weights = sum(int(layer.mask.sum()) for layer in made.layers if hasattr(layer, "mask"))
    assert sum(multiplied) == n_weights


def test_the_one_product_of_cuda_gives_what_the_blocks_of_the_cpu_give(generator, randomise, monkeypatch):
    made = randomise(MADE(5, 23, [200, 200], "silu", generator), generator)
    assert len(made.layers[1].blocks) > 1
    on_this_device, results = nets._blocks_on, []
    for choose in (on_this_device, lambda x, layer: on_this_device(SimpleNamespace(is_cuda=True), layer)):
        monkeypatch.setattr(nets, "_blocks_on", choose)
        assert len(choose(torch.empty(0), made.layers[1])) == (len(made.layers[1].blocks) if choose is on_this_device else 1)
        x = torch.linspace(-2, 2, 35, dtype=torch.float64).view(7, 5).requires_grad_()
        y = made(x)
        results.append([y, *torch.autograd.grad(y.square().sum(), [x, *made.parameters()])])
    for blocks, one_product in zip(*results, strict=True):
        torch.testing.assert_close(one_product, blocks)
