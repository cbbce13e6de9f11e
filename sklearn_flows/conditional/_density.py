"""The estimator of conditional densities."""

import math
import warnings
from numbers import Integral, Real

import numpy as np
import torch
from scipy.sparse import issparse
from scipy.special import ndtri
from scipy.stats import qmc
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data

from ..compiled import compiled_flow
from ..cross_fitting import in_threads
from ..density._defaults import MIN_ROWS_FOR_CUDA, default_batch_size, default_max_iter
from ..density._queries import (
    FLOAT_DTYPES,
    MAX_CHUNK,
    MIN_SCALARS_FOR_COMPILED_KERNELS,
    check_n_samples,
    log_density_of_constants,
)
from ..encoding import MARGINS, TableEncoding, warn_about_discrete_columns
from ..nets import ACTIVATIONS
from ..training import DivergedError, canonical_rows
from ..utils._random import MAX_SEED, draw_seed, torch_generator
from ..utils._settings import check_layer_sizes, resolve_device
from ..utils._sklearn import Interval, Options, StrOptions, check_sample_weight, feature_names, fit_context
from ..utils._state import fitted_attributes_restored_on_error
from ..utils._threads import one_thread_if_small
from ._members import Plan, fit_member, held_out_rows
from ._mixture import SCORES, log_density, quantile, quantiles_at_scores, score_weights

# What is done with the features.
CONTEXT_MARGINS = "bent"
# Flows that are averaged, and up to how many rows: with more they gain little, and take long.
MEMBERS = 5
MAX_ROWS_FOR_MEMBERS = 20_000
# Evenly spread draws for means and quantiles of several targets: at least so many in all, and of each flow.
DRAWS = 2**10
MIN_DRAWS_OF_A_FLOW = 2**7


