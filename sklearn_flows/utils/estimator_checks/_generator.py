"""Which checks an estimator gets, and the two ways of running them."""

import re
from functools import partial

from ._answers import takes
from ._environment import (
    check_density_global_rng_untouched,
    check_density_n_jobs_invariance,
    check_density_thread_safety,
    check_density_working_memory,
)
from ._input import (
    check_density_dtypes,
    check_density_frames,
    check_density_input_layouts,
    check_density_inputs_unmodified,
    check_density_query_validation,
)
from ._life_cycle import (
    check_density_clone,
    check_density_convergence_warning,
    check_density_deepcopy,
    check_density_dict_unchanged,
    check_density_idempotent,
    check_density_joblib_mmap,
    check_density_pickle,
    check_density_refit_failure_keeps_model,
    check_density_unfitted,
    check_density_warm_start,
)
from ._probability import (
    check_density_affine_equivariance,
    check_density_batch_invariance,
    check_density_integrates_to_one,
    check_density_score_is_mean,
    check_density_tails,
    check_density_transform_consistency,
    check_density_units,
    check_sample_matches_density,
    check_sample_shape_and_seed,
)
from ._rows import (
    check_density_degenerate,
    check_density_row_order,
    check_density_weights,
    check_density_weights_are_repetitions,
    check_density_y_ignored,
)


def _yield_checks(estimator):
    yield check_density_unfitted
    yield check_density_idempotent
    yield check_density_clone
    yield check_density_pickle
    yield check_density_joblib_mmap
    yield check_density_deepcopy
    yield check_density_dict_unchanged
    yield check_density_refit_failure_keeps_model
    if "warm_start" in estimator.get_params(deep=False):
        yield check_density_warm_start
    if "max_iter" in estimator.get_params(deep=False):
        yield check_density_convergence_warning

    yield check_density_query_validation
    yield check_density_dtypes
    yield check_density_input_layouts
    yield check_density_inputs_unmodified
    yield check_density_frames

    yield check_density_row_order
    yield check_density_degenerate
    if takes(estimator, "fit", "y"):
        yield check_density_y_ignored
    if takes(estimator, "fit", "sample_weight"):
        yield check_density_weights
        yield check_density_weights_are_repetitions

    yield check_density_batch_invariance
    yield check_density_affine_equivariance
    yield check_density_units
    yield check_density_integrates_to_one
    yield check_density_tails
    if hasattr(estimator, "score"):
        yield check_density_score_is_mean
    if takes(estimator, "sample", "random_state"):
        yield check_sample_shape_and_seed
        yield check_sample_matches_density
    if hasattr(estimator, "transform") and hasattr(estimator, "inverse_transform"):
        yield check_density_transform_consistency

    yield check_density_thread_safety
    yield check_density_global_rng_untouched
    yield check_density_working_memory
    if hasattr(estimator, "score"):
        yield check_density_n_jobs_invariance


def density_checks_generator(estimator):
    """Iterate over the checks that apply to a density estimator.

    Parameters
    ----------
    estimator : estimator object
        Instance to check.

    Yields
    ------
    estimator : estimator object
        The instance given.
    check : functools.partial
        The check, to be called with the estimator.
    """
    if isinstance(estimator, type):
        raise TypeError(f"Checks take an instance, not a class: pass {estimator.__name__}().")
    name = type(estimator).__name__
    for check in _yield_checks(estimator):
        yield estimator, partial(check, name)


def check_density_estimator(estimator):
    """Run all checks that apply to a density estimator.

    Parameters
    ----------
    estimator : estimator object
        Instance to check; it is cloned, never fitted itself.

    Raises
    ------
    Exception
        Whatever the first check that fails raises.

    See Also
    --------
    parametrize_with_density_checks : The same as separate tests of pytest.
    sklearn.utils.estimator_checks.check_estimator : Checks of everything that isn't special to densities.

    Examples
    --------
    >>> from sklearn_flows import RealNVPDensity
    >>> from sklearn_flows.utils.estimator_checks import check_density_estimator
    >>> check_density_estimator(RealNVPDensity(n_transforms=1, hidden_layer_sizes=(8,), max_iter=2))
    """
    for estimator_orig, check in density_checks_generator(estimator):
        check(estimator_orig)


def parametrize_with_density_checks(estimators, *, expected_failed_checks=None):
    """Decorate a test of pytest so that it runs once for each estimator and check.

    Parameters
    ----------
    estimators : list of estimator objects
        Instances to check.
    expected_failed_checks : callable, default=None
        Takes an estimator and returns a dict from names of checks that it is expected to fail to reasons. Their tests are
        marked as xfail. For estimators that aren't ours and are defined otherwise: in ``KernelDensity``, for one, ``score`` is
        a sum over the n rows, so n times the mean. Those of this package are expected to fail none.

    Returns
    -------
    pytest.MarkDecorator
        The decorator.

    See Also
    --------
    check_density_estimator : The same without pytest.
    sklearn.utils.estimator_checks.parametrize_with_checks : Checks of everything that isn't special to densities.

    Examples
    --------
    >>> from sklearn_flows import RealNVPDensity
    >>> from sklearn_flows.utils.estimator_checks import parametrize_with_density_checks
    >>> @parametrize_with_density_checks([RealNVPDensity(n_transforms=2)])
    ... def test_density(estimator, check):
    ...     check(estimator)
    """
    import pytest

    parameters = []
    for estimator_given in estimators:
        # The one reason there may be is mathematics: a score that is defined as the sum over n rows is n times their mean, so
        # no implementation of it can be the mean too.
        reasons = {} if expected_failed_checks is None else expected_failed_checks(estimator_given)
        for estimator, check in density_checks_generator(estimator_given):
            reason = reasons.get(check.func.__name__)
            marks = () if reason is None else pytest.mark.xfail(reason=reason)
            parameters.append(pytest.param(estimator, check, marks=marks))
    return pytest.mark.parametrize(("estimator", "check"), parameters, ids=_test_id)


def _test_id(value):
    return value.func.__name__ if isinstance(value, partial) else re.sub(r"\s", "", repr(value))
