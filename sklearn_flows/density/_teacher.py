"""What a flow learns from if the rows are few: a mixture of densities that were stopped on different parts of the table."""

import math
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from ..compiled import compiled_kernels_in_any_case
from ..cross_fitting import draw_from_mixture, fit_members
from ..distributions import StudentMixture
from ..encoding import is_constant
from ..training import DivergedError, mixture_weights
from ..utils._random import set_random_states
from ._defaults import N_PARTS
from ._mixture import MixtureDensity

# Flows from different starts, as pairs of base and margins.
STARTS = (("student", "bent"), ("mixture", "linear"), ("mixture", "smooth"))
# Parts that are left out by a mixture each.
N_MIXTURES = 5
# Components of their mean, at most: they are computed in each step of the flow that starts from it.
MAX_COMPONENTS = 1_024
# Share of the time that its flows have together, where time is limited.
SHARE_OF_TIME = 0.5
# Share of the patience that its flows have: what one of them would still learn matters less in a mixture.
SHARE_OF_PATIENCE = 0.5
# Attempts to draw rows near the table, and the share of them that is not worth another.
MAX_ROUNDS = 10
SHARE_TO_DO_WITHOUT = 0.1
# How far a draw's log-density may lie below the median of the rows', in distances from there to the least likely row's.
FARTHEST = 4.0


class InterruptedTeacherError(Exception):
    """The user has interrupted the fit of a teacher; its best flow so far is in ``best``."""

    def __init__(self, best):
        super().__init__("the fit of the teacher was interrupted")
        self.best = best


def diverged_for_every_start(flow):
    """The error to raise where no start has led to a flow."""
    return DivergedError(
        f"Training of {type(flow).__name__} diverged for every start. Lower learning_rate, or set n_teachers=0 to learn from"
        " the rows themselves."
    )


def starts_of(flow):
    """The starts to try, different ones only as far as a flow leaves them open.

    Parameters
    ----------
    flow : BaseFlowDensity
        An unfitted flow.

    Returns
    -------
    list of (str, str)
        Pairs of base and margins.
    """
    starts = [
        (base if flow.base == "auto" else flow.base, margins if flow.margins == "auto" else flow.margins)
        for base, margins in STARTS
    ]
    return list(dict.fromkeys(starts))


