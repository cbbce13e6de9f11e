"""Seconds until a method first reaches the best validation likelihood that zuko's spline flow, carefully trained, ever reaches.

    pip install -e .[bench]
    python benchmarks/time_to_likelihood.py [--data DIR] [--tables NAME,...] [--sizes 500,2000,5000]
        [--methods nsf,nsf-default,...] [--repeats 3]

The tables are toys, one of scikit-learn and, under ``DIR``, three real ones, made as likelihood.py says. Of each the first 500,
2,000 and 5,000 rows are taken, or all where there are fewer. The first tenth of them are validation rows, the same for all
methods; the others are trained on.

- nsf: ``NeuralSplineFlowDensity(max_time=seconds)``, fitted with ``X_val`` again and again, each time with 1.4 times the
  seconds of the time before. What counts is how long the first of these fits takes whose density reaches the aim: the seconds
  that a user has to grant.
- nsf-default, maf-default: ``NeuralSplineFlowDensity()`` and ``MAFDensity()``, fitted with ``X_val``, which take as long as
  they think right. Callbacks of scikit-learn 1.9 take the time.
- zuko-nsf, nflows-nsf: the flows of likelihood.py under the same names, trained in the same way, but for 120 s at most.

Time runs from the call of fit, for the other packages from the standardisation of the columns, and is taken at the end of each
epoch, when the validation rows have been scored; with max_time at the end of the fit. In a default fit of several stages only
the epochs of the last one are looked at, and where it is the best of several fits only its end. Everything has one thread. Each
method is fitted once before, to few rows, so that no timed fit has to load libraries or kernels.

Methods take turns. In each repeat, whose number is the seed, zuko-nsf sets the aim for all. The first table shows medians over
repeats; ratios are of a method's seconds to those of zuko-nsf in the same repeat. The means of the second table are over cells,
but for those whose median is "never".
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the libraries below are loaded

import argparse
import time
import warnings
from pathlib import Path
from statistics import geometric_mean, mean, median

import numpy as np
import torch
from likelihood import load, nflows_flow, train_carefully, zuko_flow
from sklearn.base import clone

from sklearn_flows import MAFDensity, NeuralSplineFlowDensity

TABLES = ["two moons", "breast cancer", "50 Gaussians", "Student t"]
TABLES_WITH_DATA = ["physics/pzflow_galaxies.npz", "adbench/magic.gamma.npz", "uci/protein.npz"]
REFERENCE = "zuko-nsf"
MAX_SECONDS = 120  # of the other packages: their patience is to end the training, not the clock
SECONDS_AT_FIRST, SECONDS_AT_LAST, GROWTH = 0.05, 60, 1.4  # of fits with max_time
N_ROWS_TO_WARM_UP = 200


# Methods: functions of training rows, validation rows, a seed and an aim, that give the seconds at the end of each epoch or fit
# and the mean log-densities of the validation rows then, in the units of the table. Who looks for the aim stops there.


class EpochClock:
    """A callback that takes the time at the end of each epoch."""

    def setup(self, estimator, context):
        self.times = []

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            self.times.append(time.perf_counter())

    def teardown(self, estimator, context):
        pass


def in_time(estimator):
    def run(train, validation, seed, aim):
        seconds, scores, max_time = [], [], SECONDS_AT_FIRST
        while max_time < SECONDS_AT_LAST and not (scores and scores[-1] >= aim):
            density = clone(estimator).set_params(random_state=seed, max_time=max_time)
            start = time.perf_counter()
            density.fit(train, X_val=validation)
            seconds.append(time.perf_counter() - start)
            scores.append(density.score(validation))
            max_time *= GROWTH
        return np.array(seconds), np.array(scores)

    return run


def by_default(estimator):
    def run(train, validation, seed, aim):
        clock = EpochClock()
        density = clone(estimator).set_params(random_state=seed).set_callbacks(clock)
        start = time.perf_counter()
        density.fit(train, X_val=validation)
        end = time.perf_counter()
        scores = np.array(density.validation_scores_)
        if len(clock.times) < len(scores):  # the best of several fits, of whose epochs nobody is told
            return np.array([end - start]), np.array([density.best_validation_score_])
        return np.array(clock.times[-len(scores) :]) - start, scores

    return run


def in_careful_hands(make_flow):
    def run(train, validation, seed, aim):
        start = time.perf_counter()
        loc, scale = train.mean(axis=0), train.std(axis=0)
        x, x_val = (torch.as_tensor((rows - loc) / scale, dtype=torch.float32) for rows in (train, validation))
        torch.manual_seed(seed)
        flow, log_prob = make_flow(train.shape[1])
        times, scores = np.array(train_carefully(log_prob, flow, x, x_val, seconds=MAX_SECONDS)).T
        return times - start, scores - np.log(scale).sum()

    return run


METHODS = {
    "nsf": in_time(NeuralSplineFlowDensity()),
    "nsf-default": by_default(NeuralSplineFlowDensity()),
    "maf-default": by_default(MAFDensity()),
    "zuko-nsf": in_careful_hands(zuko_flow),
    "nflows-nsf": in_careful_hands(nflows_flow),
}


# Results


def seconds_to_reach(aim, times, scores):
    reached = np.flatnonzero(scores >= aim)
    return times[reached[0]] if len(reached) else np.inf


def race(methods, train, validation, n_repeats):
    """Each method's seconds and the aim, both by repeat."""
    seconds, aims = {method: [] for method in methods}, []
    for seed in range(n_repeats):
        reference = METHODS[REFERENCE](train, validation, seed, np.inf)
        aims.append(np.nanmax(reference[1]))
        curves = {
            method: reference if method == REFERENCE else METHODS[method](train, validation, seed, aims[-1])
            for method in methods
        }
        for method, curve in curves.items():
            seconds[method].append(seconds_to_reach(aims[-1], *curve))
    return seconds, aims


