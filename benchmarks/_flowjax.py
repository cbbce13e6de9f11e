"""flowjax from the other side: JAX gets an environment and a process of its own."""

import json
import os
import subprocess
from pathlib import Path


class FlowjaxWorker:
    """A process of the interpreter ``python``, which has flowjax, that does what it is told."""

    def __init__(self, python, n_threads):
        cores = sorted(os.sched_getaffinity(0))[-n_threads:]
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        if n_threads == 1:
            environment["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
        self.process = subprocess.Popen(
            [python, Path(__file__).with_name("_flowjax_worker.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            # JAX makes a pool of threads whatever its flags say; the cores are what limits it.
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )

    def call(self, method, **arguments):
        self.process.stdin.write(json.dumps([method, arguments]) + "\n")
        self.process.stdin.flush()
        reply = self.process.stdout.readline()
        if not reply:
            raise RuntimeError(f"the flowjax worker died in {method!r}")
        value, error = json.loads(reply)
        if error is not None:
            raise RuntimeError(f"the flowjax worker failed in {method!r}: {error}")
        return value

    def close(self):
        self.process.stdin.close()
        self.process.wait()
