"""Tables to and from real vectors, with exact log-Jacobians (numpy only; it knows columns, not flows)."""

from ._columns import ContinuousColumn, HeavyTailedColumn, SmoothColumn, grid_step, is_constant, is_discrete
from ._image import ImageEncoding, PixelLevels
from ._table import MARGINS, TableEncoding, discrete_columns_warned_about, warn_about_discrete_columns

__all__ = [
    "MARGINS",
    "ContinuousColumn",
    "HeavyTailedColumn",
    "ImageEncoding",
    "PixelLevels",
    "SmoothColumn",
    "TableEncoding",
    "discrete_columns_warned_about",
    "grid_step",
    "is_constant",
    "is_discrete",
    "warn_about_discrete_columns",
]
