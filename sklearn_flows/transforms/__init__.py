"""Invertible maps with tractable log-determinants (torch only)."""

from ._autoregressive import MaskedAutoregressive
from ._base import Composed, Inverse, Transform
from ._coupling import Coupling
from ._elementwise import Affine, Transformer
from ._linear import LULinear, Permutation
from ._spline import RationalQuadraticSpline, rational_quadratic_spline, spline_knots

__all__ = [
    "Affine",
    "Composed",
    "Coupling",
    "Inverse",
    "LULinear",
    "MaskedAutoregressive",
    "Permutation",
    "RationalQuadraticSpline",
    "Transform",
    "Transformer",
    "rational_quadratic_spline",
    "spline_knots",
]