def text(number):
    return "never" if np.isinf(number) else f"{number:.2f}"


def row_of(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def print_summary(ratios):
    print()
    row_of(["method", "cells", "never", "geometric mean ratio", "arithmetic mean ratio"])
    row_of(["---", *["--:"] * 4])
    for method, values in ratios.items():
        reached = [value for value in values if np.isfinite(value)]
        means = [f"{average(reached):.2f}" if reached else "–" for average in (geometric_mean, mean)]
        row_of([method, str(len(values)), str(len(values) - len(reached)), *means])


def cells_of(arguments):
    """Name, training rows and validation rows of each cell."""
    for name in arguments.tables:
        X, _, _ = load(arguments.data, name)
        for n_rows in [n for n in arguments.sizes if n <= len(X)] or [len(X)]:
            n_validation = n_rows // 10
            yield name, X[n_validation:n_rows], X[:n_validation]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--tables", type=lambda text: text.split(","))
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[500, 2_000, 5_000])
    parser.add_argument(
        "--methods", type=lambda text: text.split(","), default=["nsf", "nsf-default", "zuko-nsf", "nflows-nsf"]
    )
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    arguments.tables = arguments.tables or (TABLES if arguments.data is None else TABLES + TABLES_WITH_DATA)
    if unknown := set(arguments.methods) - set(METHODS):
        parser.error(f"{', '.join(unknown)}: not among {', '.join(METHODS)}")
    if REFERENCE not in arguments.methods:
        arguments.methods.append(REFERENCE)
    return arguments


def main():
    arguments = parse_arguments()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    compared = [method for method in arguments.methods if method != REFERENCE]
    row_of(
        ["table", "rows", "columns", "aim", *(f"{m}, s" for m in arguments.methods), *(f"{m}/{REFERENCE}" for m in compared)]
    )
    row_of(["---", *["--:"] * (3 + len(arguments.methods) + len(compared))])
    ratios = {method: [] for method in compared}
    for i, (name, train, validation) in enumerate(cells_of(arguments)):
        if i == 0:
            race(arguments.methods, train[:N_ROWS_TO_WARM_UP], validation, 1)
        seconds, aims = race(arguments.methods, train, validation, arguments.repeats)
        for method in compared:
            ratios[method].append(median(a / b for a, b in zip(seconds[method], seconds[REFERENCE], strict=True)))
        row_of(
            [
                name,
                f"{len(train) + len(validation):,}",
                str(train.shape[1]),
                f"{median(aims):.3f}",
                *(text(median(seconds[method])) for method in arguments.methods),
                *(text(ratios[method][-1]) for method in compared),
            ]
        )
    print_summary(ratios)


if __name__ == "__main__":
    main()
