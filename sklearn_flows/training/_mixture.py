"""A regularised mixture of normal or Student t distributions: a density in itself, and a start of training."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from ..compiled import compiled_steps_of_mixtures, kernels_serve_in_any_case
from ._weights import mixture_weights

Floats = npt.NDArray[np.float64]

# What is tried: numbers of components, doubled until two in a row bring nothing; rows that the prior of a component's
# covariance counts for, in units of the dimension (infinity: all share one covariance), from weak, so that a component may be
# ten thousand times narrower than others in some direction, to strong; how far that covariance is drawn to its diagonal.
MAX_COMPONENTS = 64
PRIOR_ROWS = (1e-8, 0.01, 0.5, 5.0, math.inf)
DIAGONAL_SHARES = (3e-5, 0.003, 0.03, 0.2)
# Where rows are few, a component for each is tried too, all of one shape: a kernel density estimate, of these bandwidths.
BANDWIDTHS = (0.1, 0.15, 0.22, 0.33, 0.5, 0.7)
# Degrees of freedom that are tried once the best normal mixture is known: with its number of components, and with one.
DEGREES_OF_FREEDOM = (20.0, 8.0, 4.0, 2.0, 1.0)
# A component needs this many rows, or the number isn't tried.
ROWS_PER_COMPONENT = 5
# Added to all variances, in units of those of the columns: more than differences of sums over rows are uncertain by rounding.
MIN_VARIANCE = 1e-11
# Of a combination: the rows that each mixture counts for before any is seen, few because there are dozens of them; and the
# share that one must have to be worth its components.
ROWS_BEFOREHAND, MIN_SHARE = 0.01, 0.03
MAX_EM_STEPS = 60
PATIENCE = 3
TOLERANCE = 3e-4
KMEANS_STEPS = 10
# Rows that a mixture is fitted to, at most, unless more are asked for, and the number from which on the strongest priors aren't
# tried: they would lose.
MAX_ROWS = 5_000
FEW_ROWS = 600
N_PRIORS_FOR_FEW_ROWS = 2
SCALARS_AT_ONCE = 2**17
# How much compiled kernels do in one call, in which nobody can interrupt them, or look at the clock: some milliseconds' worth.
PRODUCTS_AT_ONCE = 2**24
# Compiled kernels take as many rows at once as a register of doubles has, at most; and from so many rows on they save more time
# than it takes to load them.
MIN_ROWS_FOR_KERNELS, MIN_ROWS_WORTH_KERNELS = 8, 2_000
# Columns up to which sums over rows are taken from products of all pairs of columns.
MAX_COLUMNS_FOR_PAIRS = 40


class Mixture(NamedTuple):
    """A mixture of multivariate Student t distributions.

    Attributes
    ----------
    shares : ndarray of shape (n_components,)
        Weights, which sum to one.
    means : ndarray of shape (n_components, n_features)
        Centres.
    precisions_cholesky : ndarray of shape (n_components, n_features, n_features)
        Lower-triangular matrices that make the components spherical.
    df : ndarray of shape (n_components,)
        Degrees of freedom; infinity for normal components.
    """

    shares: Floats
    means: Floats
    precisions_cholesky: Floats
    df: Floats

    def squared_distance(self, Z: Floats) -> Floats:
        """Squared Mahalanobis distance of each row from each component, shape (n_components, n_samples)."""
        n_components, n_features = self.means.shape
        rotation, shift = self.precisions_cholesky.reshape(-1, n_features), self.precisions_cholesky @ self.means[:, :, None]
        result = np.empty((n_components, len(Z)))
        # One product for all components, several times faster than one for each, and for as many rows as stay in the cache.
        chunk = max(1, SCALARS_AT_ONCE // (n_components * n_features))
        for start in range(0, len(Z), chunk):
            whitened = (rotation @ Z[start : start + chunk].T).reshape(n_components, n_features, -1) - shift
            result[:, start : start + chunk] = np.einsum("kdn,kdn->kn", whitened, whitened)
        return result

    def log_joint(self, squared_distance: Floats) -> Floats:
        """Log-density of each row under each component, its share included, from their distances, whose place it takes."""
        n_features, df = self.means.shape[1], self.df
        log_det = np.log(np.diagonal(self.precisions_cholesky, axis1=1, axis2=2)).sum(axis=1)
        log_at_centre = np.log(self.shares) + log_det - 0.5 * n_features * math.log(2 * math.pi)
        heavy = np.isfinite(df)
        if heavy.any():
            df = df[heavy]
            half = (df + n_features) / 2
            log_at_centre[heavy] += gammaln(half) - gammaln(df / 2) - 0.5 * n_features * np.log(df / 2)
            squared_distance[heavy] = 2 * half[:, None] * np.log1p(squared_distance[heavy] / df[:, None])
        result = squared_distance
        result *= -0.5
        result += log_at_centre[:, None]
        return result

    def log_density(self, Z: Floats) -> Floats:
        """Log-density of each row."""
        return _log_density_and_shares(self.log_joint(self.squared_distance(Z)))[0]


# A number of components, the prior's rows in units of the dimension, the diagonal's share and the degrees of freedom.
_Candidate = tuple[int, float, float, float]


class SplitRows:
    """Rows to fit and others to judge by, in the form in which expectation-maximisation asks for them again and again.

    For each row the sufficient statistics of a normal distribution are kept: products of pairs of its entries (where columns
    are few, and covariances may have other entries than their diagonals), squares, the entries, and one. Moments and
    Mahalanobis distances are then one matrix product for all components and all rows, several times faster than one for each.

    Parameters
    ----------
    Z, Z_judges : ndarray of shape (n_samples, n_features)
        Rows to fit, and to judge by.
    weight, weight_judges : ndarray of shape (n_samples,)
        Their weights.
    diagonal : bool, default=False
        Whether all covariances will be diagonal.

    Attributes
    ----------
    kernels : module or None
        What groups rows and takes all steps in numpy's place, where that is worthwhile. Steps are so short that several threads
        of them would otherwise wait for each other.
    """

    def __init__(self, Z: Floats, weight: Floats, Z_judges: Floats, weight_judges: Floats, diagonal: bool = False) -> None:
        self.all = np.concatenate([Z, Z_judges])
        self.Z, self.Z_judges = np.split(self.all, [len(Z)])
        self.weight, self.share_of_judges = weight, weight_judges / weight_judges.sum()
        self._total = weight.sum()
        self._centre = weight @ self.Z / self._total
        self.n_features = d = Z.shape[1]
        fewest = MIN_ROWS_FOR_KERNELS if kernels_serve_in_any_case() else MIN_ROWS_WORTH_KERNELS
        self.kernels = compiled_steps_of_mixtures() if len(self.all) >= fewest else None
        self._pairs = np.triu_indices(d, 1) if not diagonal and d <= MAX_COLUMNS_FOR_PAIRS else None
        if self._pairs is None and not diagonal:
            self.kernels = None
        self._of_fitted, self._of_judges = self._statistics(self.Z), self._statistics(self.Z_judges)

    def _statistics(self, Z: Floats) -> Floats:
        d, n_pairs = self.n_features, 0 if self._pairs is None else len(self._pairs[0])
        result, columns = np.ones((n_pairs + 2 * d + 1, len(Z))), Z.T
        if self._pairs is not None:
            for place, (i, j) in enumerate(zip(*self._pairs, strict=True)):
                np.multiply(columns[i], columns[j], out=result[place])
        np.square(columns, out=result[n_pairs : n_pairs + d])
        result[n_pairs + d : -1] = columns
        return result

    @property
    def columns(self) -> Floats:
        """The rows to fit as columns, which are among the statistics."""
        return self._of_fitted[-self.n_features - 1 : -1]

    def _statistics_for(self, diagonal: bool) -> list[Floats]:
        """Those of the rows to fit and of the judges; what diagonal covariances need are the last ones of all."""
        first = -2 * self.n_features - 1 if diagonal else 0
        return [self._of_fitted[first:], self._of_judges[first:]]

    def moments(self, weighted: Floats, diagonal: bool) -> tuple[Floats, Floats, Floats]:
        """Sums over the rows to fit, for weights of each component.

        They are of outer products, shape (n_components, n_features, n_features), or only their diagonals, shape (n_components,
        n_features); of rows, shape (n_components, n_features); and of the weights.
        """
        d = self.n_features
        of_fitted, _ = self._statistics_for(diagonal)
        if diagonal:
            sums = weighted @ of_fitted.T
            return sums[:, :d], sums[:, d:-1], sums[:, -1]
        if self._pairs is None:
            return np.stack([(w * self.Z.T) @ self.Z for w in weighted]), weighted @ self.Z, weighted.sum(axis=1)
        sums = weighted @ of_fitted.T
        (i, j), entries = self._pairs, np.arange(d)
        products = np.empty((len(weighted), d, d))
        products[:, i, j] = products[:, j, i] = sums[:, : len(i)]
        products[:, entries, entries] = sums[:, len(i) : -d - 1]
        return products, sums[:, -d - 1 : -1], sums[:, -1]

    def squared_distance(self, mixture: Mixture, diagonal: bool) -> Floats:
        """Squared Mahalanobis distance of all rows from each component, shape (n_components, n_samples).

        Of rows next to a centre it may be negative, by rounding: it is a difference of large numbers.
        """
        # |P (z - mu)|^2 = z' A z - 2 (A mu)' z + mu' A mu with A = P'P
        if diagonal:
            quadratic = np.square(np.diagonal(mixture.precisions_cholesky, axis1=1, axis2=2))
            linear = quadratic * mixture.means
        elif self._pairs is None:
            return mixture.squared_distance(self.all)
        else:
            i, j = self._pairs
            precisions = mixture.precisions_cholesky.transpose(0, 2, 1) @ mixture.precisions_cholesky
            linear = (precisions @ mixture.means[:, :, None])[:, :, 0]
            quadratic = np.concatenate([2 * precisions[:, i, j], np.diagonal(precisions, axis1=1, axis2=2)], axis=1)
        constant = (linear * mixture.means).sum(axis=1, keepdims=True)
        coefficients = np.concatenate([quadratic, -2 * linear, constant], axis=1)
        return np.concatenate([coefficients @ statistics for statistics in self._statistics_for(diagonal)], axis=1)

    def maximise(
        self,
        weighted: Floats,
        n: Floats,
        prior_rows: float,
        diagonal_share: float,
        df: float,
    ) -> tuple[Mixture, Floats]:
        """Give the mixture that follows from what rows count for in each component, and all rows' distances from these."""
        diagonal = diagonal_share == 1
        shares, tails = (n + 1) / (self._total + len(n)), np.full(len(n), df)
        products, sums, mass = self.moments(weighted, diagonal)
        # A hundredth of a row at the centre, so that an empty component has a mean.
        means = (sums + 0.01 * self._centre) / (mass + 0.01)[:, None]
        covariances = _covariances(products, sums, mass, means, n, prior_rows, diagonal_share)
        mixture = Mixture(shares, means, _precisions_cholesky(covariances), tails)
        return mixture, self.squared_distance(mixture, diagonal)

    def expect(self, mixture: Mixture, squared_distance: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Give the log-density of all rows, and for those to fit which component each belongs to.

        That is as probabilities, and as what they count for in the next moments; and how many rows each component has.
        """
        n_rows = len(self.Z)
        np.maximum(squared_distance, 0, out=squared_distance)  # a difference of large numbers may round below
        df, influence = mixture.df[:, None], 1.0
        if np.isfinite(df).all():
            influence = (df + self.n_features) / (df + squared_distance[:, :n_rows])
        log_density, shares = _log_density_and_shares(mixture.log_joint(squared_distance))
        responsibility = shares[:, :n_rows].copy()  # what is kept shall not hold the judges' too
        weighted = responsibility * self.weight
        n = weighted.sum(axis=1)
        weighted *= influence
        return log_density, responsibility, weighted, n

    def fit_by_kernels(
        self, responsibility: Floats, prior_rows: float, diagonal_share: float, df: float, until: float
    ) -> tuple[Mixture, Floats, Floats]:
        """Do what ``fit_mixture`` does."""
        assert self.kernels is not None
        n_components, d = len(responsibility), self.n_features
        n_pairs = 0 if self._pairs is None or diagonal_share == 1 else len(self._pairs[0])
        tails = np.full(n_components, df)
        shares, means, factors = np.empty(n_components), np.empty((n_components, d)), np.empty((n_components, d, d))
        log_density_of_judges, leads_to_best = np.empty(len(self.Z_judges)), np.empty(responsibility.shape)
        responsibility = np.array(responsibility, order="C")
        weighted = responsibility * self.weight
        progress, n, has_ended = np.array([-math.inf, 0.0, -math.inf]), weighted.sum(axis=1), 0
        of_fitted, of_judges = self._statistics_for(diagonal_share == 1)
        steps_at_once = min(MAX_EM_STEPS, max(1, PRODUCTS_AT_ONCE // (n_components * (of_fitted.size + of_judges.size))))
        for _ in range(0, MAX_EM_STEPS, steps_at_once):
            has_ended = self.kernels.take_steps(
                *(of_fitted, of_judges, self.weight, self.share_of_judges, self._centre, n_pairs),
                *(prior_rows, diagonal_share, MIN_VARIANCE, tails, PATIENCE, TOLERANCE, steps_at_once),
                *(progress, n, weighted, responsibility, shares, means, factors, log_density_of_judges, leads_to_best),
            )
            if has_ended or _is_over(until):
                break
        if has_ended < 0:
            raise np.linalg.LinAlgError("A covariance is not positive definite")
        assert progress[0] > -math.inf
        return Mixture(shares, means, factors, tails), log_density_of_judges, leads_to_best


def _is_over(until: float) -> bool:
    return until < math.inf and time.perf_counter() > until


def _log_density_and_shares(log_joint: Floats) -> tuple[Floats, Floats]:
    """Log-density of each row, and the share that each component has in it, which takes the place of what is given."""
    # Several times faster than numpy's logaddexp.reduce; the largest term is finite.
    highest = log_joint.max(axis=0)
    shares = log_joint
    shares -= highest
    np.exp(shares, out=shares)
    total = shares.sum(axis=0)
    shares /= total
    return highest + np.log(total), shares


def first_groups(split: SplitRows, n_components: int, rng: np.random.RandomState) -> Floats:
    """Group rows by k-means after greedy k-means++: of several rows drawn the best becomes the next centre.

    Parameters
    ----------
    split : SplitRows
        Rows to group, and others.
    n_components : int
        Number of groups.
    rng : numpy.random.RandomState
        Source of the first centres.

    Returns
    -------
    ndarray of shape (n_components, n_samples)
        One for the group that a row belongs to, zero for the others.
    """
    n_drawn = 2 + int(math.log(n_components))
    uniforms = rng.random_sample(1 + (n_components - 1) * n_drawn)
    Z, weight = split.Z, split.weight
    if split.kernels is not None:
        groups: Floats = np.empty((n_components, len(Z)))
        split.kernels.first_groups(split.columns, weight, uniforms, KMEANS_STEPS, groups)
        return groups
    centres = Z[[_draw(weight, uniforms[0])]]
    distance = np.square(Z - centres[0]).sum(axis=1)
    squares = np.square(Z).sum(axis=1)
    for some in uniforms[1:].reshape(n_components - 1, n_drawn):
        drawn = Z[[_draw(weight * distance, uniform) for uniform in some]]
        distances = np.minimum(distance, np.maximum(squares - 2 * drawn @ Z.T + np.square(drawn).sum(axis=1)[:, None], 0))
        best = int((distances @ weight).argmin())
        centres, distance = np.vstack([centres, drawn[best]]), distances[best]
    for _ in range(KMEANS_STEPS):
        group = (np.square(centres).sum(axis=1) - 2 * Z @ centres.T).argmin(axis=1)
        members = (group == np.arange(n_components)[:, None]) * weight
        n = members.sum(axis=1, keepdims=True)
        centres = np.where(n > 0, members @ Z / np.maximum(n, 1e-300), centres)
    result: Floats = (group == np.arange(n_components)[:, None]).astype(np.float64)
    return result


def _draw(weight: Floats, uniform: float) -> int:
    ends = np.cumsum(weight)
    if ends[-1] <= 0:  # as many centres as there are places
        return int(uniform * len(weight))
    return min(int(np.searchsorted(ends, uniform * ends[-1], side="right")), len(weight) - 1)


def fit_mixture(
    split: SplitRows,
    responsibility: Floats,
    prior_rows: float,
    diagonal_share: float,
    df: float,
    until: float = math.inf,
) -> tuple[Mixture, Floats, Floats]:
    """Fit a mixture by expectation-maximisation, as long as the likelihood of other rows rises.

    The covariance of a component is drawn to the mean covariance within components, as an inverse-Wishart prior does [1]_, and
    that mean covariance to its diagonal. With finite degrees of freedom rows far from a component count less for it [2]_.

    Parameters
    ----------
    split : SplitRows
        Rows to fit, and to watch.
    responsibility : ndarray of shape (n_components, n_samples)
        Which component each row belongs to at first, as probabilities.
    prior_rows : float
        How many rows the prior of a covariance counts for.
    diagonal_share : float
        How far the mean covariance is drawn to its diagonal. With 1 the covariances are diagonal.
    df : float
        Degrees of freedom of the components; infinity for normal ones.
    until : float, default=infinity
        When ``time.perf_counter()`` says so, the steps under way, of some milliseconds, are the last.

    Returns
    -------
    mixture : Mixture
        The best one on the way.
    log_density_of_judges : ndarray of shape (n_judges,)
        Log-density of the rows to watch.
    responsibility : ndarray of shape (n_components, n_samples)
        What led to it.

    References
    ----------
    .. [1] Fraley and Raftery, "Bayesian Regularization for Normal Mixture Estimation and Model-Based Clustering", Journal of
       Classification 24, 2007.
    .. [2] Peel and McLachlan, "Robust Mixture Modelling Using the t Distribution", Statistics and Computing 10, 2000.
    """
    if split.kernels is not None:
        return split.fit_by_kernels(responsibility, prior_rows, diagonal_share, df, until)
    weight = split.weight
    best, best_score, best_of_judges, leads_to_best = None, -math.inf, np.empty(0), responsibility
    n_worse, last = 0, -math.inf
    weighted = responsibility * weight
    n = weighted.sum(axis=1)
    for _ in range(MAX_EM_STEPS):
        mixture, squared_distance = split.maximise(weighted, n, prior_rows, diagonal_share, df)
        log_density, share_of_components, weighted, n = split.expect(mixture, squared_distance)
        score = float(split.share_of_judges @ log_density[len(weight) :])
        n_worse = 0 if score > best_score else n_worse + 1
        if n_worse == 0:
            best, best_score, best_of_judges, leads_to_best = mixture, score, log_density[len(weight) :], responsibility
        responsibility = share_of_components
        current = float(weight @ log_density[: len(weight)] / weight.sum())
        if n_worse >= PATIENCE or current < last + TOLERANCE or _is_over(until):
            break
        last = current
    assert best is not None
    return best, best_of_judges, leads_to_best


def _covariances(
    products: Floats, sums: Floats, mass: Floats, means: Floats, n: Floats, prior_rows: float, diagonal_share: float
) -> Floats:
    """Covariances of the components; their diagonals, shape (n_components, n_features), where these are all there is."""
    # About the means: sums of squares less squares of sums, which standardised rows can bear.
    away = sums - mass[:, None] * means
    if products.ndim == 2:
        scatter = products - (sums + away) * means
        prior = scatter.sum(axis=0) / n.sum()
        least = np.full(len(prior), MIN_VARIANCE)
    else:
        scatter = products - sums[:, :, None] * means[:, None, :] - means[:, :, None] * away[:, None, :]
        within = scatter.sum(axis=0) / n.sum()
        prior = (1 - diagonal_share) * within + np.diag(diagonal_share * np.diag(within))
        least = MIN_VARIANCE * np.eye(len(within))
    if math.isinf(prior_rows):
        return np.repeat(prior[None] + least, len(n), axis=0)
    scatter += prior_rows * prior
    scatter /= (n + prior_rows).reshape(-1, *[1] * prior.ndim)
    scatter += least
    return scatter


def _precisions_cholesky(covariances: Floats) -> Floats:
    if covariances.ndim == 3:
        return np.linalg.inv(np.linalg.cholesky(covariances))
    n_components, n_features = covariances.shape
    result = np.zeros((n_components, n_features, n_features))
    result[:, np.arange(n_features), np.arange(n_features)] = 1 / np.sqrt(covariances)
    return result


def _at_most(
    Z: npt.NDArray[np.floating], weight: npt.NDArray[np.floating], rng: np.random.RandomState, max_rows: int
) -> tuple[Floats, Floats]:
    chosen = rng.permutation(len(Z))[:max_rows]
    return Z[chosen].astype(np.float64), weight[chosen].astype(np.float64)


def choose_mixture(
    Z: npt.NDArray[np.floating],
    weight: npt.NDArray[np.floating],
    Z_val: npt.NDArray[np.floating],
    weight_val: npt.NDArray[np.floating],
    rng: np.random.RandomState,
    n_components: int | None = None,
    diagonal: bool = False,
    max_rows: int = MAX_ROWS,
    min_prior_rows: float = PRIOR_ROWS[0],
    combine: bool = False,
    until: float = math.inf,
) -> tuple[Mixture, float]:
    """Fit mixtures of several sizes and strengths of the prior, and choose the one that other rows like best, or combine them.

    Parameters
    ----------
    Z, Z_val : ndarray of shape (n_samples, n_features)
        Standardised rows to fit, and to choose by.
    weight, weight_val : ndarray of shape (n_samples,)
        Their weights.
    rng : numpy.random.RandomState
        Source of the first groups.
    n_components : int, default=None
        Number of components; None tries several.
    diagonal : bool, default=False
        Whether covariances are diagonal.
    max_rows : int, default=5000
        Rows to fit, and to choose by, at most: chosen at random where there are more.
    min_prior_rows : float, default=1e-8
        How many rows, in units of the dimension, the prior of a covariance counts for at least.
    combine : bool, default=False
        Whether to give a mixture of all that were tried, with weights that make the other rows likeliest.
    until : float, default=infinity
        When ``time.perf_counter()`` says so, nothing more is tried.

    Returns
    -------
    mixture : Mixture
        The best one, or the combination; it may have a single component.
    score : float
        Mean log-likelihood of the rows to choose by.
    """
    split = SplitRows(*_at_most(Z, weight, rng, max_rows), *_at_most(Z_val, weight_val, rng, max_rows), diagonal)
    rows = split.Z
    few = len(rows) <= FEW_ROWS
    most = min(MAX_COMPONENTS, max(1, len(rows) // ROWS_PER_COMPONENT))
    numbers = [2**i for i in range(most.bit_length())] if n_components is None else [n_components]
    diagonal_shares = (1.0,) if diagonal else DIAGONAL_SHARES if few else DIAGONAL_SHARES[:-1]
    priors = PRIOR_ROWS if few else PRIOR_ROWS[:-N_PRIORS_FOR_FEW_ROWS]
    priors = (min_prior_rows, *(prior for prior in priors if prior > min_prior_rows))
    if numbers == [1]:
        priors = PRIOR_ROWS[-1:]  # its own covariance is the common one
    tried: list[tuple[float, Mixture, Floats]] = []
    # Where the next mixture with as many components begins: from the groups of the best so far, which saves most of the steps.
    groups: dict[int, tuple[float, Floats]] = {}

    def score_of(n: int, prior: float, diagonal_share: float, df: float) -> float:
        if n not in groups:
            groups[n] = -math.inf, first_groups(split, n, rng)
        best_of_size, responsibility = groups[n]
        prior_rows = prior * (rows.shape[1] + 2)
        mixture, log_density, responsibility = fit_mixture(split, responsibility, prior_rows, diagonal_share, df, until)
        score = float(split.share_of_judges @ log_density)
        tried.append((score, mixture, log_density))
        if not combine:
            tried[:] = [max(tried, key=itemgetter(0))]
        if score > best_of_size:
            groups[n] = score, responsibility
        return score

    # One thing after the other: all combinations would take several times as long and bring next to nothing.
    best = numbers[0], priors[0], diagonal_shares[-1 if diagonal else -2], math.inf
    best_score = -math.inf

    def in_time(candidates: Iterable[_Candidate]) -> Iterator[_Candidate]:
        return (candidate for candidate in candidates if not tried or not _is_over(until))

    def improve(candidates: Iterable[_Candidate], patience: int) -> None:
        nonlocal best, best_score
        n_worse = 0
        for candidate in in_time(candidates):
            score = score_of(*candidate)
            if score > best_score:
                best, best_score, n_worse = candidate, score, 0
            else:
                n_worse += 1
            if n_worse == patience:
                break

    def try_independent_columns() -> None:
        """Double the components as long as that brings more than what is missing to the best."""
        nonlocal best, best_score
        last = -math.inf
        for candidate in in_time((n, best[1], 1.0, math.inf) for n in numbers[1:]):
            score = score_of(*candidate)
            missing, gained, last = best_score - score, score - last, score
            if missing < 0:
                best, best_score = candidate, score
            elif missing > gained:
                break

    improve([(n, *best[1:]) for n in numbers], 2)
    for prior in priors[1:]:  # stronger priors allow for more components
        improve([(n, prior, *best[2:]) for n in numbers if n >= best[0]], 1)
    for diagonal_share in diagonal_shares:
        if diagonal_share != best[2]:
            improve([(*best[:2], diagonal_share, math.inf)], 1)
    n_best = best[0]
    improve([(*best[:3], df) for df in DEGREES_OF_FREEDOM], 1)
    if n_best != numbers[0]:  # what looked like many groups may be a single one with heavy tails
        improve([(numbers[0], *best[1:3], df) for df in DEGREES_OF_FREEDOM], 3)
    if not diagonal and n_components is None:
        try_independent_columns()
        if best[2] == 1:
            improve([(*best[:3], df) for df in DEGREES_OF_FREEDOM], 1)
    if few and n_components is None and not _is_over(until):
        kernels = [(float(split.share_of_judges @ seen), mixture, seen) for mixture, seen in _kernels(split, diagonal)]
        # One of them: each has as many components as there are rows.
        tried.append(max(kernels, key=itemgetter(0)))
    if combine:
        mixture = _combination([mixture for _, mixture, _ in tried], np.array([seen for *_, seen in tried]), split)
        return mixture, float(split.share_of_judges @ mixture.log_density(split.Z_judges))
    score, mixture, _ = max(tried, key=itemgetter(0))
    return mixture, score


def _combination(mixtures: list[Mixture], log_densities: Floats, split: SplitRows) -> Mixture:
    """The mixture of mixtures that makes the judges likeliest, without those that count for next to nothing."""
    shares = mixture_weights(log_densities, len(split.Z_judges) * split.share_of_judges, ROWS_BEFOREHAND)
    shares[(shares < MIN_SHARE) & (shares < shares.max())] = 0
    shares /= shares.sum()
    kept = [(share, mixture) for share, mixture in zip(shares, mixtures, strict=True) if share > 0]
    return Mixture(
        np.concatenate([share * mixture.shares for share, mixture in kept]),
        np.concatenate([mixture.means for _, mixture in kept]),
        np.concatenate([mixture.precisions_cholesky for _, mixture in kept]),
        np.concatenate([mixture.df for _, mixture in kept]),
    )


def _kernels(split: SplitRows, diagonal: bool) -> Iterator[tuple[Mixture, Floats]]:
    """Kernel density estimates whose kernels are spherical, or have the shape of the rows' covariance.

    Each comes with the log-density of the judges.
    """
    Z, share = split.Z, split.weight / split.weight.sum()
    identity = np.eye(split.n_features)
    covariance = np.cov(Z.T, aweights=share, ddof=0).reshape(identity.shape)
    shapes = [identity] if diagonal else [identity, (1 - DIAGONAL_SHARES[-2]) * covariance + DIAGONAL_SHARES[-2] * identity]
    for shape in shapes:
        whitening = np.repeat(np.linalg.inv(np.linalg.cholesky(shape))[None], len(Z), axis=0)
        widest = Mixture(share, Z, whitening, np.full(len(Z), math.inf))
        squared_distance = widest.squared_distance(split.Z_judges)
        for bandwidth in BANDWIDTHS:
            kernels = widest._replace(precisions_cholesky=whitening / bandwidth)
            yield kernels, _log_density_and_shares(kernels.log_joint(squared_distance / bandwidth**2))[0]
