"""Held-out log-likelihood of this package's estimators at their defaults, beside other density estimators, table by table.

    pip install -e .[bench]
    python benchmarks/likelihood.py [--data DIR] [--results FILE] [--methods stacking,bagging,...] [--tables NAME,...]
        [--sizes 150,500,2000,10000,all] [--threads 1] [--flowjax-python PATH] [--list]

Tables: those that scikit-learn ships, toys whose truth is known, and every table under ``DIR``: ``.npz`` with an array ``X``
of two axes, ``.csv`` and ``.csv.gz``; POWER too, where there is a ``prepare_maf_suite.py`` that makes it. One rule for every
table and method: rows with missing values are dropped; of the columns, those of numbers are taken; a constant column is left
out; a column whose values lie on a regular grid gets uniform noise of one step; another in which a single value stands in
more than 2 % of the rows is left out.

A fifth of the rows, 10,000 at most, is held out. The others, and the first 150, 500, 2,000 and 10,000 of them, are what the
methods are fitted to: a *cell* is a table and a number of rows. Scores are mean log-densities of the held-out rows in nats,
with standard errors; differences are paired, row by row. The cell table compares the first method with the best of all.

The second table sums up each method over all cells:

- failed: cells where a held-out row has a score that isn't finite, or where a method of another package raised an error. Such a
  cell is never one of the best, and what follows in nats leaves it out.
- best: share of the cells where the method is best, or where the best is ahead by a standard error of the difference at most.
- loss: the most that it is below the best, in nats per column.
- The best is first that of all methods; then, for the methods of this package, that of it and the methods of other packages.
- log-density, per column, and seconds for a fit and scoring: means.

Results are kept in ``FILE`` and not computed again, errors excepted; delete it to start anew. The methods are:

- stacking: ``StackingDensity()``.
- bagging: ``BaggingDensity()``.
- nsf: ``NeuralSplineFlowDensity()``; nsf-mixture: the same with ``base="mixture"``.
- gmm-bic: Gaussian mixture, full covariances, 1 to 30 components by BIC.
- gmm-cv: Gaussian mixture; components, kind of covariance and its floor by 5-fold cross-validation.
- kde-cv: kernel density, bandwidth by 5-fold cross-validation.
- vine: pyvinecopulib's vine copula at its defaults (all families, parametric and not, by AIC; its own kernel densities as
  margins), of 20,000 rows at most. A hundredth of each margin is a Student t: its kernels give no density to what lies beyond
  their grid, so most tables would have rows of density zero.
- zuko-nsf: zuko's neural spline flow in the hands of a careful user: standardised columns, Adam, a tenth of the rows held out,
  best weights kept, patience of 30 epochs, 35 s at most.
- nflows-nsf: the same with nflows' flow.
- flowjax-nsf: flowjax's masked autoregressive flow of splines at its defaults, trained by flowjax's ``fit_to_data`` at its: a
  tenth of the rows held out, best weights kept, patience of 5 epochs, 100 epochs at most. On small tables that is too little
  training; flowjax-careful: the same with the learning rate, batches and patience of zuko-nsf. Both see 2 million rows at most,
  epoch after epoch. ``PATH`` is an interpreter that has flowjax.

A method that isn't installed is left out. ``--threads`` are those of torch and of flowjax; numpy's are set by OMP_NUM_THREADS.
The methods of other packages see standardised columns; densities are brought back to the units of the table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from _flowjax import FlowjaxWorker
from scipy import stats
from scipy.special import logsumexp
from sklearn import datasets
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.neighbors import KernelDensity

from sklearn_flows import BaggingDensity, NeuralSplineFlowDensity, StackingDensity

MAX_TEST_ROWS = 10_000
ATOM = 0.02  # share of the rows from which on a value is an atom
LEVELS_OF_A_GRID = 10_000
LEARNING_RATE, PATIENCE = 1e-3, 30  # of a careful user


# Tables


class Toy:
    """A distribution whose density is known."""

    def __init__(self, n_rows, draw, log_density=None):
        self.n_rows, self.draw, self.log_density = n_rows, draw, log_density


def two_moons():
    noise = 0.1
    angles = (np.arange(2_000) + 0.5) / 2_000 * np.pi
    upper = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centres = np.concatenate([upper, [1, 0.5] - upper])  # of the noise: both arcs, evenly

    def log_density(X):
        squared_distances = np.square(X[:, None] - centres).sum(axis=2)
        return logsumexp(-squared_distances / (2 * noise**2), axis=1) - np.log(len(centres) * 2 * np.pi * noise**2)

    return Toy(6_250, lambda n, rng: datasets.make_moons(n, noise=noise, random_state=rng)[0], log_density)


def fifty_gaussians():
    rng = np.random.RandomState(50)
    means, weights = 3 * rng.randn(50, 16), rng.dirichlet(np.full(50, 5.0))
    factors = rng.randn(50, 16, 16) / 4 * 0.5 + 0.4 * np.eye(16)
    covariances = factors @ factors.transpose(0, 2, 1) + 0.05 * np.eye(16)
    parts = [stats.multivariate_normal(mean, covariance) for mean, covariance in zip(means, covariances, strict=True)]

    def draw(n, rng):
        which = rng.choice(50, size=n, p=weights)
        roots = np.linalg.cholesky(covariances)
        return means[which] + np.einsum("nij,nj->ni", roots[which], rng.randn(n, 16))

    def log_density(X):
        logs = np.stack([part.logpdf(X) + np.log(weight) for part, weight in zip(parts, weights, strict=True)])
        return np.logaddexp.reduce(logs, axis=0)

    return Toy(6_250, draw, log_density)


def student_t():
    rng = np.random.RandomState(20)
    root = rng.randn(20, 20) / np.sqrt(20)
    t = stats.multivariate_t(np.zeros(20), root @ root.T + 0.1 * np.eye(20), df=3)
    return Toy(6_250, lambda n, rng: t.rvs(n, random_state=rng), t.logpdf)


def checkerboard():
    def draw(n, rng):
        column = rng.randint(4, size=n)
        row = 2 * rng.randint(2, size=n) + column % 2
        return np.stack([column + rng.rand(n), row + rng.rand(n)], axis=1) * 2 - 4

    return Toy(6_250, draw, lambda X: np.full(len(X), -np.log(8 * 4.0)))


TOYS = {
    "two moons": two_moons,
    "50 Gaussians": fifty_gaussians,
    "Student t": student_t,
    "checkerboard": checkerboard,
}
SCIKIT_LEARN = {
    "iris": datasets.load_iris,
    "wine": datasets.load_wine,
    "breast cancer": datasets.load_breast_cancer,
    "diabetes": datasets.load_diabetes,
}


def table_names(data):
    names = [*TOYS, *SCIKIT_LEARN]
    if data is not None:
        paths = [path for pattern in ("*.npz", "*.csv", "*.csv.gz") for path in data.rglob(pattern)]
        names += sorted(str(path.relative_to(data)) for path in paths)
        if (data / "prepare_maf_suite.py").exists():
            names.append("POWER")
    return names


def grid_step(values):
    """Distance of neighbours if the values lie on a regular grid, else None."""
    distinct = np.unique(values)
    gaps = np.diff(distinct)
    step = gaps.min()
    n_steps = (distinct - distinct[0]) / step
    is_grid = (
        n_steps[-1] <= LEVELS_OF_A_GRID and len(distinct) < len(values) / 2 and np.abs(n_steps - n_steps.round()).max() < 0.01
    )
    return step if is_grid else None


def continuous_columns(X, rng):
    """The columns that have a density, by the rule of this script."""
    kept = []
    for values in X.T:
        _, counts = np.unique(values, return_counts=True)
        if len(counts) == 1:
            continue
        step = grid_step(values)
        if step is not None:
            kept.append(values + step * (rng.rand(len(values)) - 0.5))
        elif counts.max() <= ATOM * len(values):
            kept.append(values)
    return np.stack(kept, axis=1) if kept else None


def read_table(data, name):
    if name in SCIKIT_LEARN:
        return SCIKIT_LEARN[name]().data
    path = data / name
    if path.suffix == ".npz":
        arrays = np.load(path)
        return arrays["X"] if "X" in arrays and arrays["X"].ndim == 2 and arrays["X"].dtype != np.uint8 else None
    import pandas as pd

    return pd.read_csv(path).dropna().select_dtypes("number").to_numpy()


def power(data):
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(data / "prepare_maf_suite.py"), "--out", folder, "--only", "power"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        train, validation, test = (np.load(Path(folder) / f"power_{part}.npy") for part in ("train", "val", "test"))
    order = np.random.RandomState(0).permutation(len(train) + len(validation))
    return np.concatenate([train, validation])[order], test[np.random.RandomState(0).permutation(len(test))[:MAX_TEST_ROWS]]


def load(data, name):
    """Training and test rows of a table and the log-density of the latter, if it is known; None where nothing is continuous."""
    rng = np.random.RandomState(0)
    if name == "POWER":
        return (*power(data), None)
    truth = None
    if name in TOYS:
        toy = TOYS[name]()
        X, truth = toy.draw(toy.n_rows, rng), toy.log_density
    else:
        X = read_table(data, name)
        if X is None:
            return None
        X = X[np.isfinite(X).all(axis=1)].astype(np.float64)
        X = continuous_columns(X, rng)
        if X is None or len(X) < 100:
            return None
        X = X[rng.permutation(len(X))]
    n_test = min(MAX_TEST_ROWS, len(X) // 5)
    test = X[:n_test]
    return X[n_test:], test, None if truth is None else truth(test)


def cells_of(n_train, sizes):
    """Numbers of rows to fit to."""
    smaller = [int(size) for size in sizes if size != "all" and int(size) < 0.9 * n_train]
    return [*smaller, n_train] if "all" in sizes else smaller


# Methods: functions of training rows, test rows and a seed, that give the log-density of the test rows.


def standardised(method):
    def run(train, test, seed):
        loc, scale = train.mean(axis=0), train.std(axis=0)
        return method((train - loc) / scale, (test - loc) / scale, seed) - np.log(scale).sum()

    return run


def stacking(train, test, seed):
    return StackingDensity(random_state=seed).fit(train).score_samples(test)


def bagging(train, test, seed):
    return BaggingDensity(random_state=seed).fit(train).score_samples(test)


def spline_flow(train, test, seed):
    return NeuralSplineFlowDensity(random_state=seed).fit(train).score_samples(test)


def spline_flow_on_a_mixture(train, test, seed):
    return NeuralSplineFlowDensity(base="mixture", random_state=seed).fit(train).score_samples(test)


@standardised
def gmm_bic(train, test, seed):
    part = train[:20_000]
    candidates = [GaussianMixture(k, random_state=seed).fit(part) for k in range(1, min(30, len(part)) + 1)]
    n_components = min(candidates, key=lambda candidate: candidate.bic(part)).n_components
    return GaussianMixture(n_components, random_state=seed).fit(train[:200_000]).score_samples(test)


def cross_validated(candidates, rows, folds=5):
    """The candidate, a function of rows that gives a fitted density, with the highest mean likelihood of what is left out."""
    best, best_score = None, -np.inf
    for candidate in candidates:
        parts = np.arange(len(rows)) % folds
        try:
            score = np.mean([candidate(rows[parts != k]).score_samples(rows[parts == k]).mean() for k in range(folds)])
        except ValueError:  # fewer rows than components
            continue
        if score > best_score:
            best, best_score = candidate, score
    return best


@standardised
def gmm_cv(train, test, seed):
    grid = ParameterGrid(
        {
            "n_components": [1, 2, 3, 5, 8, 12, 20, 30, 50],
            "covariance_type": ["full", "diag"],
            "reg_covar": [1e-6, 1e-3, 1e-2, 1e-1],
        }
    )

    def candidate(parameters):
        return lambda rows: GaussianMixture(**parameters, random_state=seed).fit(rows)

    best = cross_validated([candidate(parameters) for parameters in grid], train[:2_000], folds=5 if len(train) < 1000 else 3)
    return best(train[:200_000]).score_samples(test)


@standardised
def kde_cv(train, test, seed):
    grid = {"bandwidth": np.logspace(-2, 0.5, 16)}
    bandwidth = GridSearchCV(KernelDensity(), grid, cv=5).fit(train[:5_000]).best_params_["bandwidth"]
    return KernelDensity(bandwidth=bandwidth).fit(train[:20_000]).score_samples(test)


@standardised
def vine(train, test, seed):
    from pyvinecopulib.core import Kde1d, Vinecop

    train = train[:20_000]
    kernels = [Kde1d.from_data(column) for column in train.T]
    tail, share = stats.t(2), 0.01

    def margins(what, X):
        """Cumulative distribution functions ("cdf") or densities ("pdf") of the columns."""
        values = [getattr(kernel, what)(column) for kernel, column in zip(kernels, X.T, strict=True)]
        return (1 - share) * np.stack(values, axis=1) + share * getattr(tail, what)(X)

    copula = Vinecop.from_data(margins("cdf", train))
    return np.log(margins("pdf", test)).sum(axis=1) + np.log(copula.pdf(margins("cdf", test)))


def careful_batch_size(n_rows):
    return 64 if n_rows < 2_000 else 256


def train_carefully(log_prob, module, x, validation, seconds=35):
    """Train another library's flow as a careful user does; return the time and the validation score at each epoch's end."""
    optimiser = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
    batch_size = careful_batch_size(len(x))
    best, best_state, epochs_since, trace = -np.inf, None, 0, []
    start = time.perf_counter()
    while epochs_since < PATIENCE and time.perf_counter() - start < seconds:
        for batch in torch.randperm(len(x)).split(batch_size):
            loss = -log_prob(x[batch]).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimiser.step()
            if time.perf_counter() - start > seconds:
                break
        with torch.no_grad():
            score = float(torch.cat([log_prob(part) for part in validation.split(4096)]).mean())
        trace.append((time.perf_counter(), score))
        epochs_since += 1
        if score > best:
            best, epochs_since = score, 0
            best_state = {name: value.clone() for name, value in module.state_dict().items()}
    if best_state is not None:  # None where all scores are NaN
        module.load_state_dict(best_state)
    return trace


def zuko_flow(n_features):
    """A flow and its log-density."""
    from zuko.flows import NSF

    flow = NSF(n_features, transforms=3, hidden_features=(128, 128), bins=8)
    return flow, lambda x: flow().log_prob(x)


def nflows_flow(n_features):
    """A flow and its log-density."""
    from nflows import transforms
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow

    layers = []
    for _ in range(3):
        layers += [
            transforms.RandomPermutation(n_features),
            transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
                n_features, 128, num_blocks=1, use_residual_blocks=False, num_bins=8, tails="linear", tail_bound=5.0
            ),
        ]
    flow = Flow(transforms.CompositeTransform(layers), StandardNormal([n_features]))
    return flow, flow.log_prob


def in_careful_hands(make_flow):
    """The method that trains a flow of another library carefully."""

    @standardised
    def run(train, test, seed):
        torch.manual_seed(seed)
        flow, log_prob = make_flow(train.shape[1])
        x = torch.as_tensor(train[np.random.RandomState(seed).permutation(len(train))], dtype=torch.float32)
        n_validation = max(1, len(x) // 10)
        train_carefully(log_prob, flow, x[n_validation:], x[:n_validation][:20_000])
        with torch.no_grad():
            parts = torch.as_tensor(test, dtype=torch.float32).split(1024)
            return torch.cat([log_prob(part) for part in parts]).double().numpy()

    return run


def flowjax_nsf(worker, careful):
    """The method that lets a worker with flowjax do it: by its own loop, at its defaults or as a careful user sets it."""

    @standardised
    def run(train, test, seed):
        max_epochs = max(1, 2_000_000 // len(train))  # minutes; fit_to_data has no limit of time
        options = {"max_epochs": min(max_epochs, 100)}
        if careful:
            n_trained = len(train) - round(0.1 * len(train))
            options = {
                "max_epochs": max_epochs,
                "max_patience": PATIENCE,
                "learning_rate": LEARNING_RATE,
                "batch_size": careful_batch_size(n_trained),
            }
        rows = {"train": train.tolist(), "test": test.tolist()}
        return np.array(worker.call("fit_and_score", **rows, seed=seed, options=options))

    return run


METHODS = {
    "stacking": stacking,
    "bagging": bagging,
    "nsf": spline_flow,
    "nsf-mixture": spline_flow_on_a_mixture,
    "gmm-bic": gmm_bic,
    "gmm-cv": gmm_cv,
    "kde-cv": kde_cv,
    "vine": vine,
    "zuko-nsf": in_careful_hands(zuko_flow),
    "nflows-nsf": in_careful_hands(nflows_flow),
}
NAMES = [*METHODS, "flowjax-nsf", "flowjax-careful"]
OURS = ("stacking", "bagging", "nsf", "nsf-mixture")
PACKAGES = {"vine": "pyvinecopulib", "zuko-nsf": "zuko", "nflows-nsf": "nflows"}


def methods_that_run(names, flowjax_python, n_threads):
    """The methods of these names that are installed, by name; says which aren't."""
    methods = {name: method for name, method in METHODS.items() if name not in PACKAGES or find_spec(PACKAGES[name])}
    if flowjax_python is not None:
        worker = FlowjaxWorker(flowjax_python, n_threads)
        methods |= {"flowjax-nsf": flowjax_nsf(worker, careful=False), "flowjax-careful": flowjax_nsf(worker, careful=True)}
    for name in names:
        if name not in methods:
            reason = f"{PACKAGES[name]} isn't installed" if name in PACKAGES else "no --flowjax-python is given"
            print(f"{name} is left out: {reason}.\n")
    return {name: methods[name] for name in names if name in methods}


