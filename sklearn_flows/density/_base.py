"""The scikit-learn face that all flow families share."""

import copy
import math
import time
import warnings
from abc import ABC, abstractmethod
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import validate_data

from ..distributions import StudentMixture
from ..encoding import MARGINS, ImageEncoding, PixelLevels, TableEncoding, warn_about_discrete_columns
from ..flows import Rows
from ..nets import ACTIVATIONS
from ..training import (
    DivergedError,
    canonical_rows,
    fit_flow,
    mean_evaluations,
    split_off,
)
from ..transforms import StepLimitError
from ..utils._progress import FitProgress
from ..utils._random import draw_seed, torch_generator
from ..utils._settings import check_layer_sizes
from ..utils._sklearn import (
    CallbackSupportMixin,
    Interval,
    Options,
    StrOptions,
    check_sample_weight,
    feature_names,
    fit_context,
)
from ..utils._state import fitted_attributes_restored_on_error, learned_attributes
from ..utils._threads import one_blas_thread, one_thread_if_small
from ._defaults import (
    BATCH_SIZE_OF_DRAWS,
    EPOCHS_WITH_TEACHER,
    MARGINS_OF_IMAGES,
    MAX_ROWS_FOR_WHOLE_FITS,
    MIN_ROWS_FOR_CUDA,
    MIN_ROWS_FOR_EARLY_STOPPING,
    MIN_ROWS_FOR_WHOLE_FITS,
    N_PARTS,
    SHARE_OF_TIME_FOR_BASE,
    LearningRates,
    default_base_of_images,
    default_batch_size,
    default_max_iter,
    default_n_noisy_copies,
    default_n_teachers,
)
from ._images import check_image_settings, dequantised
from ._queries import FLOAT_DTYPES, BaseLatentDensity, layer_widths
from ._scouting import scout
from ._start import Start, encode_parts
from ._starting_distribution import MIN_PRIOR_ROWS, fit_base, whitening_map
from ._taught_start import start_from_teacher
from ._teacher import InterruptedTeacherError, starts_of
from ._whole_fits import best_flow_in_time, best_of_whole_fits, shares_of_steps_to_tell_starts

# Compiled kernels serve where they save more time than it takes to load them. That depends on the call alone, so that the same
# call gives the same bits.
MIN_STEPS_FOR_COMPILED_KERNELS = 100
# Rows that tell how often the field of a continuous flow is computed for one.
MAX_ROWS_FOR_EVALUATIONS = 200


