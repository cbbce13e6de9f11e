"""What images add to flows, on images of 4x4 pixels, against brute force."""

import pytest
import torch

from sklearn_flows.flows import glow_of_images, realnvp_of_images
from sklearn_flows.nets import ConvolutionalNetwork
from sklearn_flows.transforms import (
    ActNorm,
    Affine,
    Composed,
    Coupling,
    FactorOut,
    LULinear,
    PerPosition,
    checkerboard,
    squeeze_order,
)

NETWORK = {"hidden_layer_sizes": [5, 4], "activation": "tanh"}


def coupling(image_shape, stays, generator):
    return Coupling(Affine(), ConvolutionalNetwork(image_shape, stays, 2, generator=generator, **NETWORK), stays)


def first_half(n_features):
    return torch.arange(n_features) < n_features // 2


def flow(family, channels, generator):
    n_pixels = channels * 16
    whitening = 0.1 * torch.randn(n_pixels, n_pixels, generator=generator).tril(-1) + torch.eye(n_pixels)
    shape = {"image_shape": (channels, 4, 4), "n_levels": 2, "n_transforms": 3}
    return family(whitening, **shape, **NETWORK, generator=generator).transform


TRANSFORMS = {
    "checkerboard-coupling": lambda c, g: coupling((c, 4, 4), checkerboard((c, 4, 4)), g),
    "other-checkerboard-coupling": lambda c, g: coupling((c, 4, 4), ~checkerboard((c, 4, 4)), g),
    "channel-coupling": lambda c, g: coupling((4 * c, 2, 2), first_half(16 * c), g),
    "other-channel-coupling": lambda c, g: coupling((4 * c, 2, 2), ~first_half(16 * c), g),
    "1x1-convolution": lambda c, g: PerPosition(LULinear(c), 16),
    "actnorm-of-channels": lambda c, g: PerPosition(ActNorm(c), 16),
    "factor-out": lambda c, g: FactorOut(Composed([PerPosition(LULinear(2), 4 * c)]), 8 * c),
    "realnvp": lambda c, g: flow(realnvp_of_images, c, g),
    "glow": lambda c, g: flow(glow_of_images, c, g),
}


@pytest.fixture(params=[1, 3])
def channels(request):
    return request.param


@pytest.fixture(params=TRANSFORMS.values(), ids=TRANSFORMS)
def transform(request, channels, generator, randomise):
    return randomise(request.param(channels, generator), generator, std=0.2)


