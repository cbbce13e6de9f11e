"""scikit-learn's own test functions with our classes in place of theirs.

``TABLE`` accounts for every test function of the modules that cover estimators like ours, in scikit-learn 1.6 to 1.9. A
function that the installed version doesn't ship is left out. What can't run as it stands is written anew, by its meaning,
under its own name in the file of the same name beside this one.
"""

import ast
import importlib
import importlib.util
import pathlib
from typing import Any, NamedTuple

import pytest
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.utils.estimator_checks import (
    check_global_output_transform_pandas,
    check_global_set_output_transform_polars,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
)

from sklearn_flows import MAFDensity, NeuralSplineFlowDensity, RealNVPDensity

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:A continuous density is not meaningful"),
    # The signature of a fixture that upstream asks for isn't ours to change.
    pytest.mark.filterwarnings("ignore::pytest.PytestDeprecationWarning"),
]


class InTheirPlace:
    """What stands for the replaced class: it builds ours, with small settings and without the keywords that ours lacks."""

    def __init__(self, make_density, **settings):
        self.make_density = make_density
        self.cls = make_density.func
        self.settings = settings
        self.known = set(self.cls().get_params())

    def __call__(self, **parameters):
        return self.make_density(**{**self.settings, **{k: v for k, v in parameters.items() if k in self.known}})


class Ours(NamedTuple):
    """An argument that depends on which of our classes is being tried."""

    build: Any


FACTORY = Ours(lambda place: place)
CLASS = Ours(lambda place: place.cls)
NAME = Ours(lambda place: place.cls.__name__)
INSTANCE = Ours(lambda place: place())
EARLY_STOPPING_INSTANCE = Ours(lambda place: place(early_stopping=True, n_iter_no_change=1))
TMPDIR = object()


def search(Search, grid, **parameters):
    return Ours(lambda place: Search(place(), grid, **parameters))


class Row(NamedTuple):
    """One upstream test function.

    ``arguments`` holds one tuple for each call, ``replaced`` the name in the upstream module that gives way to
    ``InTheirPlace``, ``settings`` what it fills in beside the small ones.
    """

    module: str
    function: str
    how: str  # "verbatim", "adapted" or "not applicable"
    reason: str = ""
    arguments: tuple = ((),)
    replaced: str | None = None
    settings: dict = {}
    elsewhere: str | None = None  # where the adapted test is, if not in the file of the same name


def verbatim(module, function, *, arguments=((),), replaced=None, **settings):
    return [Row(module, function, "verbatim", arguments=tuple(arguments), replaced=replaced, settings=settings)]


def adapted(module, functions, reason, elsewhere=None):
    return [Row(module, function, "adapted", reason, elsewhere=elsewhere) for function in functions.split()]


def not_applicable(module, functions, reason):
    return [Row(module, function, "not applicable", reason) for function in functions.split()]


KDE = "sklearn.neighbors.tests.test_kde"
GMM = "sklearn.mixture.tests.test_gaussian_mixture"
MIXTURE = "sklearn.mixture.tests.test_mixture"
MLP = "sklearn.neural_network.tests.test_mlp"
RBM = "sklearn.neural_network.tests.test_rbm"
SEARCH = "sklearn.model_selection.tests.test_search"
PIPELINE = "sklearn.tests.test_pipeline"
COMMON = "sklearn.tests.test_common"
DOCSTRINGS = "sklearn.tests.test_docstrings"
DOCSTRING_PARAMETERS = "sklearn.tests.test_docstring_parameters"
ROUTING = "sklearn.tests.test_metadata_routing"
SET_OUTPUT = "sklearn.utils.tests.test_set_output"
CALLBACKS = "sklearn.callback.tests.test_callback_support"

# Upstream files whose subjects this package doesn't have yet.
LATER = {
    "sklearn.impute.tests.test_common": "imputation",
    "sklearn.impute.tests.test_impute": "imputation",
}

PUBLIC_METHODS = [name for name in dir(MAFDensity) if not name.startswith("_") and callable(getattr(MAFDensity, name))]
SMALL_GRID = {"n_transforms": [1, 2]}

