"""Variational inference: a flow fitted to a density that is known up to a factor, instead of to rows."""

import copy
import math
import warnings
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import check_is_fitted

from .density._queries import check_n_samples
from .flows import Flow, maf, realnvp
from .nets import ACTIVATIONS
from .training import NotFiniteError, fit_gaussian, fit_reverse_kl
from .transforms import Inverse
from .utils._random import draw_seed, torch_generator
from .utils._settings import check_layer_sizes, resolve_device
from .utils._sklearn import Interval, StrOptions, fit_context
from .utils._state import fitted_attributes_restored_on_error
from .utils._threads import one_thread_if_small

# Draws of the final estimate of the evidence lower bound, and rows that go through the flow at once.
N_DRAWS_FOR_THE_BOUND = 10_000
MAX_CHUNK = 1024
# With fewer draws a tail of the weights has fewer than five of them, and can't be judged.
MIN_DRAWS_TO_WEIGH = 25
# Log-ratios within this of one another differ by rounding alone: they have no tail that could be fitted.
EVEN = 1e-9


@dataclass(frozen=True)
class ImportanceSample:
    """Weighted draws that stand for the density that a flow was fitted to.

    Attributes
    ----------
    samples : ndarray of shape (n_samples, n_features)
        The draws.
    weights : ndarray of shape (n_samples,)
        Their Pareto-smoothed weights, which sum to one: ``np.average(f(samples), weights=weights, axis=0)`` estimates an
        expectation.
    effective_sample_size : float
        How many draws from the density itself are worth as much, :math:`1 / \\sum_i w_i^2`.
    pareto_k : float
        Shape of the tail of the unsmoothed weights. Below 0.7 the estimates can be trusted; above, they can't: the flow
        misses a part of the density that matters. Minus infinity if all weights are equal.
    log_normalizer : float
        Estimate of the logarithm of the density's integral, in nats: of a posterior's, the log-evidence.
    """

    samples: np.ndarray
    weights: np.ndarray
    effective_sample_size: float
    pareto_k: float
    log_normalizer: float