@pytest.fixture
def images(channels, generator):
    return torch.randn(5, 16 * channels, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_det_is_that_of_the_brute_force_jacobian(transform, direction, images):
    function = getattr(transform, direction)
    y, log_det = function(images)
    assert y.shape == images.shape
    for i, image in enumerate(images):
        jacobian = torch.autograd.functional.jacobian(lambda x: function(x[None])[0][0], image)
        assert float(log_det[i].detach()) == pytest.approx(float(torch.linalg.slogdet(jacobian)[1].detach()), abs=1e-9)


def test_round_trip_through_all_levels(transform, images):
    z, log_det = transform.forward(images)
    x, back = transform.inverse(z)
    torch.testing.assert_close(x, images, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(back, -log_det, rtol=1e-10, atol=1e-10)


def test_gradients(transform, images):
    parameters = dict(transform.named_parameters())

    def function(x, *values):
        return torch.func.functional_call(Forward(transform), dict(zip(names, values, strict=True)), (x,))

    class Forward(torch.nn.Module):
        def __init__(self, transform):
            super().__init__()
            self.transform = transform

        def forward(self, x):
            return self.transform.forward(x)

    names = [f"transform.{name}" for name in parameters]
    x = images[:2].requires_grad_()
    assert torch.autograd.gradcheck(function, (x, *parameters.values()), fast_mode=True)


def test_an_image_does_not_depend_on_its_batch(transform, images):
    z, log_det = transform.forward(images)
    for i, image in enumerate(images):
        z_alone, log_det_alone = transform.forward(image[None])
        torch.testing.assert_close(z_alone[0], z[i], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(log_det_alone[0], log_det[i], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("kind", ["checkerboard", "channels"])
def test_what_stays_is_kept_and_alone_decides_how_the_rest_moves(kind, invert, channels, generator, randomise):
    shape = (channels, 4, 4) if kind == "checkerboard" else (4 * channels, 2, 2)
    stays = checkerboard(shape) if kind == "checkerboard" else first_half(16 * channels)
    stays = ~stays if invert else stays
    layer = randomise(coupling(shape, stays, generator), generator)
    x = torch.randn(16 * channels, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: layer.forward(x[None])[0][0], x)
    assert torch.equal(jacobian[stays], torch.eye(len(x), dtype=torch.float64)[stays])
    among_moving = jacobian[~stays][:, ~stays]
    assert torch.equal(among_moving, among_moving.diagonal().diag())
    assert (among_moving.diagonal() > 0).all()
    assert (jacobian[~stays][:, stays] != 0).any(dim=1).all()


def test_checkerboard():
    expected = torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]], dtype=torch.bool)
    assert torch.equal(checkerboard((3, 4, 4)).view(3, 4, 4), expected.expand(3, 4, 4))


def test_squeeze_moves_each_block_of_2x2_to_one_position(channels):
    image = torch.arange(channels * 16).view(channels, 4, 4)
    squeezed = image.flatten()[squeeze_order((channels, 4, 4))].view(4, channels, 2, 2)
    for i in range(2):
        for j in range(2):
            block = image[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            # The diagonal comes first: half of the channels are then the pixels of one colour of the checkerboard.
            expected = torch.stack([block[:, 0, 0], block[:, 1, 1], block[:, 0, 1], block[:, 1, 0]])
            assert torch.equal(squeezed[:, :, i, j], expected)
    colours = checkerboard((channels, 4, 4))[squeeze_order((channels, 4, 4))].view(4 * channels, -1)
    assert not colours[: 2 * channels].any()
    assert colours[2 * channels :].all()


def test_per_position_over_a_linear_map_is_a_1x1_convolution(channels, generator, randomise, images):
    linear = randomise(LULinear(channels), generator)
    eye = torch.eye(channels, dtype=torch.float64)
    kernel = (linear.lower.tril(-1) + eye) @ (linear.upper.triu(1) + linear.log_diagonal.exp().diag())
    expected = torch.nn.functional.conv2d(images.view(-1, channels, 4, 4), kernel[:, :, None, None], linear.bias)
    z, log_det = PerPosition(linear, 16).forward(images)
    torch.testing.assert_close(z.view_as(expected), expected, rtol=1e-12, atol=1e-12)
    # Glow, eq. 9: height times width times log|det W|.
    torch.testing.assert_close(log_det, 16 * torch.linalg.slogdet(kernel)[1].expand(len(images)), rtol=1e-12, atol=1e-12)


def test_factored_out_features_do_not_pass_the_inner_transform(images, generator, randomise):
    n = images.shape[1] // 2
    outer = FactorOut(randomise(LULinear(n), generator), n)
    z, log_det = outer.forward(images)
    assert torch.equal(z[:, n:], images[:, n:])
    inner, inner_log_det = outer.transform.forward(images[:, :n])
    assert torch.equal(z[:, :n], inner)
    assert torch.equal(log_det, inner_log_det)


def test_a_convolutional_network_sees_neighbours_only(generator, randomise):
    # Two convolutions of 3x3: two pixels in each direction.
    shape, stays = (1, 8, 8), checkerboard((1, 8, 8))
    network = randomise(ConvolutionalNetwork(shape, stays, 1, [4, 4], "tanh", generator), generator)
    x = torch.randn(int(stays.sum()), generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: network.outputs(x[None])[0], x)
    places = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    distance = (places[~stays][:, None] - places[stays]).abs().amax(dim=-1)
    assert torch.equal(jacobian != 0, distance <= 2)


@pytest.mark.parametrize("family", [realnvp_of_images, glow_of_images])
@pytest.mark.parametrize(("image_shape", "n_levels"), [((1, 2, 2), 1), ((3, 4, 8), 2), ((1, 8, 8), 3)])
def test_flows_of_images_start_as_the_gaussian_of_the_whitening_matrix(family, image_shape, n_levels, generator):
    n_pixels = torch.tensor(image_shape).prod()
    quarters = torch.randint(-4, 5, (n_pixels, n_pixels), generator=generator).double() / 4
    whitening = quarters.tril(-1) + torch.eye(int(n_pixels), dtype=torch.float64)
    settings = {"image_shape": image_shape, "n_levels": n_levels, "n_transforms": 2}
    flow = family(whitening, **settings, **NETWORK, generator=generator).double()
    x = torch.randn(20, int(n_pixels), generator=generator, dtype=torch.float64)
    torch.testing.assert_close(flow.log_prob(x), flow.base.log_prob(x @ whitening.T), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("family", [realnvp_of_images, glow_of_images])
def test_every_latent_depends_on_every_pixel_in_the_end(family, generator, randomise):
    shape = {"image_shape": (1, 8, 8), "n_levels": 2, "n_transforms": 4}
    flow = randomise(family(torch.eye(64), **shape, **NETWORK, generator=generator), generator, std=0.1)
    *layers, _, whitening = flow.transform.transforms
    assert isinstance(whitening, LULinear)
    x = torch.randn(64, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: Composed(layers).forward(x[None])[0][0], x)
    # Half of the latents leave after the first level, which sees a part of the image.
    assert (jacobian[:32] != 0).all()


@pytest.mark.parametrize("family", [realnvp_of_images, glow_of_images])
def test_same_generator_same_flow_and_the_global_state_stays(family):
    before = torch.get_rng_state()
    one, same, other = (
        flow(family, 3, torch.Generator().manual_seed(seed)).double().forward(torch.linspace(-1, 1, 48)[None].double())[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