TABLE = [
    # --- KernelDensity ---
    *verbatim(KDE, "test_pickling", arguments=[(TMPDIR, None), (TMPDIR, [0.1, 0.2, 0.3])], replaced="KernelDensity"),
    *verbatim(KDE, "test_check_is_fitted", arguments=[("score_samples",), ("sample",)], replaced="KernelDensity"),
    *verbatim(KDE, "test_kde_sample_weights_error", replaced="KernelDensity"),
    # Weights equal repeats to 1e-7 here, not only in distribution: rows are a set.
    *verbatim(KDE, "test_kde_sample_weights", replaced="KernelDensity", n_transforms=1, max_iter=1, batch_size=1000),
    *adapted(KDE, "test_kernel_density", "the oracle is the known density, not a slow sum of kernels"),
    *adapted(KDE, "test_kernel_density_sampling", "no bandwidth bounds the distance of a sample from the data"),
    *adapted(KDE, "test_kde_score", "empty upstream"),
    *adapted(KDE, "test_kde_pipeline_gridsearch", "searches a bandwidth"),
    *not_applicable(KDE, "test_kde_algorithm_metric_choice test_bandwidth", "no metric, no bandwidth"),
    # --- GaussianMixture ---
    *adapted(GMM, "test_score test_score_samples test_sample", "class name in the messages; means_ and covariances_"),
    *adapted(
        GMM,
        "test_gaussian_mixture_fit test_gaussian_mixture_fit_convergence_warning test_gaussian_mixture_single_component_stable",
        "fitted moments instead of components; our own warning",
    ),
    *adapted(GMM, "test_gaussian_mixture_verbose", "upstream discards what is printed"),
    *adapted(
        GMM, "test_warm_start test_convergence_detected_with_warm_start", "n_iter_ counts over warm starts; no converged_"
    ),
    *adapted(GMM, "test_monotonic_likelihood", "a stochastic optimiser rises on average"),
    *adapted(GMM, "test_regularisation", "degenerate data needs no reg_covar here"),
    *not_applicable(
        GMM,
        """test_gaussian_mixture_attributes test_check_weights test_check_means test_check_precisions test_suffstat_sk_full
        test_suffstat_sk_tied test_suffstat_sk_diag test_gaussian_suffstat_sk_spherical test_compute_log_det_cholesky
        test_gaussian_mixture_log_probabilities test_gaussian_mixture_estimate_log_prob_resp
        test_gaussian_mixture_predict_predict_proba test_gaussian_mixture_fit_predict
        test_gaussian_mixture_fit_predict_n_init test_fitted_precision_covariance_concistency test_property test_init
        test_gaussian_mixture_setting_best_params test_init_means_not_duplicated test_means_for_all_inits
        test_gaussian_mixture_precisions_init_diag test_gaussian_mixture_precisions_init
        test_gaussian_mixture_all_init_does_not_estimate_gaussian_parameters""",
        "components, their responsibilities, covariances and starts",
    ),
    *not_applicable(GMM, "test_multiple_init test_gaussian_mixture_fit_best_params", "no n_init"),
    *not_applicable(
        GMM, "test_gaussian_mixture_n_parameters test_bic_1d_1component test_gaussian_mixture_aic_bic", "no AIC, no BIC"
    ),
    *not_applicable(GMM, "test_max_iter_zero", "max_iter is at least one"),
    *not_applicable(
        GMM,
        "test_gaussian_mixture_array_api_compliance test_gaussian_mixture_raises_where_array_api_not_implemented",
        "numpy in, numpy out",
    ),
    *verbatim(MIXTURE, "test_gaussian_mixture_n_iter", arguments=[(INSTANCE,)]),
    *not_applicable(MIXTURE, "test_mixture_n_components_greater_than_n_samples_error", "no components"),
    # --- MLPClassifier, MLPRegressor ---
    *verbatim(MLP, "test_preserve_feature_names", arguments=[(FACTORY,)], max_iter="auto"),
    *verbatim(MLP, "test_mlp_warm_start_with_early_stopping", arguments=[(FACTORY,)]),
    *adapted(MLP, "test_alpha", "weight_decay takes its place"),
    *adapted(MLP, "test_nonfinite_params", "values near the largest double can be fitted here"),
    *adapted(MLP, "test_shuffle", "shuffling can't be turned off: the seed decides the order"),
    *adapted(MLP, "test_tolerance test_verbose_sgd", "no labels; our own words"),
    *adapted(MLP, "test_early_stopping test_n_iter_no_change test_n_iter_no_change_inf", "a likelihood, no private counter"),
    *adapted(
        MLP,
        "test_warm_start test_warm_start_full_iteration test_mlp_warm_start_no_convergence",
        "n_iter_ counts over warm starts; what mustn't change is the width and the shape of the networks",
    ),
    *adapted(MLP, "test_mlp_diverging_loss", "training never keeps weights that diverged"),
    *adapted(MLP, "test_mlp_sample_weight_with_early_stopping", "scores instead of predictions"),
    *adapted(MLP, "test_mlp_param_dtypes", "float64 after the fit whatever the input; scores follow the input"),
    *adapted(MLP, "test_minimum_input_sample_size", "two rows are enough here"),
    *not_applicable(
        MLP,
        """test_fit test_gradient test_learning_rate_warmstart test_multilabel_classification test_multioutput_regression
        test_predict_proba_binary test_predict_proba_multiclass test_predict_proba_multilabel test_adaptive_learning_rate
        test_early_stopping_stratified test_mlp_early_stopping_string_labels test_mlp_classifier_dtypes_casting
        test_mlp_regressor_dtypes_casting test_mlp_vs_poisson_glm_equivalent""",
        "supervised learning",
    ),
    *not_applicable(
        MLP,
        """test_lbfgs_classification test_lbfgs_regression test_lbfgs_classification_maxfun test_lbfgs_regression_maxfun""",
        "no such solver",
    ),
    *not_applicable(
        MLP,
        """test_partial_fit_classes_error test_partial_fit_classification test_partial_fit_unseen_classes
        test_partial_fit_regression test_partial_fit_errors test_mlp_loading_from_joblib_partial_fit
        test_mlp_partial_fit_after_fit""",
        "no partial_fit",
    ),
    *not_applicable(MLP, "test_sparse_matrices", "sparse tables are refused: tests/density/test_invalid_input.py"),
    # --- BernoulliRBM ---
    *verbatim(
        RBM,
        "test_transformer_dtypes_casting",
        arguments=[("float32", "float32"), ("float64", "float64"), (int, "float64")],
        replaced="BernoulliRBM",
    ),
    *adapted(RBM, "test_fit test_score_samples", "a likelihood of real numbers instead of a pseudo-likelihood of bits"),
    *adapted(RBM, "test_convergence_dtype_consistency", "intercept_hidden_ and the like; training is in float32"),
    *adapted(RBM, "test_feature_names_out test_rbm_verbose", "class name in the names; upstream discards what is printed"),
    *not_applicable(
        RBM,
        """test_partial_fit test_transform test_small_sparse test_small_sparse_partial_fit test_sample_hiddens test_fit_gibbs
        test_gibbs_smoke test_sparse_and_verbose""",
        "hidden units, Gibbs sampling, sparse tables, partial_fit",
    ),
    # --- GridSearchCV and its kin ---
    *verbatim(
        SEARCH,
        "test_search_cv_score_samples_method",
        arguments=[
            (search(GridSearchCV, SMALL_GRID, cv=2),),
            (search(RandomizedSearchCV, SMALL_GRID, n_iter=2, cv=2, random_state=0),),
        ],
    ),
    *verbatim(
        SEARCH,
        "test_search_cv_sample_weight_equivalence",
        arguments=[(search(GridSearchCV, {"learning_rate": [1e-3, 1e-2]}),)],
        n_transforms=1,
        max_iter=1,
    ),
    *verbatim(
        SEARCH,
        "test_search_callbacks_propagation",
        arguments=[
            (search(GridSearchCV, {"max_iter": [1, 2, 3]}, cv=2), True),
            (search(RandomizedSearchCV, {"max_iter": [1, 2, 3]}, n_iter=3, cv=2, random_state=0), False),
        ],
    ),
    *adapted(SEARCH, "test_gridsearch_no_predict", "searches a bandwidth"),
    *adapted(SEARCH, "test_unsupervised_grid_search", "no cluster labels to score"),
    *adapted(SEARCH, "test_search_cv_score_samples_error", "what a density lacks is predict"),
    *adapted(SEARCH, "test_pickle test_pandas_input test_X_as_list", "scores instead of predictions; a real table"),
    *adapted(SEARCH, "test_search_callbacks_receive_sample_weight", "scored by the likelihood instead of accuracy"),
    *not_applicable(
        SEARCH,
        """test_validate_parameter_input test_parameter_grid test_grid_search test_grid_search_pipeline_steps
        test_SearchCV_with_fit_params test_grid_search_no_score test_grid_search_score_method test_grid_search_groups
        test_classes__property test_trivial_cv_results_attr test_no_refit test_grid_search_error
        test_grid_search_one_grid_point test_grid_search_when_param_grid_includes_range test_grid_search_bad_param_grid
        test_grid_search_sparse test_grid_search_sparse_scoring test_grid_search_precomputed_kernel
        test_grid_search_precomputed_kernel_error_nonsquare test_refit test_refit_callable
        test_refit_callable_invalid_type test_refit_callable_out_bound test_refit_callable_multi_metric
        test_gridsearch_nd test_y_as_list test_param_sampler test_grid_search_cv_results test_random_search_cv_results
        test_search_default_iid test_grid_search_cv_results_multimetric test_random_search_cv_results_multimetric
        test_search_cv_results_rank_tie_breaking test_search_cv_results_none_param test_search_cv_timing
        test_grid_search_correct_score_results test_grid_search_with_multioutput_data test_predict_proba_disabled
        test_grid_search_allows_nans test_grid_search_failing_classifier test_grid_search_classifier_all_fits_fail
        test_grid_search_failing_classifier_raise test_parameters_sampler_replacement test_stochastic_gradient_loss_param
        test_search_train_scores_set_to_false test_grid_search_cv_splits_consistency
        test_transform_inverse_transform_round_trip test_custom_run_search test__custom_fit_no_run_search
        test_empty_cv_iterator_error test_random_search_bad_cv test_searchcv_raise_warning_with_non_finite_score
        test_callable_multimetric_confusion_matrix test_callable_multimetric_same_as_list_of_strings
        test_callable_single_metric_same_as_single_string test_callable_multimetric_error_on_invalid_key
        test_callable_multimetric_error_failing_clf test_callable_multimetric_clf_all_fits_fail test_n_features_in
        test_search_cv_pairwise_property_delegated_to_base_estimator
        test_search_cv__pairwise_property_delegated_to_base_estimator
        test_search_cv_pairwise_property_equivalence_of_precomputed test_scalar_fit_param test_scalar_fit_param_compat
        test_search_cv_using_minimal_compatible_estimator test_search_cv_verbose_3 test_search_estimator_param
        test_search_with_2d_array test_search_html_repr test_inverse_transform_Xt_deprecation
        test_multi_metric_search_forwards_metadata test_score_rejects_params_with_no_routing_enabled
        test_cv_results_dtype_issue_29074 test_search_with_estimators_issue_29157 test_cv_results_multi_size_array
        test_array_api_search_cv_classifier test_yield_masked_array_for_each_param
        test_yield_masked_array_no_runtime_warning test_unsupported_sample_weight_scorer
        test_search_callbacks_no_propagation test_search_callbacks_receive_search_instance
        test_search_callbacks_with_partial_fit_failures""",
        "about the search itself, with supervised or made-up estimators",
    ),
    # --- Pipeline ---
    *verbatim(PIPELINE, "test_pipeline_score_samples_pca_lof", replaced="LocalOutlierFactor"),
    *verbatim(PIPELINE, "test_pipeline_with_callbacks", replaced="MaxIterEstimator"),
    *verbatim(PIPELINE, "test_pipeline_with_callbacks_on_steps", replaced="MaxIterEstimator"),
    *adapted(
        PIPELINE,
        "test_pipeline_sample_weight_supported test_pipeline_sample_weight_unsupported",
        "made-up estimators with made-up scores",
    ),
    *adapted(PIPELINE, "test_pipeline_set_output_integration", "looks into a classifier"),
    *not_applicable(
        PIPELINE,
        """test_pipeline_invalid_parameters test_pipeline_init_tuple test_pipeline_methods_anova test_pipeline_fit_params
        test_pipeline_raise_set_params_error test_pipeline_methods_pca_svm test_score_samples_on_pipeline_without_score_samples
        test_pipeline_methods_preprocessing_svm test_fit_predict_on_pipeline test_fit_predict_on_pipeline_without_fit_predict
        test_fit_predict_with_intermediate_fit_params test_predict_methods_with_predict_params test_feature_union
        test_feature_union_named_transformers test_make_union test_make_union_kwargs test_pipeline_transform
        test_pipeline_fit_transform test_pipeline_slice test_pipeline_index test_set_pipeline_steps test_pipeline_named_steps
        test_pipeline_correctly_adjusts_steps test_set_pipeline_step_passthrough test_pipeline_ducktyping test_make_pipeline
        test_pipeline_estimator_type test_sklearn_tags_with_empty_pipeline test_feature_union_weights
        test_feature_union_parallel test_feature_union_feature_names test_classes_property test_set_feature_union_steps
        test_set_feature_union_step_drop test_set_feature_union_passthrough
        test_feature_union_passthrough_get_feature_names_out_true test_feature_union_passthrough_get_feature_names_out_false
        test_feature_union_passthrough_get_feature_names_out_false_errors
        test_feature_union_passthrough_get_feature_names_out_false_errors_overlap_over_5 test_step_name_validation
        test_set_params_nested_pipeline test_pipeline_memory test_make_pipeline_memory test_features_names_passthrough
        test_feature_names_count_vectorizer test_pipeline_feature_names_out_error_without_definition test_pipeline_param_error
        test_verbose test_n_features_in_pipeline test_n_features_in_feature_union test_feature_union_fit_params
        test_feature_union_fit_params_without_fit_transform test_pipeline_missing_values_leniency
        test_feature_union_warns_unknown_transformer_weight test_pipeline_get_tags_none
        test_search_cv_using_minimal_compatible_estimator test_pipeline_check_if_fitted test_feature_union_check_if_fitted
        test_pipeline_get_feature_names_out_passes_names_through test_feature_union_set_output test_feature_union_getitem
        test_feature_union_getitem_error test_feature_union_feature_names_in_ test_pipeline_inverse_transform_Xt_deprecation
        test_transform_input_pipeline test_transform_input_explicit_value_check test_transform_input_no_slep6
        test_transform_tuple_input test_pipeline_warns_not_fitted test_metadata_routing_for_pipeline
        test_metadata_routing_error_for_pipeline test_routing_passed_metadata_not_supported
        test_pipeline_with_estimator_with_len test_pipeline_with_no_last_step test_feature_union_metadata_routing_error
        test_feature_union_get_metadata_routing_without_fit test_feature_union_metadata_routing test_empty_pipeline
        test_make_union_passes_verbose_feature_names_out test_feature_union_1d_output
        test_meta_estimator_raises_class_not_instance_error test_empty_pipeline_dir test_pipeline_methods_pca_classifier
        test_pipeline_methods_preprocessing_classifier test_feature_union_duplicate_column_names
        test_feature_union_array_api_compliance test_feature_union_array_api_support_tag
        test_transform_one_accepts_plain_dict_params test_pipeline_memory_callbacks_second_fit_same_pipeline""",
        "about the pipeline or the union itself, with supervised or made-up estimators",
    ),
    # --- checks that scikit-learn runs on itself ---
    *adapted(COMMON, "test_estimators", "a decorator", elsewhere="density/test_check_estimator.py::test_check_estimator"),
    *verbatim(COMMON, "test_pandas_column_name_consistency", arguments=[(INSTANCE,), (EARLY_STOPPING_INSTANCE,)]),
    *verbatim(COMMON, "test_transformers_get_feature_names_out", arguments=[(INSTANCE,)]),
    *verbatim(COMMON, "test_estimators_get_feature_names_out_error", arguments=[(INSTANCE,)]),
    *verbatim(COMMON, "test_check_param_validation", arguments=[(INSTANCE,)]),
    *verbatim(COMMON, "test_set_output_transform", arguments=[(INSTANCE,)]),
    *verbatim(
        COMMON,
        "test_set_output_transform_configured",
        arguments=[
            (INSTANCE, check)
            for check in (
                check_set_output_transform_pandas,
                check_global_output_transform_pandas,
                check_set_output_transform_polars,
                check_global_set_output_transform_polars,
            )
        ],
    ),
    *verbatim(COMMON, "test_check_all_zero_sample_weights_error", arguments=[(INSTANCE,)]),
    *not_applicable(COMMON, "test_check_inplace_ensure_writeable", "no copy parameter"),
    *not_applicable(
        COMMON,
        """test_all_estimator_no_base_class test_get_check_estimator_ids test_check_estimator_generate_only_deprecation
        test_import_all_consistency test_root_import_all_completeness test_all_tests_are_importable
        test_class_support_removed test_transition_public_api_deprecations""",
        "about scikit-learn's own packages and tools",
    ),
    # --- docstrings ---
    *verbatim(DOCSTRINGS, "test_docstring", arguments=[(CLASS, method, None) for method in [None, *PUBLIC_METHODS]]),
    *not_applicable(DOCSTRINGS, "test_function_docstring", "no public functions among the estimators"),
    *verbatim(DOCSTRING_PARAMETERS, "test_fit_docstring_attributes", arguments=[(NAME, CLASS)]),
    *not_applicable(
        DOCSTRING_PARAMETERS,
        "test_docstring_parameters",
        "passes over what isn't scikit-learn's own; numpydoc's validation in test_docstring says the same and more",
    ),
    *not_applicable(
        DOCSTRING_PARAMETERS,
        """test_precision_recall_f_score_docstring_consistency test_stacking_classifier_regressor_docstring_consistency""",
        "about named functions of scikit-learn",
    ),
    # --- metadata routing ---
    *adapted(
        ROUTING,
        """test_default_requests test_simple_metadata_routing test_nested_routing test_no_feature_flag_raises_error
        test_none_metadata_passed""",
        "made-up consumers in place of estimators",
    ),
    *not_applicable(
        ROUTING,
        """test_assert_request_is_empty test_estimator_puts_self_in_registry test_request_type_is_alias
        test_request_type_is_valid test_default_request_override test_process_routing_invalid_method
        test_process_routing_invalid_object test_process_routing_empty_params_get_with_default test_nested_routing_conflict
        test_invalid_metadata test_get_metadata_routing test_setting_default_requests
        test_removing_non_existing_param_raises test_method_metadata_request test_get_routing_for_object
        test_metadata_request_consumes_method test_metadata_router_consumes_method test_metaestimator_warnings
        test_estimator_warnings test_string_representations test_validations test_methodmapping
        test_metadatarouter_add_self_request test_metadata_routing_add test_metadata_routing_get_param_names
        test_method_generation test_composite_methods test_no_metadata_always_works test_unsetmetadatapassederror_correct
        test_unsetmetadatapassederror_correct_for_composite_methods test_unbound_set_methods_work
        test_get_class_level_metadata_request_values test_method_metadata_request_clone_does_not_copy_owner
        test_metadata_request_clone_does_not_copy_owner test_metadata_router_clone_does_not_copy_owner
        test_get_routing_for_object_does_not_deepcopy_estimator test_add_self_request_does_not_deepcopy_estimator
        test_removing_metadata_in_subclass_correctly_works test_explicitly_defined_set_method_request_is_not_overriden""",
        "about the machinery of routing itself",
    ),
    # --- set_output ---
    *adapted(
        SET_OUTPUT,
        "test_set_output_method test_set_output_pandas_keep_index test_set_output_list_input",
        "made-up transformers",
    ),
    *not_applicable(
        SET_OUTPUT,
        """test_pandas_adapter test_polars_adapter test__container_error_validation test__safe_set_output
        test_set_output_mixin test__safe_set_output_error test_set_output_method_error test__get_output_config
        test_get_output_auto_wrap_false test_auto_wrap_output_keys_errors_with_incorrect_input
        test_set_output_mixin_custom_mixin test_set_output_mro test_set_output_named_tuple_out
        test_adapter_class_has_interface test_check_library_installed test_get_adapter_from_container""",
        "about the machinery of set_output itself",
    ),
    # --- callbacks ---
    *adapted(
        CALLBACKS,
        """test_set_callbacks test_set_callbacks_error test_set_callback_empty test_callback_error
        test_teardown_matches_setup_calls_on_partial_setup_failure test_multiple_teardown_errors_are_grouped""",
        "estimators that fit without data",
    ),
    *not_applicable(CALLBACKS, "test_function_no_callback_support", "about a function around estimators"),
]


