"""Time training, scoring, sampling, importing and the memory of this package against zuko, nflows, normflows and flowjax.

    pip install -e .[bench]
    python benchmarks/speed.py [--quick] [--sections train,score,sample,import,memory] [--threads 1]
        [--families nsf-ar,nsf-coupling,maf,realnvp] [--features 6,21,43,63] [--batches 256,1024] [--rounds 7]
        [--flowjax-python PATH]

Prints a table for each section, then which goals are met. ``--features`` and ``--batches`` shape the training section;
scoring and sampling take 21 and 43 features. ``PATH`` is an interpreter that has flowjax: JAX gets an environment of its own
and a process of its own, pinned to as many cores as there are threads (Linux only, as is the memory section).

All work is equal: 5 transforms; conditioners with hidden layers (128, 128) and ReLU; splines of 8 bins on [-5, 5]; the same
batches; float32; a step of Adam. What differs is what the libraries are: ours also has its whitening map, and LU-linear maps
between splines; normflows' masked networks lack the first ReLU; flowjax's splines have 25 parameters instead of 23. Each
library is used at its best for this work: zuko's coupling spline is its ``GeneralCouplingTransform`` (``NSF(passes=2)`` is
slower), and normflows' autoregressive layers are reversed (as shipped, its affine ``log_prob`` takes one pass per feature).

All contenders take turns in the same process, round after round, so that whatever else the machine does meets all of them.
Each turn lasts at least 0.15 s. Tables show the median over rounds; ratios are medians over rounds of the two turns of one
round. They are of times in training and of rows per second elsewhere: except for ours/MLP+Adam, ours is faster where a ratio
is above one. Training starts with 20 steps, so that no weights are zero any more. Columns of the training table, in ms per
step:

- GEMM floor: only the matrix products of the conditioners, forward and backward, unmasked, without autograd.
- MLP+Adam: the conditioners as unmasked networks under autograd, with ``torch.optim.Adam``: a flow whose bijections are free.
- ours, zuko, nflows, normflows, flowjax: forward and backward of the mean negative log-likelihood, and Adam's step.

Scoring is ours in float64 through the public ``score_samples``, against ``log_prob`` of the others in float32 without
gradients, each with the better of two chunk sizes. Sampling is ours of 10,000 rows at once; the others get fewer, as noted.
"""

import os

# Read when the libraries below are loaded. --threads sets torch's own number, and this for the processes started from here.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import math
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import numpy as np
import torch
from _flowjax import FlowjaxWorker
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from sklearn_flows import MAFDensity, NeuralSplineFlowDensity, RealNVPDensity
from sklearn_flows.compiled import compiled_flow, compiled_likelihood
from sklearn_flows.flows import Rows, maf, realnvp, spline_flow
from sklearn_flows.training._optim import AdamW, FlatParameters, MovingAverage

FAMILIES = ("nsf-ar", "nsf-coupling", "maf", "realnvp")
N_TRANSFORMS, HIDDEN, N_BINS, TAIL_BOUND = 5, (128, 128), 8, 5.0
LEARNING_RATE = 1e-3
N_BATCHES = 16  # that training goes round
N_WARM_STEPS = 20
LEAST_SECONDS = 0.15  # of a turn
CHUNKS = (512, 4096)  # of the other libraries' scoring
FEATURES_TO_SCORE = (21, 43)
# Sampling from the others' autoregressive flows takes minutes for 10,000 rows. Their rates at these numbers of rows are as
# high; the table's last column has zuko's at 10,000.
ROWS_TO_SAMPLE = {"ours": 10_000, "zuko": 2_000, "nflows": 1_000, "flowjax": 2_000}
N_MEMORY_FEATURES = 10


def is_spline(family):
    return family.startswith("nsf")


def is_coupling(family):
    return family in ("nsf-coupling", "realnvp")


# Contenders


@dataclass
class Peer:
    """A flow of another library, behind one face."""

    module: nn.Module
    log_prob: Any
    sample: Any


class ReLUNet(nn.Sequential):
    """The conditioner of coupling layers, as nflows and normflows call it."""

    hidden_features = HIDDEN[0]  # both scale the raw bins by it

    def __init__(self, n_in, n_out):
        sizes = [n_in, *HIDDEN, n_out]
        layers = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        super().__init__(*layers[:-1])

    def forward(self, x, context=None):
        return super().forward(x)


