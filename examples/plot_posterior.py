"""
A posterior: eight schools
==========================

Eight schools tried a coaching programme for a test. Each reports an effect :math:`y_j` with a known standard error
:math:`\\sigma_j`. The classic hierarchical model (Rubin 1981) says that the true effects :math:`\\theta_j` scatter around a
common mean:

.. math:: y_j \\sim \\mathcal N(\\theta_j, \\sigma_j^2), \\quad \\theta_j = \\mu + \\tau \\eta_j, \\quad
   \\eta_j \\sim \\mathcal N(0, 1), \\quad \\mu \\sim \\mathcal N(0, 5^2), \\quad \\tau \\sim \\mathrm{Cauchy}^+(0, 5) .

``VariationalFlow`` is given the logarithm of the posterior density, up to a constant, and draws from it.
"""

# %%
# The log-density
# ---------------
# It is a function of a tensor with a row for each point. All parameters must be real numbers without bounds, so
# :math:`\log \tau` takes the place of :math:`\tau`, and the logarithm of the Jacobian, :math:`\log \tau` again, is added.

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.integrate import trapezoid

from sklearn_flows import VariationalFlow

y = torch.tensor([28.0, 8, -3, 7, -1, 1, 18, 12], dtype=torch.float64)
sigma = torch.tensor([15.0, 10, 16, 11, 9, 11, 10, 18], dtype=torch.float64)


def log_posterior(x):
    mu, log_tau, eta = x[:, 0], x[:, 1], x[:, 2:]
    tau = log_tau.exp()
    theta = mu[:, None] + tau[:, None] * eta
    log_likelihood = -0.5 * ((y - theta) / sigma).square().sum(dim=1)
    log_prior = -0.5 * (mu / 5).square() - torch.log1p((tau / 5).square()) - 0.5 * eta.square().sum(dim=1)
    return log_likelihood + log_prior + log_tau


# %%
# Fit, and judge
# --------------
# The fit says how high the evidence lower bound is. Whether the flow is right it can't say, but importance weights can: they
# correct what is left of its error, and the Pareto k of their tail tells whether that works. Below 0.7 it does.

flow = VariationalFlow(random_state=0).fit(log_posterior, n_features=10)
weighted = flow.importance_sample(log_posterior, n_samples=20_000, random_state=0)
print(f"evidence lower bound   {flow.elbo_:.3f} nats")
print(f"log-evidence           {weighted.log_normalizer:.3f} nats")
print(f"effective sample size  {weighted.effective_sample_size:.0f} of 20000")
print(f"Pareto k               {weighted.pareto_k:.2f}")

# %%
# The posterior
# -------------
# Where the schools hardly differ, at small :math:`\tau`, the effects are tied to the mean; at large :math:`\tau` they are
# free: a funnel, which no Gaussian describes. The dashed curve is the exact marginal density of :math:`\log \tau`, by
# quadrature: given :math:`\tau` all else is normal and can be integrated in closed form.

samples, weights = weighted.samples, weighted.weights
theta = samples[:, :1] + np.exp(samples[:, 1:2]) * samples[:, 2:]

grid = np.linspace(-4, 5, 400)
log_p = []
for log_tau in grid:
    tau2 = np.exp(2 * log_tau)
    covariance = 25 + np.diag(sigma.numpy() ** 2 + tau2)
    _, log_det = np.linalg.slogdet(covariance)
    log_p.append(-0.5 * (y.numpy() @ np.linalg.solve(covariance, y.numpy()) + log_det) + log_tau - np.log1p(tau2 / 25))
exact = np.exp(np.array(log_p) - np.max(log_p))
exact /= trapezoid(exact, grid)

fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
axes[0].scatter(theta[:4000, 0], samples[:4000, 1], s=2, color="black")
axes[0].set(
    xlabel="effect of the first school", ylabel=r"$\log\,\tau$", xlim=(-30, 50), ylim=(-4, 4), title="draws of the flow"
)
axes[1].hist(samples[:, 1], bins=80, range=(-4, 5), weights=weights, density=True, color="lightgray")
axes[1].plot(grid, exact, "k--", label="exact")
axes[1].set(xlabel=r"$\log\,\tau$", title="marginal density")
axes[1].legend()
mean = np.average(theta, weights=weights, axis=0)
low, high = np.quantile(theta, [0.05, 0.95], axis=0)
axes[2].errorbar(mean, np.arange(8), xerr=[mean - low, high - mean], fmt="o", color="black", label="posterior, 90 %")
axes[2].plot(y, np.arange(8), "x", color="C3", label="reported")
axes[2].set(xlabel="effect", yticks=range(8), yticklabels=list("ABCDEFGH"), title="schools")
axes[2].legend(loc="lower right")
plt.show()

# %%
# What to beware of
# -----------------
# The reverse Kullback-Leibler divergence is estimated by draws of the flow: it knows only the places that the flow has found.
# Here are two equal modes, ten standard deviations to the left and right: the flow takes one of them, and its weights look
# perfect.


def two_modes(x):
    return torch.logsumexp(torch.stack([-0.5 * (x[:, 0] - 10).square(), -0.5 * (x[:, 0] + 10).square()]), dim=0)


blind = VariationalFlow(max_iter=500, random_state=0).fit(two_modes, n_features=1)
weighted = blind.importance_sample(two_modes, n_samples=2000, random_state=0)
print(f"share of draws in the right mode {np.mean(weighted.samples > 0):.2f}, Pareto k {weighted.pareto_k:.2f}")