class VariationalFlow(BaseEstimator):
    """A flow fitted to an unnormalised density [1]_, such as a posterior.

    Where other estimators fit rows, this one fits a function: the logarithm of a density, up to a constant, that torch can
    differentiate. The flow :math:`q` then draws independent rows, and gives their normalised log-density. It is fitted by the
    reverse Kullback-Leibler divergence :math:`\\mathrm{KL}(q \\,\\|\\, p)`, estimated by draws of the flow itself. So it knows
    only the places that it has found: **of several modes that are far apart it may miss all but one, and no number here
    tells**. Where there may be several, take other means.

    Parameters
    ----------
    n_transforms : int, default=4
        Number of nonlinear layers.
    layer : {"autoregressive", "coupling"}, default="autoregressive"
        Kind of the layers, which are affine. "autoregressive" is the inverse autoregressive flow [2]_: one pass of each network
        to draw, and one feature after another in ``log_prob``. "coupling" is RealNVP: one pass both ways, but less flexible.
    hidden_layer_sizes : tuple of int, default=(64, 64)
        Width of each hidden layer of the conditioners.
    activation : {"relu", "tanh", "silu", "gelu", "elu"}, default="silu"
        Activation of the conditioners.
    max_iter : int, default=3000
        Number of steps of the optimiser, over which the learning rate warms up and falls to zero.
    batch_size : int, default=256
        Number of draws in each step: points at which the log-density is computed.
    learning_rate : float, default=3e-3
        Peak of the learning rate.
    verbose : int, default=0
        0 is silent, 1 tells about ten times in a fit how it goes, 2 after every step.
    device : str, default="auto"
        Where to train, and where the points are that ``log_density`` gets: a torch device such as "cpu" or "cuda:1". "auto" is
        CUDA where there is one. The fitted flow lives on the CPU.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights and of all draws in ``fit``. Pass an int for reproducible fits.

    Attributes
    ----------
    elbo_ : float
        Estimate of the evidence lower bound :math:`\\mathrm E_q[\\log p(x) - \\log q(x)]`, in nats, from 10,000 draws: the
        log-evidence of a posterior less :math:`\\mathrm{KL}(q \\,\\|\\, p)`.
    location_ : ndarray of shape (n_features,)
        Mean of the Gaussian that training has started from.
    scale_ : ndarray of shape (n_features, n_features)
        Lower-triangular root of its covariance.
    flow_ : Flow
        The fitted flow over ``u``, where ``x`` is ``location_ + scale_ @ u``: a ``torch.nn.Module`` in float64 on the CPU.
    loss_curve_ : list of float
        Estimate of the negative evidence lower bound in each step, in nats, from the step's own draws.
    n_iter_ : int
        Number of steps.
    stop_reason_ : {"max_iter", "interrupted"}
        Why the fit ended.
    n_features_in_ : int
        Number of features.

    See Also
    --------
    IAFDensity : The same flow fitted to rows.
    ConditionalFlowDensity : Posteriors of a simulator, whose density is not known but whose draws are.

    Notes
    -----
    A Gaussian is fitted first, in float64, by a quasi-Newton path and natural-gradient steps, which don't depend on the units
    of the features. The flow starts as that Gaussian. Points, log-densities and their gradients stay in float64; the
    flow's networks are trained in float32. Importance weights are Pareto-smoothed [3]_.

    References
    ----------
    .. [1] Rezende and Mohamed, "Variational Inference with Normalizing Flows", ICML 2015.
    .. [2] Kingma, Salimans, Jozefowicz, Chen, Sutskever and Welling, "Improved Variational Inference with Inverse
       Autoregressive Flow", NeurIPS 2016.
    .. [3] Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto Smoothed Importance Sampling", JMLR 25(72), 2024.

    Examples
    --------
    >>> from sklearn_flows import VariationalFlow
    >>> def log_density(x):  # a banana, without its normalising constant
    ...     return -0.5 * x[:, 0] ** 2 - 2 * (x[:, 1] - x[:, 0] ** 2) ** 2
    >>> flow = VariationalFlow(max_iter=500, random_state=0).fit(log_density, n_features=2)
    >>> flow.sample(3, random_state=0).shape
    (3, 2)
    >>> weighted = flow.importance_sample(log_density, 4000, random_state=0)
    >>> bool(weighted.pareto_k < 0.7)
    True
    """

    _parameter_constraints = {
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
        "layer": [StrOptions({"autoregressive", "coupling"})],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 2, None, closed="left")],
        "learning_rate": [Interval(Real, 0, 1e30, closed="right")],
        "verbose": ["verbose"],
        "device": [str],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_transforms=4,
        *,
        layer="autoregressive",
        hidden_layer_sizes=(64, 64),
        activation="silu",
        max_iter=3000,
        batch_size=256,
        learning_rate=3e-3,
        verbose=0,
        device="auto",
        random_state=None,
    ):
        self.n_transforms = n_transforms
        self.layer = layer
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.verbose = verbose
        self.device = device
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, log_density, n_features):
        """Fit the flow to an unnormalised density.

        An interrupted fit (Ctrl-C) keeps what has been reached, a failed one leaves the estimator as it was.

        Parameters
        ----------
        log_density : callable
            From a float64 tensor of shape (n_points, n_features) to the log-density of each point, up to a constant: a tensor
            of shape (n_points,) that torch can differentiate. It must be finite on all of :math:`\\mathbb R^d`; parameters with
            bounds must be transformed, with the log-Jacobian added.
        n_features : int
            Number of features.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        TypeError
            If ``log_density`` can't be called, or returns something else than a tensor.
        ValueError
            If what it returns has another shape, isn't real, can't be differentiated, or isn't finite.
        """
        if not callable(log_density):
            raise TypeError(
                "log_density must be a function from a tensor of shape (n_points, n_features) to log-densities of shape"
                f" (n_points,). Got {log_density!r}."
            )
        if not isinstance(n_features, Integral) or isinstance(n_features, bool) or n_features < 1:
            raise ValueError(f"n_features must be an integer of at least 1. Got {n_features!r}.")
        check_layer_sizes(self.hidden_layer_sizes)
        with fitted_attributes_restored_on_error(self), torch.inference_mode(False), torch.enable_grad():
            try:
                return self._fit(log_density, int(n_features))
            except NotFiniteError as error:
                x = error.point
                value, gradient = _score(log_density, x[None].to(resolve_device(self)))
                raise ValueError(
                    f"log_density must be finite everywhere, and its gradient too, but at {x.tolist()}, where the flow draws,"
                    f" it is {value.item()} with the gradient {gradient[0].tolist()}. Transform parameters that have bounds."
                ) from error

    def _fit(self, log_density, n_features):
        device = resolve_device(self)
        generator = torch_generator(draw_seed(self.random_state))
        widest = max([n_features, *self.hidden_layer_sizes])

        def score(x):
            return _score(log_density, x)

        with one_thread_if_small(self.batch_size * widest), torch.autocast(device.type, enabled=False):
            location, scale = fit_gaussian(score, n_features, generator, device)
            build = {"autoregressive": maf, "coupling": realnvp}[self.layer]
            # From latents to points: what is the way to the latents in a density is the way to the points here.
            mirror = build(
                torch.eye(n_features),
                n_transforms=self.n_transforms,
                hidden_layer_sizes=self.hidden_layer_sizes,
                activation=self.activation,
                generator=generator,
            ).to(device)
            result = fit_reverse_kl(
                mirror,
                score,
                location,
                scale,
                max_iter=self.max_iter,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                generator=generator,
                on_step_end=self._tell,
            )
        mirror = copy.deepcopy(mirror).to(device="cpu", dtype=torch.float64).requires_grad_(False).eval()
        self.flow_ = Flow(Inverse(mirror.transform), mirror.base).eval()
        self.location_, self.scale_ = location.cpu().numpy(), scale.cpu().numpy()
        self.n_features_in_ = n_features
        self.loss_curve_ = result.loss_curve
        self.n_iter_ = len(result.loss_curve)
        self.stop_reason_ = result.stop_reason
        X, log_q = self._draw(N_DRAWS_FOR_THE_BOUND, generator)
        self.elbo_ = float(np.mean(_log_density_of(log_density, X, device) - log_q))
        if result.stop_reason == "interrupted":
            warnings.warn(
                f"Training interrupted by the user after {self.n_iter_} steps; what it has reached is kept.",
                UserWarning,
                stacklevel=4,
            )
        return self

    def _tell(self, result):
        n_iter = len(result.loss_curve)
        if self.verbose and (self.verbose > 1 or n_iter % max(1, self.max_iter // 10) == 0):
            print(f"[{type(self).__name__}] step {n_iter}/{self.max_iter}: evidence lower bound {-result.loss_curve[-1]:.4f}")

    def _draw(self, n_samples, generator):
        """Draw rows, and their log-densities under the flow, which drawing tells at no cost."""
        Z = self.flow_.base.sample(n_samples, generator)
        X, log_q = np.empty((n_samples, self.n_features_in_)), np.empty(n_samples)
        with torch.no_grad(), one_thread_if_small(MAX_CHUNK * max(len(p) for p in self.flow_.parameters())):
            for batch in gen_batches(n_samples, MAX_CHUNK):
                U, log_det = self.flow_.transform.inverse(Z[batch])
                X[batch] = U.numpy() @ self.scale_.T + self.location_
                log_q[batch] = (self.flow_.base.log_prob(Z[batch]) - log_det).numpy()
        return X, log_q - self._log_det_of_scale()

    def _log_det_of_scale(self):
        return np.log(np.diagonal(self.scale_)).sum()

    def sample(self, n_samples=1, random_state=None):
        """Draw rows from the flow.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Source of the draws. Pass an int for reproducible ones.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The rows, float64.
        """
        check_is_fitted(self)
        check_n_samples(n_samples)
        X, _ = self._draw(n_samples, torch_generator(draw_seed(random_state)))
        return X

    def log_prob(self, X):
        """Compute the log-density of each row under the flow, which is normalised.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Log-densities in nats, float64.
        """
        check_is_fitted(self)
        X = check_array(X, dtype=np.float64)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} features as input."
            )
        scale, log_q = torch.from_numpy(self.scale_), np.empty(len(X))
        with torch.no_grad(), one_thread_if_small(MAX_CHUNK * max(len(p) for p in self.flow_.parameters())):
            for batch in gen_batches(len(X), MAX_CHUNK):
                centred = torch.from_numpy(X[batch] - self.location_)
                U = torch.linalg.solve_triangular(scale, centred.T, upper=False).T
                log_q[batch] = self.flow_.log_prob(U.contiguous()).numpy()
        return log_q - self._log_det_of_scale()

    def importance_sample(self, log_density, n_samples=4000, random_state=None):
        """Draw rows and weigh them, so that they stand for the density itself, and tell how far they can be trusted.

        Weights are ratios of densities, whose largest ones are smoothed by a generalised Pareto distribution.

        Parameters
        ----------
        log_density : callable
            What the flow was fitted to.
        n_samples : int, default=4000
            Number of rows, at least 25. With few of them ``pareto_k`` is uncertain.
        random_state : int, RandomState instance or None, default=None
            Source of the draws. Pass an int for reproducible ones.

        Returns
        -------
        ImportanceSample
            With ``samples``, ``weights``, ``effective_sample_size``, ``pareto_k`` and ``log_normalizer``.

        Raises
        ------
        ImportError
            If arviz-stats, which smooths the weights, isn't installed: it needs Python 3.11.
        """
        check_is_fitted(self)
        check_n_samples(n_samples)
        if n_samples < MIN_DRAWS_TO_WEIGH:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples!r}. To judge weights takes at least {MIN_DRAWS_TO_WEIGH} draws."
            )
        X, log_q = self._draw(n_samples, torch_generator(draw_seed(random_state)))
        log_ratios = _log_density_of(log_density, X, resolve_device(self)) - log_q
        if np.isnan(log_ratios).any() or log_ratios.max() in (np.inf, -np.inf):
            bad = X[np.flatnonzero(~np.isfinite(log_ratios))[0]]
            raise ValueError(
                f"log_density isn't a finite number where the flow draws, as at {bad.tolist()}: no weights follow."
            )
        if np.ptp(log_ratios) < EVEN:
            log_weights, pareto_k = np.zeros(n_samples), -math.inf
        else:
            log_weights, pareto_k = _pareto_smoothed(log_ratios)
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        return ImportanceSample(
            samples=X,
            weights=weights,
            effective_sample_size=float(1 / np.square(weights).sum()),
            pareto_k=float(pareto_k),
            log_normalizer=float(np.logaddexp.reduce(log_ratios) - math.log(n_samples)),
        )


