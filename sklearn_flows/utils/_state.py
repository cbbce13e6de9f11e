"""What an estimator has learned."""

from contextlib import contextmanager


@contextmanager
def fitted_attributes_restored_on_error(estimator):
    """Undo changes to what an earlier fit has learned if the block fails."""
    before = {name: value for name, value in vars(estimator).items() if _is_learned(name)}
    try:
        yield
    except BaseException:
        for name in [name for name in vars(estimator) if _is_learned(name)]:
            delattr(estimator, name)
        vars(estimator).update(before)
        raise


def _is_learned(name):
    return name.endswith("_") and not name.startswith("_")
