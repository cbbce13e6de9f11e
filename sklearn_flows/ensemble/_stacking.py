"""Mixtures of densities of different kinds, weighted by how well each predicts rows that it hasn't seen."""

from contextlib import nullcontext
from numbers import Integral

import numpy as np
from scipy.special import logsumexp
from sklearn.base import DensityMixin, clone
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from ..compiled import compiled_kernels_in_any_case
from ..cross_fitting import draw_from_mixture, fit_members
from ..density import MixtureDensity, NeuralSplineFlowDensity
from ..density._base import BaseFlowDensity
from ..density._queries import FLOAT_DTYPES, MeanScoreMixin, check_n_samples
from ..encoding import warn_about_discrete_columns
from ..training import canonical_rows, mixture_weights
from ..utils._random import draw_seed, set_random_states
from ..utils._sklearn import BaseComposition, Interval, StrOptions, check_sample_weight, feature_names, fit_context
from ..utils._state import fitted_attributes_restored_on_error
from ._bagging import BaggingDensity

# Numbers of rows up to which a table is divided into so many parts; beyond, into FEWEST_PARTS.
PARTS = {3_000: 10, 20_000: 5}
FEWEST_PARTS = 3
# With so few rows, what falls into which part is a matter of luck, and fits are cheap.
MAX_ROWS_FOR_REPEATS, N_REPEATS = 1_000, 2


def default_estimators():
    """Densities of different kinds: flows from different starts, and what is hard to beat with few rows.

    Returns
    -------
    list of (str, estimator)
        Named densities.
    """
    return [
        ("flow", NeuralSplineFlowDensity(base="student", margins="bent", n_teachers=0)),
        ("flow_on_mixture", NeuralSplineFlowDensity(base="mixture", margins="linear", n_teachers=0)),
        ("flow_on_smooth_mixture", NeuralSplineFlowDensity(base="mixture", margins="smooth", n_teachers=0)),
        ("mixture", MixtureDensity(margins="linear")),
        ("smooth_mixture", MixtureDensity(margins="smooth")),
        ("elliptical", MixtureDensity(1, margins="linear")),
        ("smooth_elliptical", MixtureDensity(1, margins="smooth")),
        ("product", MixtureDensity(1, covariance_type="diag", margins="smooth")),
    ]


