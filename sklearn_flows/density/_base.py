"""The scikit-learn face that all flow families share."""

import copy
import math
import warnings
from abc import ABC, abstractmethod
from numbers import Integral, Real
from operator import attrgetter

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data

from .._workspace import Workspace
from ..compiled import compiled_flow
from ..distributions import GaussianMixture
from ..encoding import TableEncoding, warn_about_discrete_columns
from ..nets import ACTIVATIONS
from ..training import DivergedError, Rows, canonical_rows, choose_mixture, fit_flow, split_off, whitening_matrix
from ..utils._progress import FitProgress
from ..utils._random import draw_seed, torch_generator
from ..utils._sklearn import (
    CallbackSupportMixin,
    Interval,
    Options,
    StrOptions,
    check_sample_weight,
    feature_names,
    fit_context,
)
from ..utils._state import fitted_attributes_restored_on_error
from ..utils._threads import one_thread_if_small
from ._defaults import MIN_ROWS_FOR_EARLY_STOPPING, default_batch_size, default_max_iter
from ._queries import FLOAT_DTYPES, MeanScoreMixin, check_n_samples

# Compiled kernels serve where they save more time than it takes to load them. That depends on the call alone, so that the same
# call gives the same bits.
MIN_STEPS_FOR_COMPILED_KERNELS = 100
MIN_SCALARS_FOR_COMPILED_KERNELS = 2**18
# Rows mapped at once: more would not be faster, and leave the cache.
MAX_CHUNK = 1024
# Rows encoded at once before training.
ENCODING_CHUNK = 2**12


