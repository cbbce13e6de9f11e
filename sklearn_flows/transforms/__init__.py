"""Invertible maps with tractable log-determinants (torch only)."""

from ._autoregressive import MaskedAutoregressive
from ._base import Composed, Inverse, Transform
from ._coupling import Coupling
from ._elementwise import CONDITIONER_BOUND, Affine, Transformer
from ._image import FactorOut, PerPosition, checkerboard, squeeze_order
from ._linear import LULinear, Permutation
from ._normalisation import ActNorm
from ._spline import RationalQuadraticSpline, rational_quadratic_spline, spline_knots

__all__ = [
    "CONDITIONER_BOUND",
    "ActNorm",
    "Affine",
    "Composed",
    "Coupling",
    "FactorOut",
    "Inverse",
    "LULinear",
    "MaskedAutoregressive",
    "PerPosition",
    "Permutation",
    "RationalQuadraticSpline",
    "Transform",
    "Transformer",
    "checkerboard",
    "rational_quadratic_spline",
    "spline_knots",
    "squeeze_order",
]
