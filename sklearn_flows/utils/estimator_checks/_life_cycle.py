"""Checks of a life: unfitted, fitted, fitted again, copied, stored."""

import copy
import pickle
import tempfile
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from ._answers import answers, assert_same_answers, fit_quietly, fitted, must_raise, rows, seeded, takes


def check_density_unfitted(name, estimator_orig):
    """Check that every query of an unfitted estimator raises NotFittedError.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X = rows()
    for method, arguments in {
        "score_samples": (X,),
        "score": (X,),
        "sample": (),
        "transform": (X,),
        "inverse_transform": (X,),
    }.items():
        estimator = seeded(estimator_orig)
        if hasattr(estimator, method):
            with must_raise(NotFittedError, "", f"{name}.{method} must raise NotFittedError before fit"):
                getattr(estimator, method)(*arguments)


def check_density_idempotent(name, estimator_orig):
    """Check that with a fixed seed a second fit gives the same model, and a second query the same answer.

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
    assert_same_answers(answers(estimator, X_new), expected, f"{name} must answer the same question twice in the same way")
    if "warm_start" in estimator.get_params(deep=False):
        estimator.set_params(warm_start=False)
    fit_quietly(estimator, X)
    assert_same_answers(answers(estimator, X_new), expected, f"{name} fitted again with the same seed must be the same")


def check_density_clone(name, estimator_orig):
    """Check that a clone of a fitted estimator isn't fitted, and once fitted is the same model.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X, X_new = rows(), rows(20, seed=1)
    estimator = fitted(estimator_orig, X)
    cloned = clone(estimator)
    with must_raise(NotFittedError, "", f"A clone of a fitted {name} must not be fitted"):
        cloned.score_samples(X_new)
    fit_quietly(cloned, X)
    assert_same_answers(answers(cloned, X_new), answers(estimator, X_new), f"A clone of {name} must fit the same model")


def check_density_pickle(name, estimator_orig):
    """Check that a pickled fitted estimator answers as before.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X_new = rows(20, seed=1)
    estimator = fitted(estimator_orig, rows())
    restored = pickle.loads(pickle.dumps(estimator))
    assert_same_answers(answers(restored, X_new), answers(estimator, X_new), f"Pickling must not change {name}")


def check_density_joblib_mmap(name, estimator_orig):
    """Check that an estimator whose arrays joblib maps read-only from a file answers as before.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X_new = rows(20, seed=1)
    estimator = fitted(estimator_orig, rows())
    # A mapped file can't be removed on Windows.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "estimator.joblib"
        joblib.dump(estimator, path)
        restored = joblib.load(path, mmap_mode="r")
        assert_same_answers(
            answers(restored, X_new), answers(estimator, X_new), f"{name} must work when joblib maps it into memory read-only"
        )


def check_density_deepcopy(name, estimator_orig):
    """Check that a deep copy of a fitted estimator answers as the original.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X_new = rows(20, seed=1)
    estimator = fitted(estimator_orig, rows())
    copied = copy.deepcopy(estimator)
    assert_same_answers(answers(copied, X_new), answers(estimator, X_new), f"A deep copy of {name} must be the same")


def check_density_dict_unchanged(name, estimator_orig):
    """Check that queries change no attribute, not even the content of one.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    estimator = fitted(estimator_orig, rows())
    before = {key: _fingerprint(value) for key, value in vars(estimator).items()}
    answers(estimator, rows(20, seed=1))
    after = {key: _fingerprint(value) for key, value in vars(estimator).items()}
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    assert not changed, f"Queries must not change the attributes of {name}, but these did: {', '.join(changed)}."


def _fingerprint(value):
    try:
        return joblib.hash(value)
    except Exception:  # what can't be pickled is compared by identity
        return id(value)


def check_density_refit_failure_keeps_model(name, estimator_orig):
    """Check that a second fit that fails leaves everything that the first one learned.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    frame, frame_new = (pd.DataFrame(X, columns=["a", "b"]) for X in (rows(), rows(20, seed=1)))
    estimator = fitted(estimator_orig, frame)
    expected = answers(estimator, frame_new)
    wider = pd.DataFrame(np.random.RandomState(2).normal(size=(60, 3)), columns=["c", "d", "e"])
    infinite = wider.copy()
    infinite.iloc[0, 0] = np.inf
    failing = {"rows with infinite values": (infinite, {})}
    if takes(estimator, "fit", "sample_weight"):
        failing["too few weights"] = (wider, {"sample_weight": np.ones(3)})
    for case, (X, fit_params) in failing.items():
        with must_raise(ValueError, "", f"{name}.fit must raise ValueError for {case}"):
            fit_quietly(estimator, X, **fit_params)
        claim = f"A failed second fit ({case}) must leave {name} as it was"
        assert list(getattr(estimator, "feature_names_in_", [])) == ["a", "b"], f"{claim}, but feature_names_in_ changed."
        assert getattr(estimator, "n_features_in_", None) == 2, f"{claim}, but n_features_in_ changed."
        assert_same_answers(answers(estimator, frame_new), expected, claim)


def check_density_warm_start(name, estimator_orig):
    """Check that ``warm_start=True`` goes on from the last fit and refuses a table of another width.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    X = rows()
    parameters = estimator_orig.get_params(deep=False)
    one_epoch = {"max_iter": 1} if "max_iter" in parameters else {}
    # A fit that stops early may rightly keep the model that it started from.
    to_the_end = {"early_stopping": False} if "early_stopping" in parameters else {}
    estimator = fit_quietly(seeded(estimator_orig, warm_start=True, **one_epoch, **to_the_end), X)
    first_scores = estimator.score_samples(X)
    n_iter, curve = getattr(estimator, "n_iter_", None), list(getattr(estimator, "loss_curve_", []))
    fit_quietly(estimator, X)
    if n_iter is not None:
        assert estimator.n_iter_ > n_iter, f"n_iter_ of {name} must count on with warm_start=True, but is {estimator.n_iter_}."
    if curve:
        assert len(estimator.loss_curve_) > len(curve), f"loss_curve_ of {name} must grow with warm_start=True."
        assert list(estimator.loss_curve_[: len(curve)]) == curve, f"loss_curve_ of {name} must keep what the first fit wrote."
    if one_epoch:
        # With the same seed, a second fit that starts afresh would end exactly where the first did.
        assert not np.array_equal(estimator.score_samples(X), first_scores), (
            f"With warm_start=True a second fit of {name} must go on from the first, but it gave the same model again."
        )
    with must_raise(ValueError, "", f"{name} with warm_start=True must refuse a table of another width"):
        fit_quietly(estimator, X[:, :1])


def check_density_convergence_warning(name, estimator_orig):
    """Check that a fit that ``max_iter=1`` cuts short warns of it, once.

    Parameters
    ----------
    name : str
        Name of the estimator, for messages.
    estimator_orig : estimator object
        Estimator to check; left as it is.
    """
    estimator = seeded(estimator_orig, max_iter=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(rows())
    n_warnings = sum(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    assert n_warnings == 1, f"{name}(max_iter=1).fit must warn of missing convergence once, not {n_warnings} times."
