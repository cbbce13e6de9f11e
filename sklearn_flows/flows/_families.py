"""Functions that assemble the flow families from their parts.

Every flow starts with a linear whitening map (a multivariate Gaussian fitted beforehand), and all nonlinear layers start
as the identity: training begins at that Gaussian and departs from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..distributions import StandardNormal, StudentMixture
from ..nets import MADE, MLP
from ..transforms import (
    ActNorm,
    Affine,
    Composed,
    Coupling,
    Inverse,
    LULinear,
    MaskedAutoregressive,
    NeuralODE,
    Permutation,
    RationalQuadraticSpline,
    Transform,
    Transformer,
    VectorField,
)
from ._flow import Flow

Base = StandardNormal | StudentMixture


def _stacked(
    whitening: Tensor, layers: Sequence[Transform], between: Callable[[], Sequence[Transform]], base: Base | None
) -> Flow:
    """Whitening, then the layers with linear maps between them, on a base for the whitened features in their order."""
    transforms: list[Transform] = [LULinear.from_lower_triangular(whitening)]
    for i, layer in enumerate(layers):
        transforms += [layer] if i == 0 else [*between(), layer]
    if base is None:
        return Flow(Composed(transforms), StandardNormal(whitening.shape[0]))
    order = torch.arange(whitening.shape[0])
    for transform in transforms:
        if isinstance(transform, Permutation):
            order = order[transform.order]
    return Flow(Composed([*transforms, Permutation(order.argsort())]), base)


def _autoregressive_layers(
    transformer: Transformer,
    n_features: int,
    n_transforms: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    generator: torch.Generator,
    n_context: int = 0,
) -> list[Transform]:
    def conditioner() -> MADE:
        return MADE(n_features, transformer.n_parameters, hidden_layer_sizes, activation, generator, n_context)

    return [MaskedAutoregressive(transformer, conditioner()) for _ in range(n_transforms)]


def _coupling_layers(
    transformer: Transformer,
    n_features: int,
    n_transforms: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    generator: torch.Generator,
    n_context: int = 0,
) -> list[Transform]:
    layers: list[Transform] = []
    for i in range(n_transforms):
        # Alternating halves, interleaved; a single feature has no other to be conditioned on and always moves.
        stays = (torch.arange(n_features) % 2 == i % 2) & (n_features > 1)
        n_staying = int(stays.sum())
        conditioner = MLP(
            n_staying,
            (n_features - n_staying) * transformer.n_parameters,
            hidden_layer_sizes,
            activation,
            generator,
            n_context,
        )
        layers.append(Coupling(transformer, conditioner, stays))
    return layers


def spline_flow(
    whitening: Tensor,
    *,
    layer: str,
    n_transforms: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    n_bins: int,
    tail_bound: float,
    generator: torch.Generator,
    base: Base | None = None,
) -> Flow:
    """Neural spline flow [1]_: rational-quadratic splines, with a random permutation and an LU-linear map between layers.

    Parameters
    ----------
    whitening : Tensor of shape (n_features, n_features)
        Lower-triangular start of the first linear map.
    layer : {"autoregressive", "coupling"}
        Kind of the nonlinear layers.
    n_transforms : int
        Number of nonlinear layers.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer of the conditioners.
    activation : str
        Activation of the conditioners.
    n_bins : int
        Number of bins of each spline.
    tail_bound : float
        Half the side of the splines' box.
    generator : torch.Generator
        Source of initial weights and permutations.
    base : StudentMixture, default=None
        Distribution of the whitened features that training starts from. None is the standard normal.

    Returns
    -------
    Flow
        The flow.

    References
    ----------
    .. [1] Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019.
    """
    n_features = whitening.shape[0]
    make_layers = {"autoregressive": _autoregressive_layers, "coupling": _coupling_layers}[layer]
    layers = make_layers(
        RationalQuadraticSpline(n_bins, tail_bound), n_features, n_transforms, hidden_layer_sizes, activation, generator
    )
    return _stacked(
        whitening,
        layers,
        lambda: [Permutation(torch.randperm(n_features, generator=generator)), LULinear(n_features)],
        base,
    )


def maf(
    whitening: Tensor,
    *,
    n_transforms: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    generator: torch.Generator,
    base: Base | None = None,
) -> Flow:
    """Masked autoregressive flow [1]_: affine autoregressive layers, the order of the features reversed between them.

    Parameters
    ----------
    whitening : Tensor of shape (n_features, n_features)
        Lower-triangular start of the first linear map.
    n_transforms : int
        Number of autoregressive layers.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer of the conditioners.
    activation : str
        Activation of the conditioners.
    generator : torch.Generator
        Source of initial weights.
    base : StudentMixture, default=None
        Distribution of the whitened features that training starts from. None is the standard normal.

    Returns
    -------
    Flow
        The flow.

    References
    ----------
    .. [1] Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for Density Estimation", NeurIPS 2017.
    """
    n_features = whitening.shape[0]
    layers = _autoregressive_layers(Affine(), n_features, n_transforms, hidden_layer_sizes, activation, generator)
    return _stacked(whitening, layers, lambda: [Permutation(torch.arange(n_features).flip(0))], base)


def iaf(
    whitening: Tensor,
    *,
    n_transforms: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    generator: torch.Generator,
    base: Base | None = None,
) -> Flow:
    """Inverse autoregressive flow [1]_ (section 3): as ``maf``, but each layer the other way round.

    Drawing costs one pass of each network. Scoring solves for one feature after another, which all together takes the
    arithmetic of one pass too, but in as many small steps as there are features.

    Parameters
    ----------
    whitening : Tensor of shape (n_features, n_features)
        Lower-triangular start of the first linear map.
    n_transforms : int
        Number of autoregressive layers.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer of the conditioners.
    activation : str
        Activation of the conditioners.
    generator : torch.Generator
        Source of initial weights.
    base : StudentMixture, default=None
        Distribution of the whitened features that training starts from. None is the standard normal.

    Returns
    -------
    Flow
        The flow.

    References
    ----------
    .. [1] Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, "Improved Variational Inference with Inverse
       Autoregressive Flow", NeurIPS 2016.
    """
    n_features = whitening.shape[0]
    layers = _autoregressive_layers(Affine(), n_features, n_transforms, hidden_layer_sizes, activation, generator)
    inverses = [Inverse(layer) for layer in layers]
    return _stacked(whitening, inverses, lambda: [Permutation(torch.arange(n_features).flip(0))], base)


def realnvp(
    whitening: Tensor,
    *,
    n_transforms: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    generator: torch.Generator,
    base: Base | None = None,
) -> Flow:
    """RealNVP [1]_ for tables: affine coupling layers that alternate between the even and the odd features.

    Parameters
    ----------
    whitening : Tensor of shape (n_features, n_features)
        Lower-triangular start of the first linear map.
    n_transforms : int
        Number of coupling layers.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer of the conditioners.
    activation : str
        Activation of the conditioners.
    generator : torch.Generator
        Source of initial weights.
    base : StudentMixture, default=None
        Distribution of the whitened features that training starts from. None is the standard normal.

    Returns
    -------
    Flow
        The flow.

    References
    ----------
    .. [1] Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", ICLR 2017.
    """
    n_features = whitening.shape[0]
    layers = _coupling_layers(Affine(), n_features, n_transforms, hidden_layer_sizes, activation, generator)
    return _stacked(whitening, layers, lambda: [], base)


def glow(
    whitening: Tensor,
    *,
    n_transforms: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    generator: torch.Generator,
    base: Base | None = None,
    n_context: int = 0,
) -> Flow:
    """Glow [1]_ for tables: affine coupling layers, with a scale and shift, a random permutation and an LU-linear map between.

    The whitening map takes the place of the first step's ActNorm and linear map: it is what sets them by the data.

    Parameters
    ----------
    whitening : Tensor of shape (n_features, n_features)
        Lower-triangular start of the first linear map.
    n_transforms : int
        Number of coupling layers.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer of the conditioners.
    activation : str
        Activation of the conditioners.
    generator : torch.Generator
        Source of initial weights and permutations.
    base : StudentMixture, default=None
        Distribution of the whitened features that training starts from. None is the standard normal.
    n_context : int, default=0
        Width of a context that all couplings see besides the features that stay, as in WaveGlow [2]_ (section 2.1). Training
        starts from a density that doesn't depend on it.

    Returns
    -------
    Flow
        The flow.

    References
    ----------
    .. [1] Kingma and Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions", NeurIPS 2018, section 3 and table 1.
    .. [2] Prenger, Valle and Catanzaro, "WaveGlow: A Flow-based Generative Network for Speech Synthesis", ICASSP 2019.
    """
    n_features = whitening.shape[0]
    layers = _coupling_layers(Affine(), n_features, n_transforms, hidden_layer_sizes, activation, generator, n_context)
    return _stacked(
        whitening,
        layers,
        lambda: [ActNorm(n_features), Permutation(torch.randperm(n_features, generator=generator)), LULinear(n_features)],
        base,
    )


def continuous_flow(
    whitening: Tensor,
    *,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    n_frequencies: int,
    rtol: float,
    atol: float,
    generator: torch.Generator,
    base: Base | None = None,
) -> Flow:
    """Continuous normalizing flow [1]_ [2]_: the solution of a differential equation whose vector field is a network.

    Parameters
    ----------
    whitening : Tensor of shape (n_features, n_features)
        Lower-triangular start of the first linear map.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer of the field.
    activation : {"tanh", "silu", "gelu"}
        Activation of the field.
    n_frequencies : int
        Number of frequencies of the time that the field sees.
    rtol, atol : float
        Tolerances of the solver.
    generator : torch.Generator
        Source of initial weights.
    base : StudentMixture, default=None
        Distribution of the whitened features that training starts from. None is the standard normal.

    Returns
    -------
    Flow
        The flow.

    References
    ----------
    .. [1] Grathwohl, Chen, Bettencourt, Sutskever and Duvenaud, "FFJORD: Free-form Continuous Dynamics for Scalable Reversible
       Generative Models", ICLR 2019.
    .. [2] Lipman, Chen, Ben-Hamu, Nickel and Le, "Flow Matching for Generative Modeling", ICLR 2023.
    """
    # What makes a Gaussian as sharp as the rows must be steep; from a mixture, steep fields overfit.
    steepness = 8.0 if base is None or starts_smooth(base) else 4.0
    field = VectorField(whitening.shape[0], hidden_layer_sizes, activation, generator, n_frequencies, steepness=steepness)
    return _stacked(whitening, [NeuralODE(field, rtol, atol)], lambda: [], base)


def starts_smooth(base: Base) -> bool:
    """Tell whether a continuous flow starts from a single distribution, which its field must make sharp.

    A mixture may be as sharp as the rows, so that a field from it has less to do, and about as much at any time.

    Parameters
    ----------
    base : StandardNormal or StudentMixture
        What the flow starts from.

    Returns
    -------
    bool
        Whether it is one.
    """
    return isinstance(base, StandardNormal) or base.n_components == 1


def conditional_spline_flow(
    whitening: Tensor,
    coefficients: Tensor,
    intercept: Tensor,
    *,
    n_transforms: int,
    hidden_layer_sizes: Sequence[int],
    activation: str,
    n_bins: int,
    tail_bound: float,
    generator: torch.Generator,
) -> Flow:
    """Autoregressive neural spline flow [1]_ that depends on a context, around a linear regression on it.

    Two affine maps choose location and scale of each feature: the first one linearly in the context, before the whitening map,
    the second one by a network. Splines that see the context follow.

    Parameters
    ----------
    whitening : Tensor of shape (n_features, n_features)
        Lower-triangular start of the first linear map: it whitens the residuals of the regression.
    coefficients, intercept : Tensor of shape (n_features, n_context), Tensor of shape (n_features,)
        The regression that training starts from: in a context :math:`c` the features lie around :math:`A c + b`.
    n_transforms : int
        Number of spline layers.
    hidden_layer_sizes : sequence of int
        Width of each hidden layer of the conditioners.
    activation : str
        Activation of the conditioners.
    n_bins : int
        Number of bins of each spline.
    tail_bound : float
        Half the side of the splines' box.
    generator : torch.Generator
        Source of initial weights and permutations.

    Returns
    -------
    Flow
        The flow.

    References
    ----------
    .. [1] Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019.
    """
    n_features, n_context = coefficients.shape

    def network(widths: Sequence[int]) -> MLP:
        return MLP(0, n_features * Affine().n_parameters, widths, activation, generator, n_context)

    def affine_in_context(conditioner: MLP) -> Coupling:
        return Coupling(Affine(), conditioner, torch.zeros(n_features, dtype=torch.bool))

    location = network(())
    with torch.no_grad():  # of each feature's outputs, the first one is its location
        (outputs,) = location.linear_layers()
        outputs.weight[:: Affine().n_parameters] = coefficients.to(outputs.weight)
        outputs.bias[:: Affine().n_parameters] = intercept.to(outputs.bias)
    linear = affine_in_context(location)
    spline = RationalQuadraticSpline(n_bins, tail_bound)
    layers = _autoregressive_layers(spline, n_features, n_transforms, hidden_layer_sizes, activation, generator, n_context)
    transforms: list[Transform] = [
        linear,
        LULinear.from_lower_triangular(whitening),
        affine_in_context(network(hidden_layer_sizes)),
    ]
    for i, layer in enumerate(layers):
        if i > 0:
            transforms += [Permutation(torch.randperm(n_features, generator=generator)), LULinear(n_features)]
        transforms.append(layer)
    return Flow(Composed(transforms), StandardNormal(n_features))
