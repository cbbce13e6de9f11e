"""Everything that a fit tells its user while it runs: printed lines, a bar, or scikit-learn's callbacks."""

import numpy as np

from ._sklearn import HAS_CALLBACKS


class FitProgress:
    """Report the epochs of one fit; a context manager, so that bars are closed whatever happens.

    Parameters
    ----------
    estimator : estimator
        The estimator being fitted.
    max_iter : int or None
        Number of epochs planned; None if only the time is limited.
    verbose : int
        0 is silent, 1 tells about ten times in a fit, 2 every epoch. Before scikit-learn 1.9, which has progress bars of
        its own, a tqdm bar takes the place of the lines if tqdm is installed.
    X, y, sample_weight : array-like or None
        What ``fit`` was given, for callbacks that score.
    loss_is_likelihood : bool, default=True
        Whether the loss is the negative log-likelihood.
    """

    def __init__(self, estimator, max_iter, verbose, X, y, sample_weight, loss_is_likelihood=True):
        self.estimator = estimator
        self.max_iter = max_iter
        self.verbose = verbose
        self.loss_is_likelihood = loss_is_likelihood
        self.bar = None if HAS_CALLBACKS or not verbose else _tqdm_bar(type(estimator).__name__, max_iter)
        # ScoringMonitor scores only where it is given a y; densities ignore it.
        self.data = {
            "X": X,
            "y": (lambda: np.zeros(len(X))) if y is None else y,
            "metadata": None if sample_weight is None else {"sample_weight": sample_weight},
        }
        self.fit_context = estimator._init_callback_context(max_subtasks=max_iter)
        self.epoch_context = None
        if self.fit_context is not None:
            self.fit_context.call_on_fit_task_begin(estimator=estimator, **self.data)
            self._begin_epoch()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()

    def _begin_epoch(self):
        self.epoch_context = self.fit_context.subcontext(task_name="epoch")
        self.epoch_context.call_on_fit_task_begin(estimator=self.estimator, **self.data)

    def _is_told(self, n_iter):
        if self.max_iter is None:  # 1, 2, 5, 10, 20, 50, ...
            return str(n_iter).rstrip("0") in ("1", "2", "5")
        return n_iter % max(1, self.max_iter // 10) == 0

    def _summary(self, fitted_attributes):
        loss = fitted_attributes["loss_curve_"][-1]
        summary = f"log-likelihood {-loss:.4f}" if self.loss_is_likelihood else f"loss {loss:.4f}"
        if fitted_attributes["validation_scores_"] is not None:
            summary += f", validation {fitted_attributes['validation_scores_'][-1]:.4f}"
        return summary

    def _print(self, message):
        print(f"[{type(self.estimator).__name__}] {message}")

    def end_epoch(self, n_iter, is_last, fitted_attributes):
        """Tell callbacks and the user that an epoch has ended.

        Parameters
        ----------
        n_iter : int
            Number of epochs done in this fit.
        is_last : bool
            Whether training stops here, before ``max_iter``.
        fitted_attributes : callable
            Returns what a fitted estimator would have now; called only where somebody asks for it.

        Returns
        -------
        bool
            Whether a callback asked to stop.
        """
        if self.bar is not None:
            self.bar.set_postfix_str(self._summary(fitted_attributes()), refresh=False)
            self.bar.update()
        elif self.verbose and (self.verbose > 1 or self._is_told(n_iter)):
            number = n_iter if self.max_iter is None else f"{n_iter}/{self.max_iter}"
            self._print(f"epoch {number}: {self._summary(fitted_attributes())}")
        if self.fit_context is None:
            return False
        asked_to_stop = self.epoch_context.call_on_fit_task_end(
            estimator=self.estimator, reconstruction_attributes=fitted_attributes, **self.data
        )
        self.epoch_context = None
        if n_iter != self.max_iter and not is_last and not asked_to_stop:
            self._begin_epoch()
        return asked_to_stop

    def end_fit(self, message, fitted_attributes):
        """Tell callbacks and the user that the fit has ended.

        Parameters
        ----------
        message : str
            Why it ended.
        fitted_attributes : dict
            What the fitted estimator has.
        """
        if self.verbose and self.bar is None:
            self._print(message)
        if self.epoch_context is not None:  # an interrupted one
            self.epoch_context.call_on_fit_task_end(estimator=self.estimator)
        if self.fit_context is not None:
            self.fit_context.call_on_fit_task_end(
                estimator=self.estimator, reconstruction_attributes=fitted_attributes, **self.data
            )


def _tqdm_bar(description, total):
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    return tqdm(total=total, desc=description, unit="epoch")
