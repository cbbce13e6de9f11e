"""What continuous flows cost, beside zuko's.

    OMP_NUM_THREADS=1 python benchmarks/continuous.py

It gives zuko's continuous flow with exact traces the weights of a fitted ``FFJORDDensity`` and scores the same rows with
both at the same tolerances, in double precision and in turn (A B A B); then it takes steps of training with both, in single
precision: ours through Runge-Kutta steps of equal size, zuko's through its adaptive solver and the adjoint equation, as its
documentation does. The median counts. Then it fits ``FFJORDDensity`` and ``FlowMatchingDensity`` with default parameters but
``random_state`` to 10,000 rows, once, and scores as many others. It prints the tables of ``docs/families/ffjord.rst``.
"""

import argparse
import statistics
import time
import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning

from sklearn_flows import FFJORDDensity, FlowMatchingDensity
from sklearn_flows.flows import Rows
from sklearn_flows.training import ContinuousLikelihood, FlowMatching
from sklearn_flows.transforms import Inverse, NeuralODE

RTOL, ATOL = 1e-5, 1e-6


def table(n_features, n_rows):
    """Rows on a bent sheet with noise."""
    rng = np.random.RandomState(0)
    sources = rng.normal(size=(n_rows, 3))
    return np.sin(sources @ rng.normal(size=(3, n_features))) + 0.3 * rng.normal(size=(n_rows, n_features))


def same_flow_in_zuko(field, n_features):
    import zuko

    widths = [layer.out_features for layer in field.network.linear_layers()[:-1]]
    peer = zuko.flows.CNF(
        n_features,
        freqs=field.n_frequencies,
        hidden_features=widths,
        activation=torch.nn.SiLU,
        rtol=RTOL,
        atol=ATOL,
        exact=True,
    )
    layers = [layer for layer in peer.transform.ode if hasattr(layer, "weight")]
    with torch.no_grad():
        for theirs, ours in zip(layers, field.network.linear_layers(), strict=True):
            theirs.weight.copy_(ours.weight)
            theirs.bias.copy_(ours.bias)
    return peer


def in_turn(tasks, n_rounds):
    """Median seconds of the processor for each task, which other programs don't disturb; the first round doesn't count."""
    seconds = {name: [] for name in tasks}
    for i in range(n_rounds + 1):
        for name, task in tasks.items():
            start = time.process_time()
            task()
            if i > 0:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(n_features, n_rows, n_rounds, widths):
    X = table(n_features, 4000)
    start = {"base": "normal", "margins": "linear"}
    density = FFJORDDensity(widths, rtol=RTOL, atol=ATOL, **start, max_iter=4, random_state=0).fit(X)
    whitening, ode = density.flow_.transform.transforms
    assert isinstance(ode, NeuralODE)
    with torch.no_grad():
        x = whitening.forward(torch.as_tensor(density.encoding_.encode(X[:n_rows])[0]))[0]
        z, _ = ode.forward(x)
    x = x[(x.abs() < 3).all(dim=1) & (z.abs() < 3).all(dim=1)]  # farther out our field bends its inputs
    peer = same_flow_in_zuko(ode.field, n_features)
    # There data are at time 0.
    mirror = Inverse(ode)
    ours, theirs = lambda: mirror.forward(x)[1], lambda: peer.transform().call_and_ladj(x)[1]
    peer.double().eval()
    with torch.no_grad():
        difference = (ours() - theirs()).abs().max()
        score = in_turn({"ours": ours, "zuko": theirs}, n_rounds)
    batch = x[:256].float()
    peer.float().train()
    rows, every = Rows(batch, torch.ones(len(batch))), torch.arange(len(batch))
    flow = density._build_flow(torch.eye(n_features), None, torch.Generator())
    flow.load_state_dict(density.flow_.state_dict())
    likelihood = ContinuousLikelihood(flow, density.n_solver_steps, "exact", density.kinetic_weight, torch.Generator())
    matching = FlowMatching(flow, "independent", torch.Generator())
    train = in_turn(
        {
            "ours": lambda: likelihood.add_gradient(rows, every),
            "flow matching": lambda: matching.add_gradient(rows, every),
            "zuko": lambda: (-peer().log_prob(batch).mean()).backward(),
        },
        n_rounds,
    )
    print(f"\n{n_features} columns, hidden layers {widths}, largest difference of log-determinants {difference:.0e}")
    print(f"{density.n_function_evaluations_:.0f} evaluations per row")
    print(f"  score, rows per second: zuko {len(x) / score['zuko']:8.0f}  here {len(x) / score['ours']:8.0f}")
    print(
        f"  train, rows per second: zuko {len(batch) / train['zuko']:8.0f}  likelihood {len(batch) / train['ours']:8.0f}"
        f"  flow matching {len(batch) / train['flow matching']:8.0f}",
        flush=True,
    )


def measure_whole_fits(n_features, n_rows):
    X = table(n_features, 2 * n_rows)
    print(f"\ndefault parameters, {n_features} columns, {n_rows} rows: processor seconds of one thread")
    for Density in (FFJORDDensity, FlowMatchingDensity):
        density = Density(random_state=0)
        begin = time.process_time()
        density.fit(X[:n_rows])
        fitted = time.process_time()
        score = density.score(X[n_rows:])
        scored = time.process_time()
        print(
            f"  {Density.__name__:<20} fit {fitted - begin:5.0f} ({density.n_iter_} epochs)  score {scored - fitted:5.1f}"
            f"  {density.n_function_evaluations_:.0f} evaluations per row, {score:.2f} nats",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-features", type=int, nargs="+", default=[6, 21])
    parser.add_argument("--n-rows", type=int, default=1000)
    parser.add_argument("--n-rounds", type=int, default=5)
    parser.add_argument("--hidden-layer-sizes", type=int, nargs="+", default=[64, 64])
    parser.add_argument("--n-rows-of-fits", type=int, default=10_000, help="rows of whole fits, of the last --n-features")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    torch.set_num_threads(1)
    for n_features in arguments.n_features:
        measure(n_features, arguments.n_rows, arguments.n_rounds, arguments.hidden_layer_sizes)
    measure_whole_fits(arguments.n_features[-1], arguments.n_rows_of_fits)


if __name__ == "__main__":
    main()