# Results


class Results:
    """What was measured, in a file: one line for each cell and method, with the log-density of every test row."""

    def __init__(self, path, methods):
        self.path, self.methods, self.found = path, methods, {}
        if path is not None and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self.found[entry["table"], entry["rows"], entry["method"]] = entry

    def get(self, table, train, test, method, seed=0):
        """Log-densities of the test rows and seconds; NaN where a method of another package raises an error."""
        key = table, len(train), method
        if key not in self.found:
            start = time.perf_counter()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    scores = self.methods[method](train, test, seed)
            except Exception:
                if method in OURS:
                    raise
                print(f"{method} failed at {table}, {len(train):,} rows:", file=sys.stderr)
                traceback.print_exc()
                return np.full(len(test), np.nan), time.perf_counter() - start
            entry = dict(zip(("table", "rows", "method"), key, strict=True))
            entry |= {"seconds": time.perf_counter() - start, "scores": np.round(scores, 4).tolist()}
            self.found[key] = entry
            if self.path is not None:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry) + "\n")
        return np.array(self.found[key]["scores"]), self.found[key]["seconds"]


class Cell(NamedTuple):
    """What the methods, by name, made of a table and a number of rows."""

    n_columns: int
    scores: dict[str, np.ndarray]
    seconds: dict[str, float]

    def succeeded(self, method):
        return np.isfinite(self.scores[method]).all()

    def best(self, methods):
        return max(filter(self.succeeded, methods), key=lambda method: self.scores[method].mean(), default=None)

    def loss(self, method, methods):
        """How far a method that succeeded is below the best of some, in nats, and the standard error of that."""
        difference = self.scores[self.best(methods)] - self.scores[method]
        return difference.mean(), difference.std() / len(difference) ** 0.5


