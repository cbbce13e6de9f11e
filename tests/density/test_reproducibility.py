"""One seed, one model: bit for bit, whoever fits it."""

import hashlib
import os
import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from sklearn.base import clone
from threadpoolctl import threadpool_limits

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def X():
    return np.random.RandomState(0).randn(120, 3) ** 3


def fingerprint(density):
    """Hash of all that was learned, to the last bit."""
    state = {name: tensor.numpy().tobytes() for name, tensor in density.flow_.state_dict().items()}
    columns = [(column.loc, column.scale) for column in density.encoding_.columns]
    return hashlib.sha256(repr((state, columns, density.loss_curve_, density.validation_scores_)).encode()).hexdigest()


def test_every_fit_of_a_clone_is_the_same(make_density, X):
    density = make_density().fit(X)
    expected = fingerprint(density)
    assert fingerprint(density.fit(X)) == expected
    assert fingerprint(clone(density).fit(X)) == expected
    assert fingerprint(make_density(random_state=1).fit(X)) != expected


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_fits_in_threads_and_in_processes_are_the_same(make_density, X, backend):
    expected = fingerprint(make_density().fit(X))
    n_jobs = 8 if backend == "threading" else 2
    fits = Parallel(n_jobs=n_jobs, backend=backend)(delayed(make_density().fit)(X) for _ in range(8))
    assert {fingerprint(density) for density in fits} == {expected}


FIT_ELSEWHERE = """
import pickle, sys, warnings
warnings.simplefilter("ignore")
densities, X = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps([density.fit(X) for density in densities]))
"""


def test_fits_in_another_interpreter_are_the_same(make_density, X):
    run = subprocess.run(
        [sys.executable, "-c", FIT_ELSEWHERE],
        input=pickle.dumps(([make_density(), make_density(early_stopping=False)], X)),
        env={**os.environ, "PYTHONHASHSEED": "7"},
        stdout=subprocess.PIPE,
        check=True,
    )
    default, without_validation = pickle.loads(run.stdout)
    assert fingerprint(default) == fingerprint(make_density().fit(X))
    assert fingerprint(without_validation) == fingerprint(make_density(early_stopping=False).fit(X))


def test_a_random_state_instance_moves_on_and_none_varies(make_density, X):
    state = np.random.RandomState(0)
    first, second = (fingerprint(make_density(random_state=state).fit(X)) for _ in range(2))
    assert first != second
    assert fingerprint(make_density(random_state=np.random.RandomState(0)).fit(X)) == first
    assert len({fingerprint(make_density(random_state=None).fit(X)) for _ in range(2)}) == 2


def test_the_global_generators_do_not_matter(make_density, X):
    expected = fingerprint(make_density().fit(X))
    np.random.seed(99)
    torch.manual_seed(99)
    assert fingerprint(make_density().fit(X)) == expected


def test_the_number_of_threads_does_not_matter(make_density, X):
    prints = set()
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            prints.add(fingerprint(make_density(max_iter=2).fit(X)))
    assert len(prints) == 1


def test_a_fitted_density_travels_in_one_piece(make_density, X, tmp_path):
    density = make_density().fit(X)
    file = tmp_path / "density.joblib"
    joblib.dump(density, file)
    for copy in (pickle.loads(pickle.dumps(density)), joblib.load(file, mmap_mode="r")):
        assert fingerprint(copy) == fingerprint(density)
        np.testing.assert_array_equal(copy.sample(5, random_state=0), density.sample(5, random_state=0))
        # And can be fitted again: nothing of it is read-only.
        assert fingerprint(copy.fit(X)) == fingerprint(density)


def test_a_warm_start_goes_on_alike_from_a_copy(make_density, X):
    density = make_density(warm_start=True).fit(X)
    copy = pickle.loads(pickle.dumps(density))
    assert fingerprint(copy.fit(X)) == fingerprint(density.fit(X))


def test_parameters_set_after_the_fit_change_no_answer(make_density, X):
    density = make_density().fit(X)
    scores, samples = density.score_samples(X), density.sample(5, random_state=0)
    density.set_params(hidden_layer_sizes=None, activation=None, n_transforms=None, device=None, random_state=None)
    assert np.array_equal(density.score_samples(X), scores)
    assert np.array_equal(density.sample(5, random_state=0), samples)
