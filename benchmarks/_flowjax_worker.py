"""flowjax in an interpreter of its own, driven by _flowjax.py: one JSON request a line on stdin, one reply a line on stdout.

_flowjax.py chooses the cores and JAX's flags when it starts this process. A reply is a value and the text of an error, or null.
"""

import json
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import paramax
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import Normal
from flowjax.flows import coupling_flow, masked_autoregressive_flow
from flowjax.train import fit_to_data


class Worker:
    """A flow, its training step, and what is timed of it."""

    def build(self, family, n_features, n_transforms, width, n_bins, tail_bound, batch_size, n_batches):
        make = coupling_flow if family in ("nsf-coupling", "realnvp") else masked_autoregressive_flow
        # Its knots are those inside the interval: one fewer than bins. None is its affine map.
        spline = RationalQuadraticSpline(knots=n_bins - 1, interval=tail_bound) if family.startswith("nsf") else None
        flow = make(
            jr.key(0),
            base_dist=Normal(jnp.zeros(n_features)),
            transformer=spline,
            flow_layers=n_transforms,
            nn_width=width,
            nn_depth=2,
        )
        self.n_features = n_features
        self.params, self.static = eqx.partition(
            flow, eqx.is_inexact_array, is_leaf=lambda leaf: isinstance(leaf, paramax.NonTrainable)
        )
        x = np.random.default_rng(0).standard_normal((n_batches, batch_size, n_features), dtype=np.float32)
        self.batches, self.n_steps = list(jnp.asarray(x)), 0
        optimiser = optax.adam(1e-3)
        self.optimiser_state = optimiser.init(self.params)

        def loss(params, x):
            return -self._flow(params).log_prob(x).mean()

        def step(params, state, x):
            value, gradients = jax.value_and_grad(loss)(params, x)
            updates, state = optimiser.update(gradients, state, params)
            return optax.apply_updates(params, updates), state, value

        # Donated buffers spare it a copy of all parameters and moments in each step.
        self.step = jax.jit(step, donate_argnums=(0, 1))
        self.log_prob = jax.jit(lambda params, x: self._flow(params).log_prob(x))
        self.draw = jax.jit(lambda params, key, n: self._flow(params).sample(key, (n,)), static_argnums=2)

    def _flow(self, params):
        return paramax.unwrap(eqx.combine(params, self.static))

    def train(self, n):
        start = time.perf_counter()
        for _ in range(n):
            batch = self.batches[self.n_steps % len(self.batches)]
            self.params, self.optimiser_state, value = self.step(self.params, self.optimiser_state, batch)
            self.n_steps += 1
        value.block_until_ready()
        seconds = time.perf_counter() - start
        if not jnp.isfinite(value):
            raise RuntimeError("flowjax diverged")
        return seconds

    def score(self, n_rows, chunk):
        rows = np.random.default_rng(1).standard_normal((n_rows, self.n_features), dtype=np.float32)
        start = time.perf_counter()
        for first in range(0, n_rows, chunk):
            scores = self.log_prob(self.params, rows[first : first + chunk])
        scores.block_until_ready()
        return time.perf_counter() - start

    def sample(self, n_rows):
        start = time.perf_counter()
        self.draw(self.params, jr.key(0), n_rows).block_until_ready()
        return time.perf_counter() - start

    def fit_and_score(self, train, test, seed, options):
        """Train a spline flow by ``fit_to_data``, at the defaults of flowjax but for the options, and score the test rows."""
        train, test = (jnp.asarray(rows, dtype=jnp.float32) for rows in (train, test))
        flow_key, fit_key = jr.split(jr.key(seed))
        flow = masked_autoregressive_flow(
            flow_key,
            base_dist=Normal(jnp.zeros(train.shape[1])),
            transformer=RationalQuadraticSpline(knots=8, interval=4),
        )
        flow, _ = fit_to_data(fit_key, flow, train, show_progress=False, **options)
        return np.asarray(eqx.filter_jit(flow.log_prob)(test), dtype=np.float64).tolist()


def main():
    worker = Worker()
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            reply = getattr(worker, method)(**arguments), None
        except Exception as error:
            reply = None, repr(error)
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
