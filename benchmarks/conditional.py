"""Conditional densities: posteriors of two simulators, and predictive densities of two tables.

    pip install -e .
    python benchmarks/conditional.py --data DIR [--tasks slcp,gaussian_linear,concrete,energy] [--observations 1,2,...]
        [--simulations 10000] [--splits 10]

Posteriors: two tasks of the benchmark of simulation-based inference (Lueckmann, Boelts, Greenberg, Goncalves and Macke,
"Benchmarking Simulation-Based Inference", AISTATS 2021), whose simulators are written here from their definitions.
``ConditionalFlowDensity`` is fitted once to simulated pairs and asked for the posterior at each observation. 10,000 draws of it
are told from 10,000 reference draws, read from ``DIR/sbi``, by the benchmark's classifier: columns standardised by the
reference draws, a network of two hidden layers of ten units a parameter, the mean accuracy in five folds (C2ST: 0.5 is
perfect). Draws outside the prior's support are left out. Beside it stand the figures that the benchmark's authors print for
neural posterior estimation (NPE) with as many simulations, and the mean log-density of the reference draws.

Predictive densities: the tables ``DIR/uci/concrete.npz`` and ``DIR/uci/energy.npz`` (arrays ``X`` and ``y``), cut ten times at
random into nine tenths to fit and one tenth to judge. Printed is the mean negative log-likelihood in nats, in units of ``y``,
its standard deviation over the splits, that of a normal distribution around scikit-learn's boosted trees (its variance from
cross-validated residuals), and what others have published for the same protocol.

All estimators have default parameters but ``random_state``, and ``margins="smooth"`` for parameters whose prior is uniform.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the libraries below are loaded

import argparse
import time
from pathlib import Path

import numpy as np
from scipy.stats import norm
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.model_selection import KFold, cross_val_predict, cross_val_score
from sklearn.neural_network import MLPClassifier

from sklearn_flows import ConditionalFlowDensity

N_DRAWS = 10_000


# Simulators: functions of a number of simulations and a generator, that give parameters and data.


def slcp(n, rng):
    """Simple likelihood, complex posterior: four points of a normal distribution in the plane, of five parameters."""
    theta = rng.uniform(-3, 3, (n, 5))
    sd_1, sd_2, correlation = theta[:, 2, None] ** 2, theta[:, 3, None] ** 2, np.tanh(theta[:, 4, None])
    noise = rng.standard_normal((n, 4, 2))
    first = theta[:, 0, None] + sd_1 * noise[..., 0]
    second = theta[:, 1, None] + sd_2 * (correlation * noise[..., 0] + np.sqrt(1 - correlation**2) * noise[..., 1])
    return theta, np.stack([first, second], axis=-1).reshape(n, 8)


def gaussian_linear(n, rng):
    """The mean of a normal distribution in ten dimensions, of one draw."""
    theta = np.sqrt(0.1) * rng.standard_normal((n, 10))
    return theta, theta + np.sqrt(0.1) * rng.standard_normal((n, 10))


# Simulator, bound of the prior's support, parameters of the estimator, and C2ST of NPE by the number of simulations.
POSTERIORS = {
    "slcp": (slcp, 3.0, {"margins": "smooth"}, {1_000: 0.975, 10_000: 0.901, 100_000: 0.831}),
    "gaussian_linear": (gaussian_linear, np.inf, {}, {1_000: 0.694, 10_000: 0.552, 100_000: 0.506}),
}
# Published negative log-likelihoods: TabResFlow (a spline flow), NGBoost, TreeFlow.
TABLES = {"concrete": (2.90, 3.04, 3.02), "energy": (0.77, 0.60, 0.85)}


def c2st(reference, draws):
    """Accuracy with which the benchmark's classifier tells draws from reference draws."""
    loc, scale = reference.mean(axis=0), reference.std(axis=0, ddof=1)
    rows = (np.concatenate([reference, draws]) - loc) / scale
    labels = np.repeat([0, 1], [len(reference), len(draws)])
    n_units = 10 * rows.shape[1]
    classifier = MLPClassifier((n_units, n_units), max_iter=1000, random_state=1)
    return cross_val_score(classifier, rows, labels, cv=KFold(5, shuffle=True, random_state=1)).mean()


