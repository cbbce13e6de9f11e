"""Checks that a model depends on nothing around it: threads, processes, global generators, memory."""

import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import torch
from sklearn import config_context
from sklearn.model_selection import cross_val_score

from ._answers import answers, assert_same_answers, fitted, rows, seeded

_N_THREADS = 4


def check_density_thread_safety(name, estimator_orig):
    """Check that four threads fit the same model as one, and may query one model at once.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X, X_new = rows(), rows(20, seed=1)
    estimator = fitted(estimator_orig, X)
    expected = answers(estimator, X_new)
    barrier = Barrier(_N_THREADS)

    def fit_and_ask(own):
        barrier.wait()
        return answers(own.fit(X), X_new)

    def ask(shared):
        barrier.wait()
        return answers(shared, X_new)

    # Filters of warnings are global: they are set here, outside of the threads.
    with warnings.catch_warnings(), ThreadPoolExecutor(_N_THREADS) as pool:
        warnings.simplefilter("ignore")
        for actual in pool.map(fit_and_ask, [seeded(estimator_orig) for _ in range(_N_THREADS)]):
            assert_same_answers(actual, expected, f"{name} fitted in {_N_THREADS} threads with one seed must be one model")
        for actual in pool.map(ask, [estimator] * _N_THREADS):
            assert_same_answers(actual, expected, f"{name} queried from {_N_THREADS} threads must answer as from one")


def check_density_n_jobs_invariance(name, estimator_orig):
    """Check that cross-validation in two processes gives the scores of cross-validation in this one.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        serial, parallel = (cross_val_score(seeded(estimator_orig), rows(), cv=2, n_jobs=n_jobs) for n_jobs in (1, 2))
    np.testing.assert_array_equal(
        parallel, serial, err_msg=f"cross_val_score of {name} must not depend on n_jobs: the seed is fixed."
    )


def check_density_global_rng_untouched(name, estimator_orig):
    """Check that with integer seeds no query and no fit touches a global generator: Python's, numpy's or torch's.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    # States that no seed leads to, else one that has just been set would look untouched.
    random.random()
    np.random.uniform()
    torch.rand(1)
    before = _global_states()
    estimator = fitted(estimator_orig, rows())
    after_fit = _global_states()
    answers(estimator, rows(20, seed=1))
    after_queries = _global_states()
    for library, state in before.items():
        assert after_fit[library] == state, f"{name}.fit must not touch the global generator of {library}."
        assert after_queries[library] == state, f"Queries of {name} must not touch the global generator of {library}."


def _global_states():
    kind, keys, *rest = np.random.get_state()
    return {
        "Python": random.getstate(),
        "numpy": (kind, keys.tobytes(), *rest),
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


def check_density_working_memory(name, estimator_orig):
    """Check that scikit-learn's ``working_memory`` changes no answer.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X_new = rows(12, seed=1)
    estimator = fitted(estimator_orig, rows())
    expected = answers(estimator, X_new)
    for mebibytes in (1e-6, 1e-2):
        with config_context(working_memory=mebibytes):
            actual = answers(estimator, X_new)
        assert_same_answers(actual, expected, f"Answers of {name} must not depend on working_memory", rtol=1e-7)
