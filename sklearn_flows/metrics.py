"""Measures of how well a density predicts rows that it hasn't seen."""

import math
from numbers import Integral, Real

import numpy as np
from sklearn.utils import check_array

from .utils._sklearn import check_sample_weight


def bits_per_dim(log_density, n_features, *, step=1.0, sample_weight=None):
    r"""Compute the mean negative log-density of images, in bits for each pixel and channel.

    .. math:: -\frac{1}{D \log 2} \left(\frac{1}{n} \sum_{i=1}^n \log p(x_i) + D \log \Delta\right)

    With images :math:`x_i` of integer levels that are spread over their cells by uniform noise of one step :math:`\Delta`, this
    is an upper bound of the bits that a lossless code built on :math:`p` needs for the levels themselves [1]_ (section 3.1):
    the figure that papers on images report. A uniform density over all cells of :math:`2^k` levels has k bits.

    Parameters
    ----------
    log_density : array-like of shape (n_samples,)
        Log-densities of the images in nats, as ``score_samples`` gives them.
    n_features : int
        Number D of pixels of an image, times its channels.
    step : float, default=1.0
        Difference :math:`\Delta` of neighbouring levels in the units of the table: 1 for integer levels, 1/255 where levels
        of 8 bits were divided by 255.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the mean.

    Returns
    -------
    float
        Bits per dimension; lower is better. Infinity if an image has density zero.

    References
    ----------
    .. [1] Theis, van den Oord and Bethge, "A note on the evaluation of generative models", ICLR 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_flows.metrics import bits_per_dim
    >>> log_density = np.full(10, -64 * np.log(16.0))  # uniform over 16 levels of 64 pixels
    >>> bits_per_dim(log_density, n_features=64)
    4.0
    """
    if not isinstance(n_features, Integral) or n_features < 1:
        raise ValueError(f"n_features must be an integer of at least 1, the number of pixels. Got {n_features!r}.")
    if not isinstance(step, Real) or not 0 < step < math.inf:
        raise ValueError(f"step must be a positive number, the difference of neighbouring levels. Got {step!r}.")
    # Minus infinity is a log-density, NaN and plus infinity are none.
    log_density = check_array(log_density, dtype=np.float64, ensure_2d=False, ensure_all_finite=False, input_name="log_density")
    if log_density.ndim != 1 or not (log_density < np.inf).all():
        raise ValueError(
            f"log_density must be a number below infinity for each image, in one dimension. Got shape {log_density.shape} and a"
            f" maximum of {log_density.max()}."
        )
    weight = check_sample_weight(sample_weight, log_density)
    counts = weight > 0
    mean = np.average(log_density[counts], weights=weight[counts])
    return float(-(mean / n_features + math.log(step)) / math.log(2))
