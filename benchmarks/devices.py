"""Default fits on the CPU and on CUDA, and how long a training step of a large table takes on CUDA.

    pip install -e .
    python benchmarks/devices.py [--sizes 500,5000,50000] [--fits 1] [--threads 2]

Printed first: milliseconds of a training step of spline flows of several sizes on a million rows of six columns, in the mean
over steps; those of steps that are recorded without fusing kernels before, and those of steps that aren't recorded. Then:
``NeuralSplineFlowDensity()`` on rows of bent groups in eight columns, fitted on each device in turn; median seconds of a fit,
and the mean log-density of 10,000 other rows.
"""

import argparse
import time
from contextlib import ExitStack, nullcontext
from unittest.mock import patch

import numpy as np
import torch

from sklearn_flows import NeuralSplineFlowDensity
from sklearn_flows.distributions import StudentMixture
from sklearn_flows.flows import Rows, spline_flow
from sklearn_flows.training import _likelihood, _optim
from sklearn_flows.training._optim import FlatParameters, Muon


def mixture_rows(n_rows, seed):
    """Rows of bent groups."""
    rng = np.random.RandomState(seed)
    centres = np.random.RandomState(0).standard_normal((10, 8)) * 3
    X = centres[rng.randint(10, size=n_rows)] + rng.standard_normal((n_rows, 8))
    X[:, 1] += 0.3 * X[:, 0] ** 2
    X[:, 2] = np.exp(X[:, 2] / 3)
    return X


def fits(sizes, n_fits):
    """Print what fits take."""
    test = mixture_rows(10_000, 1)
    print("| rows | " + " | ".join(f"{device}: seconds | log-density" for device in ("cpu", "cuda")) + " |")
    print("|--:|--:|--:|--:|--:|")
    for n_rows in sizes:
        seconds, scores = {"cpu": [], "cuda": []}, {}
        for _ in range(n_fits):
            for device, taken in seconds.items():
                X = mixture_rows(n_rows, 2)
                begin = time.perf_counter()
                density = NeuralSplineFlowDensity(device=device, random_state=0).fit(X)
                taken.append(time.perf_counter() - begin)
                scores[device] = density.score(test)
        cells = [f"{np.median(seconds[device]):.1f} | {scores[device]:.3f}" for device in seconds]
        print(f"| {n_rows:,} | " + " | ".join(cells) + " |", flush=True)


def milliseconds(n_transforms, width, batch_size, n_steps=200):
    """Time of a training step on CUDA."""
    generator = torch.Generator().manual_seed(0)
    base = StudentMixture(torch.full((20,), 1 / 20), torch.randn(20, 6), torch.eye(6).expand(20, 6, 6).clone(), 5.0)
    settings = {"layer": "autoregressive", "n_bins": 8, "tail_bound": 5.0, "activation": "silu", "base": base}
    sizes = {"n_transforms": n_transforms, "hidden_layer_sizes": (width, width)}
    flow = spline_flow(torch.eye(6, dtype=torch.float64), **settings, **sizes, generator=generator).cuda()
    parameters = FlatParameters(flow)
    rows = Rows(torch.randn(1_000_000, 6, device="cuda"), torch.ones(1_000_000, device="cuda"))
    likelihood, optimiser = _likelihood.Likelihood(flow), Muon(parameters, 1e-4)
    order = torch.randperm(len(rows.values), device="cuda")
    for i in range(n_steps + 30):
        if i == 30:
            torch.cuda.synchronize()
            begin = time.perf_counter()
        likelihood.add_gradient(rows, order[(i * batch_size) % 800_000 :][:batch_size])
        optimiser.step(1e-4)
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begin) / n_steps


def steps():
    """Print what steps take."""
    unfused = [patch.object(_likelihood, "fused_kernels", lambda wanted=True: nullcontext())]
    unrecorded = [patch.object(module, "CALLS_BEFORE_RECORDING", 10**9) for module in (_likelihood, _optim)]
    print("| layers | width | batch | ms per step | not fused | not recorded |\n|--:|--:|--:|--:|--:|--:|")
    for n_transforms, width, batch_size in ((3, 128, 1024), (5, 256, 1024), (5, 256, 4096), (10, 256, 2048), (5, 512, 2048)):
        times = []
        for changes in ([], unfused, unrecorded):
            with ExitStack() as stack:
                for change in changes:
                    stack.enter_context(change)
                times.append(f"{milliseconds(n_transforms, width, batch_size):.2f}")
        print(f"| {n_transforms} | {width} | {batch_size} | {' | '.join(times)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="500,5000,50000")
    parser.add_argument("--fits", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps()
    fits([int(size) for size in arguments.sizes.split(",")], arguments.fits)


if __name__ == "__main__":
    main()
