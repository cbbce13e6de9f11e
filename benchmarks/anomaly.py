"""How well outliers are told from normal rows, by this package's detector at its defaults and by others, table by table.

    pip install -e .[bench]
    python benchmarks/anomaly.py --data DIR [--results FILE] [--methods flow,iforest,...] [--tables NAME,...] [--seeds 5]
        [--max-time SECONDS] [--markdown FILE] [--speed]

Tables: every ``.npz`` of ``DIR/adbench``, with arrays ``X`` and ``y`` (1 for anomalies), as in ADBench; of more than 10,000
rows, 10,000 are drawn. Two protocols:

- one-class: half of the normal rows are to learn from; the other half and all anomalies are scored.
- unsupervised: all rows are to learn from, without ``y``, and are scored.

There is no setting for a table or for a protocol. Figures are 100 times the area under the ROC curve and the average precision,
means over seeds, which draw rows, halves and the methods' own randomness; ranks are by the area, 1 for the best, and means over
tables; seconds are for a fit and scoring. The methods:

- flow: ``FlowOutlierDetector()``.
- iforest: scikit-learn's ``IsolationForest()``.
- lof: ``LocalOutlierFactor()``, with ``novelty=True`` for the one-class protocol.
- ocsvm: ``OneClassSVM()``, of 5,000 rows at most.
- envelope: ``EllipticEnvelope()``.
- knn: the distance of the fifth nearest of the other rows.
- ecod: PyOD's ``ECOD``, where it is installed.

and, if ``--methods`` names them, what else the detector can do:

- typicality, latent, waic: ``FlowOutlierDetector(score_type=...)``.
- support: ``FlowOutlierDetector(support_fraction=0.9)``.
- mixture, mixture-support: the same two with one density for each part, the first of the default kinds, of 1,000 rows.

``lof``, ``ocsvm``, ``envelope`` and ``knn`` see standardised columns. Results are kept in ``FILE`` and not computed again; with
``--max-time`` no further cell is begun after so many seconds. ``--speed`` times flow and iforest on 50,000 rows of 10 columns
instead, and prints the ratio.
"""

import argparse
import json
import time
import warnings
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from scipy.stats import rankdata
from sklearn.covariance import EllipticEnvelope
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from sklearn_flows import FlowOutlierDetector, MixtureDensity

MAX_ROWS = 10_000
MAX_ROWS_OF_OCSVM = 5_000
PROTOCOLS = ("one-class", "unsupervised")


def load(path, protocol, seed):
    """Rows to learn from, rows to score and which of these are anomalies."""
    with np.load(path) as arrays:
        X, y = arrays["X"].astype(np.float64), arrays["y"].ravel() == 1
    rng = np.random.RandomState(seed)
    if len(X) > MAX_ROWS:
        chosen = rng.permutation(len(X))[:MAX_ROWS]
        X, y = X[chosen], y[chosen]
    if protocol == "unsupervised":
        return X, X, y
    normal = rng.permutation(np.flatnonzero(~y))
    half = len(normal) // 2
    scored = np.r_[normal[half:], np.flatnonzero(y)]
    return X[normal[:half]], X[scored], y[scored]


def flow(X, queries, seed, **parameters):
    return FlowOutlierDetector(random_state=seed, **parameters).fit(X).score_samples(queries)


def iforest(X, queries, seed):
    return IsolationForest(random_state=seed).fit(X).score_samples(queries)


def standardised(X, queries):
    scaler = StandardScaler().fit(X)
    return scaler.transform(X), scaler.transform(queries)


def lof(X, queries, seed):
    if X is queries:
        X, _ = standardised(X, queries)
        return LocalOutlierFactor().fit(X).negative_outlier_factor_
    X, queries = standardised(X, queries)
    return LocalOutlierFactor(novelty=True).fit(X).score_samples(queries)


def ocsvm(X, queries, seed):
    chosen = np.random.RandomState(seed).permutation(len(X))[:MAX_ROWS_OF_OCSVM]
    X, queries = standardised(X, queries)
    return OneClassSVM().fit(X[chosen]).score_samples(queries)


def envelope(X, queries, seed):
    X, queries = standardised(X, queries)
    return EllipticEnvelope(random_state=seed).fit(X).score_samples(queries)


def knn(X, queries, seed):
    n_neighbors = 6 if X is queries else 5  # a row is the nearest to itself
    X, queries = standardised(X, queries)
    return -NearestNeighbors(n_neighbors=n_neighbors).fit(X).kneighbors(queries)[0][:, -1]


