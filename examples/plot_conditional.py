"""
Densities that depend on features
=================================

``ConditionalFlowDensity`` learns the whole distribution of targets given features, not only their mean. Two uses: predictive
distributions with intervals, and the posterior of a simulator's parameters.
"""

# %%
# A predictive distribution
# -------------------------
# One feature and one target, whose mean, width and skewness all change: on the right it even has two modes. The quantiles of a
# single target are exact.

import matplotlib.pyplot as plt
import numpy as np

from sklearn_flows import ConditionalFlowDensity

rng = np.random.RandomState(0)


def draw(n_rows):
    X = rng.uniform(-3, 3, (n_rows, 1))
    x = X[:, 0]
    branch = np.where((x > 1) & (rng.rand(n_rows) < 0.4), -2.0 * (x - 1), 0.0)
    noise = np.where(x < -1, rng.gamma(1.5, 0.6, n_rows), 0.25 * rng.randn(n_rows))
    return X, np.sin(2 * x) + branch + noise


X, y = draw(2000)
X_test, y_test = draw(2000)
density = ConditionalFlowDensity(random_state=0).fit(X, y)
low, high = density.predict_quantiles(X_test, [0.05, 0.95]).T
print(f"Mean log-density of {len(X_test)} new rows: {density.score(X_test, y_test):.3f} nats")
print(f"Share of them inside their 90 % intervals: {((low <= y_test) & (y_test <= high)).mean():.3f}")

x, levels = np.linspace(-3, 3, 160), np.linspace(-5, 4, 200)
grid = np.column_stack([axis.ravel() for axis in np.meshgrid(x, levels)])
shading = np.exp(density.log_prob(grid[:, :1], grid[:, 1])).reshape(len(levels), len(x))
quantiles = density.predict_quantiles(x[:, None], [0.05, 0.5, 0.95])

figure, axes = plt.subplots(1, 2, figsize=(11, 4), sharex=True, sharey=True, layout="constrained")
axes[0].scatter(X, y, s=4, color="black", alpha=0.4)
axes[0].plot(x, quantiles, color="tab:orange")
axes[0].set_title("rows, and quantiles 0.05, 0.5 and 0.95")
mesh = axes[1].pcolormesh(x, levels, np.minimum(shading, 1.6), cmap="viridis", shading="auto")
axes[1].set_title("density of the target given the feature")
figure.colorbar(mesh, ax=axes[1])
for axis in axes:
    axis.set_xlabel("feature")
axes[0].set_ylabel("target")
axes[0].set_ylim(-5, 4)
plt.show()

# %%
# The posterior of a simulator
# ----------------------------
# A ball is thrown with a speed and at an angle that nobody knows; measured are how far it flies and, badly, for how long.
# Parameters are drawn from their prior and simulated; with the data as features and the parameters as targets, the density is
# the posterior, for any data, by a single fit. Twenty metres can be a flat throw or a steep one: the posterior is a long bow.
# To compare: the few simulations, among many more, whose data happen to lie close to those observed.

GRAVITY = 9.81


def simulate(n_rows):
    parameters = np.column_stack([rng.uniform(5, 25, n_rows), rng.uniform(10, 80, n_rows)])
    speed, angle = parameters[:, 0], np.radians(parameters[:, 1])
    distance = speed**2 * np.sin(2 * angle) / GRAVITY
    duration = 2 * speed * np.sin(angle) / GRAVITY
    return parameters, np.column_stack([distance + 0.5 * rng.randn(n_rows), duration + 0.6 * rng.randn(n_rows)])


parameters, data = simulate(3000)
posterior = ConditionalFlowDensity(margins="smooth", random_state=0).fit(data, parameters)
observed = np.array([[20.0, 2.0]])
draws = posterior.sample_y(observed, 3000, random_state=0)[0]

many, many_data = simulate(1_000_000)
close = many[(np.abs((many_data - observed) / [0.25, 0.1]) < 1).all(axis=1)][:3000]

figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharex=True, sharey=True, layout="constrained")
for axis, points, title in (
    (axes[0], draws.T, f"posterior from {len(parameters):,} simulations"),
    (axes[1], close, f"close ones among {len(many):,} simulations"),
):
    axis.scatter(*points.T, s=4, alpha=0.4)
    axis.set_title(title)
    axis.set_xlabel("speed in m/s")
axes[0].set_xlim(5, 25)
axes[0].set_ylim(10, 80)
axes[0].set_ylabel("angle in degrees")
plt.show()
