"""
From noise to data along a field
================================

A continuous flow moves points: each follows a vector field that changes with time, from a draw of a Gaussian at time 0 to a row
of the table at time 1. :doc:`FFJORD </families/ffjord>` trains the field by maximum likelihood, and :doc:`flow matching
</families/flow_matching>` by a regression on straight ways from draws to rows. Both make the same rows, and their ways differ.
"""

# %%
# Two fits
# --------
# By default both start from a mixture that is close to the rows already, and ways are too short to see. So here they start from
# a Gaussian.

from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch

from sklearn_flows import FFJORDDensity, FlowMatchingDensity
from sklearn_flows.datasets import TwoMoons

X = TwoMoons().sample(2000, random_state=0)
common = {"hidden_layer_sizes": (64, 64), "base": "normal", "margins": "linear", "rtol": 1e-4, "atol": 1e-4, "random_state": 0}
densities = {
    "FFJORD": FFJORDDensity(**common, max_iter=24, batch_size=128, learning_rate=2e-2),
    "flow matching": FlowMatchingDensity(**common, max_iter=40, batch_size=256, learning_rate=3e-2),
}
for density in densities.values():
    density.fit(X)

# %%
# Ways and densities
# ------------------
# The first transform of ``flow_`` whitens the columns, and its second one is the equation, which can be solved to any time.
# The density at a time :math:`t` is that of the base where a point comes from, divided by how much the way from there stretches
# the plane.

TIMES = np.linspace(0, 1, 13)
x, y = torch.meshgrid(torch.linspace(-2.4, 2.4, 64), torch.linspace(-2.4, 2.4, 64), indexing="xy")
grid = torch.stack([x.flatten(), y.flatten()], dim=1).double()
start = torch.as_tensor(np.random.RandomState(1).normal(size=(150, 2)))

fig, axes = plt.subplots(len(densities), 4, figsize=(10, 5.2), layout="constrained", sharex=True, sharey=True)
for row, (name, density) in zip(axes, densities.items(), strict=True):
    _, equation = density.flow_.transform.transforms
    for ax, t in zip(row, (0.0, 0.5, 1.0), strict=False):
        origin, log_det, _ = equation.solve(grid, None, t, 0.0)
        p = (density.flow_.base.log_prob(origin) + log_det).exp().reshape(x.shape)
        ax.imshow(p, origin="lower", extent=(-2.4, 2.4, -2.4, 2.4), cmap="magma", interpolation="bilinear")
        ax.set(xticks=[], yticks=[], xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), title=f"density at t = {t:g}")
    way = [start]
    for t, later in pairwise(TIMES):
        way.append(equation.solve(way[-1], None, t, later)[0])
    ways = torch.stack(way)
    ax = row[-1]
    ax.plot(*ways.unbind(dim=2), color="tab:gray", linewidth=0.5)
    ax.scatter(*ways[0].T, s=4, color="tab:blue", label="t = 0")
    ax.scatter(*ways[-1].T, s=4, color="tab:red", label="t = 1", zorder=3)
    ax.set(aspect="equal", title=f"ways ({density.n_function_evaluations_:.0f} evaluations)")
    row[0].set_ylabel(f"{name}\n{density.score(TwoMoons().sample(4000, random_state=1)):.3f} nats")
axes[0, -1].legend(loc="lower left", fontsize="x-small")
plt.show()

# %%
# FFJORD's loss counts the kinetic energy of the ways (``kinetic_weight``), so they are short and nearly straight. Flow matching
# doesn't choose its ways: its field is the mean velocity of all straight ways through a point, and turns as these do.
