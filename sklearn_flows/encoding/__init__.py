"""Tables to and from real vectors, with exact log-Jacobians (numpy only; it knows columns, not flows)."""

from ._columns import ContinuousColumn, HeavyTailedColumn
from ._table import TableEncoding, discrete_columns_warned_about, warn_about_discrete_columns

__all__ = [
    "ContinuousColumn",
    "HeavyTailedColumn",
    "TableEncoding",
    "discrete_columns_warned_about",
    "warn_about_discrete_columns",
]
