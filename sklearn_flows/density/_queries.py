"""What queries of all densities share."""

from numbers import Integral

import numpy as np
import torch
from sklearn import get_config
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, DensityMixin, TransformerMixin
from sklearn.utils import check_array, gen_batches
from sklearn.utils.validation import check_is_fitted, validate_data

from .._workspace import Workspace
from ..compiled import compiled_flow, kernels_serve_in_any_case
from ..utils._random import draw_seed, torch_generator
from ..utils._sklearn import check_sample_weight
from ..utils._threads import one_thread_if_small

FLOAT_DTYPES = [np.float64, np.float32]
# Compiled kernels serve where they save more time than it takes to load them. That depends on the call alone, so that the same
# call gives the same bits.
MIN_SCALARS_FOR_COMPILED_KERNELS = 2**18
# Rows mapped at once: more would not be faster, and leave the cache.
MAX_CHUNK = 1024


class MeanScoreMixin:
    """``score`` of a density: the mean of ``score_samples``."""

    def score(self, X, y=None, sample_weight=None):
        """Compute the mean log-density of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the mean.

        Returns
        -------
        float
            Mean of ``score_samples(X)``, in nats.
        """
        log_density = self.score_samples(X)
        weight = check_sample_weight(sample_weight, log_density)
        # Rows of weight zero are absent: minus infinity times zero would not be.
        counts = weight > 0
        return float(np.average(log_density[counts].astype(np.float64, copy=False), weights=weight[counts]))


def check_n_samples(n_samples):
    """Raise an error unless it is a number of rows to draw.

    Parameters
    ----------
    n_samples : object
        What the user gave.
    """
    if not isinstance(n_samples, Integral) or isinstance(n_samples, bool) or n_samples < 1:
        raise ValueError(
            f"Invalid value for 'n_samples': {n_samples!r}. The number of rows to draw must be an integer of at least 1."
        )


class BaseLatentDensity(ClassNamePrefixFeaturesOutMixin, TransformerMixin, MeanScoreMixin, DensityMixin, BaseEstimator):
    """Queries of a density with a latent space: an encoding of the columns, ``encoding_``, and a flow over it, ``flow_``."""

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    @property
    def _n_features_out(self):
        return self.n_features_in_

    def _check_X_val(self, X_val, sample_weight_val):
        try:
            X_val = validate_data(self, X_val, reset=False, dtype=FLOAT_DTYPES, order="C")
            return X_val, check_sample_weight(sample_weight_val, X_val)
        except (TypeError, ValueError) as error:
            raise type(error)(f"X_val can't be used: {error}") from error

    def _map_rows(self, function, asked, X, out):
        """Fill ``out``, which may be ``X``, with ``function(answer, rows)``, in chunks that fit scikit-learn's working memory.

        ``answer`` is the method ``asked`` of the fitted flow, or of its compiled twin where that is worthwhile.
        """
        # From the fitted flow, not from parameters of the estimator: these may have been set anew since the fit.
        n_outputs = layer_widths(self.flow_) or [self.n_features_in_]
        # What all layers compute is kept until a chunk is done: their outputs, which the sum counts twice (weights and biases),
        # and nearly as much again.
        bytes_per_row = 8 * max(1, sum(n_outputs) + 4 * getattr(self.flow_.base, "n_components", 0) * self.n_features_in_)
        chunk = min(max(1, int(get_config()["working_memory"] * 2**20 / bytes_per_row)), MAX_CHUNK)
        n_scalars = len(X) * X.shape[1] * len(self.flow_.transform.transforms)
        n_threads = torch.get_num_threads()
        with torch.no_grad(), one_thread_if_small(min(len(X), chunk) * max(n_outputs)):
            flow = self.flow_
            if n_scalars >= (1 if kernels_serve_in_any_case() else MIN_SCALARS_FOR_COMPILED_KERNELS):
                row = torch.zeros(1, flow.base.n_features, dtype=torch.float64)
                flow = compiled_flow(flow, [asked], [row], n_threads)
            answer = getattr(flow, asked)
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
            return log_prob + log_density_of_constants(encoding, Z) + log_det

        with np.errstate(over="ignore"):  # what float32 can't hold is minus infinity
            return self._map_rows(log_density, "log_prob", X, np.empty(len(X), X.dtype))

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
        return self._map_rows(self._decode_latents, "from_base", latents, latents)

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

        return self._map_rows(latents, "to_latent", X, np.empty(X.shape, X.dtype))

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
        return self._map_rows(self._decode_latents, "from_latent", X, np.empty(X.shape, X.dtype))

    def _decode_latents(self, from_latent, latents):
        varies = self.encoding_.varies
        Z = latents.astype(np.float64)
        Z[:, varies] = from_latent(_as_tensor(Z[:, varies])).numpy()
        return self.encoding_.decode(Z)


def _as_tensor(Z):
    # In memory that torch has aligned: on numpy's, which lies as it happens to, matrix products may round differently.
    return torch.from_numpy(Z).clone(memory_format=torch.contiguous_format)


def layer_widths(flow):
    """How many numbers the layers of a flow compute of one row, those of weights and those of biases counted each.

    Parameters
    ----------
    flow : Flow
        The flow.

    Returns
    -------
    list of int
        The numbers.
    """
    return [
        len(parameter) * getattr(module, "n_positions", 1)
        for module in flow.modules()
        for parameter in module.parameters(recurse=False)
    ]


def log_density_of_constants(encoding, Z):
    """Log-density of the latents of constant columns.

    Parameters
    ----------
    encoding : TableEncoding
        Tells which columns are constant.
    Z : ndarray of shape (n_samples, n_features)
        Encoded rows.

    Returns
    -------
    ndarray of shape (n_samples,)
        Log-densities.
    """
    constants = Z[:, ~encoding.varies]
    return -0.5 * (np.square(constants).sum(axis=1) + constants.shape[1] * np.log(2 * np.pi))