def ecod(X, queries, seed):
    from pyod.models.ecod import ECOD

    return -ECOD().fit(X).decision_function(queries)


METHODS = {method.__name__: method for method in (flow, iforest, lof, ocsvm, envelope, knn, ecod)}
mixture = partial(flow, estimator=MixtureDensity(min_prior_rows=0.5, background=False, combine=False), max_samples=1_000)
OPTIONS = {
    "typicality": partial(flow, score_type="typicality"),
    "latent": partial(flow, score_type="latent"),
    "waic": partial(flow, score_type="waic"),
    "support": partial(flow, support_fraction=0.9),
    "mixture": mixture,
    "mixture-support": partial(mixture, support_fraction=0.9),
}


def compute(paths, methods, seeds, results, file, max_time):
    """Fill in what the results lack, and keep them in the file."""
    begin = time.perf_counter()
    for seed in range(seeds):
        for path in paths:
            for protocol in PROTOCOLS:
                missing = [m for m in methods if f"{m}/{path.stem}/{protocol}/{seed}" not in results]
                X, queries, y = load(path, protocol, seed) if missing else (None, None, None)
                for method in missing:
                    if time.perf_counter() - begin > max_time:
                        return
                    start = time.perf_counter()
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        score = -(METHODS | OPTIONS)[method](X, queries, seed)
                    seconds = time.perf_counter() - start
                    results[f"{method}/{path.stem}/{protocol}/{seed}"] = [
                        100 * roc_auc_score(y, score),
                        100 * average_precision_score(y, score),
                        seconds,
                    ]
                    file.write_text(json.dumps(results, indent=0))


def report(names, methods, seeds, results):
    """Markdown of what all methods have computed."""
    lines = []
    for protocol in PROTOCOLS:
        cells, shown = [], []
        for name in names:
            done = [s for s in range(seeds) if all(f"{m}/{name}/{protocol}/{s}" in results for m in methods)]
            if done:
                shown.append(name)
                cells.append([np.mean([results[f"{m}/{name}/{protocol}/{s}"] for s in done], axis=0) for m in methods])
        if not shown:
            continue
        values = np.array(cells)
        lines += [f"### {protocol}", "", f"| table | {' | '.join(methods)} |", "|---|" + "--:|" * len(methods)]
        for name, row in zip(shown, values, strict=True):
            lines.append(f"| {name} | " + " | ".join(f"{auc:.1f}" for auc in row[:, 0]) + " |")
        summary = {
            "mean area under ROC": values[:, :, 0].mean(axis=0),
            "mean rank": rankdata(-values[:, :, 0].round(6), axis=1).mean(axis=0),
            "mean average precision": values[:, :, 1].mean(axis=0),
            "mean seconds": values[:, :, 2].mean(axis=0),
            "most seconds": values[:, :, 2].max(axis=0),
        }
        lines += [f"| **{title}** | " + " | ".join(f"{v:.2f}" for v in row) + " |" for title, row in summary.items()]
        lines.append("")
    return "\n".join(lines)


def speed():
    """Seconds of a fit and scoring on 50,000 rows of 10 columns, in turns."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((50_000, 10)) @ rng.standard_normal((10, 10)) + 3 * rng.randint(5, size=(50_000, 1))
    times = {iforest: [], flow: []}
    for _ in range(3):
        for method, seconds in times.items():
            start = time.perf_counter()
            method(X, X, 0)
            seconds.append(time.perf_counter() - start)
    best = {method.__name__: min(seconds) for method, seconds in times.items()}
    ratio = best["flow"] / best["iforest"]
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in best.items()) + f", ratio {ratio:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="directory with a folder adbench")
    parser.add_argument("--results", type=Path, default=Path("anomaly.json"))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--tables", default="")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--max-time", type=float, default=float("inf"))
    parser.add_argument("--markdown", type=Path)
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    if options.speed:
        print(speed())
        return
    if options.data is None:
        parser.error("--data is needed, unless --speed is given")
    paths = sorted((options.data / "adbench").glob("*.npz"))
    if options.tables:
        paths = [path for path in paths if path.stem in options.tables.split(",")]
    if not paths:
        parser.error(f"there is no such table in {options.data / 'adbench'}")
    methods = [m for m in options.methods.split(",") if m != "ecod" or find_spec("pyod")]
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    compute(paths, methods, options.seeds, results, options.results, options.max_time)
    text = report([path.stem for path in paths], methods, options.seeds, results)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(text + "\n")


if __name__ == "__main__":
    main()
