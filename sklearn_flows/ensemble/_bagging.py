"""Averages of densities."""

from numbers import Integral

import numpy as np
from scipy.special import logsumexp
from sklearn.base import BaseEstimator, DensityMixin, MetaEstimatorMixin, clone
from sklearn.utils.validation import check_is_fitted, has_fit_parameter, validate_data

from ..cross_fitting import draw_from_mixture, fit_members
from ..density import NeuralSplineFlowDensity
from ..density._queries import FLOAT_DTYPES, MeanScoreMixin, check_n_samples
from ..encoding import warn_about_discrete_columns
from ..training import canonical_rows
from ..utils._random import draw_seed, set_random_states
from ..utils._sklearn import HasMethods, Interval, check_sample_weight, feature_names, fit_context
from ..utils._state import fitted_attributes_restored_on_error

# What the members differ in, in turn, where the user names no estimator.
DEFAULT_MEMBERS = (
    {"base": "student", "margins": "bent"},
    {"base": "mixture", "margins": "smooth"},
    {"base": "mixture", "margins": "linear"},
)


class BaggingDensity(MetaEstimatorMixin, MeanScoreMixin, DensityMixin, BaseEstimator):
    """Mean of densities that are fitted to different parts of a table.

    The rows are divided into as many parts as there are members. Each member is fitted to all parts but one, and stops when the
    likelihood of that one no longer rises: every row serves to train most of the members and to stop one of them, so none is
    lost. The density is the mean of the members' densities [1]_, which is never worse than a member is in the mean, and for
    small tables much better.

    Parameters
    ----------
    estimator : estimator object, default=None
        The density to fit, with ``fit``, ``score_samples`` and ``sample``; scikit-learn's too. None stands for
        ``NeuralSplineFlowDensity``, where members take turns in their ``base`` and ``margins``: members that differ make a
        better mean. Where its ``fit`` has no parameter ``X_val``, the part that is left out isn't used.
    n_estimators : int, default=10
        Number of members, and of parts. With fewer distinct rows there are fewer.
    n_jobs : int, default=None
        Number of members that are fitted at the same time, in threads. None means as many as torch has threads, -1 all
        processors.
    verbose : int, default=0
        Whether to tell of each member that it is fitted. For what the members tell set their own.
    random_state : int, RandomState instance or None, default=None
        Source of the division into parts and of the seeds of the members. Pass an int for reproducible fits.

    Attributes
    ----------
    estimator_ : estimator object
        The unfitted density that the members are copies of.
    estimators_ : list of estimator objects
        The fitted members.
    n_features_in_ : int
        Number of columns of ``X``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when ``X`` has column names that are all strings.

    See Also
    --------
    NeuralSplineFlowDensity : The default member.
    sklearn.ensemble.BaggingClassifier : The same idea for classifiers.

    Notes
    -----
    A fit takes as long as ``n_estimators`` fits of the member, divided by the number of threads. A mean of densities has no
    latent space, so there is no ``transform``.

    References
    ----------
    .. [1] Breiman, "Bagging Predictors", Machine Learning 24, 1996; for densities Ormoneit and Tresp, "Averaging, Maximum
       Penalized Likelihood and Bayesian Estimation for Improving Gaussian Mixture Probability Density Estimates", IEEE
       Transactions on Neural Networks 9(4), 1998.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn_flows import BaggingDensity
    >>> X = load_iris().data[:, 2:] + 0.1 * np.random.RandomState(0).rand(150, 2)
    >>> density = BaggingDensity(n_estimators=3, random_state=0).fit(X)
    >>> log_density, spread = density.score_samples(X[:4], return_std=True)
    >>> log_density.shape, spread.shape
    ((4,), (4,))
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "score_samples", "sample"]), None],
        "n_estimators": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(self, estimator=None, n_estimators=10, *, n_jobs=None, verbose=0, random_state=None):
        self.estimator = estimator
        self.n_estimators = n_estimators
        self.n_jobs = n_jobs
        self.verbose = verbose
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, sample_weight=None):
        """Fit the members.

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
            If the input isn't a finite numeric table, if all weights are zero, if there are weights that the member can't take,
            or if a member can't be fitted.
        """
        with fitted_attributes_restored_on_error(self):
            return self._fit(X, sample_weight)

    def _fit(self, X_given, sample_weight):
        X = validate_data(self, X_given, dtype=FLOAT_DTYPES, order="C")
        estimator = NeuralSplineFlowDensity(n_teachers=0) if self.estimator is None else clone(self.estimator)
        takes_weights = has_fit_parameter(estimator, "sample_weight")
        if sample_weight is not None and not takes_weights:
            raise ValueError(f"{type(estimator).__name__}.fit takes no sample_weight, so there must be none here.")
        weight = check_sample_weight(sample_weight, X)
        warn_about_discrete_columns(X if weight.all() else X[weight > 0], feature_names(X_given, X.shape[1]))
        rng = np.random.RandomState(draw_seed(self.random_state))
        n_given = len(X)
        rows, weight = canonical_rows(X, weight)
        n_members = min(self.n_estimators, len(rows))
        part = rng.permutation(len(rows)) % n_members
        members = []
        for k in range(n_members):
            members.append(clone(estimator))
            if self.estimator is None:
                members[-1].set_params(**DEFAULT_MEMBERS[k % len(DEFAULT_MEMBERS)])
            set_random_states(members[-1], rng)

        fit_members(members, range(n_members), rows, weight, part, n_given, self.n_jobs, self.verbose)
        self.estimator_, self.estimators_ = estimator, members
        return self

    def score_samples(self, X, return_std=False):
        """Compute the log-density of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        return_std : bool, default=False
            Whether to return also how far the members disagree.

        Returns
        -------
        log_density : ndarray of shape (n_samples,)
            Logarithm of the mean of the members' densities, in nats, with respect to the units of ``X``.
        std : ndarray of shape (n_samples,)
            Standard deviation of the members' log-densities. Only if ``return_std``.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=FLOAT_DTYPES)
        log_densities = np.stack([member.score_samples(X).astype(np.float64) for member in self.estimators_])
        log_density = (logsumexp(log_densities, axis=0) - np.log(len(log_densities))).astype(X.dtype, copy=False)
        if not return_std:
            return log_density
        return log_density, log_densities.std(axis=0).astype(X.dtype, copy=False)

    def sample(self, n_samples=1, random_state=None):
        """Draw rows: each from a member that is drawn too.

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
        shares = np.full(len(self.estimators_), 1 / len(self.estimators_))
        return draw_from_mixture(self.estimators_, shares, n_samples, np.random.RandomState(draw_seed(random_state)))