class StackingDensity(MeanScoreMixin, DensityMixin, BaseComposition):
    """Mixture of densities of different kinds, each weighted by how well it predicts rows that it hasn't seen.

    The rows are divided into parts, once or several times. For each part, each density is fitted to the others, and the weights
    are those that make the rows likeliest, each under the densities that were fitted without it [1]_. A kind of density is
    represented by the mean of its fits: no row is lost. The result is hardly ever worse than the best of its densities,
    whichever that is, and usually better than all. It is the density to take where the likelihood matters most and a fit may
    take a minute.

    Parameters
    ----------
    estimators : list of (str, estimator), default=None
        Named densities with ``fit``, ``score_samples`` and ``sample``; scikit-learn's too. None stands for three neural spline
        flows from different starts, two mixtures, two multivariate Student t distributions (the normal among them) and a
        product of densities of single columns.
    n_parts : int or "auto", default="auto"
        Number of parts. "auto" takes 10, with more than 3,000 distinct rows 5 and with more than 20,000 rows 3.
    n_repeats : int or "auto", default="auto"
        How often the rows are divided anew, with as many fits again. "auto" takes 2, with more than 1,000 distinct rows 1.
    n_jobs : int, default=None
        Number of fits at the same time, in threads. None means as many as torch has threads, -1 all processors.
    verbose : int, default=0
        Whether to tell of each fit that it is done. For what the densities tell set their own.
    random_state : int, RandomState instance or None, default=None
        Source of the division into parts and of the seeds of the densities. Pass an int for reproducible fits.

    Attributes
    ----------
    estimators_ : list of BaggingDensity
        One for each density: the mean of its fits, in their order.
    named_estimators_ : Bunch
        The same by name.
    weights_ : ndarray of shape (n_estimators,)
        Their weights in the mixture.
    out_of_part_scores_ : ndarray of shape (n_estimators,)
        Mean log-likelihood, in nats, of rows under each density that was fitted without them; with several repeats, under the
        mean of such fits.
    n_features_in_ : int
        Number of columns of ``X``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when ``X`` has column names that are all strings.

    See Also
    --------
    BaggingDensity : The mean of densities of one kind, with equal weights.
    NeuralSplineFlowDensity : A single flow, with a latent space.
    sklearn.ensemble.StackingClassifier : The same idea for classifiers.

    Notes
    -----
    A fit takes as long as ``n_parts * n_repeats`` fits of all densities, divided by the number of threads. A mixture of
    densities has no latent space, so there is no ``transform``.

    References
    ----------
    .. [1] Smyth and Wolpert, "Linearly Combining Density Estimators via Stacking", Machine Learning 36, 1999.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neighbors import KernelDensity
    >>> from sklearn_flows import MixtureDensity, StackingDensity
    >>> X = load_iris().data[:, 2:]
    >>> estimators = [("mixture", MixtureDensity()), ("kernels", KernelDensity(bandwidth=0.2))]
    >>> density = StackingDensity(estimators, n_parts=5, random_state=0).fit(X)
    >>> density.weights_.shape
    (2,)
    >>> density.sample(3, random_state=0).shape
    (3, 2)
    """

    _parameter_constraints = {
        "estimators": [list, None],
        "n_parts": [Interval(Integral, 2, None, closed="left"), StrOptions({"auto"})],
        "n_repeats": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(self, estimators=None, *, n_parts="auto", n_repeats="auto", n_jobs=None, verbose=0, random_state=None):
        self.estimators = estimators
        self.n_parts = n_parts
        self.n_repeats = n_repeats
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    def get_params(self, deep=True):
        """Get the parameters of this estimator and those of the densities in it.

        Parameters
        ----------
        deep : bool, default=True
            Whether to include the densities and their parameters.

        Returns
        -------
        dict
            Parameter names and values.
        """
        return self._get_params("estimators", deep=deep)

    def set_params(self, **params):
        """Set the parameters of this estimator, densities by their names and parameters of densities by ``name__parameter``.

        Parameters
        ----------
        **params : keyword arguments
            Parameter names and values.

        Returns
        -------
        self : object
            The estimator.
        """
        self._set_params("estimators", **params)
        return self

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the densities and their weights.

        Rows are a set: their order doesn't matter, a weight of 2 is the same as a repeated row and a weight of 0 the same as a
        missing one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; only their ratios matter. None means equal weights.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input isn't a finite numeric table, if all weights are zero, if there are weights that a density can't take,
            or if a density can't be fitted or scores rows with NaN.
        """
        with fitted_attributes_restored_on_error(self):
            return self._fit(X, sample_weight)

    def _fit(self, X_given, sample_weight):
        X = validate_data(self, X_given, dtype=FLOAT_DTYPES, order="C")
        names, estimators = self._named_estimators()
        if sample_weight is not None:
            refusing = [n for n, e in zip(names, estimators, strict=True) if not has_fit_parameter(e, "sample_weight")]
            if refusing:
                raise ValueError(f"fit of {refusing} takes no sample_weight, so there must be none here.")
        weight = check_sample_weight(sample_weight, X)
        warn_about_discrete_columns(X if weight.all() else X[weight > 0], feature_names(X_given, X.shape[1]))
        rng = np.random.RandomState(draw_seed(self.random_state))
        n_given = len(X)
        rows, weight = canonical_rows(X, weight)
        n_parts = min(_default_parts(len(rows)) if self.n_parts == "auto" else self.n_parts, len(rows))
        n_repeats = _default_repeats(len(rows)) if self.n_repeats == "auto" else self.n_repeats
        # They load the kernels anyway.
        holds_flows = any(isinstance(estimator, BaseFlowDensity) for estimator in estimators)
        members = [[] for _ in estimators]
        log_densities = np.full((len(estimators), len(rows)), -np.inf)
        for _ in range(n_repeats):
            part = rng.permutation(len(rows)) % n_parts
            fits = [[clone(estimator) for _ in range(n_parts)] for estimator in estimators]
            for member in [member for kind in fits for member in kind]:
                set_random_states(member, rng)
            # Parts first: the slowest densities don't come last all at once.
            in_turn = [kind[k] for k in range(n_parts) for kind in fits]
            left_out = [k for k in range(n_parts) for _ in fits]
            with compiled_kernels_in_any_case() if holds_flows else nullcontext():
                fit_members(in_turn, left_out, rows, weight, part, n_given, self.n_jobs, self.verbose)
            for i, kind in enumerate(fits):
                for k, member in enumerate(kind):
                    mine = part == k
                    with np.errstate(invalid="ignore"):  # what is NaN gets an error below
                        log_densities[i, mine] = np.logaddexp(log_densities[i, mine], member.score_samples(rows[mine]))
                members[i] += kind
        log_densities -= np.log(n_repeats)
        for name, log_density in zip(names, log_densities, strict=True):
            if np.isnan(log_density).any():
                raise ValueError(f"The density {name!r} scores {np.isnan(log_density).sum()} rows with NaN: leave it out.")
        self.weights_ = mixture_weights(log_densities, weight)
        self.out_of_part_scores_ = log_densities @ weight / len(rows)
        self.estimators_ = [self._mean(estimator, fits) for estimator, fits in zip(estimators, members, strict=True)]
        self.named_estimators_ = Bunch(**dict(zip(names, self.estimators_, strict=True)))
        return self

    def _named_estimators(self):
        named = default_estimators() if self.estimators is None else self.estimators
        if not named:
            raise ValueError("estimators is empty: give pairs of a name and a density, or None for the default ones.")
        try:
            names, estimators = zip(*named, strict=True)
        except (TypeError, ValueError) as error:
            raise ValueError(f"estimators must be a list of pairs (name, density). Got {named!r}.") from error
        self._validate_names(names)
        for name, estimator in zip(names, estimators, strict=True):
            lacking = [method for method in ("fit", "score_samples", "sample") if not hasattr(estimator, method)]
            if lacking:
                raise ValueError(f"{name!r} is no density: {type(estimator).__name__} has no {lacking[0]}.")
        return names, estimators

    def _mean(self, estimator, fits):
        mean = BaggingDensity(estimator, n_estimators=len(fits))
        mean.estimator_, mean.estimators_, mean.n_features_in_ = estimator, fits, self.n_features_in_
        return mean

    def score_samples(self, X):
        """Compute the log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Log-density in nats, with respect to the units of ``X``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOAT_DTYPES)
        double = X.astype(np.float64, copy=False)
        log_densities = np.stack([estimator.score_samples(double) for estimator in self.estimators_])
        return logsumexp(log_densities + np.log(self.weights_)[:, None], axis=0).astype(X.dtype, copy=False)

    def sample(self, n_samples=1, random_state=None):
        """Draw rows: each from a density that is drawn too.

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
        rng = np.random.RandomState(draw_seed(random_state))
        return draw_from_mixture(self.estimators_, self.weights_, n_samples, rng)


def _default_parts(n_rows):
    for most, n_parts in PARTS.items():
        if n_rows <= most:
            return n_parts
    return FEWEST_PARTS


def _default_repeats(n_rows):
    return N_REPEATS if n_rows <= MAX_ROWS_FOR_REPEATS else 1