def shipped_functions(module):
    """Names of the test functions of an upstream module, without importing it; none where this version lacks the module."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    return [] if spec is None else test_functions(pathlib.Path(spec.origin))


def test_functions(path):
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return [node.name for node in body if isinstance(node, ast.FunctionDef) and node.name.startswith("test")]


test_functions.__test__ = False

MODULES = sorted({row.module for row in TABLE})
SHIPPED = {module: shipped_functions(module) for module in MODULES}
CALLS = [
    pytest.param(row, arguments, id=f"{row.module.rpartition('.')[-1]}-{row.function}-{i}")
    for row in TABLE
    if row.how == "verbatim" and row.function in SHIPPED[row.module]
    for i, arguments in enumerate(row.arguments)
]


@pytest.mark.parametrize(("row", "arguments"), CALLS)
def test_passes_as_it_stands(row, arguments, make_density, monkeypatch, tmpdir):
    module = importlib.import_module(row.module)
    place = InTheirPlace(make_density, **row.settings)
    if row.replaced is not None:
        assert hasattr(module, row.replaced), "nothing to replace"
        monkeypatch.setattr(module, row.replaced, place)
    values = [a.build(place) if isinstance(a, Ours) else tmpdir if a is TMPDIR else a for a in arguments]
    getattr(module, row.function)(*values)


def test_every_upstream_function_is_listed_once():
    listed = [(row.module, row.function) for row in TABLE]
    assert len(listed) == len(set(listed))
    missing = [(module, name) for module, names in SHIPPED.items() for name in names if (module, name) not in listed]
    assert missing == []


def test_what_is_not_verbatim_says_why():
    for row in TABLE:
        assert row.how in ("verbatim", "adapted", "not applicable")
        assert row.how == "verbatim" or row.reason, row


def test_every_adapted_function_is_written():
    here = pathlib.Path(__file__).parent
    for row in TABLE:
        if row.how == "adapted":
            elsewhere = row.elsewhere or f"acceptance/{row.module.rpartition('.')[-1]}.py::{row.function}"
            file, _, function = elsewhere.partition("::")
            assert function in test_functions(here.parent / file), row


def test_modules_left_for_later_are_still_shipped():
    for module, subject in LATER.items():
        assert shipped_functions(module), (module, subject)


def test_the_three_estimators_have_the_same_public_methods():
    # The docstring rows go by the methods of one of them.
    for Density in (NeuralSplineFlowDensity, RealNVPDensity):
        assert {n for n in dir(Density) if not n.startswith("_") and callable(getattr(Density, n))} == set(PUBLIC_METHODS)
