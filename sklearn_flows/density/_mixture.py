"""Mixtures of normal or Student t distributions over smoothed columns: the densities to begin with."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils.validation import validate_data

from ..distributions import StandardNormal, StudentMixture
from ..encoding import MARGINS, TableEncoding, warn_about_discrete_columns
from ..flows import Flow
from ..training import canonical_rows, choose_mixture, split_off, whitening_matrix
from ..transforms import Composed
from ..utils._random import draw_seed
from ..utils._sklearn import Interval, StrOptions, check_sample_weight, feature_names, fit_context
from ..utils._state import fitted_attributes_restored_on_error
from ..utils._threads import one_thread
from ._queries import FLOAT_DTYPES, BaseLatentDensity

# A mixture gains from more rows than one does that a flow starts from, and which the flow makes up for.
MAX_ROWS = 10_000
# Of the background. Samples still have a variance.
DF_OF_BACKGROUND = 3.0


class MixtureDensity(BaseLatentDensity):
    """Density of a table by a regularised mixture of Student t distributions, which held-out rows choose.

    Where ``sklearn.mixture.GaussianMixture`` leaves the number of components to its user, this class tries several, and several
    strengths of a prior that draws the covariances to a common one and that to its diagonal [1]_. Components may have heavier
    tails than a normal distribution [2]_. What it gives is a mixture of all that it has tried [3]_. It is at its best with few
    rows; of many it sees 10,000, drawn at random.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        Number of components. "auto" chooses it.
    covariance_type : {"full", "diag"}, default="full"
        Whether columns may depend on each other within a component. "full" tries independent ones too where it chooses
        ``n_components``.
    margins : {"linear", "bent", "smooth"}, default="linear"
        What is done with each column first: standardised; bent too, by an inverse hyperbolic sine, if its tails are clearly
        heavier than a Gaussian's; or turned into a normal one by a kernel density estimate. With "smooth", one component and
        covariance type "diag" the density is, but for the background, a product of densities of single columns.
    min_prior_rows : float, default=1e-8
        How many rows the weakest prior that is tried counts for, for each column. With few a component may be a ten-thousandth
        as wide as others in some direction, as spikes and columns that nearly depend on each other need. Where such components
        would follow what isn't to be learned, as in outlier detection, take 0.5.
    background : bool, default=True
        Whether there is one more component for rows that are like none before: a Student t distribution of 3 degrees of freedom
        as wide as the table, with the share of one row. So a row far from all others costs a density little; without it, it may
        cost more than all other rows together.
    combine : bool, default=True
        Whether to combine all mixtures that were tried, with the weights that make the held-out rows likeliest, or to keep the
        best one: with fewer components, but less likely. With a given ``n_components`` the best one is kept.
    validation_fraction : float, default=0.1
        Share of the distinct rows to choose by, unless ``fit`` is given ``X_val``.
    random_state : int, RandomState instance or None, default=None
        Source of the held-out rows and of where components begin. Pass an int for reproducible fits.

    Attributes
    ----------
    n_components_ : int
        Number of components, without the background.
    df_ : ndarray of shape (`n_components_`,)
        Degrees of freedom of the components; infinity for normal ones.
    flow_ : Flow
        The mixture over the encoded columns that vary, a ``torch.nn.Module`` in float64.
    encoding_ : TableEncoding
        The fitted map of the table's columns to the space of ``flow_``.
    n_features_in_ : int
        Number of columns of ``X``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when ``X`` has column names that are all strings.

    See Also
    --------
    NeuralSplineFlowDensity : A flow, which may start from such a mixture.
    sklearn.mixture.GaussianMixture : Mixtures with all components and no prior.

    Notes
    -----
    Latents are normal quantiles: of each column's conditional distribution, given those before (Rosenblatt's transformation).

    References
    ----------
    .. [1] Fraley and Raftery, "Bayesian Regularization for Normal Mixture Estimation and Model-Based Clustering", Journal of
       Classification 24, 2007.
    .. [2] Peel and McLachlan, "Robust Mixture Modelling Using the t Distribution", Statistics and Computing 10, 2000.
    .. [3] Smyth and Wolpert, "Linearly Combining Density Estimators via Stacking", Machine Learning 36, 1999.

    Examples
    --------
    >>> from sklearn.datasets import make_moons
    >>> from sklearn_flows import MixtureDensity
    >>> X, _ = make_moons(500, noise=0.1, random_state=0)
    >>> density = MixtureDensity(random_state=0).fit(X)
    >>> density.n_components_ > 4
    True
    >>> density.score_samples(X[:2]).shape
    (2,)
    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "covariance_type": [StrOptions({"full", "diag"})],
        "margins": [StrOptions(set(MARGINS))],
        "min_prior_rows": [Interval(Real, 0, None, closed="neither")],
        "background": ["boolean"],
        "combine": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components="auto",
        *,
        covariance_type="full",
        margins="linear",
        min_prior_rows=1e-8,
        background=True,
        combine=True,
        validation_fraction=0.1,
        random_state=None,
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.margins = margins
        self.min_prior_rows = min_prior_rows
        self.background = background
        self.combine = combine
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, *, X_val=None, sample_weight_val=None):
        """Fit the density to a table.

        Rows are a set: their order doesn't matter, a weight of 2 is the same as a repeated row and a weight of 0 the same as a
        missing one.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows; arrays, lists, pandas and polars data frames of finite numbers.
        y : Ignored
            Not used, present for API consistency by convention.
        sample_weight : array-like of shape (n_samples,), default=None
            Non-negative weights; only their ratios matter. None means equal weights.
        X_val : array-like of shape (n_validation_samples, n_features), default=None
            Rows to choose by, instead of a part of ``X``.
        sample_weight_val : array-like of shape (n_validation_samples,), default=None
            Weights of the rows of ``X_val``.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the input isn't a finite numeric table or if all weights are zero.
        """
        with fitted_attributes_restored_on_error(self):
            return self._fit(X, sample_weight, X_val, sample_weight_val)

    def _fit(self, X_given, sample_weight, X_val, sample_weight_val):
        X = validate_data(self, X_given, dtype=FLOAT_DTYPES, order="C")
        weight = check_sample_weight(sample_weight, X)
        validation = None if X_val is None else canonical_rows(*self._check_X_val(X_val, sample_weight_val))
        warn_about_discrete_columns(X if weight.all() else X[weight > 0], feature_names(X_given, X.shape[1]))
        rng = np.random.RandomState(draw_seed(self.random_state))
        rows, weight = canonical_rows(X, weight)
        self.encoding_ = TableEncoding.fit(rows, weight, self.margins)
        if not self.encoding_.varies.any():
            base, self.n_components_, self.df_ = StandardNormal(0), 1, np.full(1, np.inf)
        else:
            if validation is None:
                kept, held_out = split_off(len(rows), self.validation_fraction, rng)
                validation = rows[held_out], weight[held_out]
                rows, weight = rows[kept], weight[kept]
            base = self._choose(rows, weight, *validation, rng)
        self.flow_ = Flow(Composed([]), base).double().requires_grad_(False).eval()
        return self

    def _choose(self, rows, weight, rows_val, weight_val, rng):
        varies = self.encoding_.varies
        Z = self.encoding_.encode(rows)[0][:, varies]
        with one_thread():
            mixture, _ = choose_mixture(
                Z,
                weight,
                self.encoding_.encode(rows_val)[0][:, varies],
                weight_val,
                rng,
                None if self.n_components == "auto" else self.n_components,
                self.covariance_type == "diag",
                max_rows=MAX_ROWS,
                min_prior_rows=self.min_prior_rows,
                combine=self.combine and self.n_components == "auto",
            )
        self.n_components_, self.df_ = len(mixture.shares), mixture.df
        shares, means, precisions_cholesky, df = mixture
        if self.background:
            n_features = Z.shape[1]
            whitening = np.eye(n_features) if self.covariance_type == "diag" else whitening_matrix(Z, weight)
            share = 1 / (weight.sum() + 1)
            shares = np.append((1 - share) * shares, share)
            means = np.vstack([means, np.zeros(n_features)])
            precisions_cholesky = np.concatenate([precisions_cholesky, whitening[None]])
            df = np.append(df, DF_OF_BACKGROUND)
        return StudentMixture(*map(torch.as_tensor, (shares, means, precisions_cholesky, df)))