def posterior_draws(density, observation, bound):
    """Draws of the posterior at an observation, inside the prior's support; and the share of draws that were."""
    draws = density.sample_y(observation[None], 4 * N_DRAWS, random_state=0)[0].T
    inside = draws[(np.abs(draws) <= bound).all(axis=1)]
    return inside[:N_DRAWS], len(inside) / len(draws)


def compare_posteriors(task, directory, n_simulations, observations):
    simulate, bound, parameters, published = POSTERIORS[task]
    reference = np.load(directory / "sbi" / f"{task}.npz")
    theta, x = simulate(n_simulations, np.random.default_rng(0))
    begin = time.perf_counter()
    density = ConditionalFlowDensity(random_state=0, **parameters).fit(x, theta)
    print(f"{task}: {n_simulations} simulations, fitted in {time.perf_counter() - begin:.0f} s", flush=True)
    print("observation   C2ST   log-density of reference draws   draws inside the support", flush=True)
    accuracies, log_densities = [], []
    for i in observations:
        rows, observation = reference["theta"][i - 1].astype(float), reference["observation"][i - 1].astype(float).ravel()
        log_densities.append(density.log_prob(np.repeat(observation[None], len(rows), axis=0), rows).mean())
        draws, share = posterior_draws(density, observation, bound)
        accuracies.append(c2st(rows[:N_DRAWS], draws))
        print(f"{i:11d}  {accuracies[-1]:5.3f}   {log_densities[-1]:30.3f}   {share:24.3f}", flush=True)
    print(f"       mean  {np.mean(accuracies):5.3f}   {np.mean(log_densities):30.3f}")
    print(f"NPE, published: {published.get(n_simulations, float('nan')):.3f}\n", flush=True)


def normal_around_trees(X, y, X_test, y_test):
    """Negative log-likelihood of a normal distribution around boosted trees."""
    trees = HistGradientBoostingRegressor(random_state=0)
    sd = np.std(y - cross_val_predict(trees, X, y, cv=5))
    return -norm.logpdf(y_test, trees.fit(X, y).predict(X_test), sd).mean()


def compare_predictive_densities(name, directory, n_splits):
    table = np.load(directory / "uci" / f"{name}.npz")
    X, y = table["X"].astype(float), table["y"].astype(float).ravel()
    losses, coverage, seconds = [], [], []
    for split in range(n_splits):
        order = np.random.RandomState(split).permutation(len(X))
        test, train = order[: len(X) // 10], order[len(X) // 10 :]
        begin = time.perf_counter()
        density = ConditionalFlowDensity(random_state=split).fit(X[train], y[train])
        seconds.append(time.perf_counter() - begin)
        low, high = density.predict_quantiles(X[test], [0.05, 0.95]).T
        coverage.append(((low <= y[test]) & (y[test] <= high)).mean())
        losses.append((-density.score(X[test], y[test]), normal_around_trees(X[train], y[train], X[test], y[test])))
    ours, trees = np.mean(losses, axis=0)
    published = "   ".join(f"{value:.2f}" for value in TABLES[name])
    print(f"{name}: {n_splits} splits, {np.mean(seconds):.1f} s a fit, coverage of 90 % intervals {np.mean(coverage):.3f}")
    print("flow (sd over splits)   normal around trees   published: TabResFlow, NGBoost, TreeFlow")
    print(f"{ours:.3f} ({np.std(losses, axis=0)[0]:.3f})           {trees:.3f}                 {published}\n", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join([*POSTERIORS, *TABLES]))
    parser.add_argument("--observations", default="1,2,3,4,5,6,7,8,9,10")
    parser.add_argument("--simulations", type=int, default=10_000)
    parser.add_argument("--splits", type=int, default=10)
    options = parser.parse_args()
    observations = [int(i) for i in options.observations.split(",")]
    for task in options.tasks.split(","):
        if task in POSTERIORS:
            compare_posteriors(task, options.data, options.simulations, observations)
        else:
            compare_predictive_densities(task, options.data, options.splits)


if __name__ == "__main__":
    main()