class ConditionalFlowDensity(RegressorMixin, MultiOutputMixin, BaseEstimator):
    """Density of targets given features, :math:`p(y \\mid x)`, by neural spline flows that see the features [1]_ [2]_.

    It starts as a linear regression; a network then chooses location and scale, and monotone splines, whose shapes networks
    choose from the features and from the targets before, make any distribution of what is left. With a single target this gives
    predictive distributions with exact quantiles; with the data of a simulator as features and its parameters as targets, the
    posterior of the parameters.

    Parameters
    ----------
    n_transforms : int, default=2
        Number of spline layers.
    n_bins : int, default=8
        Number of bins of each spline.
    tail_bound : float, default=5.0
        The splines act between ``-tail_bound`` and ``tail_bound``, in units of standard deviations of what regression leaves;
        beyond that each is the identity.
    hidden_layer_sizes : tuple of int, default=(128, 128)
        Width of each hidden layer of the networks.
    activation : {"relu", "tanh", "silu", "gelu", "elu"}, default="relu"
        Activation of the networks.
    margins : {"linear", "bent", "smooth"}, default="bent"
        What is done with each target first: standardised; bent too, by an inverse hyperbolic sine, if its tails are clearly
        heavier than a Gaussian's; or turned into a normal one by a kernel density estimate.
    n_estimators : int or "auto", default="auto"
        How many flows are fitted. Each holds out another part of the rows, and the density is the mean of theirs: with few rows
        nothing else helps as much. "auto" is 5 up to 20,000 distinct rows, otherwise 1.
    max_iter : int or "auto", default="auto"
        Number of epochs, over which the learning rate warms up and falls to zero. "auto" chooses it from the number of rows.
    batch_size : int or "auto", default="auto"
        Largest batch. "auto" chooses it from the number of rows.
    learning_rate : float, default=3e-3
        Peak of the learning rate.
    weight_decay : float, default=1e-4
        Decoupled weight decay on the weights of the networks.
    early_stopping : bool, default=True
        Whether each flow holds out rows, stops when their likelihood no longer rises and keeps the weights of its best epoch.
    validation_fraction : float, default=0.1
        Share of the distinct rows that each flow holds out.
    n_iter_no_change : int or float, default=20
        Patience: the number of epochs without a rise of the validation score after which to go back to the best epoch and on
        with a fifth of the learning rate; after half as many without a rise, once more; then to stop. Infinity never stops, but
        keeps the best epoch.
    tol : float, default=1e-4
        Smallest rise of the validation score that counts, in nats.
    n_jobs : int, default=None
        Number of flows that are fitted at the same time, in threads, as in joblib; None means as many as torch has threads.
    verbose : int, default=0
        Whether to tell of each flow that it is fitted.
    device : str, default="auto"
        Where to train: a torch device such as "cpu" or "cuda:1". "auto" is CUDA where there is one and 100,000 rows or more
        to train with: fewer are trained as fast on the CPU. The fitted flows live on the CPU.
    random_state : int, RandomState instance or None, default=None
        Source of the initial weights, the held-out rows and the order of the batches. Pass an int for reproducible fits.

    Attributes
    ----------
    flows_ : list of Flow
        The fitted flows over the encoded targets that vary, in the context of the encoded features that vary: instances of
        ``torch.nn.Module`` in float64 on the CPU.
    encoding_ : TableEncoding
        The fitted map of the targets to the space of ``flows_``.
    context_encoding_ : TableEncoding
        The fitted map of the features to the context of ``flows_``.
    n_estimators_ : int
        Number of flows.
    n_iter_ : int
        Largest number of epochs of a flow.
    stop_reasons_ : list of {"max_iter", "early_stopping", "interrupted"}
        Why the training of each flow ended.
    batch_size_ : int
        Largest batch.
    max_iter_ : int
        Number of epochs that were planned.
    loss_curves_ : list of list of float
        For each flow the mean negative log-likelihood of its training rows in each epoch, in nats in the units of ``y``.
    validation_scores_ : list of list of float or None
        For each flow the mean log-likelihood of its held-out rows after each epoch, in nats in the units of ``y``; None without
        held-out rows.
    n_outputs_ : int
        Number of targets.
    y_ndim_ : {1, 2}
        Number of axes of the ``y`` given to ``fit``: predictions have as many.
    n_features_in_ : int
        Number of columns of ``X``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when ``X`` has column names that are all strings.

    See Also
    --------
    NeuralSplineFlowDensity : Density of a table without features.
    sklearn.gaussian_process.GaussianProcessRegressor : Normal predictive distributions.
    sklearn.ensemble.HistGradientBoostingRegressor : A quantile for each fit, with ``loss="quantile"``.

    Notes
    -----
    ``score`` is the mean log-density, not a coefficient of determination: it is what training maximises, and what a search over
    parameters should compare. Features are standardised and clipped at four standard deviations: beyond the range of the
    training data the density stays as it is at its edge.

    References
    ----------
    .. [1] Durkan, Bekasov, Murray and Papamakarios, "Neural Spline Flows", NeurIPS 2019.
    .. [2] Papamakarios and Murray, "Fast epsilon-free Inference of Simulation Models with Bayesian Conditional Density
       Estimation", NeurIPS 2016, and Greenberg, Nonnenmacher and Macke, "Automatic Posterior Transformation for Likelihood-Free
       Inference", ICML 2019: posteriors of simulators by conditional densities.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn_flows import ConditionalFlowDensity
    >>> X, y = load_diabetes(return_X_y=True)
    >>> density = ConditionalFlowDensity(n_estimators=2, max_iter=20, random_state=0).fit(X, y)
    >>> density.log_prob(X[:3], y[:3]).shape
    (3,)
    >>> density.predict_quantiles(X[:3], [0.05, 0.95]).shape
    (3, 2)
    >>> density.sample_y(X[:3], n_samples=4, random_state=0).shape
    (3, 4)
    """

    _parameter_constraints = {
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
        "n_bins": [Interval(Integral, 2, 256, closed="both")],
        "tail_bound": [Interval(Real, 1e-3, 1e3, closed="both")],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "margins": [StrOptions(set(MARGINS))],
        "n_estimators": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "learning_rate": [Interval(Real, 0, 1e30, closed="right")],
        "weight_decay": [Interval(Real, 0, 1e30, closed="both")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "device": [str],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_transforms=2,
        *,
        n_bins=8,
        tail_bound=5.0,
        hidden_layer_sizes=(128, 128),
        activation="relu",
        margins="bent",
        n_estimators="auto",
        max_iter="auto",
        batch_size="auto",
        learning_rate=3e-3,
        weight_decay=1e-4,
        early_stopping=True,
        validation_fraction=0.1,
        n_iter_no_change=20,
        tol=1e-4,
        n_jobs=None,
        verbose=0,
        device="auto",
        random_state=None,
    ):
        self.n_transforms = n_transforms
        self.n_bins = n_bins
        self.tail_bound = tail_bound
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.margins = margins
        self.n_estimators = n_estimators
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.device = device
        self.random_state = random_state

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # For scikit-learn a good score is a coefficient of determination above a half; here it is a log-density.
        tags.regressor_tags.poor_score = True
        return tags

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        """Fit the conditional density.

        Rows are a set: their order doesn't matter, a weight of 2 is the same as a repeated row and a weight of 0 the same as a
        missing one. An interrupted fit (Ctrl-C) keeps the flows so far and the best state of the one in training, a failed one
        leaves the estimator as it was.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features; arrays, lists, pandas and polars data frames of finite numbers.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The targets, finite numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; only their ratios matter. None means equal weights.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input isn't a table of finite numbers with targets for each row, if all weights are zero, or if training
            diverges.
        """
        with fitted_attributes_restored_on_error(self):
            return self._fit(X, y, sample_weight)

    def _fit(self, X, y_given, sample_weight):
        check_layer_sizes(self.hidden_layer_sizes)
        X, y = self._validate(X, y_given, reset=True)
        weight = check_sample_weight(sample_weight, X)
        y_ndim, y = y.ndim, y.reshape(len(X), -1)
        names = feature_names(y_given, y.shape[1]) if hasattr(y_given, "columns") else [f"y{i}" for i in range(y.shape[1])]
        warn_about_discrete_columns(y if weight.all() else y[weight > 0], names)

        rng = np.random.RandomState(draw_seed(self.random_state))
        rows, weight = canonical_rows(np.column_stack([X, y]), weight)
        X, y = rows[:, : X.shape[1]], rows[:, X.shape[1] :]
        context_encoding, encoding = TableEncoding.fit(X, weight, CONTEXT_MARGINS), TableEncoding.fit(y, weight, self.margins)
        C = context_encoding.encode(X)[0][:, context_encoding.varies]
        Z, log_det = encoding.encode(y)
        units = log_det + log_density_of_constants(encoding, Z)
        Z = Z[:, encoding.varies]

        n_rows = len(rows)
        default_n_members = MEMBERS if n_rows <= MAX_ROWS_FOR_MEMBERS else 1
        n_members = default_n_members if self.n_estimators == "auto" else self.n_estimators
        order, seeds = rng.permutation(n_rows), rng.randint(MAX_SEED, size=n_members)
        if self.early_stopping and n_rows > 1:
            parts = [held_out_rows(k, n_members, order, self.validation_fraction) for k in range(n_members)]
        else:
            parts = [(order, order[:0])] * n_members
        n_train = len(parts[0][0])
        batch_size = default_batch_size(n_train) if self.batch_size == "auto" else self.batch_size
        max_iter = default_max_iter(n_train, batch_size, self.early_stopping) if self.max_iter == "auto" else self.max_iter
        plan = Plan(max_iter, batch_size, resolve_device(self, cuda_pays=n_train >= MIN_ROWS_FOR_CUDA))
        members = [None] * n_members
        interrupted = False

        def fit(k):
            nonlocal interrupted
            if not interrupted:
                members[k] = fit_member(self, plan, Z, C, weight, *parts[k], int(seeds[k]))
                interrupted |= members[k].training.stop_reason == "interrupted"
                if self.verbose:
                    print(f"[{type(self).__name__}] flow {k + 1} of {n_members} is fitted")

        try:
            in_threads(fit, n_members, self.n_jobs)
        except KeyboardInterrupt:  # while this thread was waiting for others
            interrupted = True
            if not any(members):
                raise
        except DivergedError as error:
            varying = [name for name, varies in zip(names, encoding.varies, strict=True) if varies]
            raise ValueError(
                f"Training of {type(self).__name__} diverged: {error}. The target with the most extreme value, in its own"
                f" standard deviations, is {varying[int(np.abs(Z).max(axis=0).argmax())]!r}: transform it (its logarithm, or"
                " ranks), or lower learning_rate."
            ) from error
        fitted = [(part, member) for part, member in zip(parts, members, strict=True) if member is not None]
        parts, members = zip(*fitted, strict=True)

        self.flows_ = [member.flow for member in members]
        self.encoding_, self.context_encoding_ = encoding, context_encoding
        self.n_estimators_ = len(members)
        self.n_iter_ = max(member.training.n_iter for member in members)
        self.stop_reasons_ = [member.training.stop_reason for member in members]
        self.batch_size_, self.max_iter_ = batch_size, max_iter
        self.loss_curves_, self.validation_scores_ = [], [] if len(parts[0][1]) else None
        for (kept, held_out), (_, training) in zip(parts, members, strict=True):
            lacking = np.average(units[kept], weights=weight[kept])
            self.loss_curves_.append([loss - lacking for loss in training.loss_curve])
            if self.validation_scores_ is not None:
                lacking = np.average(units[held_out], weights=weight[held_out])
                self.validation_scores_.append([score + lacking for score in training.validation_scores])
        self.n_outputs_, self.y_ndim_ = y.shape[1], y_ndim
        self._warn_about_the_end(interrupted, n_members)
        return self

    def _warn_about_the_end(self, interrupted, n_members):
        if interrupted:
            warnings.warn(
                f"Training interrupted by the user with {self.n_estimators_} of {n_members} flows begun; the best so far is"
                " kept.",
                UserWarning,
                stacklevel=5,
            )
        elif self.max_iter != "auto":
            curves = self.validation_scores_ or [[-loss for loss in curve] for curve in self.loss_curves_]
            # Still rising: the last tenth of the epochs beats all before.
            still_rising = [
                reason == "max_iter" and int(np.argmax(curve)) >= len(curve) - max(1, len(curve) // 10)
                for reason, curve in zip(self.stop_reasons_, curves, strict=True)
            ]
            if all(still_rising):
                warnings.warn(
                    f"{type(self).__name__} reached max_iter={self.max_iter} while its likelihood was still rising. Raise"
                    " max_iter, or leave it at 'auto'.",
                    ConvergenceWarning,
                    stacklevel=5,
                )

    def _validate(self, X, y, reset):
        """Check features and targets; the latter become float64, and keep their number of axes."""
        if issparse(y):
            raise TypeError("Sparse targets are not supported: y must be a dense array. Use y.toarray().")
        X, y = validate_data(self, X, y, reset=reset, dtype=FLOAT_DTYPES, order="C", multi_output=True, y_numeric=True)
        y = y.astype(np.float64)
        n_outputs = 1 if y.ndim == 1 else y.shape[1]
        if not reset and n_outputs != self.n_outputs_:
            raise ValueError(
                f"y has {n_outputs} columns, but {type(self).__name__} was fitted to targets of {self.n_outputs_} columns."
            )
        return X, y

    def _contexts(self, X):
        """Encode features that are checked."""
        C, _ = self.context_encoding_.encode(X)
        # In memory that torch has aligned: on numpy's, matrix products may round differently.
        return torch.from_numpy(C[:, self.context_encoding_.varies]).clone(memory_format=torch.contiguous_format)

    def _map_rows(self, answer, out, n_points=1):
        """Fill ``out`` with ``answer(flows, rows)`` for chunks of its rows, where ``rows`` is a slice.

        ``n_points`` is how many points the flows map for each row: it tells how large a chunk may be, and whether compiled
        kernels are worth their loading.
        """
        flows, n_targets = self.flows_, int(self.encoding_.varies.sum())
        widest = max(len(parameter) for flow in flows for parameter in [*flow.parameters(), torch.empty(1)])
        chunk = max(1, MAX_CHUNK // n_points)
        with torch.no_grad(), one_thread_if_small(min(len(out), chunk) * n_points * widest):
            n_scalars = len(out) * n_points * n_targets * len(flows[0].transform.transforms)
            if n_scalars >= MIN_SCALARS_FOR_COMPILED_KERNELS:
                flows = [self._compiled(flow) for flow in flows]
            for rows in gen_batches(len(out), chunk):
                out[rows] = answer(flows, rows)
        return out

    def _compiled(self, flow):
        point = [
            torch.zeros(1, encoding.varies.sum(), dtype=torch.float64) for encoding in (self.encoding_, self.context_encoding_)
        ]
        return compiled_flow(flow, ["from_base", "log_prob"], point, torch.get_num_threads())

    def log_prob(self, X, y):
        """Compute the log-density of targets given features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The targets.

        Returns
        -------
        ndarray of shape (n_samples,)
            :math:`\\log p(y \\mid x)` in nats, with respect to the units of ``y``. Minus infinity where it is too low to be
            represented.
        """
        check_is_fitted(self)
        X, y = self._validate(X, y, reset=False)
        C = self._contexts(X)
        Z, log_det = self.encoding_.encode(y.reshape(len(X), -1))
        z = torch.from_numpy(Z[:, self.encoding_.varies]).clone(memory_format=torch.contiguous_format)
        log_prob = self._map_rows(lambda flows, rows: log_density(flows, z[rows], C[rows]).numpy(), np.empty(len(X)))
        return log_prob + log_density_of_constants(self.encoding_, Z) + log_det

    def score(self, X, y, sample_weight=None):
        """Compute the mean log-density of targets given features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            The targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the mean.

        Returns
        -------
        float
            Mean of ``log_prob(X, y)``, in nats.
        """
        log_prob = self.log_prob(X, y)
        weight = check_sample_weight(sample_weight, log_prob)
        # Rows of weight zero are absent: minus infinity times zero would not be.
        counts = weight > 0
        return float(np.average(log_prob[counts], weights=weight[counts]))

    def sample_y(self, X, n_samples=1, random_state=None):
        """Draw targets given features.

        Parameters
        ----------
        X : array-like of shape (n_samples_X, n_features)
            The features.
        n_samples : int, default=1
            Number of draws for each row.
        random_state : int, RandomState instance or None, default=None
            Source of the draws. Pass an int for reproducible ones.

        Returns
        -------
        ndarray of shape (n_samples_X, n_samples) or (n_samples_X, n_outputs, n_samples)
            The draws, in the units of ``y``, as ``GaussianProcessRegressor.sample_y`` returns them: the latter shape if ``fit``
            was given a ``y`` of two axes.
        """
        check_is_fitted(self)
        check_n_samples(n_samples)
        C = self._contexts(validate_data(self, X, reset=False, dtype=FLOAT_DTYPES))
        generator = torch_generator(draw_seed(random_state))
        Z = torch.randn(len(C), n_samples, self.n_outputs_, generator=generator, dtype=torch.float64).numpy()
        which = torch.randint(self.n_estimators_, (len(C), n_samples), generator=generator).numpy()
        return self._shaped(self._decode(self._from_latent(C, Z, which)))

    def _from_latent(self, C, latents, which):
        """Map latents, (n_samples, n_draws, n_outputs), in place, each by the flow whose number is in ``which``."""
        varies = self.encoding_.varies
        of_flow = torch.from_numpy(which).flatten()
        row = torch.arange(len(C)).repeat_interleave(latents.shape[1])

        def mapped(flows, points):
            z, context = torch.from_numpy(Z[points][:, varies]), C[row[points]]
            for k, flow in enumerate(flows):
                chosen = (of_flow[points] == k).nonzero().squeeze(-1)
                z[chosen] = flow.from_base(z[chosen], context[chosen])
            result = Z[points].copy()
            result[:, varies] = z.numpy()
            return result

        Z = latents.reshape(-1, self.n_outputs_)
        return self._map_rows(mapped, Z).reshape(latents.shape)

    def _decode(self, Z):
        """Bring encoded targets, (n_samples, n_draws, n_outputs), to their units."""
        return self.encoding_.decode(Z.reshape(-1, self.n_outputs_)).reshape(Z.shape)

    def _shaped(self, values):
        """From (n_samples, n_values, n_outputs) to the shape that is promised."""
        return values[..., 0] if self.y_ndim_ == 1 else np.ascontiguousarray(values.transpose(0, 2, 1))

    def predict(self, X):
        """Compute the mean of the targets given features.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Means, in the units of ``y``. Of a single target by quadrature of its quantile function; of several from about a
            thousand evenly spread draws, the same for all rows.
        """
        check_is_fitted(self)
        C = self._contexts(validate_data(self, X, reset=False, dtype=FLOAT_DTYPES))
        if self._is_exact:
            weights = score_weights()

            def means(flows, rows):
                # The mean of a mixture is that of its components' means.
                quantiles = [self._decode(quantiles_at_scores(flow, C[rows]).numpy()[..., None]) for flow in flows]
                return np.mean(quantiles, axis=0)[..., 0] @ weights

            mean = self._map_rows(means, np.empty(len(C)), n_points=len(SCORES))[:, None]
        else:
            mean = np.concatenate([self._even_draws(C[rows]).mean(axis=1) for rows in gen_batches(len(C), MAX_CHUNK)])
        return mean[:, 0] if self.y_ndim_ == 1 else mean

    def predict_quantiles(self, X, quantiles=(0.05, 0.5, 0.95)):
        """Compute quantiles of the targets given features: two of them make an interval.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The features.
        quantiles : array-like of shape (n_quantiles,), default=(0.05, 0.5, 0.95)
            Probabilities, between 0 and 1.

        Returns
        -------
        ndarray of shape (n_samples, n_quantiles) or (n_samples, n_outputs, n_quantiles)
            Quantiles of each target by itself, in the units of ``y``; the latter shape if ``fit`` was given a ``y`` of two
            axes. Of a single target they are exact; of several they come from about a thousand evenly spread draws, the same
            for all rows.
        """
        check_is_fitted(self)
        probabilities = np.asarray(quantiles, dtype=np.float64)
        if probabilities.ndim != 1 or not probabilities.size or not ((probabilities > 0) & (probabilities < 1)).all():
            raise ValueError(f"quantiles must be a sequence of numbers between 0 and 1, both excluded. Got {quantiles!r}.")
        C = self._contexts(validate_data(self, X, reset=False, dtype=FLOAT_DTYPES))
        if self._is_exact:
            scores = ndtri(probabilities)

            def encoded(flows, rows):
                return torch.stack([quantile(flows, score, C[rows]) for score in scores], dim=1).numpy()

            values = self._decode(self._map_rows(encoded, np.empty((len(C), len(scores))), n_points=len(scores))[..., None])
        else:
            values = np.concatenate(
                [
                    np.moveaxis(np.quantile(self._even_draws(C[rows]), probabilities, axis=1), 0, 1)
                    for rows in gen_batches(len(C), MAX_CHUNK)
                ]
            )
        return self._shaped(values)

    @property
    def _is_exact(self):
        """Whether there is a single target, which varies: its distribution function can be inverted."""
        return self.n_outputs_ == 1 and self.encoding_.varies[0]

    def _even_draws(self, C):
        """Draws that fill the distributions evenly, (n_samples, n_draws, n_outputs), from the same latents for all rows."""
        n_flows = self.n_estimators_
        n_draws = max(MIN_DRAWS_OF_A_FLOW, 2 ** math.ceil(math.log2(DRAWS / n_flows)))
        points = qmc.Sobol(self.n_outputs_, seed=0).random(n_draws)
        latents = np.tile(ndtri(np.clip(points, 2**-32, 1 - 2**-32)), (n_flows, 1))
        which = np.tile(np.repeat(np.arange(n_flows), n_draws), (len(C), 1))
        return self._decode(self._from_latent(C, np.tile(latents, (len(C), 1, 1)), which))
