"""Continuous tables of the Rdatasets collection, for ``likelihood.py``: hundreds, none of which the defaults were made for.

    git clone https://github.com/vincentarelbundock/Rdatasets
    python benchmarks/rdatasets.py Rdatasets OUT [--part 1/6]
    python benchmarks/likelihood.py --data OUT --tables "$(ls OUT | paste -sd,)" --sizes 150,500,all ...

One rule for all. Columns are taken that are numbers, of which at most a tenth is missing, that have at least 25 distinct
values, and that don't just rise or fall down the table, as counters do; then rows without missing values, 6,250 at most, drawn
at random. By the rule of ``likelihood.py`` there must be 2 to 25 columns, in at least 180 rows, of which at most 2 % repeat
others. A table with columns that depend on each other exactly is left out: its density has no upper bound; so is one that is in
the collection a second time. Part ``1/6``, say, has the tables whose names have a checksum that leaves 1 when divided by 6.
"""

import argparse
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
from likelihood import continuous_columns
from scipy import stats

MIN_ROWS, MAX_ROWS = 180, 6_250
MAX_COLUMNS = 25
MAX_SHARE_MISSING = 0.1
MIN_DISTINCT = 25
SHARE_IN_ORDER = 0.98  # of neighbours, from which on a column is a counter
MAX_SHARE_REPEATED = 0.02
# Of the correlations of normal scores: below, some column follows from the others.
MIN_EIGENVALUE = 2e-3


def is_measurement(values):
    steps = np.diff(values)
    in_order = max((steps >= 0).mean(), (steps <= 0).mean())
    return np.isfinite(values).all() and len(np.unique(values)) >= MIN_DISTINCT and in_order <= SHARE_IN_ORDER


def depends_exactly(X):
    scores = stats.norm.ppf((stats.rankdata(X, axis=0) - 0.5) / len(X))
    return np.linalg.eigvalsh(np.corrcoef(scores.T))[0] < MIN_EIGENVALUE


def table_of(path):
    """The rows of a file that the rule takes; None if it doesn't take the table."""
    frame = pd.read_csv(path, low_memory=False, encoding="latin-1").drop(columns="rownames", errors="ignore")
    frame = frame.select_dtypes("number")
    frame = frame.loc[:, frame.isna().mean() <= MAX_SHARE_MISSING].dropna()
    if len(frame) < MIN_ROWS:
        return None
    columns = [column for column in frame.to_numpy(dtype=np.float64).T if is_measurement(column)]
    if not columns:
        return None
    rng = np.random.RandomState(0)
    X = np.stack(columns, axis=1)
    X = X[rng.permutation(len(X))[:MAX_ROWS]]
    continuous = continuous_columns(X, rng)
    if continuous is None or not 2 <= continuous.shape[1] <= MAX_COLUMNS:
        return None
    n_repeated = len(X) - len(np.unique(continuous, axis=0))
    return None if n_repeated > MAX_SHARE_REPEATED * len(X) or depends_exactly(continuous) else X


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path, help="a clone of the collection")
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", default="0/1")
    arguments = parser.parse_args()
    remainder, divisor = map(int, arguments.part.split("/"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    seen = set()
    for path in sorted(arguments.collection.glob("csv/*/*.csv")):
        name = f"{path.parent.name}_{path.stem}"
        if zlib.crc32(name.encode()) % divisor != remainder:
            continue
        X = table_of(path)
        if X is None or X.tobytes() in seen:
            continue
        seen.add(X.tobytes())
        np.savez_compressed(arguments.out / f"{name}.npz", X=X)
        print(name, *X.shape)


if __name__ == "__main__":
    main()
