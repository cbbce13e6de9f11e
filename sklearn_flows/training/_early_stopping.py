"""When to stop: patience and tolerance as a small state machine without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class EarlyStopping:
    """Watch a score that should rise.

    Parameters
    ----------
    patience : float
        Number of epochs without a rise of more than ``tol`` after which to stop.
    tol : float
        Smallest rise that counts.

    Attributes
    ----------
    best_score : float
        Highest score seen.
    best_epoch : int
        Epoch of the highest score, counted from 1; 0 before the first.
    """

    patience: float
    tol: float
    best_score: float = -math.inf
    best_epoch: int = 0
    _reference: float = field(default=-math.inf, repr=False)
    _epochs_without_rise: int = field(default=0, repr=False)

    def update(self, epoch: int, score: float) -> bool:
        """Take the score of an epoch; return whether it is the best so far."""
        if score > self._reference + self.tol:
            self._reference = score
            self._epochs_without_rise = 0
        else:
            self._epochs_without_rise += 1
        if score > self.best_score:
            self.best_score, self.best_epoch = score, epoch
            return True
        return False

    def start_again(self, patience: float) -> None:
        """Wait again from now on, for a rise above the highest score."""
        self.patience = patience
        self._reference = self.best_score
        self._epochs_without_rise = 0

    @property
    def should_stop(self) -> bool:
        """Whether the patience is used up."""
        return self._epochs_without_rise >= self.patience