def _pareto_smoothed(log_ratios):
    try:
        from arviz_stats.base import array_stats
    except ImportError as error:
        raise ImportError(
            "importance_sample smooths weights with the package arviz-stats: pip install arviz-stats (Python 3.11 or newer)."
        ) from error
    # It is made for leave-one-out cross-validation, whose ratios are one over likelihoods: hence the sign.
    return array_stats.psislw(-log_ratios)


def _score(log_density, x):
    """Log-densities of points and their gradients, checked but for being finite."""
    # A leaf of its own: what the function may do to its argument stays there.
    x = x.detach().clone().requires_grad_()
    value = _checked(log_density(x), x)
    if not value.requires_grad:
        raise ValueError(
            "log_density returned a tensor without a gradient: compute it from its argument by torch operations, without"
            " detach(), numpy or torch.no_grad()."
        )
    (gradient,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    if gradient is None:
        raise ValueError("log_density doesn't depend on its argument, as far as torch can tell.")
    return value.detach().to(x), gradient


def _checked(value, x):
    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"log_density must return a torch tensor of shape ({len(x)},) here, the log-density of each of {len(x)} points."
            f" Got {type(value).__name__}."
        )
    if value.shape != (len(x),):
        raise ValueError(
            f"log_density must return one number for each point: shape ({len(x)},) for points of shape {tuple(x.shape)}."
            f" Got shape {tuple(value.shape)}."
        )
    if not value.is_floating_point():
        raise ValueError(f"log_density must return real floating-point numbers. Got {value.dtype}.")
    return value


def _log_density_of(log_density, X, device):
    """Log-densities of rows."""
    values = np.empty(len(X))
    with torch.no_grad():
        for batch in gen_batches(len(X), MAX_CHUNK):
            x = torch.tensor(X[batch], device=device)
            values[batch] = _checked(log_density(x), x).double().cpu().numpy()
    return values
