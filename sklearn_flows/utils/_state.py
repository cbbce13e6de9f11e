"""What an estimator has learned."""

from contextlib import contextmanager


def learned_attributes(estimator):
    """What an estimator has learned in its last fit.

    Parameters
    ----------
    estimator : estimator object
        Fitted or not.

    Returns
    -------
    dict
        Names of attributes and their values.
    """
    return {name: value for name, value in vars(estimator).items() if name.endswith("_") and not name.startswith("_")}


@contextmanager
def fitted_attributes_restored_on_error(estimator):
    """Undo changes to what an earlier fit has learned if the block fails."""
    before = learned_attributes(estimator)
    try:
        yield
    except BaseException:
        for name in learned_attributes(estimator):
            delattr(estimator, name)
        vars(estimator).update(before)
        raise