def alternating_mask(n_features, i):
    """Which features the i-th coupling layer moves."""
    return (torch.arange(n_features) % 2 != i % 2).int()


def zuko_peer(family, n_features):
    from zuko.flows import MAF, NICE, NSF, RealNVP
    from zuko.transforms import MonotonicRQSTransform

    sizes = {"features": n_features, "transforms": N_TRANSFORMS, "hidden_features": HIDDEN}
    if family == "nsf-ar":
        flow = NSF(bins=N_BINS, **sizes)  # its box is [-5, 5]
    elif family == "nsf-coupling":
        univariate = partial(MonotonicRQSTransform, bound=TAIL_BOUND)
        flow = NICE(univariate=univariate, shapes=[(N_BINS,), (N_BINS,), (N_BINS - 1,)], **sizes)
    else:
        flow = {"maf": MAF, "realnvp": RealNVP}[family](**sizes)
    return Peer(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def nflows_peer(family, n_features):
    from nflows import transforms
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow

    masked = {"features": n_features, "hidden_features": HIDDEN[0], "num_blocks": 1, "use_residual_blocks": False}
    spline = {"num_bins": N_BINS, "tails": "linear", "tail_bound": TAIL_BOUND}
    layers = []
    for i in range(N_TRANSFORMS):
        mask = alternating_mask(n_features, i)
        if family == "nsf-ar":
            layer = transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(**masked, **spline)
        elif family == "nsf-coupling":
            layer = transforms.PiecewiseRationalQuadraticCouplingTransform(mask, ReLUNet, **spline)
        elif family == "maf":
            layer = transforms.MaskedAffineAutoregressiveTransform(**masked)
        else:
            layer = transforms.AffineCouplingTransform(mask, ReLUNet)
        if i > 0 and not is_coupling(family):
            layers.append(transforms.ReversePermutation(n_features))
        layers.append(layer)
    flow = Flow(transforms.CompositeTransform(layers), StandardNormal([n_features]))
    return Peer(flow, flow.log_prob, flow.sample)


def normflows_peer(family, n_features):
    import normflows
    from normflows.flows.base import Reverse
    from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

    masked = {"features": n_features, "hidden_features": HIDDEN[0], "num_blocks": 1, "use_residual_blocks": False}
    spline = {"num_bins": N_BINS, "tails": "linear", "tail_bound": TAIL_BOUND}
    layers = []
    for i in range(N_TRANSFORMS):
        if family == "nsf-ar":
            layer = Reverse(MaskedPiecewiseRationalQuadraticAutoregressive(**masked, **spline))
        elif family == "nsf-coupling":
            layer = Reverse(PiecewiseRationalQuadraticCoupling(alternating_mask(n_features, i), ReLUNet, **spline))
        elif family == "maf":
            layer = Reverse(normflows.flows.MaskedAffineAutoregressive(**masked))
        else:
            # The first half, rounded up, stays; the permutation swaps the halves.
            layer = normflows.flows.AffineCouplingBlock(ReLUNet((n_features + 1) // 2, 2 * (n_features // 2)))
        if i > 0 and family != "nsf-coupling":
            layers.append(normflows.flows.Permute(n_features, mode="swap" if family == "realnvp" else "shuffle"))
        layers.append(layer)
    flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(n_features, trainable=False), layers)
    return Peer(flow, flow.log_prob, lambda n: flow.sample(n)[0])


TORCH_PEERS = {"zuko": zuko_peer, "nflows": nflows_peer, "normflows": normflows_peer}


def our_flow(family, n_features):
    options = {
        "whitening": torch.eye(n_features),
        "n_transforms": N_TRANSFORMS,
        "hidden_layer_sizes": HIDDEN,
        "activation": "relu",
        "generator": torch.Generator().manual_seed(0),
    }
    if is_spline(family):
        layer = "coupling" if is_coupling(family) else "autoregressive"
        return spline_flow(layer=layer, n_bins=N_BINS, tail_bound=TAIL_BOUND, **options)
    return {"maf": maf, "realnvp": realnvp}[family](**options)


def our_estimator(family, n_features):
    """One of our estimators, fitted for one epoch to noise."""
    options = {
        "n_transforms": N_TRANSFORMS,
        "hidden_layer_sizes": HIDDEN,
        "activation": "relu",
        "max_iter": 1,
        "batch_size": 256,
        "early_stopping": False,
        "margins": "linear",
        "base": "normal",
        "n_teachers": 0,
        "random_state": 0,
    }
    if is_spline(family):
        layer = "coupling" if is_coupling(family) else "autoregressive"
        estimator = NeuralSplineFlowDensity(layer=layer, n_bins=N_BINS, tail_bound=TAIL_BOUND, **options)
    else:
        estimator = {"maf": MAFDensity, "realnvp": RealNVPDensity}[family](**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return estimator.fit(np.random.default_rng(0).standard_normal((4096, n_features)))


def build_in(flowjax, family, n_features, batch_size):
    """Make a flow of flowjax and train it a little, which compiles its step."""
    flowjax.call(
        "build",
        family=family,
        n_features=n_features,
        n_transforms=N_TRANSFORMS,
        width=HIDDEN[0],
        n_bins=N_BINS,
        tail_bound=TAIL_BOUND,
        batch_size=batch_size,
        n_batches=N_BATCHES,
    )
    flowjax.call("train", n=N_WARM_STEPS)


# Training steps


def batches_of_noise(n_features, batch_size):
    x = torch.randn(N_BATCHES, batch_size, n_features, generator=torch.Generator().manual_seed(0))
    return itertools.cycle(x.unbind())


def our_step(flow, n_features, batch_size):
    """Our training step, as a function that takes one and returns its loss."""
    parameters = FlatParameters(flow)
    optimiser, average = AdamW(parameters, weight_decay=0.0), MovingAverage(parameters.values, N_BATCHES)
    batches = batches_of_noise(n_features, batch_size)
    weight, everyone = torch.ones(batch_size), torch.arange(batch_size)
    rows = Rows(next(batches), weight)
    likelihood = compiled_likelihood(flow, parameters, rows, torch.get_num_threads())

    def step():
        return likelihood.take_steps(Rows(next(batches), weight), [everyone], [LEARNING_RATE], optimiser, average) / batch_size

    return step


def peer_step(peer, n_features, batch_size):
    optimiser = torch.optim.Adam(peer.module.parameters(), lr=LEARNING_RATE)
    batches = batches_of_noise(n_features, batch_size)

    def step():
        optimiser.zero_grad()
        loss = -peer.log_prob(next(batches)).mean()
        loss.backward()
        optimiser.step()
        return loss

    return step


def conditioner_sizes(family, n_features):
    """Layer sizes of the conditioner of each transform."""
    n_parameters = 3 * N_BINS - 1 if is_spline(family) else 2
    n_staying = [(n_features + 1 - i % 2) // 2 for i in range(N_TRANSFORMS)]
    if is_coupling(family):
        return [(n, *HIDDEN, (n_features - n) * n_parameters) for n in n_staying]
    return [(n_features, *HIDDEN, n_features * n_parameters)] * N_TRANSFORMS


def gemm_step(family, n_features, batch_size):
    """The matrix products of a training step, into memory that is there already."""
    products = []
    for i, sizes in enumerate(conditioner_sizes(family, n_features)):
        weights = [torch.randn(n_out, n_in) / n_in**0.5 for n_in, n_out in itertools.pairwise(sizes)]
        units, gradients = ([torch.randn(batch_size, n) for n in sizes] for _ in range(2))
        for k, weight in enumerate(weights):
            products.append((units[k], weight.t(), units[k + 1]))
        for k, weight in reversed(list(enumerate(weights))):
            products.append((gradients[k + 1].t(), units[k], torch.empty_like(weight)))
            if i > 0 or k > 0:  # nothing needs the gradient of the data
                products.append((gradients[k + 1], weight, gradients[k]))

    def step():
        for left, right, out in products:
            torch.mm(left, right, out=out)

    return step


def mlp_step(family, n_features, batch_size):
    """A training step of the conditioners alone."""
    sizes = conditioner_sizes(family, n_features)
    networks = [ReLUNet(n_in, n_out) for n_in, *_, n_out in sizes]
    # All but the first transform pass gradients on to the one before.
    inputs = [torch.randn(batch_size, n_in, requires_grad=i > 0) for i, (n_in, *_) in enumerate(sizes)]
    optimiser = torch.optim.Adam(itertools.chain(*(network.parameters() for network in networks)), lr=LEARNING_RATE)

    def step():
        optimiser.zero_grad()
        loss = sum(network(x).sum() for network, x in zip(networks, inputs, strict=True))
        loss.backward()
        optimiser.step()
        return loss

    return step


# Timing


def turns_of_steps(name, step):
    """Function that takes a number of steps and returns how long they took, after steps that warm up."""

    def run(n):
        start = time.perf_counter()
        for _ in range(n):
            loss = step()
        seconds = time.perf_counter() - start
        if loss is not None and not torch.isfinite(torch.as_tensor(loss)):
            raise RuntimeError(f"{name} diverged: what is timed now is arithmetic with NaN")
        return seconds

    run(N_WARM_STEPS)
    return run


def turns_of_calls(function):
    """Function that calls another a number of times and returns how long it took."""

    def run(n):
        start = time.perf_counter()
        for _ in range(n):
            function()
        return time.perf_counter() - start

    return run


def race(contenders, rounds):
    """Let contenders take turns; return the seconds per repetition of each in each round.

    ``contenders`` are functions that do something a number of times and return how long it took.
    """
    counts = {}
    for name, run in contenders.items():
        first = run(1)
        counts[name] = max(1, math.ceil(LEAST_SECONDS / (first if first > LEAST_SECONDS else run(1))))
    seconds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            seconds[name].append(run(counts[name]) / counts[name])
    return seconds


def ratio(seconds, name, other):
    """How many times longer than ``other`` it took ``name``; NaN where either didn't run."""
    if name not in seconds or other not in seconds:
        return math.nan
    return median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))


# Tables and goals


class Goal(NamedTuple):
    text: str
    found: str
    met: bool


def at_least(text, value, threshold, where=""):
    return Goal(f"{text} ≥ {threshold:.4g}", f"{value:.2f}{where}", value >= threshold)


def at_most(text, value, threshold, where=""):
    return Goal(f"{text} ≤ {threshold:.4g}", f"{value:.2f}{where}", value <= threshold)


def worst(compare, choose, text, values, threshold):
    """Goal that each of the values must meet, which are by cell; no goal where none was measured."""
    values = {cell: value for cell, value in values.items() if not math.isnan(value)}
    if not values:
        return []
    cell = choose(values, key=values.get)
    return [compare(f"{text}, each of {len(values)}", values[cell], threshold, f" at {', '.join(map(str, cell))}")]


all_at_least, all_at_most = partial(worst, at_least, min), partial(worst, at_most, max)


def mean_at_least(text, values, threshold):
    values = [value for value in values.values() if not math.isnan(value)]
    return [at_least(f"{text}, geometric mean of {len(values)}", geometric_mean(values), threshold)] if values else []


def print_title(title, columns):
    print(f"\n### {title}\n")
    print_row(columns)
    print("|" + "|".join("---" if column in ("family", "what") else "--:" for column in columns) + "|")


def print_row(cells):
    def text(cell):
        if not isinstance(cell, float):
            return str(cell)
        return "–" if math.isnan(cell) else f"{cell:.2f}" if abs(cell) < 100 else f"{cell:,.0f}"

    print("| " + " | ".join(map(text, cells)) + " |", flush=True)


# Sections


def train_section(arguments, flowjax):
    names = ["GEMM floor", "MLP+Adam", "ours", *TORCH_PEERS, "flowjax"]
    ratios = [("zuko", "ours"), ("flowjax", "ours"), ("ours", "MLP+Adam")]
    print_title(
        "Training, ms per step",
        ["family", "features", "batch", *names, *(f"{name}/{other}" for name, other in ratios)],
    )
    cells = {}
    for cell in itertools.product(arguments.families, arguments.features, arguments.batches):
        torch.manual_seed(0)
        contenders = training_contenders(*cell, flowjax)
        seconds = cells[cell] = race(contenders, arguments.rounds)
        milliseconds = [1e3 * median(seconds.get(name, [math.nan])) for name in names]
        print_row([*cell, *milliseconds, *(ratio(seconds, name, other) for name, other in ratios)])
    return training_goals(cells)


def training_contenders(family, n_features, batch_size, flowjax):
    steps = {
        "GEMM floor": gemm_step(family, n_features, batch_size),
        "MLP+Adam": mlp_step(family, n_features, batch_size),
        "ours": our_step(our_flow(family, n_features), n_features, batch_size),
    }
    for name, make in TORCH_PEERS.items():
        steps[name] = peer_step(make(family, n_features), n_features, batch_size)
    contenders = {name: turns_of_steps(name, step) for name, step in steps.items()}
    if flowjax is not None:
        build_in(flowjax, family, n_features, batch_size)
        contenders["flowjax"] = lambda n: flowjax.call("train", n=n)
    return contenders


def training_goals(cells):
    def ratios(name, other, families, features=None, batch_size=None):
        return {
            cell: ratio(seconds, name, other)
            for cell, seconds in cells.items()
            if cell[0] in families and (features is None or cell[1] in features) and batch_size in (None, cell[2])
        }

    splines, affine = FAMILIES[:2], FAMILIES[2:]
    chosen = ratios("zuko", "ours", splines, features=(21, 43))
    goals = mean_at_least("splines, 21 and 43 features: zuko/ours", chosen, 2.5)
    goals += all_at_least("splines, 21 and 43 features: zuko/ours", chosen, 1.8)
    for kind, families in (("splines", splines), ("affine", affine)):
        goals += all_at_most(f"{kind}: ours/(MLP+Adam)", ratios("ours", "MLP+Adam", families), 1.5)
        for batch_size, threshold in ((1024, 1.0), (256, 1 / 1.2)):
            chosen = ratios("flowjax", "ours", families, batch_size=batch_size)
            goals += all_at_least(f"{kind}, batch {batch_size}: flowjax/ours", chosen, threshold)
    for family in affine:
        goals += mean_at_least(f"{family}: zuko/ours", ratios("zuko", "ours", [family]), 1.5)
    for peer in TORCH_PEERS:
        goals += all_at_least(f"affine: {peer}/ours", ratios(peer, "ours", affine), 1.0)
    return goals


def trained_peer(name, family, n_features):
    """A peer after a few steps: its weights are no longer those it starts from."""
    torch.manual_seed(0)
    peer = TORCH_PEERS[name](family, n_features)
    turns_of_steps(name, peer_step(peer, n_features, 256))
    return peer


def score_section(arguments, flowjax):
    print_title(
        f"Scoring of {arguments.score_rows:,} rows, rows/s",
        ["family", "features", "ours", *TORCH_PEERS, "flowjax", *(f"ours/{name}" for name in (*TORCH_PEERS, "flowjax"))],
    )
    fastest = {}
    for family, n_features in itertools.product(arguments.families, FEATURES_TO_SCORE):
        contenders = scoring_contenders(family, n_features, arguments.score_rows, flowjax)
        seconds = race(contenders, arguments.slow_rounds)
        names = ["ours", *TORCH_PEERS, "flowjax"]
        rates = [arguments.score_rows / median(seconds.get(name, [math.nan])) for name in names]
        ratios = [ratio(seconds, name, "ours") for name in names[1:]]
        print_row([family, n_features, *rates, *ratios])
        if is_spline(family):
            fastest[family, n_features] = min(r for r in ratios if not math.isnan(r))
    return all_at_least("splines, scoring: ours in float64/fastest in float32", fastest, 1)


def scoring_contenders(family, n_features, n_rows, flowjax):
    X = np.random.default_rng(1).standard_normal((n_rows, n_features))
    x = torch.from_numpy(X.astype(np.float32))
    estimator = our_estimator(family, n_features)
    contenders = {"ours": turns_of_calls(lambda: estimator.score_samples(X))}
    for name in TORCH_PEERS:
        contenders[name] = at_best_chunk(partial(score_in_chunks, trained_peer(name, family, n_features), x))
    if flowjax is not None:
        build_in(flowjax, family, n_features, 256)
        contenders["flowjax"] = at_best_chunk(
            lambda chunk, n: sum(flowjax.call("score", n_rows=n_rows, chunk=chunk) for _ in range(n))
        )
    return contenders


def score_in_chunks(peer, x, chunk, n):
    start = time.perf_counter()
    with torch.no_grad():
        for rows in x.split(chunk) * n:
            peer.log_prob(rows)
    return time.perf_counter() - start


def at_best_chunk(run):
    """Function of a number of repetitions, from one of a chunk size and it."""
    for chunk in CHUNKS:
        run(chunk, 1)  # flowjax compiles for each chunk size
    return partial(run, min(CHUNKS, key=lambda chunk: run(chunk, 1)))


def sample_section(arguments, flowjax):
    families = [family for family in arguments.families if not is_coupling(family)]
    names = list(ROWS_TO_SAMPLE)
    print_title(
        "Sampling, rows/s",
        [
            "family",
            "features",
            *(f"{name} ({n_rows:,} rows)" for name, n_rows in ROWS_TO_SAMPLE.items()),
            *(f"ours/{name}" for name in names[1:]),
            "our time of sampling/scoring",
            "zuko (10,000 rows, once)",
        ],
    )
    cells = {}
    for cell in itertools.product(families, FEATURES_TO_SCORE):
        contenders, zuko = sampling_contenders(*cell, flowjax)
        seconds = race(contenders, arguments.slow_rounds)
        per_row = {name: [s / ROWS_TO_SAMPLE[name] for s in seconds[name]] for name in names if name in seconds}
        ratios = {name: ratio(per_row, name, "ours") for name in names[1:]}
        to_scoring = ratio(seconds, "ours", "scoring")
        cells[cell] = ratios["zuko"], to_scoring
        rates = [1 / median(per_row.get(name, [math.nan])) for name in names]
        check = math.nan if arguments.quick else 10_000 / turns_of_calls(partial(zuko.sample, 10_000))(1)
        print_row([*cell, *rates, *ratios.values(), to_scoring, check])
    goals = []
    for n_features, threshold in zip(FEATURES_TO_SCORE, (6, 12), strict=True):
        chosen = {cell: values[0] for cell, values in cells.items() if cell[1] == n_features}
        goals += all_at_least(f"sampling at {n_features} features: ours/zuko", chosen, threshold)
    return goals + all_at_most("our time of sampling/scoring", {cell: values[1] for cell, values in cells.items()}, 4)


def sampling_contenders(family, n_features, flowjax):
    estimator = our_estimator(family, n_features)
    X = np.random.default_rng(1).standard_normal((ROWS_TO_SAMPLE["ours"], n_features))
    contenders = {
        "ours": turns_of_calls(lambda: estimator.sample(ROWS_TO_SAMPLE["ours"], random_state=0)),
        "scoring": turns_of_calls(lambda: estimator.score_samples(X)),
    }
    peers = {name: trained_peer(name, family, n_features) for name in ("zuko", "nflows")}
    for name, peer in peers.items():
        peer.sample = torch.no_grad()(peer.sample)
        contenders[name] = turns_of_calls(partial(peer.sample, ROWS_TO_SAMPLE[name]))
    if flowjax is not None:
        build_in(flowjax, family, n_features, 256)
        flowjax.call("sample", n_rows=ROWS_TO_SAMPLE["flowjax"])  # compiles
        contenders["flowjax"] = lambda n: sum(flowjax.call("sample", n_rows=ROWS_TO_SAMPLE["flowjax"]) for _ in range(n))
    return contenders, peers["zuko"]


def in_fresh_process(function, *arguments):
    """Call a function of this script in a process that has imported it and done nothing else; return what it returns."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def import_section(arguments, flowjax):
    # The package needs parts of scikit-learn that a bare `import sklearn` leaves out: the third import has these too.
    parts = ", ".join(["torch", *in_fresh_process(scikit_learn_modules)])
    statements = {"import torch, sklearn": "import torch, sklearn", "import sklearn_flows": "import sklearn_flows"}
    statements["import torch, and of scikit-learn what sklearn_flows does"] = f"import {parts}"
    contenders = {
        what: turns_of_calls(partial(subprocess.run, [sys.executable, "-c", statement], check=True))
        for what, statement in statements.items()
    }
    seconds = race(contenders, arguments.rounds)
    print_title("Start, median s of fresh processes", ["what", "s", "times torch, sklearn"])
    for what in statements:
        print_row([what, median(seconds[what]), ratio(seconds, what, "import torch, sklearn")])

    fits = [in_fresh_process(seconds_of_small_fits, 7) for _ in range(arguments.slow_rounds)]
    first, warm = median(fit[0] for fit in fits), median(s for fit in fits for s in fit[1:])
    print_row(["default fit of 50 rows, first of a process", first, ""])
    print_row(["default fit of 50 rows, later", warm, ""])
    with tempfile.TemporaryDirectory() as folder:
        first_uses = in_fresh_process(seconds_of_first_use, folder)
    for what, value in first_uses.items():
        print_row([what, value, ""])
    goals = [at_most("import: ours/(torch, sklearn)", ratio(seconds, "import sklearn_flows", "import torch, sklearn"), 1.15)]
    return goals + [at_most("first fit of 50 rows, s", first, 0.6), at_most("later fit of 50 rows, s", warm, 0.3)]


def scikit_learn_modules():
    code = "import sklearn_flows, sys; print(*sorted(name for name in sys.modules if name.split('.')[0] == 'sklearn'))"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def seconds_of_small_fits(n_fits):
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    X = np.random.default_rng(0).standard_normal((50, 5))
    fit = turns_of_calls(lambda: NeuralSplineFlowDensity(random_state=0).fit(X))
    return [fit(1) for _ in range(n_fits)]


def seconds_of_first_use(cache):
    """Seconds that it takes to compile kernels where nothing has been compiled yet."""
    os.environ["NUMBA_CACHE_DIR"] = str(cache)  # read when numba is loaded
    n_features, seconds = 10, {}
    flow = our_flow("nsf-ar", n_features).double()
    row = torch.zeros(1, n_features, dtype=torch.float64)
    single = our_flow("nsf-ar", n_features)
    parameters = FlatParameters(single)

    uses = {
        "train": lambda: compiled_likelihood(single, parameters, Rows(row.float(), torch.ones(1)), 1),
        "score": lambda: compiled_flow(flow, lambda flow: flow.log_prob(row).detach(), 1),
        "sample": lambda: compiled_flow(flow, torch.no_grad()(lambda flow: flow.from_latent(row)), 1),
    }
    for what, use in uses.items():
        start = time.perf_counter()
        use()
        seconds[f"kernels compiled on a machine's first use, to {what}"] = time.perf_counter() - start
    return seconds


def memory_section(arguments, flowjax):
    if not Path("/proc/self/status").exists():
        print("\nMemory is measured on Linux only.")
        return []
    sizes = [10**k for k in range(4, 7 if arguments.quick else 8)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        write_rows(path, sizes[-1])
        scorings = in_fresh_process(memory_of_scoring, path, sizes)
    print_title(
        f"Scoring a memory-mapped float32 file of {N_MEMORY_FEATURES} columns: memory above the fitted model's process",
        ["rows", "µs per row", "peak anonymous, MiB", "peak resident (with the file's pages), MiB"],
    )
    names = [f"{sizes[0]:,}, first call of the process", *(f"{n_rows:,}" for n_rows in sizes)]
    per_row = [1e6 * seconds / n_rows for (seconds, *_), n_rows in zip(scorings, [sizes[0], *sizes], strict=True)]
    for name, microseconds, (_, anonymous, resident) in zip(names, per_row, scorings, strict=True):
        print_row([name, microseconds, anonymous, resident])

    n_rows = 1_000_000
    size = n_rows * N_MEMORY_FEATURES * 4 / 2**20
    seconds, anonymous, resident = in_fresh_process(memory_of_fit, n_rows)
    print_title(
        f"Fit of {n_rows:,} float32 rows ({size:.0f} MiB, counted in), one epoch: memory above the process's after imports",
        ["s", "peak anonymous, MiB", "peak resident, MiB", "peak anonymous/data"],
    )
    print_row([seconds, anonymous, resident, anonymous / size])
    return [
        at_most(f"scoring {sizes[-1]:,} rows: anonymous memory, MiB", scorings[-1][1], 1024),
        at_most("scoring: largest/smallest time per row, after the first call", max(per_row[1:]) / min(per_row[1:]), 1.25),
        at_most("fit: anonymous memory/data", anonymous / size, 4),
    ]


def write_rows(path, n_rows, chunk=100_000):
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(n_rows, N_MEMORY_FEATURES))
    rng = np.random.default_rng(0)
    for first in range(0, n_rows, chunk):
        rng.standard_normal(dtype=np.float32, out=rows[first : first + chunk])


def memory_of_scoring(path, sizes):
    """Seconds, and MiB of anonymous and of resident memory above those before, of scoring that many rows."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rows = np.load(path, mmap_mode="r")
    density = one_epoch().fit(np.array(rows[:5_000]))
    before = memory_now()
    results = []
    for n_rows in (sizes[0], *sizes):  # the first call of a process loads the kernels
        seconds = []
        with MemoryPeak() as peak:
            while not results or sum(seconds) < LEAST_SECONDS:
                start = time.perf_counter()
                density.score_samples(rows[:n_rows])
                seconds.append(time.perf_counter() - start)
                if not results:
                    break
        results.append((min(seconds), *peak.above(before)))
    return results


def memory_of_fit(n_rows):
    """Seconds of a fit, and MiB of anonymous and of resident memory above those before its data was made."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    before = memory_now()
    X = np.random.default_rng(0).standard_normal((n_rows, N_MEMORY_FEATURES), dtype=np.float32)
    start = time.perf_counter()
    with MemoryPeak() as peak:
        one_epoch().fit(X)
    return (time.perf_counter() - start, *peak.above(before))


def one_epoch():
    warnings.simplefilter("ignore", ConvergenceWarning)
    return NeuralSplineFlowDensity(max_iter=1, random_state=0)


def memory_now():
    """Resident memory of this process in MiB: its anonymous part, all of it, and the most there ever was of it."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS", "VmHWM")}


