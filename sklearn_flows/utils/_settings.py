"""Settings of estimators that scikit-learn's constraints can't describe."""

from numbers import Integral

import torch


def check_layer_sizes(hidden_layer_sizes):
    """Raise an error unless all are widths of layers.

    Parameters
    ----------
    hidden_layer_sizes : iterable
        What the user gave.
    """
    if not all(isinstance(width, Integral) and width >= 1 for width in hidden_layer_sizes):
        raise ValueError(
            f"hidden_layer_sizes must hold integers of at least 1, the widths of layers. Got {hidden_layer_sizes!r}."
        )


def resolve_device(estimator, cuda_pays=True):
    """Device that an estimator's parameter ``device`` means.

    Parameters
    ----------
    estimator : estimator object
        With a parameter ``device``: ``"auto"``, or a device as torch writes it.
    cuda_pays : bool, default=True
        Whether the computation is large enough to be faster on CUDA.

    Returns
    -------
    torch.device
        The device. ``"auto"`` is CUDA where there is one and it pays.
    """
    if estimator.device == "auto":
        return torch.device("cuda" if cuda_pays and torch.cuda.is_available() else "cpu")
    try:
        if estimator.device == "meta":
            raise RuntimeError("it computes nothing")
        return torch.empty(0, device=estimator.device).device
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the latter
        raise ValueError(
            f"The 'device' parameter of {type(estimator).__name__} must be 'auto' or a device that torch can use here."
            f" Got {estimator.device!r} instead: {error}"
        ) from error
