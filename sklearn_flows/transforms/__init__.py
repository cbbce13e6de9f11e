"""Invertible maps with tractable log-determinants (torch only)."""

from ._autoregressive import MaskedAutoregressive
from ._base import Composed, Inverse, Transform
from ._coupling import Coupling
from ._elementwise import CONDITIONER_BOUND, Affine, Transformer
from ._image import FactorOut, PerPosition, checkerboard, squeeze_order
from ._linear import LULinear, Permutation
from ._normalisation import ActNorm
from ._ode import NeuralODE
from ._solver import StepLimitError
from ._spline import RationalQuadraticSpline, rational_quadratic_spline, spline_knots
from ._vector_field import SMOOTH_ACTIVATIONS, VectorField

__all__ = [
    "CONDITIONER_BOUND",
    "SMOOTH_ACTIVATIONS",
    "ActNorm",
    "Affine",
    "Composed",
    "Coupling",
    "FactorOut",
    "Inverse",
    "LULinear",
    "MaskedAutoregressive",
    "NeuralODE",
    "PerPosition",
    "Permutation",
    "RationalQuadraticSpline",
    "StepLimitError",
    "Transform",
    "Transformer",
    "VectorField",
    "checkerboard",
    "rational_quadratic_spline",
    "spline_knots",
    "squeeze_order",
]
