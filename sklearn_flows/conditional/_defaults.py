"""What "auto" means for conditional densities."""

from ..density._defaults import MIN_ROWS_FOR_EARLY_STOPPING

# Members of the mean: where too few rows are held out to tell them apart, or so many rows that it gains little, one serves.
MEMBERS = 5
MAX_ROWS_FOR_MEMBERS = 20_000


def default_n_estimators(n_rows):
    """How many flows are averaged.

    Parameters
    ----------
    n_rows : int
        Number of distinct rows.

    Returns
    -------
    int
        Number of flows.
    """
    return MEMBERS if MIN_ROWS_FOR_EARLY_STOPPING <= n_rows <= MAX_ROWS_FOR_MEMBERS else 1
