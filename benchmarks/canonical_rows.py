"""Time the canonical form of 1,000,000 x 10 rows: continuous, in ties of several kinds, and all equal.

python benchmarks/canonical_rows.py
"""

import time

import numpy as np

from sklearn_flows.training import canonical_rows


def main():
    rng = np.random.default_rng(0)
    shape = n, d = 1_000_000, 10
    tables = {
        "continuous": rng.normal(size=shape),
        "continuous, float32": rng.normal(size=shape).astype(np.float32),
        "integers below 100": rng.integers(0, 100, shape).astype(float),
        "binary": rng.integers(0, 2, shape).astype(float),
        "two binary columns first": np.c_[rng.integers(0, 2, (n, 2)), rng.normal(size=(n, d - 2))],
        "every row twice": np.repeat(rng.normal(size=(n // 2, d)), 2, axis=0),
        "all rows equal": np.ones(shape),
    }
    print("| rows | seconds, median of 3 | distinct |\n|---|--:|--:|")
    for name, X in tables.items():
        seconds = []
        for _ in range(3):
            start = time.perf_counter()
            rows, _ = canonical_rows(X, np.ones(n))
            seconds.append(time.perf_counter() - start)
        print(f"| {name} | {np.median(seconds):.2f} | {len(rows):,} |")


if __name__ == "__main__":
    main()
