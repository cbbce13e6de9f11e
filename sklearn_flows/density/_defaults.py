"""What "auto" means: sizes of a fit that follow from the number of rows."""

import math
from typing import NamedTuple

# Below this many distinct rows a validation part is too small to tell when to stop.
MIN_ROWS_FOR_EARLY_STOPPING = 100
# Optimiser steps of a fit: few where nothing tells when to stop, then in proportion to the square root of the number of rows.
STEPS_WITHOUT_STOPPING = 30
STEPS_PER_ROOT_ROW = 100
# More would help where rows are many, but take too long to be waited for unasked.
MAX_STEPS = 10_000
MAX_BATCH_SIZE = 4_096
# Layers of a flow: fewer are enough to follow what few rows tell.
FEW_TRANSFORMS, MANY_TRANSFORMS = 3, 5
MAX_ROWS_FOR_FEW_TRANSFORMS = 50_000
# Bins of splines: few are smoother.
FEW_BINS, MANY_BINS = 5, 8
MAX_ROWS_FOR_FEW_BINS = 3_000
# Width of the networks' layers: few rows need no wide ones, unless columns are so many that each has few of the units for
# itself.
NARROW_LAYER, WIDE_LAYER = 64, 128
MAX_ROWS_FOR_NARROW_LAYERS, MAX_COLUMNS_FOR_NARROW_LAYERS = 1_000, 16
# With fewer rows than these, kernels compiled for the CPU train a flow as fast as CUDA does.
MIN_ROWS_FOR_CUDA = 100_000
# Into how many parts a table is split, one of which is left out: a flow stops on a tenth of the rows.
N_PARTS = 10
# With more rows the mean of several flows is hardly better than one, and so sharp that another one takes long to learn it.
MAX_ROWS_FOR_TEACHERS = 3_000
# With so few rows, a tenth of them is too few to judge what is learned. The fewer they are the more parts must be left out, and
# the less that costs: all fits together see about so many rows, and more where columns are so few that fits take half as long.
MAX_ROWS_FOR_SEVERAL_TEACHERS = 1_000
ROWS_SEEN_OF_FEW_COLUMNS = 2_000
FEW_COLUMNS = 3
# So many rows are few enough for whole fits from several starts, of which the best is kept, where there is no teacher. Scouts
# would see too few of them.
MIN_ROWS_FOR_WHOLE_FITS, MAX_ROWS_FOR_WHOLE_FITS = 1_001, 8_000
# With fewer rows Muon is worse than AdamW on most tables, with more it is better on nearly all. A twelfth of its steps tells
# most starts apart, and a quarter those that are then less far behind the best, in nats for each column.
MAX_ROWS_FOR_ADAMW = MAX_ROWS_FOR_TEACHERS
SHARES_OF_STEPS_TO_TELL_STARTS = (1 / 12, 1 / 4)
TOO_CLOSE_TO_TELL = 0.015
# With more rows than these, a flow that starts from a mixture starts from the mean of several.
MIN_ROWS_FOR_MIXTURES = 1_000
# Rows that are drawn from a teacher, and epochs in which a flow learns from them: enough to come close to it.
DRAWS_PER_ROW = 100
ENOUGH_DRAWS = 20_000
MIN_DRAWS_PER_ROW = 10
VALIDATION_DRAWS = 2_000
# How often an epoch visits each of the table's own rows beside these: more often where rows that nobody has seen tell when to
# stop.
REPEATS_BESIDE_DRAWS, REPEATS_WITH_ONE_TEACHER = 10, 20
BATCH_SIZE_OF_DRAWS = 128
# A shorter trial would prefer a start that can't learn to one that still does.
EPOCHS_OF_A_TRIAL = 1
EPOCHS_WITH_TEACHER = 4
# How far behind the best, in nats for each column, what it may start from is still tried.
NEAR_BEST_START = 0.05
SHARE_OF_TIME_FOR_TRIALS = 0.05
# Share of the time, where that is limited, after which what training starts from must be there.
SHARE_OF_TIME_FOR_BASE = 0.5
# Of images: up to which size a mixture, with a matrix for each of its components, is what flows start from, and how often an
# image is repeated with other noise, for the mixture and in all.
MAX_PIXELS_FOR_MIXTURE = 1_024
COPIES_FOR_MIXTURE = 2
MARGINS_OF_IMAGES = "smooth"
MAX_NOISY_COPIES = 10
ENOUGH_NOISY_ROWS = 100_000


class LearningRates(NamedTuple):
    """Peaks of the learning rate, by what a flow learns from.

    Attributes
    ----------
    rows : float
        Of the rows of a table.
    draws : float
        Of rows that a teacher draws, for which Muon takes steps.
    images : float
        Of images. With digits and with faces a higher rate than for tables reaches more in as many steps.
    """

    rows: float = 1e-3
    draws: float = 1e-2
    images: float = 1e-2


