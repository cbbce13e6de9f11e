"""Random numbers: from scikit-learn's ``random_state`` to generators of our own, never touching torch's global one."""

import numpy as np
import torch
from sklearn.utils import check_random_state


def draw_seed(random_state):
    """Draw the seed of a fit or of a sample.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        As everywhere in scikit-learn.

    Returns
    -------
    int
        The seed. The same integer gives the same seed; a RandomState instance advances; None draws from numpy's global state.
    """
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def torch_generator(seed):
    """Make a generator of torch's CPU.

    Parameters
    ----------
    seed : int
        The seed.

    Returns
    -------
    torch.Generator
        The generator.
    """
    return torch.Generator(device="cpu").manual_seed(seed)
