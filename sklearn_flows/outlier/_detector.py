"""The detector: scores from many densities, a threshold, and what is known about rows that no density has seen."""

from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, OutlierMixin, clone
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted, validate_data

from ..cross_fitting import in_threads
from ..encoding import discrete_columns_warned_about, is_constant
from ..training import canonical_rows
from ..utils._random import MAX_SEED, draw_seed
from ..utils._sklearn import HasMethods, Interval, StrOptions, fit_context
from ..utils._state import fitted_attributes_restored_on_error
from ._calibration import benjamini_hochberg, conformal_p_values
from ._members import MAX_DEFAULT_COLUMNS, MAX_DEFAULT_ROWS, default_kinds, draw_features, fit_member, grid_steps, in_support
from ._reasons import ordinary_ranges, repair, typical_values
from ._scores import SCORES, log_densities

# Tukey's inner fence: so many interquartile ranges under the lower quartile.
FENCE = 1.5


class FlowOutlierDetector(MetaEstimatorMixin, OutlierMixin, BaseEstimator):
    """Outliers are rows of low density: a detector over the densities of this package.

    The rows are divided into parts. For each part, densities are fitted to rows of the others, and the score of a row is the
    mean of all log-densities, unless you choose another. What each density leaves out serves to say how often a normal row
    scores as low.

    Parameters
    ----------
    estimator : estimator object, default=None
        The density to fit, with ``fit`` and ``score_samples``; scikit-learn's too. None stands for the package's own choice:
        for each part a ``MixtureDensity()``, one with ``margins="bent"`` and one of these of a single component.
    n_parts : int, default=5
        Number of parts. With 1 each density may see all rows, and there are no p-values. There are never more parts than pairs
        of rows.
    max_samples : int or "auto", default="auto"
        Number of rows that a density is fitted to, drawn at random from those that it may see. "auto" is 1,000 for the
        package's own choice and all of them for yours.
    score_type : {"log_density", "typicality", "latent", "waic"}, default="log_density"
        What the score of a row is. The higher, the more normal.

        - "log_density": the mean of its log-densities.
        - "typicality": minus the mean distance of its log-densities from those of typical rows [2]_. Rows that are too likely
          are outliers too. Typical for a density is the median of the rows that it may see.
        - "latent": minus half the squared norm of its latents, in the mean. But for a constant this is their log-density, as
          they are standard normal; how much the map to them stretches space doesn't count [3]_. Needs densities with
          ``transform``.
        - "waic": the mean of its log-densities less their variance [4]_. Rows that the densities disagree on are outliers too.
    support_fraction : float, default=1.0
        Share of the rows that the densities may see in the end, in (0, 1]. With less than 1 they are fitted twice: the second
        time without the rows that score lowest after the first, among which outliers of the training rows should be.
    contamination : "auto" or float, default="auto"
        Share of the training rows that are outliers, at most 0.5: so many of them are under the threshold. "auto" puts the
        threshold at Tukey's fence of their scores, 1.5 interquartile ranges under the lower quartile [1]_.
    n_jobs : int, default=None
        Number of densities that are fitted, or score, at the same time, in threads. None means as many as torch has threads,
        or one where ``estimator`` is None: mixtures of so few rows only wait for one another. -1 means all processors.
    random_state : int, RandomState instance or None, default=None
        Source of the division into parts, of the rows drawn, of the noise on discrete columns and of the densities' seeds. Pass
        an int for reproducible fits.

    Attributes
    ----------
    estimators_ : list of list of estimator objects
        The fitted densities: those that haven't seen the first part, the second, …
    estimators_features_ : list of list of ndarray
        The columns that each of them sees: all, unless the package chose the densities and the table has more than 40.
    offset_ : float
        The threshold: ``decision_function`` is ``score_samples`` less this.
    score_type_ : str
        The ``score_type`` of the fit.
    training_scores_ : ndarray of shape (n_samples,)
        Scores of the training rows, ascending.
    calibration_scores_ : list of ndarray
        For each part, ascending scores of its rows under the densities that haven't seen them. Empty with a single part.
    discrete_features_ : ndarray of shape (n_features,), dtype bool
        Which columns hold few values, each many times, or only one.
    typical_log_densities_ : ndarray of shape (n_parts, n_densities_of_part) or None
        For each density the median log-density of the rows that it may see; None unless ``score_type`` is "typicality".
    typical_values_ : list of ndarray
        For each column ascending values that ``explain`` tries.
    n_features_in_ : int
        Number of columns of ``X``.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns. Defined only when ``X`` has column names that are all strings.

    See Also
    --------
    FeatureSurpriseDisplay : A picture of ``explain``.
    sklearn.ensemble.IsolationForest : Isolates rows by random cuts.
    sklearn.neighbors.LocalOutlierFactor : Compares the density of a row with that of its neighbours.

    Notes
    -----
    Training rows may hold outliers. Densities that see few rows are less likely to follow a group of them, and the mean of
    logarithms, unlike that of densities, is low where only some of the densities know the row [5]_.

    A density may be as high as it likes at values that repeat. So the densities are fitted to rows with uniform noise of one
    grid step on discrete columns.

    Rows are a set: their order doesn't matter.

    References
    ----------
    .. [1] Tukey, "Exploratory Data Analysis", 1977.
    .. [2] Nalisnick, Matsukawa, Teh and Lakshminarayanan, "Detecting Out-of-Distribution Inputs to Deep Generative Models Using
       Typicality", 2019.
    .. [3] Rudolph, Wandt and Rosenhahn, "Same Same But DifferNet: Semi-Supervised Defect Detection with Normalizing Flows",
       Proceedings of WACV, 2021.
    .. [4] Choi, Jang and Alemi, "WAIC, but Why? Generative Ensembles for Robust Anomaly Detection", 2018.
    .. [5] Zimek, Gaudet, Campello and Sander, "Subsampling for Efficient and Effective Unsupervised Outlier Detection
       Ensembles", Proceedings of KDD, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_flows import FlowOutlierDetector
    >>> X = np.random.RandomState(0).standard_normal((200, 2))
    >>> detector = FlowOutlierDetector(random_state=0).fit(X)
    >>> detector.predict([[0.0, 0.5], [4.0, -4.0]])
    array([ 1, -1])
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "score_samples"]), None],
        "n_parts": [Interval(Integral, 1, None, closed="left")],
        "max_samples": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "score_type": [StrOptions(set(SCORES))],
        "support_fraction": [Interval(Real, 0, 1, closed="right")],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator=None,
        *,
        n_parts=5,
        max_samples="auto",
        score_type="log_density",
        support_fraction=1.0,
        contamination="auto",
        n_jobs=None,
        random_state=None,
    ):
        self.estimator = estimator
        self.n_parts = n_parts
        self.max_samples = max_samples
        self.score_type = score_type
        self.support_fraction = support_fraction
        self.contamination = contamination
        self.n_jobs = n_jobs
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit the densities and set the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows, finite numbers.
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            If the input isn't a finite numeric table, if a density can't be fitted, or if it has no ``transform`` and
            ``score_type`` is "latent".
        """
        with fitted_attributes_restored_on_error(self):
            return self._fit(X)

    def _fit(self, X):
        X = validate_data(self, X, dtype=np.float64, order="C")
        kinds = default_kinds() if self.estimator is None else [self.estimator]
        if self.score_type == "latent" and not all(hasattr(kind, "transform") for kind in kinds):
            raise ValueError(
                f"score_type='latent' needs a density with a method transform, which maps rows to latents. {self.estimator} has"
                " none: choose another score_type, or another estimator, such as MixtureDensity()."
            )
        rng = np.random.RandomState(draw_seed(self.random_state))
        # Sorted, so that the order in which they came doesn't matter; equal ones stay apart, as they count for each other.
        distinct, weight = canonical_rows(X, np.ones(len(X)))
        rows = np.repeat(distinct, np.rint(weight * (len(X) / len(distinct))).astype(int), axis=0)
        n_parts = min(self.n_parts, max(1, len(rows) // 2))
        part = rng.permutation(len(rows)) % n_parts
        max_rows = self.max_samples
        if max_rows == "auto":
            max_rows = MAX_DEFAULT_ROWS if self.estimator is None else len(rows)
        n_features, n_members = rows.shape[1], n_parts * len(kinds)
        width = n_features if self.estimator is not None else max(MAX_DEFAULT_COLUMNS, -(-n_features // n_members))
        features = draw_features(n_features, width, n_members, rng)
        self.estimators_features_ = [features[k * len(kinds) : (k + 1) * len(kinds)] for k in range(n_parts)]
        steps = grid_steps(rows)
        seeds = rng.randint(MAX_SEED, size=(n_parts, len(kinds)))
        self.score_type_ = self.score_type
        seen = [(part != k) | (n_parts == 1) for k in range(n_parts)]
        with discrete_columns_warned_about():
            answers = self._fit_densities(kinds, rows, seen, steps, max_rows, seeds)
            if self.support_fraction < 1:
                # By scores of the part's own densities: those of the others know its rows, and its p-values must not.
                seen = [in_support(self._scores(answers, k), seen[k], self.support_fraction) for k in range(n_parts)]
                answers = self._fit_densities(kinds, rows, seen, steps, max_rows, seeds)
        # Nothing lies between the values of a constant column either.
        self.discrete_features_ = (steps > 0) | np.array([is_constant(x) for x in rows.T])
        self.typical_values_ = typical_values(rows, self.discrete_features_)
        self.training_scores_ = np.sort(self._scores(answers))
        calibrated = range(n_parts) if n_parts > 1 else []
        self.calibration_scores_ = [np.sort(self._scores(answers, k)[part == k]) for k in calibrated]
        self._set_offset(self.contamination)
        return self

    def _fit_densities(self, kinds, rows, seen, steps, max_rows, seeds):
        """Fit those of each part to some of the rows that it may see, and return what they answer about all rows."""
        n_parts, n_kinds = seeds.shape
        self.estimators_ = [[clone(kind) for kind in kinds] for _ in range(n_parts)]

        def fit(i):
            k, j = divmod(i, n_kinds)
            rng = np.random.RandomState(seeds[k, j])
            fit_member(self.estimators_[k][j], rows[seen[k]], self.estimators_features_[k][j], steps, max_rows, rng)

        in_threads(fit, n_parts * n_kinds, self._effective_n_jobs())
        answers = self._answers(rows)
        typical = None
        if self.score_type_ == "typicality":
            typical = np.array([np.median(of_part[:, may_see], axis=1) for of_part, may_see in zip(answers, seen, strict=True)])
        self.typical_log_densities_ = typical
        return answers

    def _effective_n_jobs(self):
        return 1 if self.n_jobs is None and self.estimator is None else self.n_jobs

    def _set_offset(self, contamination):
        if contamination == "auto":
            low, high = np.percentile(self.training_scores_, [25, 75])
            self.offset_ = low - FENCE * (high - low)
        else:
            self.offset_ = np.percentile(self.training_scores_, 100 * contamination)

    def _answers(self, X, ask=None):
        """What each density answers about each row, asked as the score asks if nothing else is said.

        Shape (n_parts, n_densities_of_part, n_samples).
        """
        ask = SCORES[self.score_type_].ask if ask is None else ask
        members = [member for members in self.estimators_ for member in members]
        features = [columns for features in self.estimators_features_ for columns in features]
        answers = np.empty((len(members), len(X)))

        def query(i):
            answers[i] = ask(members[i], X if len(features[i]) == X.shape[1] else X[:, features[i]])

        in_threads(query, len(members), self._effective_n_jobs())
        return answers.reshape(len(self.estimators_), -1, len(X))

    def _scores(self, answers, part=None):
        """Scores from the answers of all densities, or of those that haven't seen a part."""
        chosen = slice(None) if part is None else slice(part, part + 1)
        typical = None if self.typical_log_densities_ is None else self.typical_log_densities_[chosen].ravel()
        return SCORES[self.score_type_].combine(answers[chosen].reshape(-1, answers.shape[2]), typical)

    def score_samples(self, X):
        """Compute how normal each row is: the mean of its log-densities, or what ``score_type`` says.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            Scores in nats, float64; the lower, the more of an outlier.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        return self._scores(self._answers(X))

    def decision_function(self, X):
        """Compute how far each row is from the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            ``score_samples(X) - offset_``: negative for outliers.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X):
        """Tell outliers from normal rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            -1 for outliers, 1 for normal rows.
        """
        return np.where(self.decision_function(X) < 0, -1, 1)

    def set_contamination(self, contamination):
        """Move the threshold without another fit.

        Parameters
        ----------
        contamination : "auto" or float
            As in the constructor.

        Returns
        -------
        self : object
            The detector, with a new ``contamination`` and ``offset_``.

        Raises
        ------
        ValueError
            If it is neither "auto" nor a number in (0, 0.5].
        """
        check_is_fitted(self)
        given = self.contamination
        self.contamination = contamination
        try:
            self._validate_params()
        except ValueError:
            self.contamination = given
            raise
        self._set_offset(contamination)
        return self

    def p_values(self, X):
        """Compute how often a normal row would score as low as each row does.

        The score here is that of the densities that haven't seen a part of the table, compared with the scores of that part. If
        the training rows are normal, and so is a new row, that is drawn as they were, then its p-value is at most
        :math:`\\alpha` with a probability of at most :math:`\\alpha`, over draws of rows and divisions into parts, in finite
        samples and whatever the densities are worth [1]_. This holds where the first part has 1,000 rows or more, and only it
        is compared with. With fewer rows all parts are, in turn (cross-conformal p-values [2]_): what is proved then is
        :math:`2 \\alpha` for large tables [3]_, what is found is about :math:`\\alpha`. Training rows have no valid p-values,
        and outliers among them make the p-values too large. Rows that ``support_fraction`` leaves out of a fit are among those
        compared with, so all of this holds for every ``support_fraction``, and for every ``score_type``.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows.

        Returns
        -------
        ndarray of shape (n_samples,)
            P-values, in (0, 1]; the lower, the more of an outlier.

        Raises
        ------
        ValueError
            If the detector has a single part.

        References
        ----------
        .. [1] Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; for outliers Laxhammar and Falkman,
           "Conformal Prediction for Distribution-Independent Anomaly Detection in Streaming Vessel Data", 2010.
        .. [2] Vovk, "Cross-Conformal Predictors", Annals of Mathematics and Artificial Intelligence 74, 2015.
        .. [3] Vovk and Wang, "Combining P-Values via Averaging", Biometrika 107, 2020.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)
        if not self.calibration_scores_:
            raise ValueError(
                "There are no p-values with a single part, as each density has seen all rows. Fit with n_parts of 2 or more,"
                f" and with 4 rows or more. Got n_parts={self.n_parts} and {len(self.training_scores_)} rows."
            )
        answers = self._answers(X)
        scores = np.array([self._scores(answers, k) for k in range(len(answers))])
        return conformal_p_values(self.calibration_scores_, scores)

    def predict_fdr(self, X, alpha=0.05):
        """Tell outliers from normal rows such that a share of at most ``alpha`` of the outliers found are normal, in the mean.

        Benjamini's and Hochberg's procedure over ``p_values`` [1]_: how low a p-value must be depends on all rows of ``X``.
        Conformal p-values depend on each other, as they share their calibration, but in a way that the procedure allows [2]_.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            New rows, not those of ``fit``.
        alpha : float, default=0.05
            The false discovery rate, in (0, 1).

        Returns
        -------
        ndarray of shape (n_samples,)
            -1 for outliers, 1 for normal rows.

        Raises
        ------
        ValueError
            If ``alpha`` isn't between 0 and 1, or if the detector has a single part.

        References
        ----------
        .. [1] Benjamini and Hochberg, "Controlling the False Discovery Rate", Journal of the Royal Statistical Society B 57,
           1995.
        .. [2] Bates, Candès, Lei, Romano and Sesia, "Testing for Outliers with Conformal p-Values", Annals of Statistics 51,
           2023.
        """
        if not isinstance(alpha, Real) or not 0 < alpha < 1:
            raise ValueError(f"alpha must be a number between 0 and 1, the share of false discoveries. Got {alpha!r}.")
        return np.where(benjamini_hochberg(self.p_values(X), alpha), -1, 1)

    def explain(self, X):
        """Say which columns make rows outliers, and which values would have been ordinary.

        The column that gains most by another value, given all others, gets it; then the next, until the row scores like the
        median of the training rows or no column gains a nat. What each gained adds up to the difference of the scores of the
        repaired row and of the row itself: it is the sum of the differences between rows that differ in one column (for
        log-densities Brook's lemma [1]_). This needs nothing but scores, so it holds for every density and every
        ``score_type``. A row that is too likely (``score_type="typicality"``) is made typical by any column that is moved far:
        its contributions add up too, but say little.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows. Each costs some hundred scores for each column, so ask about the outliers only.

        Returns
        -------
        reasons : Bunch
            With these attributes:

            contributions : ndarray of shape (n_samples, n_features)
                What each column takes from the score, in nats: what its new value gained, so never less than 1, or 0 where its
                value was kept.
            baseline : ndarray of shape (n_samples,)
                Scores of the repaired rows: ``baseline - contributions.sum(axis=1)`` is ``score_samples(X)``.
            repaired : ndarray of shape (n_samples, n_features)
                The rows with the values that gain most instead of those that were repaired.
            ranges : ndarray of shape (n_samples, n_features, 2)
                Where the value of a repaired column would have been ordinary, given the others as repaired: ends of the region
                of the highest conditional density that holds 95 %, whatever the score is. NaN where the value was kept.

        References
        ----------
        .. [1] Brook, "On the Distinction between the Conditional Probability and the Joint Probability Approaches in the
           Specification of Nearest-Neighbour Systems", Biometrika 51, 1964.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=np.float64)

        def score_samples(X):
            return self._scores(self._answers(X))

        def mean_log_densities(X):
            return self._answers(X, log_densities).mean(axis=(0, 1))

        values, discrete = self.typical_values_, self.discrete_features_
        repaired, contributions, baseline = repair(score_samples, X, values, discrete, np.median(self.training_scores_))
        ranges = ordinary_ranges(mean_log_densities, repaired, contributions > 0, values, discrete)
        return Bunch(contributions=contributions, baseline=baseline, repaired=repaired, ranges=ranges)