class BaseFlowDensity(BaseLatentDensity, CallbackSupportMixin, ABC):
    """Density of a table by a normalizing flow; each final class says which flow in ``_build_flow``.

    One that isn't trained by the likelihood in one pass of the flow says by what in ``_build_objective`` too.
    """

    # How often an epoch visits each row, how many of the usual steps an automatic fit takes, "auto" learning rates, up to which
    # number of rows AdamW is better than Muon, and from which number on a fit is faster on CUDA.
    _n_visits = 1
    _share_of_steps = 1.0
    # Whether a fit of limited time may take more than its usual steps.
    _takes_all_the_time = True
    # What a fit to the same rows has found as the mixture to start from, and how broad its components are at least.
    _base_found = None
    _min_prior_rows = MIN_PRIOR_ROWS
    _learning_rates = LearningRates()
    _max_rows_for_adamw = math.inf
    _min_rows_for_cuda = MIN_ROWS_FOR_CUDA

    _parameter_constraints = {
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like"],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "margins": [StrOptions({"auto", *MARGINS})],
        "base": [StrOptions({"auto", "normal", "student", "mixture"})],
        "n_teachers": [Interval(Integral, 0, N_PARTS, closed="both"), StrOptions({"auto"})],
        "max_time": [Interval(Real, 0, None, closed="neither"), None],
        "max_iter": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "learning_rate": [Interval(Real, 0, 1e30, closed="right")],
        "optimizer": [StrOptions({"auto", "adamw", "muon"})],
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

    def _choose_size(self, n_rows, n_features):
        """Say what "auto" leaves open of the flow's size, and of what else follows from the size of the table alone.

        Parameters
        ----------
        n_rows : int
            Number of distinct rows of the table.
        n_features : int
            Number of its columns.

        Returns
        -------
        dict
            Parameters and their values, which become fitted attributes.
        """
        return {}

    def _choose_optimizer(self, n_rows, from_draws):
        if self.optimizer != "auto":
            return self.optimizer
        return "muon" if from_draws or n_rows > self._max_rows_for_adamw else "adamw"

    @abstractmethod
    def _build_flow(self, whitening, base, generator):
        """Assemble the untrained flow.

        Parameters
        ----------
        whitening : Tensor of shape (n_features, n_features)
            Lower-triangular start of its first linear map.
        base : StudentMixture or None
            Distribution of the whitened columns; None is the standard normal.
        generator : torch.Generator
            Source of initial weights.

        Returns
        -------
        Flow
            The flow, in float32 on the CPU.
        """

    def _build_objective(self, flow, generator):
        """Say what a flow is trained by.

        Parameters
        ----------
        flow : Flow
            What ``_build_flow`` has made.
        generator : torch.Generator
            Source of what training draws.

        Returns
        -------
        ContinuousObjective or None
            The objective; None is the likelihood.
        """
        return None

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
        begin = time.perf_counter()
        if not isinstance(self.hidden_layer_sizes, str):
            check_layer_sizes(self.hidden_layer_sizes)
        continues = self.warm_start and hasattr(self, "flow_")
        X = validate_data(self, X_given, reset=not continues, dtype=FLOAT_DTYPES, order="C")
        weight = check_sample_weight(sample_weight, X)
        validation_rows = None if X_val is None else canonical_rows(*self._check_X_val(X_val, sample_weight_val))
        names = feature_names(X_given, X.shape[1])
        holds_images = self._holds_images()
        if holds_images:
            check_image_settings(self)
        else:
            warn_about_discrete_columns(X if weight.all() else X[weight > 0], names)

        seed = draw_seed(self.random_state)
        rng, generator = np.random.RandomState(seed), torch_generator(seed)
        rows, weight = canonical_rows(X, weight)
        if not continues:
            for name, value in self._choose_size(*rows.shape).items():
                setattr(self, f"{name}_", value)
        n_copies = default_n_noisy_copies(len(rows)) if holds_images else 1
        n_teachers = 0
        if continues:
            start = self._go_on(rows, weight, validation_rows, rng)
        elif holds_images:
            start = self._learn_from_images(rows, weight, validation_rows, rng)
        else:
            n_teachers = default_n_teachers(*rows.shape) if self.n_teachers == "auto" else self.n_teachers
            best = self._whole_fit_of_several(rows, weight, validation_rows, n_teachers, begin, rng)
            if best is not None:
                return self._become(best, X_given, y, sample_weight)
            if n_teachers:
                try:
                    with one_blas_thread():
                        start = start_from_teacher(self, rows, weight, validation_rows, n_teachers, rng)
                except InterruptedTeacherError as interruption:
                    interruption.best.stop_reason_ = "interrupted"
                    return self._become(interruption.best, X_given, y, sample_weight)
            else:
                start = self._learn_from_rows(rows, weight, validation_rows, rng)
        optimizer = self._choose_optimizer(len(rows), from_draws=n_teachers > 0)
        encoding, flow, train, validation = start.encoding, start.flow, start.train, start.validation
        # What follows needs none of these, and most are as large as the table.
        del X, X_val, validation_rows, rows, weight
        if flow is None:
            now = time.perf_counter()
            until = math.inf if self.max_time is None else now + SHARE_OF_TIME_FOR_BASE * (begin + self.max_time - now)
            if self._base_found is None:
                whitening, base = fit_base(start.base, train, validation, rng, n_copies, self._min_prior_rows, until)
            else:
                whitening, base = whitening_map(train), copy.deepcopy(self._base_found).float()
            flow = self._build_flow(whitening, base, generator)
        device = train.values.device
        flow.to(device)
        objective = self._build_objective(flow, generator)
        loss_is_likelihood = objective is None or objective.loss_is_likelihood

        n_rows = len(train.values)
        n_distinct = n_rows // n_copies
        batch_size = self.batch_size
        if batch_size == "auto":
            batch_size = BATCH_SIZE_OF_DRAWS if n_teachers else default_batch_size(n_distinct)
        if self.max_iter != "auto":
            max_iter = self.max_iter
        elif self.max_time is not None and self._takes_all_the_time:
            max_iter = None
        elif n_teachers:
            max_iter = EPOCHS_WITH_TEACHER
        else:
            max_iter = default_max_iter(
                n_distinct, batch_size, start.early_stopping, n_copies * self._n_visits, self._share_of_steps
            )

        losses_before = self.loss_curve_ if continues else []
        scores_before = (self.validation_scores_ or []) if continues else []

        def fitted_attributes(result):
            units = start.units if loss_is_likelihood else 0.0
            losses = losses_before + [loss - units for loss in result.loss_curve]
            scores = scores_before + [score + start.units_val for score in result.validation_scores]
            attributes = {
                "base_": start.base,
                "margins_": start.margins,
                "n_teachers_": n_teachers,
                "encoding_": encoding,
                "flow_": copy.deepcopy(flow).to(device="cpu", dtype=torch.float64).requires_grad_(False).eval(),
                "batch_size_": batch_size,
                "max_iter_": max_iter,
                "optimizer_": optimizer,
                "n_iter_": len(losses),
                "stop_reason_": result.stop_reason,
                "loss_curve_": losses,
                "validation_scores_": scores or None,
                "best_validation_score_": result.best_score + start.units_val if scores else None,
            }
            if objective is not None:
                judges = validation or train
                judges = Rows(judges.values[:MAX_ROWS_FOR_EVALUATIONS].cpu().double(), judges.weight)
                attributes["n_function_evaluations_"] = mean_evaluations(attributes["flow_"], judges)
            return attributes

        n_steps = math.inf if max_iter is None else max_iter * math.ceil(n_rows * self._n_visits / batch_size)
        n_threads = torch.get_num_threads()
        widest_layer = max(layer_widths(flow) if holds_images else [self.n_features_in_, *self._widths_of_layers()])
        with (
            FitProgress(self, max_iter, self.verbose, X_given, y, sample_weight, loss_is_likelihood) as progress,
            one_thread_if_small(batch_size * widest_layer),
            torch.autocast(device.type, enabled=False),  # the caller may have switched it on
        ):
            try:
                result = fit_flow(
                    flow,
                    train,
                    validation,
                    max_iter=max_iter,
                    max_time=None if self.max_time is None else max(1e-3, begin + self.max_time - time.perf_counter()),
                    batch_size=batch_size,
                    learning_rate=self._peak_learning_rate(from_draws=n_teachers > 0),
                    weight_decay=self.weight_decay,
                    early_stopping=start.early_stopping,
                    n_iter_no_change=self.n_iter_no_change,
                    tol=self.tol,
                    generator=generator,
                    n_compiled_threads=n_threads if n_steps >= MIN_STEPS_FOR_COMPILED_KERNELS else 0,
                    objective=objective,
                    n_visits=self._n_visits,
                    orthogonalises=optimizer == "muon",
                    on_epoch_end=lambda result: progress.end_epoch(
                        result.n_iter, result.stop_reason != "max_iter", lambda: fitted_attributes(result)
                    ),
                )
            except DivergedError as error:
                widest = names[np.flatnonzero(encoding.varies)[int(train.values.abs().amax(dim=0).argmax())]]
                raise DivergedError(
                    f"Training of {type(self).__name__} diverged: {error}. The column with the most extreme value, in its own"
                    f" standard deviations, is {widest!r}: transform it (its logarithm, or ranks), or lower learning_rate."
                ) from error
            try:
                attributes = fitted_attributes(result)
            except StepLimitError as error:
                raise ValueError(f"{type(self).__name__} has learned a field that nobody can follow. {error}") from error
            for name, value in attributes.items():
                setattr(self, name, value)
            progress.end_fit(f"stopped after {result.n_iter} epochs ({result.stop_reason})", attributes)
        self._warn_about_the_end(result)
        return self

    def _widths_of_layers(self):
        return self.hidden_layer_sizes_ if isinstance(self.hidden_layer_sizes, str) else self.hidden_layer_sizes

    def _holds_images(self):
        return getattr(self, "image_shape", None) is not None

    def _peak_learning_rate(self, from_draws):
        if self.learning_rate != "auto":
            return self.learning_rate
        if self._holds_images():
            return self._learning_rates.images
        return self._learning_rates.draws if from_draws else self._learning_rates.rows

    def _go_on(self, rows, weight, validation_rows, rng):
        """Start where the last fit has ended."""
        encoding = self.encoding_
        train, validation, units, units_val, early_stopping = self._encode(encoding, rows, weight, validation_rows, rng)
        n_features = train.values.shape[1]
        base = copy.deepcopy(self.flow_.base).float() if isinstance(self.flow_.base, StudentMixture) else None
        flow = self._build_flow(torch.eye(n_features, dtype=torch.float64), base, torch_generator(0))
        if repr(flow) != repr(self.flow_):
            raise ValueError(
                "warm_start=True continues the training of flow_, but parameters that shape it have changed since that fit."
                " Set them back, or fit with warm_start=False."
            )
        flow.load_state_dict(self.flow_.state_dict())
        return Start(encoding, flow, self.base_, self.margins_, train, validation, units, units_val, early_stopping)

    def _whole_fit_of_several(self, rows, weight, validation_rows, n_teachers, begin, rng):
        """Give the best of whole fits where these are what to do, else None."""
        if n_teachers:
            if self.n_teachers != "auto" or self.max_time is None:
                return None
            return best_flow_in_time(self, rows, weight, validation_rows, n_teachers, begin + self.max_time, rng)
        validates = self.early_stopping or validation_rows is not None
        if self.max_time is not None or not validates:
            return None
        if not MIN_ROWS_FOR_WHOLE_FITS <= len(rows) <= MAX_ROWS_FOR_WHOLE_FITS:
            return None
        starts = starts_of(self)
        if len(starts) == 1:
            return None
        shares_of_steps = shares_of_steps_to_tell_starts(self, len(rows))
        return best_of_whole_fits(self, starts, shares_of_steps, rows, weight, validation_rows, rng)

    def _learn_from_rows(self, rows, weight, validation_rows, rng):
        """Start from a simple density of the rows."""
        base, margins = scout(self, rows, weight, rng)
        # From all rows: a column that varies may be constant among those that are not held out.
        encoding = TableEncoding.fit(rows, weight, margins)
        train, validation, units, units_val, early_stopping = self._encode(encoding, rows, weight, validation_rows, rng)
        return Start(encoding, None, base, margins, train, validation, units, units_val, early_stopping)

    def _learn_from_images(self, rows, weight, validation_rows, rng):
        """Start from a simple density of the images, their pixels spread over the cells of their levels."""
        base = default_base_of_images(rows.shape[1]) if self.base == "auto" else self.base
        margins = MARGINS_OF_IMAGES if self.margins == "auto" else self.margins
        levels = PixelLevels.fit(rows if validation_rows is None else np.concatenate([rows, validation_rows[0]]))
        part, part_val, early_stopping = self._hold_out(rows, weight, validation_rows, rng)
        part, part_val = dequantised(levels, part, part_val, rng)
        encoding = ImageEncoding.fit(levels, *part[:2], margins)
        encoded = encode_parts(self, encoding, part, part_val)
        return Start(encoding, None, base, margins, *encoded, early_stopping)

    def _encode(self, encoding, rows, weight, validation_rows, rng):
        """Split canonical rows and encode them; say, too, whether to stop early."""
        part, part_val, early_stopping = self._hold_out(rows, weight, validation_rows, rng)
        if isinstance(encoding, ImageEncoding):
            part, part_val = dequantised(encoding.levels, part, part_val, rng)
        return *encode_parts(self, encoding, part, part_val), early_stopping

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

    def _become(self, flow, X, y, sample_weight):
        """Take over what another flow has learned, which has told by itself how its fit went: here only callbacks are told."""
        with FitProgress(self, None, 0, X, y, sample_weight) as progress:
            attributes = learned_attributes(flow)
            for name, value in attributes.items():
                setattr(self, name, value)
            progress.end_fit(flow.stop_reason_, attributes)
        if flow.stop_reason_ == "interrupted":
            warnings.warn(
                "Training interrupted by the user before its last stage; the best flow so far is kept.",
                UserWarning,
                stacklevel=5,
            )
        elif flow.stop_reason_ == "max_iter" and self.validation_scores_ is not None:
            scores = self.validation_scores_
            self._warn_if_still_rising(scores, max(scores) >= self.best_validation_score_)
        return self

    def _warn_about_the_end(self, result):
        if result.stop_reason == "interrupted":
            warnings.warn(
                f"Training interrupted by the user after {result.n_iter} epochs; the best model so far is kept.",
                UserWarning,
                stacklevel=5,
            )
        elif result.stop_reason == "max_iter":
            self._warn_if_still_rising(result.validation_scores or [-loss for loss in result.loss_curve], result.best_epoch > 0)

    def _warn_if_still_rising(self, curve, has_improved):
        if self.max_iter == "auto":
            return
        # Still rising: the last tenth of the epochs (or the patience, where that is shorter) beats all that was before.
        window = int(min(self.n_iter_no_change, max(1, len(curve) // 10)))
        if len(curve) == 1 or (has_improved and max(curve[-window:]) > max(curve[:-window]) + self.tol * window):
            warnings.warn(
                f"{type(self).__name__} reached max_iter={self.max_iter} while its likelihood was still rising. Raise"
                " max_iter, or leave it at 'auto'.",
                ConvergenceWarning,
                stacklevel=6,
            )
