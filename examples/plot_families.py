"""
Every family on six densities
=============================

Each row of pictures is a family of flows, each column a density of the plane that papers on flows like to draw. All flows see
the same 2,000 rows, have small networks and start from a Gaussian (``base="normal"``), so that what is seen is what their
layers do. By default they may start from a mixture, and then differ by much less: :doc:`/families/comparison` has the figures.
"""

# %%
# The families
# ------------

import warnings

import matplotlib.pyplot as plt
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from sklearn_flows import (
    FFJORDDensity,
    FlowMatchingDensity,
    GlowDensity,
    IAFDensity,
    MAFDensity,
    NeuralSplineFlowDensity,
    RealNVPDensity,
)
from sklearn_flows.datasets import TOY_DENSITIES

warnings.simplefilter("ignore", ConvergenceWarning)  # the epochs are few
plain = {"margins": "linear", "n_teachers": 0, "hidden_layer_sizes": (64, 64), "batch_size": 64, "random_state": 0}
common = {**plain, "base": "normal", "max_iter": 70, "learning_rate": 5e-3}
# Epochs of these take longer, and what is drawn needs no close tolerance.
continuous = {**common, "batch_size": 128, "rtol": 1e-3, "atol": 1e-3}
families = {
    "splines": NeuralSplineFlowDensity(**common),
    "MAF": MAFDensity(**common),
    "IAF": IAFDensity(**common),
    "RealNVP": RealNVPDensity(**common),
    "Glow": GlowDensity(**common),
    "FFJORD": FFJORDDensity(**continuous | {"max_iter": 10, "learning_rate": 2e-2, "n_solver_steps": 2}),
    "flow matching": FlowMatchingDensity(**continuous | {"max_iter": 14, "batch_size": 256, "learning_rate": 3e-2}),
    "MAF, from\na mixture": MAFDensity(**plain, base="mixture", max_iter=20),
}

# %%
# Fits
# ----
# The mean log-density of 4,000 other rows stands in each picture, and that of the true density in the first row.

SHAPE = (90, 90)
fig, axes = plt.subplots(len(families) + 1, 6, figsize=(10, 1.75 * (len(families) + 1)), layout="constrained")
for column, (name, toy) in zip(axes.T, TOY_DENSITIES.items(), strict=True):
    X, X_test = toy.sample(2000, random_state=0), toy.sample(4000, random_state=1)
    reach = 1.1 * np.abs(X).max(axis=0)
    x, y = np.meshgrid(*(np.linspace(-r, r, n) for r, n in zip(reach, SHAPE, strict=True)))
    grid = np.column_stack([x.ravel(), y.ravel()])
    brightest = np.exp(toy.score_samples(grid)).max()
    for ax, (family, density) in zip(column, [("truth", toy), *families.items()], strict=True):
        if density is not toy:
            density.fit(X)
        p = np.exp(density.score_samples(grid)).reshape(SHAPE)
        ax.imshow(p, origin="lower", aspect="auto", cmap="magma", vmin=0, vmax=brightest)
        ax.set(xticks=[], yticks=[], title=name if density is toy else None)
        ax.set_xlabel(f"{density.score_samples(X_test).mean():.2f}", fontsize="small")
        if ax in axes[:, 0]:
            ax.set_ylabel(family)
plt.show()
