"""A whole table to and from the space in which a flow is trained."""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import numpy as np

from ._columns import ContinuousColumn, constant_column, fit_column, fit_smooth_column, is_constant, is_discrete

# How columns that vary are mapped to the real line.
MARGINS = {"linear": ContinuousColumn.fit, "bent": fit_column, "smooth": fit_smooth_column}


class TableEncoding:
    """Map the columns of a table, one by one, to the real line.

    Columns that vary are the flow's business; a constant column carries nothing to learn and gets a fixed normal
    density of its own, so its encoded values are its latents.

    Parameters
    ----------
    columns : list of ContinuousColumn, HeavyTailedColumn or SmoothColumn
        One for each column of the table.
    varies : ndarray of shape (n_features,), dtype bool
        Which columns the flow models.
    """

    def __init__(self, columns, varies):
        self.columns = columns
        self.varies = varies

    @classmethod
    def fit(cls, X, weight, margins="bent"):
        """Look at a table and choose a map for each column.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            Finite rows.
        weight : ndarray of shape (n_samples,)
            Non-negative weights with a positive sum.
        margins : {"linear", "bent", "smooth"}, default="bent"
            What may be done with a column: standardise it; bend it, too, if its tails are heavy; turn it into a normal one.

        Returns
        -------
        TableEncoding
            The fitted encoding.
        """
        varies = np.array([not is_constant(x) for x in X.T])
        columns = [MARGINS[margins](x, weight) if v else constant_column(x[0]) for x, v in zip(X.T, varies, strict=True)]
        return cls(columns, varies)

    def encode(self, X):
        """Map rows to the encoded space.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features)
            Rows in the units of the table.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_features)
            Encoded rows, float64.
        log_det : ndarray of shape (n_samples,)
            Log-determinant of the Jacobian of each row; minus infinity where a value is beyond what can be represented.
        """
        Z = np.empty(X.shape, dtype=np.float64)
        log_det = np.zeros(len(X))
        for i, column in enumerate(self.columns):
            Z[:, i], log_derivative = column.encode(X[:, i])
            log_det += log_derivative
        return Z, log_det

    def decode(self, Z):
        """Undo ``encode``.

        Parameters
        ----------
        Z : ndarray of shape (n_samples, n_features)
            Encoded rows.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Rows in the units of the table.
        """
        return np.column_stack([column.decode(Z[:, i]) for i, column in enumerate(self.columns)])


DISCRETE_COLUMNS = "A continuous density is not meaningful for discrete columns"


@contextmanager
def discrete_columns_warned_about():
    """Keep fits in the block from warning about discrete columns once more."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=DISCRETE_COLUMNS)
        yield


def warn_about_discrete_columns(X, names):
    """Warn if columns hold so few distinct values that a continuous density isn't meaningful for them.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
        All rows, repeated ones included.
    names : sequence of str
        Names of the columns.

    Warns
    -----
    UserWarning
        Naming the columns.
    """
    discrete = [
        f"{name!r} ({len(np.unique(x))} distinct values in {len(x)} rows)"
        for name, x in zip(names, X.T, strict=True)
        if is_discrete(x) and not is_constant(x)
    ]
    if discrete:
        warnings.warn(
            f"{DISCRETE_COLUMNS}: {', '.join(discrete)}. The density can be made"
            " arbitrarily high at their values, so scores of such tables are not comparable. Leave these columns out, or add"
            " uniform noise of one grid step to them.",
            UserWarning,
            stacklevel=5,  # past fit and its decorator, to the user's line
        )
