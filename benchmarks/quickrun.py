"""Fit the estimators with their defaults to real tables and print held-out log-likelihoods.

    python benchmarks/quickrun.py --data DIR [--minutes 10] [--only protein,power]

``DIR`` holds ``uci/protein.npz``, ``adbench/magic.gamma.npz``, ``physics/pzflow_galaxies.npz`` (array ``X`` in each) and
``prepare_maf_suite.py``, which makes POWER's published split. Each fit gets ``--minutes`` at most: it is then interrupted as
by Ctrl-C, and keeps its best model so far. Scores are mean log-densities in nats; POWER's are in its published, standardised
units, the others in the units of the tables.

A Gaussian is the sample mean and covariance. The Gaussian mixture (full covariances) is chosen by BIC among 1 to 30 components
on at most 20,000 training rows, then fitted to at most 200,000. The kernel density has at most 20,000 training rows, its
bandwidth chosen by 3-fold cross-validation on 5,000, and is scored on at most 5,000 test rows.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KernelDensity

from sklearn_flows import MAFDensity, NeuralSplineFlowDensity, RealNVPDensity

TABLES = {
    "protein": "uci/protein.npz",
    "magic.gamma": "adbench/magic.gamma.npz",
    "galaxies": "physics/pzflow_galaxies.npz",
    "power": None,
}


def load(data, name):
    """Training, validation (or None) and test rows of a table."""
    if TABLES[name] is not None:
        X = np.load(data / TABLES[name])["X"]
        train, test = train_test_split(X, test_size=0.2, random_state=0)
        return train, None, test
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(data / "prepare_maf_suite.py"), "--out", folder, "--only", "power"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return tuple(np.load(Path(folder) / f"power_{part}.npy") for part in ("train", "val", "test"))


@contextmanager
def interrupted_after(seconds):
    """Raise KeyboardInterrupt in the block when its time is up."""

    def interrupt(*_):
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(int(seconds))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def gaussian(train, test):
    return GaussianMixture(1, reg_covar=0).fit(train.astype(np.float64)).score_samples(test.astype(np.float64))


def gaussian_mixture(train, test):
    loc, scale = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    Z, Z_test = (train - loc) / scale, (test - loc) / scale
    candidates = [GaussianMixture(k, random_state=0).fit(Z[:20_000]) for k in range(1, 31)]
    n_components = min(candidates, key=lambda candidate: candidate.bic(Z[:20_000])).n_components
    return GaussianMixture(n_components, random_state=0).fit(Z[:200_000]).score_samples(Z_test) - np.log(scale).sum()


def kernel_density(train, test):
    loc, scale = train.mean(axis=0, dtype=np.float64), train.std(axis=0, dtype=np.float64)
    Z, Z_test = (train - loc) / scale, (test[:5_000] - loc) / scale
    grid = {"bandwidth": np.logspace(-2, 0.5, 13)}
    bandwidth = GridSearchCV(KernelDensity(rtol=1e-4), grid, cv=3).fit(Z[:5_000]).best_params_["bandwidth"]
    density = KernelDensity(bandwidth=bandwidth, rtol=1e-4).fit(Z[:20_000])
    return density.score_samples(Z_test) - np.log(scale).sum()


def report(name, seconds, scores, remark=""):
    error = scores.std(ddof=1) / np.sqrt(len(scores))
    print(f"| {name} | {scores.mean():.3f} ± {error:.3f} | {scores.min():.0f} | {seconds:.0f} | {remark} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", default=",".join(TABLES))
    arguments = parser.parse_args()
    for name in arguments.only.split(","):
        train, validation, test = load(arguments.data, name)
        print(f"\n### {name}: {len(train):,} training rows, {len(test):,} test rows, {train.shape[1]} columns\n")
        print("| method | test log-likelihood | lowest | fit, s | |\n|---|--:|--:|--:|---|")
        for estimator_class in (NeuralSplineFlowDensity, MAFDensity, RealNVPDensity):
            start = time.perf_counter()
            with warnings.catch_warnings(record=True) as caught, interrupted_after(60 * arguments.minutes):
                warnings.simplefilter("always")
                density = estimator_class(random_state=0).fit(train, X_val=validation)
            seconds = time.perf_counter() - start
            interrupted = any("interrupted" in str(warning.message) for warning in caught)
            remark = f"{density.n_iter_} epochs" + (", interrupted" if interrupted else "")
            report(estimator_class.__name__, seconds, density.score_samples(test).astype(np.float64), remark)
        for method in (gaussian, gaussian_mixture, kernel_density):
            start = time.perf_counter()
            scores = method(train, test)
            report(method.__name__, time.perf_counter() - start, scores, f"of {len(scores):,} test rows")


if __name__ == "__main__":
    main()
