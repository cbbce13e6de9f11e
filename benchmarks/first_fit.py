"""How long the first fits take: on a machine, where kernels are compiled; in a process, where they are loaded; and later.

Usage::

    python benchmarks/first_fit.py [--rows N]

Prints seconds, as markdown. The cache of compiled kernels is an empty folder at first, not the user's.
"""

import argparse
import os
import subprocess
import sys
import tempfile

FITS = """
import sys, time
import numpy as np
from sklearn_flows import NeuralSplineFlowDensity

X = np.random.default_rng(0).standard_normal((int(sys.argv[1]), 4))
for _ in range(2):
    start = time.perf_counter()
    NeuralSplineFlowDensity(random_state=0).fit(X)
    print(time.perf_counter() - start)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500)
    n_rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-c", FITS, str(n_rows)]
        processes = [
            subprocess.run(command, env={**os.environ, "NUMBA_CACHE_DIR": cache}, capture_output=True, text=True, check=True)
            for _ in range(2)
        ]
    (on_machine, _), (in_process, later) = ([float(line) for line in p.stdout.split()] for p in processes)
    print("| fit | seconds |\n|---|--:|")
    for name, seconds in (("first on a machine", on_machine), ("first in a process", in_process), ("later", later)):
        print(f"| {name} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
