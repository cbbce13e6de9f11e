"""Invertible maps with tractable log-determinants (torch only)."""

from ._autoregressive import MaskedAutoregressive
from ._base import Composed, Transform
from ._coupling import Coupling
from ._elementwise import CONDITIONER_BOUND, Affine, Transformer
from ._linear import LULinear, Permutation
from ._spline import RationalQuadraticSpline, rational_quadratic_spline, spline_knots

__all__ = [
    "CONDITIONER_BOUND",
    "Affine",
    "Composed",
    "Coupling",
    "LULinear",
    "MaskedAutoregressive",
    "Permutation",
    "RationalQuadraticSpline",
    "Transform",
    "Transformer",
    "rational_quadratic_spline",
    "spline_knots",
]