class BaseFlowDensity(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    MeanScoreMixin,
    DensityMixin,
    CallbackSupportMixin,
    BaseEstimator,
    ABC,
):
    """Density of a table by a normalizing flow; each final class says which flow in ``_build_flow``."""

    _parameter_constraints = {
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "tails": [StrOptions({"auto", "light"})],
        "base": [StrOptions({"normal", "mixture"})],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "learning_rate": [Interval(Real, 0, 1e30, closed="right")],
        "weight_decay": [Interval(Real, 0, 1e30, closed="both")],
        "early_stopping": ["boolean", StrOptions({"auto"})],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "warm_start": ["boolean"],
        "verbose": ["verbose"],
        "device": [str],
        "random_state": ["random_state"],
    }

    @abstractmethod
    def _build_flow(self, whitening, base, generator):
        """Assemble the untrained flow.

        Parameters
        ----------
        whitening : Tensor of shape (n_features, n_features)
            Lower-triangular start of its first linear map.
        base : GaussianMixture or None
            Distribution of the whitened columns; None is the standard normal.
        generator : torch.Generator
            Source of initial weights.

        Returns
        -------
        Flow
            The flow, in float32 on the CPU.
        """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self):
        return self.n_features_in_

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, *, X_val=None, sample_weight_val=None):
        """Fit the density to a table.

        Rows are a set: their order doesn't matter, a weight of 2 is the same as a repeated row and a weight of 0 the
        same as a missing one. An interrupted fit (Ctrl-C) keeps the best model so far, a failed one leaves the
        estimator as it was.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; arrays, lists, pandas and polars data frames of finite numbers.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; only their ratios matter. None means equal weights.
        X_val : array-like of shape (n_validation_samples, n_features), default=None
            Rows to watch for early stopping, instead of a part of ``X``.
        sample_weight_val : array-like of shape (n_validation_samples,), default=None
            Weights of the rows of ``X_val``.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input isn't a finite numeric table, if all weights are zero, or if training diverges.
        """
        # The caller may have switched gradients off.
        with fitted_attributes_restored_on_error(self), torch.inference_mode(False), torch.enable_grad():
            return self._fit(X, y, sample_weight, X_val, sample_weight_val)

    def _fit(self, X_given, y, sample_weight, X_val, sample_weight_val):
        _check_layer_sizes(self.hidden_layer_sizes)
        continues = self.warm_start and hasattr(self, "flow_")
        X = validate_data(self, X_given, reset=not continues, dtype=FLOAT_DTYPES, order="C")
        weight = check_sample_weight(sample_weight, X)
        validation_rows = None if X_val is None else canonical_rows(*self._check_X_val(X_val, sample_weight_val))
        names = feature_names(X_given, X.shape[1])
        warn_about_discrete_columns(X if weight.all() else X[weight > 0], names)

        seed = draw_seed(self.random_state)
        rng, generator = np.random.RandomState(seed), torch_generator(seed)
        rows, weight = canonical_rows(X, weight)
        # From all rows: a column that varies may be constant among those that are not held out.
        encoding = self.encoding_ if continues else TableEncoding.fit(rows, weight, self.tails)
        part, part_val, early_stopping = self._hold_out(rows, weight, validation_rows, rng)
        device = self._resolve_device()
        train, units = _encode_rows(encoding, *part, device)
        validation, units_val = (None, 0.0) if part_val is None else _encode_rows(encoding, *part_val, device)
        # Training needs none of these, and most are as large as the table.
        del X, X_val, validation_rows, rows, weight, part, part_val

        n_rows = len(train.values)
        batch_size = default_batch_size(n_rows) if self.batch_size == "auto" else self.batch_size
        max_iter = default_max_iter(n_rows, batch_size, early_stopping) if self.max_iter == "auto" else self.max_iter
        flow = self._build_flow(*self._choose_start(train, validation, continues, rng), generator)
        if continues:
            self._load_previous_weights(flow)
        flow.to(device)

        losses_before = self.loss_curve_ if continues else []
        scores_before = (self.validation_scores_ or []) if continues else []

        def fitted_attributes(result):
            losses = losses_before + [loss - units for loss in result.loss_curve]
            scores = scores_before + [score + units_val for score in result.validation_scores]
            return {
                "encoding_": encoding,
                "flow_": copy.deepcopy(flow).to(device="cpu", dtype=torch.float64).requires_grad_(False).eval(),
                "batch_size_": batch_size,
                "max_iter_": max_iter,
                "n_iter_": len(losses),
                "loss_curve_": losses,
                "validation_scores_": scores or None,
                "best_validation_score_": result.best_score + units_val if scores else None,
            }

        n_steps = max_iter * math.ceil(n_rows / batch_size)
        n_threads = torch.get_num_threads()
        widest_layer = max([self.n_features_in_, *self.hidden_layer_sizes])
        with (
            FitProgress(self, max_iter, self.verbose, X_given, y, sample_weight) as progress,
            one_thread_if_small(batch_size * widest_layer),
            torch.autocast(device.type, enabled=False),  # the caller may have switched it on
        ):
            try:
                result = fit_flow(
                    flow,
                    train,
                    validation,
                    max_iter=max_iter,
                    batch_size=batch_size,
                    learning_rate=self.learning_rate,
                    weight_decay=self.weight_decay,
                    early_stopping=early_stopping,
                    n_iter_no_change=self.n_iter_no_change,
                    tol=self.tol,
                    generator=generator,
                    n_compiled_threads=n_threads if n_steps >= MIN_STEPS_FOR_COMPILED_KERNELS else 0,
                    on_epoch_end=lambda result: progress.end_epoch(
                        result.n_iter, result.stop_reason != "max_iter", lambda: fitted_attributes(result)
                    ),
                )
            except DivergedError as error:
                widest = names[np.flatnonzero(encoding.varies)[int(train.values.abs().amax(dim=0).argmax())]]
                raise ValueError(
                    f"Training of {type(self).__name__} diverged: {error}. The column with the most extreme value, in its own"
                    f" standard deviations, is {widest!r}: transform it (its logarithm, or ranks), or lower learning_rate."
                ) from error
            attributes = fitted_attributes(result)
            for name, value in attributes.items():
                setattr(self, name, value)
            progress.end_fit(f"stopped after {result.n_iter} epochs ({result.stop_reason})", attributes)
        self._warn_about_the_end(result)
        return self

    def _check_X_val(self, X_val, sample_weight_val):
        try:
            X_val = validate_data(self, X_val, reset=False, dtype=FLOAT_DTYPES, order="C")
            return X_val, check_sample_weight(sample_weight_val, X_val)
        except (TypeError, ValueError) as error:
            raise type(error)(f"X_val can't be used: {error}") from error

    def _hold_out(self, rows, weight, validation_rows, rng):
        """Split canonical rows.

        Returns the part to train on, the part to validate on (or None) and whether to stop early. A part is rows, their weights
        and the indices of those that belong to it: the rows themselves are copied only as they are encoded.
        """
        early_stopping = self.early_stopping
        if early_stopping == "auto":
            early_stopping = validation_rows is not None or len(rows) >= MIN_ROWS_FOR_EARLY_STOPPING
        if validation_rows is not None:
            rows_val, weight_val = validation_rows
            kept, validation = np.arange(len(rows)), (rows_val, weight_val, np.arange(len(rows_val)))
        elif early_stopping and len(rows) > 1:
            kept, held_out = split_off(len(rows), self.validation_fraction, rng)
            validation = (rows, weight, held_out)
        else:
            kept, validation = np.arange(len(rows)), None
        return (rows, weight, kept), validation, early_stopping

    def _choose_start(self, train, validation, continues, rng):
        """The whitening map and the base that training starts from."""
        whitening = torch.as_tensor(whitening_matrix(*_on_the_host(train)))
        if continues:
            base = self.flow_.base
            return whitening, copy.deepcopy(base).float() if isinstance(base, GaussianMixture) else None
        if self.base == "normal" or validation is None or not train.values.shape[1]:
            return whitening, None
        mixture, _ = choose_mixture(*_on_the_host(train), *_on_the_host(validation), rng)
        shares, means, precisions_cholesky = (torch.as_tensor(array) for array in mixture)
        if len(shares) == 1:
            return precisions_cholesky[0], None
        # As the whitened columns see it: P (z - mu) = P W^-1 (W z - W mu).
        precisions_cholesky = torch.linalg.solve_triangular(whitening, precisions_cholesky, upper=False, left=False)
        return whitening, GaussianMixture(shares, means @ whitening.T, precisions_cholesky)

    def _load_previous_weights(self, flow):
        if repr(flow) != repr(self.flow_):
            raise ValueError(
                "warm_start=True continues the training of flow_, but parameters that shape it have changed since that fit."
                " Set them back, or fit with warm_start=False."
            )
        flow.load_state_dict(self.flow_.state_dict())

    def _resolve_device(self):
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            if self.device == "meta":
                raise RuntimeError("it computes nothing")
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError) as error:  # torch without CUDA raises the latter
            raise ValueError(
                f"The 'device' parameter of {type(self).__name__} must be 'auto' or a device that torch can use here."
                f" Got {self.device!r} instead: {error}"
            ) from error

    def _warn_about_the_end(self, result):
        if result.stop_reason == "interrupted":
            warnings.warn(
                f"Training interrupted by the user after {result.n_iter} epochs; the best model so far is kept.",
                UserWarning,
                stacklevel=5,
            )
        elif result.stop_reason == "max_iter" and self.max_iter != "auto":
            curve = result.validation_scores or [-loss for loss in result.loss_curve]
            # Still rising: the last tenth of the epochs (or the patience, where that is shorter) beats all before.
            window = int(min(self.n_iter_no_change, max(1, len(curve) // 10)))
            if len(curve) == 1 or max(curve[-window:]) > max(curve[:-window]) + self.tol * window:
                warnings.warn(
                    f"{type(self).__name__} reached max_iter={self.max_iter} while its likelihood was still rising. Raise"
                    " max_iter, or leave it at 'auto'.",
                    ConvergenceWarning,
                    stacklevel=5,
                )

    def _map_rows(self, function, ask, X, out):
        """Fill ``out``, which may be ``X``, with ``function(answer, rows)``, in chunks that fit scikit-learn's working memory.

        ``answer`` is ``ask(flow)``, a method of the fitted flow or of its compiled twin, where that is worthwhile.
        """
        # From the fitted flow, not from parameters of the estimator: these may have been set anew since the fit.
        n_outputs = [len(parameter) for parameter in self.flow_.parameters()]
        # What all layers compute is kept until a chunk is done: their outputs, which the sum counts twice (weights and biases),
        # and nearly as much again.
        bytes_per_row = 8 * max(1, sum(n_outputs) + 4 * getattr(self.flow_.base, "n_components", 0) * self.n_features_in_)
        chunk = min(max(1, int(get_config()["working_memory"] * 2**20 / bytes_per_row)), MAX_CHUNK)
        n_scalars = len(X) * X.shape[1] * len(self.flow_.transform.transforms)
        n_threads = torch.get_num_threads()
        with torch.no_grad(), one_thread_if_small(min(len(X), chunk) * max(n_outputs)):
            flow = self.flow_
            if n_scalars >= MIN_SCALARS_FOR_COMPILED_KERNELS:
                row = torch.zeros(1, flow.base.n_features, dtype=torch.float64)
                flow = compiled_flow(flow, lambda flow: ask(flow)(row), n_threads)
            answer = ask(flow)
            workspace = Workspace()
            for batch in gen_batches(len(X), chunk):
                with workspace.round():
                    out[batch] = function(answer, X[batch])
        return out

    def score_samples(self, X):
        """Compute the log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Log-density in nats, with respect to the units of ``X``. Minus infinity where it is too low to be represented.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOAT_DTYPES)
        encoding = self.encoding_

        def log_density(log_prob_of, X):
            Z, log_det = encoding.encode(X)
            log_prob = log_prob_of(_as_tensor(Z[:, encoding.varies])).numpy()
            return log_prob + _log_density_of_constants(encoding, Z) + log_det

        with np.errstate(over="ignore"):  # what float32 can't hold is minus infinity
            return self._map_rows(log_density, attrgetter("log_prob"), X, np.empty(len(X), X.dtype))

    def sample(self, n_samples=1, random_state=None):
        """Draw rows from the density.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows.
        random_state : int, RandomState instance or None, default=None
            Source of the draws. Pass an int for reproducible ones.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            The rows, float64, in the units of the table.
        """
        check_is_fitted(self)
        check_n_samples(n_samples)
        generator = torch_generator(draw_seed(random_state))
        varies = self.encoding_.varies
        latents = np.empty((n_samples, self.n_features_in_))
        latents[:, varies] = self.flow_.base.sample(n_samples, generator).numpy()
        latents[:, ~varies] = torch.randn(n_samples, (~varies).sum(), generator=generator, dtype=torch.float64).numpy()
        return self._map_rows(self._decode_latents, attrgetter("from_base"), latents, latents)

    def transform(self, X):
        """Map rows to the latent space, where the fitted density is a standard normal.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Their latents.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOAT_DTYPES)
        varies = self.encoding_.varies

        def latents(to_latent, X):
            Z, _ = self.encoding_.encode(X)
            Z[:, varies] = to_latent(_as_tensor(Z[:, varies])).numpy()
            return Z

        return self._map_rows(latents, attrgetter("to_latent"), X, np.empty(X.shape, X.dtype))

    def inverse_transform(self, X):
        """Map latents back to rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Latents, as ``transform`` returns them.

        Returns
        -------
        ndarray of shape (n_samples, n_features)
            Rows in the units of the table.
        """
        check_is_fitted(self)
        X = check_array(X, dtype=FLOAT_DTYPES)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} features as input."
            )
        return self._map_rows(self._decode_latents, attrgetter("from_latent"), X, np.empty(X.shape, X.dtype))

    def _decode_latents(self, from_latent, latents):
        varies = self.encoding_.varies
        Z = latents.astype(np.float64)
        Z[:, varies] = from_latent(_as_tensor(Z[:, varies])).numpy()
        return self.encoding_.decode(Z)


