"""scikit-learn's checks of an estimator, none of them expected to fail.

With ``SCIPY_ARRAY_API=1``, which must be set before scipy is imported: hence another interpreter.
"""

import importlib.util
import json
import os
import pickle
import subprocess
import sys

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sklearn_flows import (
    BaggingDensity,
    ConditionalFlowDensity,
    FFJORDDensity,
    FlowMatchingDensity,
    FlowOutlierDetector,
    GlowDensity,
    IAFDensity,
    MAFDensity,
    MixtureDensity,
    NeuralSplineFlowDensity,
    RealNVPDensity,
    StackingDensity,
)

ESTIMATORS = [NeuralSplineFlowDensity, MAFDensity, IAFDensity, RealNVPDensity, GlowDensity]
SMALL = {"n_transforms": 2, "hidden_layer_sizes": (8,), "max_iter": 5, "n_teachers": 0}
SMALL_ESTIMATORS = [
    *(Density(**SMALL) for Density in ESTIMATORS),
    NeuralSplineFlowDensity(layer="coupling", **SMALL),
    MAFDensity(base="mixture", early_stopping=True, **SMALL),
    BaggingDensity(MAFDensity(**SMALL), n_estimators=2),
    ConditionalFlowDensity(n_transforms=1, hidden_layer_sizes=(8,), max_iter=5, n_estimators=2),
    FFJORDDensity((8,), n_solver_steps=1, max_iter=5),
    FlowMatchingDensity((8,), max_iter=2),
    StackingDensity([("flow", MAFDensity(**SMALL)), ("mixture", MixtureDensity())], n_parts=2),
    FlowOutlierDetector(),
    FlowOutlierDetector(MixtureDensity(1), n_parts=2, score_type="typicality", support_fraction=0.9),
]

CHECK_WHAT_COMES_IN = """
import json, pickle, sys, warnings

answers, sys.stdout = sys.stdout, sys.stderr
warnings.simplefilter("ignore")
from sklearn.utils.estimator_checks import SkipTest, estimator_checks_generator

while True:
    try:
        estimator, only = pickle.load(sys.stdin.buffer)
    except EOFError:
        break
    results = []
    for estimator, check in estimator_checks_generator(estimator):
        name = check.func.__name__
        if only is not None and name != only:
            continue
        try:
            check(estimator)
            results.append((name, "passed", ""))
        except SkipTest as skip:
            results.append((name, "skipped", str(skip)))
        except Exception as error:
            results.append((name, "failed", repr(error)))
    print(json.dumps(results), file=answers, flush=True)
"""


@pytest.fixture(scope="module")
def check_with_array_api():
    """Function that runs all checks, or those of one name, with scipy's array API; it gives (name, status, text) of each."""
    with subprocess.Popen(
        [sys.executable, "-c", CHECK_WHAT_COMES_IN],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as interpreter:

        def check(estimator, only=None):
            pickle.dump((estimator, only), interpreter.stdin)
            interpreter.stdin.flush()
            return [tuple(result) for result in json.loads(interpreter.stdout.readline())]

        yield check


def unwarranted_skips(results):
    skips = [result for result in results if result[1] == "skipped"]
    if importlib.util.find_spec("array_api_compat") is None:
        # scikit-learn ships its own copy of that package only from 1.7 on.
        skips = [skip for skip in skips if "array_api_compat is not installed" not in skip[2]]
    return skips


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore:A continuous density is not meaningful")
@parametrize_with_checks(SMALL_ESTIMATORS)
def test_check_estimator(estimator, check, request):
    if check.func.__name__ == "check_array_api_input":
        results = request.getfixturevalue("check_with_array_api")(estimator, only="check_array_api_input")
        assert results
        assert [result for result in results if result[1] == "failed"] == []
        assert unwarranted_skips(results) == []
    else:
        check(estimator)


@pytest.mark.parametrize("Density", [NeuralSplineFlowDensity, MixtureDensity])
def test_check_estimator_at_the_defaults(Density, check_with_array_api):
    results = check_with_array_api(Density())
    assert len(results) > 45
    assert [result for result in results if result[1] == "failed"] == []
    assert unwarranted_skips(results) == []
    assert ("check_sample_weight_equivalence_on_dense_data", "passed", "") in results
