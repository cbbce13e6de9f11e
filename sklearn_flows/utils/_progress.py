"""Everything that a fit tells its user while it runs: printed lines, a bar, or scikit-learn's callbacks."""

import numpy as np

from ._sklearn import HAS_CALLBACKS


class FitProgress:
    """Report the epochs of one fit.

    Parameters
    ----------
    estimator : estimator
        The estimator being fitted.
    max_iter : int
        Number of epochs planned.
    verbose : int
        0 is silent, 1 tells about ten times in a fit, 2 every epoch. Before scikit-learn 1.9, which has progress bars of its
        own, a tqdm bar takes the place of the lines if tqdm is installed.
    X, y, sample_weight : array-like or None
        What ``fit`` was given, for callbacks that score.
    """

    def __init__(self, estimator, max_iter, verbose, X, y, sample_weight):
        self.estimator = estimator
        self.max_iter = max_iter
        self.verbose = verbose
        self.bar = None if HAS_CALLBACKS or not verbose else _tqdm_bar(type(estimator).__name__, max_iter)
        self.context = estimator._init_callback_context(max_subtasks=max_iter)
        self.epoch_context = None
        # ScoringMonitor scores only where it is given a y; densities ignore it.
        self.data = {
            "X": X,
            "y": (lambda: np.zeros(len(X))) if y is None else y,
            "metadata": None if sample_weight is None else {"sample_weight": sample_weight},
        }
        if self.context is not None:
            self.context.call_on_fit_task_begin(estimator=estimator, **self.data)

    def begin_epoch(self):
        """Tell callbacks that an epoch begins."""
        if self.context is not None:
            self.epoch_context = self.context.subcontext(task_name="epoch")
            self.epoch_context.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def end_epoch(self, n_iter, loss, validation_score, fitted_attributes):
        """Tell callbacks and the user that an epoch has ended.

        Parameters
        ----------
        n_iter : int
            Number of epochs done.
        loss : float
            Mean negative log-likelihood of the epoch.
        validation_score : float or None
            Mean log-likelihood of the validation rows.
        fitted_attributes : callable
            Returns what a fitted estimator would have now; called only where a callback asks for it.

        Returns
        -------
        bool
            Whether a callback asked to stop.
        """
        message = f"log-likelihood {-loss:.4f}" + ("" if validation_score is None else f", validation {validation_score:.4f}")
        if self.bar is not None:
            self.bar.set_postfix_str(message, refresh=False)
            self.bar.update()
        elif self.verbose and (self.verbose > 1 or n_iter % max(1, self.max_iter // 10) == 0):
            print(f"[{type(self.estimator).__name__}] epoch {n_iter}/{self.max_iter}: {message}")
        if self.epoch_context is None:
            return False
        ended, self.epoch_context = self.epoch_context, None
        return ended.call_on_fit_task_end(estimator=self.estimator, reconstruction_attributes=fitted_attributes, **self.data)

    def close(self, message, fitted_attributes):
        """Tell that the fit has ended.

        Parameters
        ----------
        message : str
            Why it ended.
        fitted_attributes : callable
            Returns what the fitted estimator has.
        """
        if self.bar is not None:
            self.bar.close()
        elif self.verbose:
            print(f"[{type(self.estimator).__name__}] {message}")
        if self.context is not None:
            self.context.call_on_fit_task_end(
                estimator=self.estimator, reconstruction_attributes=fitted_attributes, **self.data
            )


def _tqdm_bar(description, total):
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=description, unit="epoch")