def _check_layer_sizes(hidden_layer_sizes):
    if not all(isinstance(width, Integral) and width >= 1 for width in hidden_layer_sizes):
        raise ValueError(
            f"hidden_layer_sizes must hold integers of at least 1, the widths of layers. Got {hidden_layer_sizes!r}."
        )


def _encode_rows(encoding, rows, weight, indices, device):
    """Encode some of the rows for training: in float64 and kept in float32, a chunk at a time.

    Returns the encoded columns that vary, on the device, and the mean log-density that they lack to be one of ``rows``: the
    log-determinant of the encoding and the density of the constant columns.
    """
    weight = weight[indices]
    weight /= weight.mean()
    values = np.empty((len(indices), encoding.varies.sum()), dtype=np.float32)
    lacking = 0.0
    for chunk in gen_batches(len(indices), ENCODING_CHUNK):
        Z, log_det = encoding.encode(rows[indices[chunk]])
        values[chunk] = Z[:, encoding.varies]
        lacking += weight[chunk] @ (log_det + _log_density_of_constants(encoding, Z))
    on_device = Rows(torch.as_tensor(values, device=device), torch.as_tensor(weight, dtype=torch.float32, device=device))
    return on_device, float(lacking / weight.sum())


def _on_the_host(rows):
    return rows.values.numpy(force=True), rows.weight.numpy(force=True)


def _as_tensor(Z):
    # In memory that torch has aligned: on numpy's, which lies as it happens to, matrix products may round differently.
    return torch.from_numpy(Z).clone(memory_format=torch.contiguous_format)


def _log_density_of_constants(encoding, Z):
    constants = Z[:, ~encoding.varies]
    return -0.5 * (np.square(constants).sum(axis=1) + constants.shape[1] * np.log(2 * np.pi))
