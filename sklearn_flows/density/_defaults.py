"""What "auto" means: sizes of a fit that follow from the number of rows."""

import math

# Below this many distinct rows a validation part is too small to tell when to stop.
MIN_ROWS_FOR_EARLY_STOPPING = 100


def default_batch_size(n_rows):
    """About four times the square root of the number of rows, as a power of two between 32 and 1024.

    Parameters
    ----------
    n_rows : int
        Number of distinct training rows.

    Returns
    -------
    int
        Largest batch.
    """
    return 2 ** min(10, max(5, round(math.log2(4 * math.sqrt(n_rows)))))


def default_max_iter(n_rows, batch_size):
    """Epochs for a number of optimiser steps that grows with the number of rows: from 30 to 10,000.

    Parameters
    ----------
    n_rows : int
        Number of distinct training rows.
    batch_size : int
        Largest batch.

    Returns
    -------
    int
        Number of epochs.
    """
    n_steps = min(10_000, max(30, 40 * math.sqrt(n_rows)) if n_rows >= MIN_ROWS_FOR_EARLY_STOPPING else 30)
    return max(2, round(n_steps / math.ceil(n_rows / batch_size)))
