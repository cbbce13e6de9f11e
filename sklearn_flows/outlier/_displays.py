"""Pictures of why rows are outliers."""

import numpy as np

from ..utils._sklearn import feature_names

# Columns that are drawn, at most, unless asked for more.
MAX_FEATURES = 20


class FeatureSurpriseDisplay:
    """What each column takes from the scores of rows: bars for one row, a heat map for several.

    It is recommended to make one with ``from_estimator``. All parameters are stored as attributes.

    Parameters
    ----------
    contributions : ndarray of shape (n_samples, n_features)
        What each column takes from the score of each row, in nats.
    values : ndarray of shape (n_samples, n_features)
        The rows.
    ranges : ndarray of shape (n_samples, n_features, 2)
        Where each value would have been ordinary; NaN where it is.
    feature_names : list of str
        Names of the columns.

    Attributes
    ----------
    ax_ : matplotlib Axes
        The axes drawn on.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    FlowOutlierDetector.explain : Where the numbers come from.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_flows import FeatureSurpriseDisplay, FlowOutlierDetector
    >>> X = np.random.RandomState(0).standard_normal((200, 3))
    >>> detector = FlowOutlierDetector(random_state=0).fit(X)
    >>> display = FeatureSurpriseDisplay.from_estimator(detector, [[0.0, 7.0, 0.0]])
    >>> display.ax_.get_xlabel()
    'taken from the score, in nats'
    """

    def __init__(self, *, contributions, values, ranges, feature_names):
        self.contributions = contributions
        self.values = values
        self.ranges = ranges
        self.feature_names = feature_names

    @classmethod
    def from_estimator(cls, estimator, X, *, max_features=MAX_FEATURES, ax=None):
        """Explain rows and draw why they are outliers.

        Parameters
        ----------
        estimator : FlowOutlierDetector
            A fitted detector.
        X : array-like of shape (n_samples, n_features)
            The rows.
        max_features : int, default=20
            Columns that are drawn, at most: those that take most.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        FeatureSurpriseDisplay
            The display, drawn.
        """
        reasons = estimator.explain(X)
        names = feature_names(X, estimator.n_features_in_)
        values = np.asarray(X, dtype=np.float64)
        display = cls(contributions=reasons.contributions, values=values, ranges=reasons.ranges, feature_names=names)
        return display.plot(max_features=max_features, ax=ax)

    def plot(self, *, max_features=MAX_FEATURES, ax=None):
        """Draw the display.

        Parameters
        ----------
        max_features : int, default=20
            Columns that are drawn, at most: those that take most.
        ax : matplotlib Axes, default=None
            Where to draw. None makes a new figure.

        Returns
        -------
        FeatureSurpriseDisplay
            The display itself.

        Raises
        ------
        ImportError
            If matplotlib isn't installed.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                "FeatureSurpriseDisplay draws with matplotlib, which isn't installed: pip install sklearn-flows[plot]"
            ) from error

        if ax is None:
            _, ax = plt.subplots(layout="constrained")
        total = self.contributions.sum(axis=0)
        chosen = np.argsort(-total, kind="stable")[:max_features]
        if len(self.contributions) == 1:
            self._draw_bars(ax, chosen[total[chosen] > 0])
        else:
            self._draw_heat_map(ax, np.sort(chosen))
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_bars(self, ax, chosen):
        taken = self.contributions[0, chosen]
        labels = []
        for j in chosen:
            label = f"{self.feature_names[j]} = {self.values[0, j]:.4g}"
            low, high = self.ranges[0, j]
            labels.append(label if np.isnan(low) else f"{label}\nordinary: {low:.4g} to {high:.4g}")
        ax.barh(np.arange(len(chosen)), taken, height=0.6, color="tab:red")
        ax.set_yticks(np.arange(len(chosen)), labels)
        ax.invert_yaxis()
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlabel("taken from the score, in nats")

    def _draw_heat_map(self, ax, chosen):
        from matplotlib.colors import SymLogNorm

        taken = self.contributions[:, chosen]
        # Logarithmic, as a few rows may take thousands of nats; what is there at all is a nat or more.
        norm = SymLogNorm(linthresh=1.0, vmin=0.0, vmax=max(taken.max(), 10.0))
        image = ax.imshow(taken, aspect="auto", cmap="Reds", norm=norm, interpolation="nearest")
        ax.set_xticks(np.arange(len(chosen)), [self.feature_names[j] for j in chosen], rotation=45, ha="right")
        ax.yaxis.get_major_locator().set_params(integer=True)
        ax.set_ylabel("row")
        ax.figure.colorbar(image, ax=ax, label="taken from the score, in nats")