class MemoryPeak:
    """Watch the memory of this process while a block runs.

    Resident memory includes pages of mapped files, which the kernel takes back when it needs them; the anonymous part is what
    the block really holds. The kernel keeps no peak of that part, so a thread looks every two milliseconds.
    """

    def __enter__(self):
        self.start = self.peak = memory_now()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self):
        while not self.done.wait(0.002):
            self.peak = {name: max(value, self.peak[name]) for name, value in memory_now().items()}

    def __exit__(self, *_):
        self.done.set()
        self.thread.join()
        end = memory_now()
        if end["VmHWM"] > self.start["VmHWM"]:  # the kernel's own peak of all resident memory falls into the block
            self.peak["VmRSS"] = end["VmHWM"]

    def above(self, before):
        return tuple(self.peak[name] - before[name] for name in ("RssAnon", "VmRSS"))


RUN = {
    "train": train_section,
    "score": score_section,
    "sample": sample_section,
    "import": import_section,
    "memory": memory_section,
}


def parse_arguments():
    def names_of(allowed):
        def parse(text):
            names = text.split(",")
            if unknown := set(names) - set(allowed):
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(allowed)}")
            return names

        return parse

    def numbers(text):
        return [int(number) for number in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", type=names_of(RUN), default=list(RUN))
    parser.add_argument("--families", type=names_of(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--features", type=numbers, default=[6, 21, 43, 63])
    parser.add_argument("--batches", type=numbers, default=[256, 1024])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, help="7, or 3 with --quick; scoring, sampling and fits take half as many")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and rows")
    parser.add_argument("--flowjax-python", metavar="PATH")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (3 if arguments.quick else 7)
    arguments.slow_rounds = (arguments.rounds + 1) // 2
    arguments.score_rows = 8_192 if arguments.quick else 40_960
    return arguments


def main():
    arguments = parse_arguments()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "scikit-learn", "sklearn-flows", *TORCH_PEERS)
    )
    print(f"{versions}; {torch.get_num_threads()} thread(s); {arguments.rounds} rounds")
    flowjax = FlowjaxWorker(arguments.flowjax_python, arguments.threads) if arguments.flowjax_python else None
    goals = list(itertools.chain(*(RUN[section](arguments, flowjax) for section in arguments.sections)))
    if flowjax is not None:
        flowjax.close()
    if goals:
        print_title("Goals", ["what", "found", "met"])
    for goal in goals:
        print_row([goal.text, goal.found, "yes" if goal.met else "**no**"])


if __name__ == "__main__":
    main()