def default_batch_size(n_rows):
    """About four times the square root of the number of rows, as a power of two between 32 and 4096.

    Parameters
    ----------
    n_rows : int
        Number of distinct training rows.

    Returns
    -------
    int
        Largest batch.
    """
    return min(MAX_BATCH_SIZE, 2 ** max(5, round(math.log2(4 * math.sqrt(n_rows)))))


def default_max_iter(n_rows, batch_size, early_stopping, n_copies=1, share_of_steps=1.0):
    """Epochs for a number of optimiser steps that grows with the number of rows.

    Parameters
    ----------
    n_rows : int
        Number of distinct training rows.
    batch_size : int
        Largest batch.
    early_stopping : bool
        Whether held-out rows tell when to stop.
    n_copies : int, default=1
        How often an epoch visits each of them.
    share_of_steps : float, default=1.0
        How many of the usual optimiser steps a family takes, whose steps cost more or less than usual.

    Returns
    -------
    int
        Number of epochs, at least two.
    """
    if n_rows < MIN_ROWS_FOR_EARLY_STOPPING and not early_stopping:
        n_steps = STEPS_WITHOUT_STOPPING
    else:
        n_steps = min(MAX_STEPS, STEPS_PER_ROOT_ROW * math.sqrt(n_rows)) * share_of_steps
    return max(2, round(n_steps / math.ceil(n_rows * n_copies / batch_size)))


def default_spline_size(n_rows, n_features):
    """Number of layers of a spline flow, width of its networks, and number of bins of its splines.

    Parameters
    ----------
    n_rows : int
        Number of distinct rows.
    n_features : int
        Number of columns.

    Returns
    -------
    dict
        ``n_transforms``: 3, or 5 for more than 50,000 rows. ``hidden_layer_sizes``: (64, 64), or (128, 128) for more than 1,000
        rows or 16 columns. ``n_bins``: 5, or 8 for more than 3,000 rows.
    """
    is_small = n_rows <= MAX_ROWS_FOR_NARROW_LAYERS and n_features <= MAX_COLUMNS_FOR_NARROW_LAYERS
    return {
        "hidden_layer_sizes": (NARROW_LAYER if is_small else WIDE_LAYER,) * 2,
        "n_transforms": FEW_TRANSFORMS if n_rows <= MAX_ROWS_FOR_FEW_TRANSFORMS else MANY_TRANSFORMS,
        "n_bins": FEW_BINS if n_rows <= MAX_ROWS_FOR_FEW_BINS else MANY_BINS,
    }


def default_n_teachers(n_rows, n_features):
    """How many times the teacher's densities are fitted: not at all where a tenth of the rows can't judge, or rows are enough.

    Parameters
    ----------
    n_rows : int
        Number of distinct rows.
    n_features : int
        Number of columns.

    Returns
    -------
    int
        Number of fits of each density.
    """
    if not MIN_ROWS_FOR_EARLY_STOPPING <= n_rows <= MAX_ROWS_FOR_TEACHERS:
        return 0
    if n_rows > MAX_ROWS_FOR_SEVERAL_TEACHERS:
        return 1
    n_rows_seen = ROWS_SEEN_OF_FEW_COLUMNS if n_features <= FEW_COLUMNS else MAX_ROWS_FOR_SEVERAL_TEACHERS
    return min(N_PARTS, max(2, n_rows_seen // n_rows))


def default_n_draws(n_rows):
    """How many rows are drawn from a teacher.

    Parameters
    ----------
    n_rows : int
        Number of distinct rows that it was fitted to.

    Returns
    -------
    int
        Number of draws.
    """
    return max(min(DRAWS_PER_ROW * n_rows, ENOUGH_DRAWS), MIN_DRAWS_PER_ROW * n_rows)


def default_n_repeats(n_teachers):
    """How often a table's rows are repeated among those that a teacher draws.

    Parameters
    ----------
    n_teachers : int
        Number of fits of each of the teacher's densities.

    Returns
    -------
    int
        Number of repeats.
    """
    return REPEATS_BESIDE_DRAWS if n_teachers > 1 else REPEATS_WITH_ONE_TEACHER


def default_n_noisy_copies(n_images):
    """How often images are repeated with other noise: so that a flow doesn't learn the noise by heart, as memory allows.

    Parameters
    ----------
    n_images : int
        Number of distinct images.

    Returns
    -------
    int
        Number of copies, from 2 to 10.
    """
    return max(2, min(MAX_NOISY_COPIES, ENOUGH_NOISY_ROWS // n_images))


def default_base_of_images(n_pixels):
    """What a flow over images starts from.

    Parameters
    ----------
    n_pixels : int
        Number of pixels, times channels.

    Returns
    -------
    {"mixture", "normal"}
        The start.
    """
    return "mixture" if n_pixels <= MAX_PIXELS_FOR_MIXTURE else "normal"