class Teacher:
    """A mixture of flows from different starts and of simpler densities, each fitted to all parts of a table but one.

    The weights are those that make the rows likeliest that were left out: stacking, as in ``StackingDensity``, with few fits.

    Parameters
    ----------
    flow : BaseFlowDensity
        An unfitted flow whose parameters the flows of the mixture take over, but for ``base`` and ``margins`` where these are
        "auto".
    n_parts_left_out : int
        How many parts are left out, one after the other.
    rng : numpy.random.RandomState
        Source of the parts and of all seeds.
    """

    def __init__(self, flow, n_parts_left_out, rng):
        self.n_parts_left_out = n_parts_left_out
        self.rng = rng
        parameters = flow.get_params(deep=False) | {"n_teachers": 0, "verbose": 0, "warm_start": False}
        if flow.n_iter_no_change < math.inf:
            parameters |= {"n_iter_no_change": math.ceil(SHARE_OF_PATIENCE * flow.n_iter_no_change)}
        starts = starts_of(flow)
        if flow.max_time is not None:
            parameters |= {"max_time": SHARE_OF_TIME * flow.max_time / (len(starts) * n_parts_left_out)}
        # Not clones: these would report to the callbacks of the flow.
        self._flows = [type(flow)(**parameters | {"base": base, "margins": margins}) for base, margins in starts]
        margins = ["linear", "smooth"] if flow.margins == "auto" else [flow.margins]
        self._simple = [MixtureDensity(1, margins=m) for m in margins]
        self._simple.append(MixtureDensity(1, covariance_type="diag", margins=margins[-1]))
        # The flow may start from their mean, whose components are computed in each of its steps.
        self._mixtures = [MixtureDensity(margins=m, combine=False) for m in margins]

    def fit(self, rows, weight):
        """Fit the densities and their weights.

        Parameters
        ----------
        rows, weight : ndarray of shape (n_samples, n_features), ndarray of shape (n_samples,)
            Canonical rows and their weights.

        Returns
        -------
        self : Teacher
            The fitted teacher.

        Raises
        ------
        InterruptedTeacherError
            If the user interrupts the fit, and a flow has learned something until then.
        DivergedError
            If training diverges from every start.
        """
        part = self.rng.permutation(len(rows)) % N_PARTS
        # Mixtures cost little, and more of them make a better mean. But what judges alone must be new to all.
        n_fits = {density: self.n_parts_left_out for density in [*self._flows, *self._simple]}
        n_fits |= dict.fromkeys(self._mixtures, max(N_MIXTURES, self.n_parts_left_out) if self.n_parts_left_out > 1 else 1)
        # Of the size for all rows: one of the flows is what the flow that learns from them starts from.
        for flow in self._flows:
            flow.set_params(**flow._choose_size(*rows.shape))
        kinds = [[type(density)(**density.get_params(deep=False)) for _ in range(n)] for density, n in n_fits.items()]
        for member in (member for fits in kinds for member in fits):
            set_random_states(member, self.rng)
        n_flows = len(self._flows)
        simple_first = kinds[n_flows:] + kinds[:n_flows]
        members = [member for fits in simple_first for member in fits]
        left_out = [k for fits in simple_first for k in range(len(fits))]
        n_simple = sum(map(len, kinds[n_flows:]))
        with warnings.catch_warnings():
            # What there is to say is said by the flow that learns from them.
            warnings.simplefilter("ignore", ConvergenceWarning)
            warnings.filterwarnings("ignore", message="Training interrupted by the user")
            try:
                with compiled_kernels_in_any_case():
                    fit_members(members, left_out, rows, weight, part, len(rows), may_diverge=True, n_in_turn=n_simple)
            except KeyboardInterrupt as interruption:
                finished = [member for fits in kinds[:n_flows] for member in fits if hasattr(member, "flow_")]
                if not finished:
                    raise
                raise InterruptedTeacherError(max(finished, key=lambda flow: flow.best_validation_score_)) from interruption
        # A kind of density serves with all its fits or not at all; only flows can diverge.
        flows = [fits for fits in kinds[:n_flows] if all(hasattr(fit, "flow_") for fit in fits)]
        if not flows:
            raise diverged_for_every_start(self._flows[0])
        kinds = flows + kinds[n_flows:]
        judges = [np.flatnonzero(part == k) for k in range(self.n_parts_left_out)]
        log_densities = np.array(
            [
                np.concatenate([fit.score_samples(rows[judge]) for fit, judge in zip(fits, judges, strict=False)])
                for fits in kinds
            ]
        )
        self.judges_ = np.concatenate(judges)
        weight_of_judges = weight[self.judges_] / weight[self.judges_].mean()
        shares = mixture_weights(log_densities, weight_of_judges)
        likelihoods = log_densities @ weight_of_judges / len(weight_of_judges)
        self.likelihoods_of_flows_ = likelihoods[: len(flows)]
        self.likelihoods_of_mixtures_ = dict(
            zip((mixture.margins for mixture in self._mixtures), likelihoods[-len(self._mixtures) :], strict=True)
        )
        self.members_ = [fit for fits in kinds for fit in fits]
        self.shares_ = np.concatenate(
            [np.full(len(fits), share / len(fits)) for fits, share in zip(kinds, shares, strict=True)]
        )
        self.flows_ = [fits[0] for fits in flows]
        best = int(shares[: len(flows)].argmax())
        median, lowest = np.median(log_densities[best]), log_densities[best].min()
        self.best_flow_ = flows[best][0]
        # Where rows have no density, nothing is impossible.
        self.lowest_ = median - FARTHEST * (median - lowest) if np.isfinite(lowest) else -np.inf
        self.mixtures_ = [fit for fits in kinds[-len(self._mixtures) :] for fit in fits]
        # Heavy tails reach far, and rows out there would be all that a flow learns from.
        low, high = rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64)
        self.is_constant_, self.constants_ = np.array([is_constant(x) for x in rows.T]), rows[0]
        with np.errstate(over="ignore"):
            span = np.where(self.is_constant_, np.inf, high - low)
            self.low_, self.high_ = low - span, high + span
        return self

    def mean_of_mixtures(self, encoding, margins):
        """Give the mean of mixtures over columns that are encoded alike, which is one too.

        Parameters
        ----------
        encoding : TableEncoding
            Encodes the columns as the mean shall see them.
        margins : {"linear", "bent", "smooth"}
            How it does. Standardised columns are brought to the same units; others, which each mixture knows from other rows,
            are taken for the same.

        Returns
        -------
        StudentMixture or None
            The mean; None where the teacher has no such mixtures.
        """
        parts = []
        for member in self.mixtures_:
            base, varies = member.flow_.base, encoding.varies
            if member.margins != margins or not varies.any() or (member.encoding_.varies != varies).any():
                continue
            if parts and sum(part.n_components for part in parts) + base.n_components > MAX_COMPONENTS:
                break
            parts.append(_as_seen_by(base, member.encoding_, encoding) if margins == "linear" else base)
        return StudentMixture.mean_of(parts) if parts else None

    def draw(self, n_rows):
        """Draw rows that are no farther from the table than its columns are wide, and that the best flow thinks possible.

        Where columns depend on each other exactly, the simple densities draw rows off what the table lies on. A flow would give
        up much to follow them.

        Parameters
        ----------
        n_rows : int
            Number of rows.

        Returns
        -------
        ndarray of shape (n_drawn, n_features)
            The rows, in an order of chance; somewhat fewer, where many are not like that.
        """
        drawn, missing = [], n_rows
        for _ in range(MAX_ROUNDS):
            with compiled_kernels_in_any_case():
                rows = draw_from_mixture(self.members_, self.shares_, missing, self.rng)
            rows = rows[((rows >= self.low_) & (rows <= self.high_)).all(axis=1)]
            if len(rows):
                # Of constant columns the rows have the likeliest value, and draws one that is as good.
                at_constants = np.where(self.is_constant_, self.constants_, rows)
                rows = rows[self.best_flow_.score_samples(at_constants) >= self.lowest_]
            drawn.append(rows)
            missing -= len(rows)
            # Members take a while to begin, so a few rows are not worth another round.
            if missing < SHARE_TO_DO_WITHOUT * n_rows:
                break
        return np.concatenate(drawn)


def _as_seen_by(base, encoding, other):
    """A mixture over standardised columns, over those that another encoding standardises."""
    # z' = (x - loc') / scale' = factor * z + shift: P (z' - mu) = P factor (z - (mu - shift) / factor)
    (loc, scale), (loc_seen, scale_seen) = (_centres_and_widths(e) for e in (encoding, other))
    factor, shift = scale_seen / scale, (loc_seen - loc) / scale
    means, precisions_cholesky = (base.means - shift) / factor, base.precisions_cholesky * factor
    return StudentMixture(base.log_shares.exp(), means, precisions_cholesky, base.df)


def _centres_and_widths(encoding):
    """Those of standardised columns that vary, as tensors."""
    columns = [column for column, varies in zip(encoding.columns, encoding.varies, strict=True) if varies]
    return torch.tensor([c.loc for c in columns]).double(), torch.tensor([c.scale for c in columns]).double()
