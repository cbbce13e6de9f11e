"""What scoring, drawing and fitting cost for each family of flows.

    OMP_NUM_THREADS=1 python benchmarks/directions.py

Prints the tables of costs of ``docs/families/comparison.rst`` and ``docs/families/iaf.rst``. Flows have the default sizes. They
take turns, and what counts is the median of their times on the processor, which a busy machine changes little. On kernels
compiled for the CPU, which serve by themselves where there is much to do, and on torch alone, as on other devices. (Continuous
flows have no kernels, so theirs are the same twice.)
"""

import argparse
import statistics
import time
import warnings
from functools import partial
from unittest import mock

import numpy as np
import torch
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

ESTIMATORS = {
    "splines, autoregressive": NeuralSplineFlowDensity,
    "splines, coupling": partial(NeuralSplineFlowDensity, layer="coupling"),
    "MAF": MAFDensity,
    "IAF": IAFDensity,
    "RealNVP": RealNVPDensity,
    "Glow": GlowDensity,
    "FFJORD": FFJORDDensity,
    "flow matching": FlowMatchingDensity,
}
PLAIN = {"base": "normal", "margins": "linear", "n_teachers": 0, "early_stopping": False, "random_state": 0}


def medians_in_turn(tasks, n_rounds):
    """Median seconds of each task; the first round doesn't count."""
    seconds = {name: [] for name in tasks}
    for i in range(n_rounds + 1):
        for name, task in tasks.items():
            start = time.process_time()
            task()
            if i > 0:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(n_features, n_rows, n_epochs, n_rounds):
    rng = np.random.RandomState(0)
    X = rng.normal(size=(n_rows, n_features)) @ rng.normal(size=(n_features, n_features))
    new = {name: partial(Density, max_iter=n_epochs, **PLAIN) for name, Density in ESTIMATORS.items()}
    fitted = {name: make().fit(X) for name, make in new.items()}
    tasks = {(name, "fit"): (lambda make=make: make().fit(X)) for name, make in new.items()}
    tasks |= {(name, "score"): partial(density.score_samples, X) for name, density in fitted.items()}
    tasks |= {(name, "draw"): partial(density.sample, n_rows, random_state=0) for name, density in fitted.items()}
    seconds = medians_in_turn(tasks, n_rounds)
    print(f"{n_features} columns, microseconds per row: fit (one epoch), score, draw")
    for name in ESTIMATORS:
        per_row = [1e6 * seconds[name, what] / n_rows for what in ("fit", "score", "draw")]
        per_row[0] /= n_epochs
        print(f"  {name:<25}" + "".join(f"{value:9.1f}" for value in per_row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-features", type=int, nargs="+", default=[32])
    parser.add_argument("--n-rows", type=int, default=4096)
    parser.add_argument("--n-epochs", type=int, default=2)
    parser.add_argument("--n-rounds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    settings = arguments.n_rows, arguments.n_epochs, arguments.n_rounds
    # From a limit on they serve; a short fit that has none of its steps on them would measure torch.
    with mock.patch("sklearn_flows.density._base.MIN_STEPS_FOR_COMPILED_KERNELS", 1):
        print("on compiled kernels")
        for n_features in arguments.n_features:
            measure(n_features, *settings)
    with (
        mock.patch("sklearn_flows.density._base.MIN_STEPS_FOR_COMPILED_KERNELS", np.inf),
        mock.patch("sklearn_flows.density._queries.MIN_SCALARS_FOR_COMPILED_KERNELS", np.inf),
    ):
        print("on torch alone")
        for n_features in arguments.n_features:
            measure(n_features, *settings)


if __name__ == "__main__":
    main()
