"""Random numbers: from scikit-learn's ``random_state`` to generators of our own, never touching torch's global one."""

import numpy as np
import torch
from sklearn.utils import check_random_state

MAX_SEED = np.iinfo(np.int32).max


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
    return int(check_random_state(random_state).randint(MAX_SEED))


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


def set_random_states(estimator, rng):
    """Draw seeds for all parameters of an estimator that are called ``random_state``, those of its parts included.

    Parameters
    ----------
    estimator : estimator object
        Its parameters are set.
    rng : RandomState instance
        Source of the seeds.
    """
    names = [name for name in sorted(estimator.get_params()) if name.split("__")[-1] == "random_state"]
    estimator.set_params(**{name: rng.randint(MAX_SEED) for name in names})
