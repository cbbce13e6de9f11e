"""Checks of what scikit-learn's ``check_estimator`` leaves untested on a density estimator.

scikit-learn hardly ever calls ``score_samples`` in its checks and never ``sample`` or ``inverse_transform``. The checks here
take any estimator with ``fit`` and ``score_samples``, of any package; those about ``score``, ``sample(n_samples,
random_state)``, ``transform``, ``inverse_transform``, ``sample_weight``, ``warm_start`` or ``max_iter`` are left out where
the estimator has no such thing.
"""

from ._environment import (
    check_density_global_rng_untouched,
    check_density_n_jobs_invariance,
    check_density_thread_safety,
    check_density_working_memory,
)
from ._generator import check_density_estimator, density_checks_generator, parametrize_with_density_checks
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

__all__ = [
    "check_density_affine_equivariance",
    "check_density_batch_invariance",
    "check_density_clone",
    "check_density_convergence_warning",
    "check_density_deepcopy",
    "check_density_degenerate",
    "check_density_dict_unchanged",
    "check_density_dtypes",
    "check_density_estimator",
    "check_density_frames",
    "check_density_global_rng_untouched",
    "check_density_idempotent",
    "check_density_input_layouts",
    "check_density_inputs_unmodified",
    "check_density_integrates_to_one",
    "check_density_joblib_mmap",
    "check_density_n_jobs_invariance",
    "check_density_pickle",
    "check_density_query_validation",
    "check_density_refit_failure_keeps_model",
    "check_density_row_order",
    "check_density_score_is_mean",
    "check_density_tails",
    "check_density_thread_safety",
    "check_density_transform_consistency",
    "check_density_unfitted",
    "check_density_units",
    "check_density_warm_start",
    "check_density_weights",
    "check_density_weights_are_repetitions",
    "check_density_working_memory",
    "check_density_y_ignored",
    "check_sample_matches_density",
    "check_sample_shape_and_seed",
    "density_checks_generator",
    "parametrize_with_density_checks",
]
