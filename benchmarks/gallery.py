"""Held-out log-likelihoods of every family of flows on six densities of the plane, and what they cost.

    OMP_NUM_THREADS=1 python benchmarks/gallery.py [--toys moons,rings,...] [--families MAFDensity,...] [--results FILE]

Prints the tables of ``docs/families/comparison.rst``. Estimators have default parameters but ``random_state``; those that by
default may start from a mixture are fitted a second time from a Gaussian (``base="normal"``), which shows what their layers can
do. They are fitted to 5,000 rows of each density of ``sklearn_flows.datasets`` and judged by 10,000 others; "truth" is the mean
log-density of these under the density that they come from. What is more than 0.1 nats behind the best of all is marked by a
star. Times are those of one thread, as the processor counts them, so that a busy machine makes little difference: seconds of a
fit, which includes the trials that choose what it starts from, and thousands of rows scored and drawn per second.

With ``--results`` what is measured is kept in a file, and what is there already isn't measured again.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when the libraries below are loaded

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

import sklearn_flows
from sklearn_flows.datasets import TOY_DENSITIES

FAMILIES = [
    "MixtureDensity",
    "NeuralSplineFlowDensity",
    "MAFDensity",
    "IAFDensity",
    "RealNVPDensity",
    "GlowDensity",
    "FFJORDDensity",
    "FlowMatchingDensity",
]
N_TRAIN, N_TEST = 5_000, 10_000
MARGIN = 0.1


def estimators(families):
    """Unfitted estimators by what the tables call them."""
    found = {family: getattr(sklearn_flows, family)(random_state=0) for family in families}
    from_gaussian = {
        f'{family}(base="normal")': clone(estimator).set_params(base="normal")
        for family, estimator in found.items()
        if estimator.get_params().get("base", "normal") != "normal"
    }
    return found | from_gaussian


def measure(density, toy):
    """Fit one estimator to one density."""
    train, test = toy.sample(N_TRAIN, random_state=0), toy.sample(N_TEST, random_state=1)
    fit_seconds, _ = timed(lambda: density.fit(train))
    density.score_samples(test[:1000]), density.sample(1000, random_state=0)  # kernels are loaded
    score_seconds, log_density = timed(lambda: density.score_samples(test))
    draw_seconds, _ = timed(lambda: density.sample(N_TEST, random_state=0))
    return {
        "score": log_density.mean(),
        "standard error": (log_density - toy.score_samples(test)).std() / np.sqrt(N_TEST),
        "base": getattr(density, "base_", ""),
        "seconds of fit": fit_seconds,
        "rows scored per second": N_TEST / score_seconds,
        "rows drawn per second": N_TEST / draw_seconds,
    }


def timed(call):
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def print_tables(results, toys, names):
    print(f"\n| nats | {' | '.join(toys)} |\n|---|{'---|' * len(toys)}")
    truths = [TOY_DENSITIES[toy].score_samples(TOY_DENSITIES[toy].sample(N_TEST, random_state=1)) for toy in toys]
    print(f"| truth | {' | '.join(f'{truth.mean():.3f}' for truth in truths)} |")
    best = {toy: max(results[name][toy]["score"] for name in names) for toy in toys}
    for name in names:
        scores = {toy: results[name][toy]["score"] for toy in toys}
        cells = [f"{score:.3f}{'*' if score < best[toy] - MARGIN else ''}" for toy, score in scores.items()]
        print(f"| {name} | {' | '.join(cells)} |")

    print("\n| medians over the densities | s of a fit | thousand rows/s scored | thousand rows/s drawn |\n|---|---|---|---|")
    for name in names:
        medians = [
            np.median([results[name][toy][what] for toy in toys])
            for what in ("seconds of fit", "rows scored per second", "rows drawn per second")
        ]
        print(f"| {name} | {medians[0]:.0f} | {medians[1] / 1000:.0f} | {medians[2] / 1000:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--toys", default=",".join(TOY_DENSITIES), help="names of densities, separated by commas")
    parser.add_argument("--families", default=",".join(FAMILIES), help="names of estimators, separated by commas")
    parser.add_argument("--results", type=Path, help="file in which results are kept")
    arguments = parser.parse_args()
    toys, candidates = arguments.toys.split(","), estimators(arguments.families.split(","))
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    is_kept = arguments.results is not None and arguments.results.exists()
    results = json.loads(arguments.results.read_text()) if is_kept else {}
    for name, estimator in candidates.items():
        for toy in toys:
            if toy in results.setdefault(name, {}):
                continue
            found = results[name][toy] = measure(clone(estimator), TOY_DENSITIES[toy])
            print(
                f"{name:<40}{toy:<18}{found['score']:8.3f} nats (standard error of the loss {found['standard error']:.3f})"
                f"{found['seconds of fit']:7.1f} s, from {found['base']}",
                flush=True,
            )
            if arguments.results is not None:
                arguments.results.write_text(json.dumps(results, indent=1))
    print_tables(results, toys, list(candidates))


if __name__ == "__main__":
    main()