def score_text(scores):
    n_failed = (~np.isfinite(scores)).sum()
    if n_failed:
        return f"{scores.mean():.3f} ({n_failed} rows)"
    return f"{scores.mean():.3f} ± {scores.std() / len(scores) ** 0.5:.3f}"


def row_of(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def print_cell(name, n_rows, cell, truth):
    methods = list(cell.scores)
    first = methods[0]
    loss_text = "{:.3f} ± {:.3f}".format(*cell.loss(first, methods)) if cell.succeeded(first) else "–"
    truth_text = "–" if truth is None else f"{truth.mean():.3f}"
    texts = [score_text(cell.scores[method]) for method in methods]
    row_of([name, f"{n_rows:,}", str(cell.n_columns), *texts, truth_text, cell.best(methods) or "–", loss_text])


def share_and_loss(cells, method, rivals):
    """Texts: share of the cells where a method is one of the best of its rivals, and the most that it loses per column."""
    losses = [(*cell.loss(method, rivals), cell.n_columns) for cell in cells if cell.succeeded(method)]
    share = sum(loss <= error for loss, error, _ in losses) / len(cells)
    return f"{100 * share:.0f} %", f"{max(loss / n_columns for loss, _, n_columns in losses):.3f}" if losses else "–"


def print_summary(cells):
    methods = list(cells[0].scores)
    others = [method for method in methods if method not in OURS]
    print(f"\n{len(cells)} cells:\n")
    columns = ["failed", "best of all", "loss", "best of it and others", "loss", "log-density per column", "seconds"]
    row_of(["method", *columns])
    row_of(["---", *["--:"] * len(columns)])
    for method in methods:
        succeeded = [cell for cell in cells if cell.succeeded(method)]
        beside_others = share_and_loss(cells, method, [method, *others]) if method in OURS else ("–", "–")
        log_densities = [cell.scores[method].mean() / cell.n_columns for cell in succeeded]
        seconds = np.mean([cell.seconds[method] for cell in cells])
        row_of(
            [
                method,
                str(len(cells) - len(succeeded)),
                *share_and_loss(cells, method, methods),
                *beside_others,
                f"{np.mean(log_densities):.3f}" if succeeded else "–",
                f"{seconds:.1f}",
            ]
        )


def names_of_methods(text):
    names = text.split(",")
    if unknown := set(names) - set(NAMES):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(NAMES)}")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--methods", type=names_of_methods, default=NAMES)
    parser.add_argument("--tables")
    parser.add_argument("--sizes", default="150,500,2000,10000,all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--flowjax-python", metavar="PATH")
    parser.add_argument("--list", action="store_true", help="only say which cells there are")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not arguments.list:
        methods = methods_that_run(arguments.methods, arguments.flowjax_python, arguments.threads)
        results = Results(arguments.results, methods)
        row_of(["table", "rows", "columns", *methods, "truth", "best", f"{next(iter(methods))} below it"])
        row_of(["---", *["--:"] * (len(methods) + 5)])
    cells = []
    for name in arguments.tables.split(",") if arguments.tables else table_names(arguments.data):
        loaded = load(arguments.data, name)
        if loaded is None:
            continue
        train, test, truth = loaded
        for n_rows in cells_of(len(train), arguments.sizes.split(",")):
            if arguments.list:
                print(name, n_rows, train.shape[1], len(test))
                continue
            found = {method: results.get(name, train[:n_rows], test, method) for method in methods}
            scores, seconds = ({method: found[method][i] for method in methods} for i in range(2))
            cells.append(Cell(train.shape[1], scores, seconds))
            print_cell(name, n_rows, cells[-1], truth)
    if cells:
        print_summary(cells)


if __name__ == "__main__":
    main()
