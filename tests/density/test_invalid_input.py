"""What can't be fitted or queried is refused with scikit-learn's words, and nothing that was fitted is lost."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from sklearn.exceptions import NotFittedError
from sklearn.utils._param_validation import InvalidParameterError

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:A continuous density is not meaningful"),
]

NAMES = ["a", "b", "c", "d"]


@pytest.fixture(scope="module")
def X():
    return np.random.RandomState(0).randn(30, 4)


@pytest.fixture(scope="module")
def fitted(make_density, X):
    return make_density().fit(X)


@pytest.fixture(scope="module")
def fitted_to_frame(make_density, X):
    return make_density().fit(pd.DataFrame(X, columns=NAMES))


def table(value, dtype=None):
    X = np.random.RandomState(1).randn(12, 4).astype(object if dtype is None else dtype)
    X[3, 2] = value
    return X


BAD_TABLES = {
    "csr_matrix": (lambda: scipy.sparse.csr_matrix(np.eye(4)), TypeError, "[Ss]parse"),
    "csc_array": (lambda: scipy.sparse.csc_array(np.eye(4)), TypeError, "[Ss]parse"),
    "NaN": (lambda: table(np.nan, float), ValueError, "NaN"),
    "float32 NaN": (lambda: table(np.nan, np.float32), ValueError, "NaN"),
    "inf": (lambda: table(np.inf, float), ValueError, "inf"),
    "minus inf": (lambda: table(-np.inf, float), ValueError, "inf"),
    "None": (lambda: table(None), ValueError, "NaN"),
    "string": (lambda: table("red"), ValueError, "could not convert string to float: 'red'"),
    "dict": (lambda: table({"a": 1}), TypeError, "argument must be .* string.* number"),
    "complex": (lambda: table(1j, complex), ValueError, "Complex data not supported"),
    "no rows": (lambda: np.empty((0, 4)), ValueError, r"0 sample\(s\) \(shape=\(0, 4\)\) while a minimum of 1 is required"),
    "no columns": (
        lambda: np.empty((12, 0)),
        ValueError,
        r"0 feature\(s\) \(shape=\(12, 0\)\) while a minimum of 1 is required",
    ),
    "one dimension": (lambda: np.arange(4.0), ValueError, "Reshape your data"),
    "three dimensions": (lambda: np.zeros((2, 4, 4)), ValueError, "dim 3"),
    "a number": (lambda: 3.0, ValueError, "Expected 2D array, got scalar array instead"),
}
QUERIES = ["score_samples", "score", "transform", "inverse_transform"]


@pytest.mark.parametrize(("build", "error", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_fit_refuses(make_density, build, error, message):
    density = make_density()
    with pytest.raises(error, match=message):
        density.fit(build())
    assert [name for name in vars(density) if name.endswith("_")] == []


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(("build", "error", "message"), BAD_TABLES.values(), ids=BAD_TABLES)
def test_queries_refuse(fitted, query, build, error, message):
    with pytest.raises(error, match=message):
        getattr(fitted, query)(build())


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("n_columns", [1, 3, 5])
def test_queries_refuse_another_width(fitted, query, n_columns):
    name = type(fitted).__name__
    with pytest.raises(ValueError, match=f"X has {n_columns} features, but {name} is expecting 4 features as input"):
        getattr(fitted, query)(np.zeros((5, n_columns)))


@pytest.mark.parametrize("query", ["score_samples", "score", "transform"])
@pytest.mark.parametrize("columns", [["a", "b", "c", "e"], ["d", "c", "b", "a"], ["a", "b", "c"]], ids="-".join)
def test_queries_refuse_other_names(fitted_to_frame, query, columns):
    X = pd.DataFrame(np.zeros((5, len(columns))), columns=columns)
    with pytest.raises(ValueError, match="The feature names should match those that were passed during fit"):
        getattr(fitted_to_frame, query)(X)


def test_objects_that_are_numbers_are_taken(make_density, X, fitted):
    np.testing.assert_array_equal(make_density().fit(X.astype(object)).score_samples(X), fitted.score_samples(X))


BAD_WEIGHTS = {
    "two dimensions": (np.ones((30, 2)), "[Ss]ample weights must be 1D"),
    "too few": (np.ones(29), r"sample_weight.shape == \(29,\), expected \(30,\)"),
    "negative": (np.r_[-1.0, np.ones(29)], "[Nn]egative values in data passed to `?sample_weight"),
    "all zero": (np.zeros(30), "weight.*zero"),
    "NaN": (np.r_[np.nan, np.ones(29)], "NaN"),
    "inf": (np.r_[np.inf, np.ones(29)], "inf"),
}


@pytest.mark.parametrize(("weight", "message"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_that_are_not_weights_are_refused(make_density, fitted, X, weight, message):
    with pytest.raises(ValueError, match=message):
        make_density().fit(X, sample_weight=weight)
    with pytest.raises(ValueError, match=message):
        fitted.score(X, sample_weight=weight)


@pytest.mark.parametrize("query", [*QUERIES, "sample"])
def test_queries_before_fit_are_refused(make_density, X, query):
    with pytest.raises(NotFittedError, match=f"This {make_density.func.__name__} instance is not fitted yet"):
        getattr(make_density(), query)(3 if query == "sample" else X)


@pytest.mark.parametrize("n_samples", [0, -1, 2.0, "3", None])
def test_numbers_of_samples_that_are_none_are_refused(fitted, n_samples):
    with pytest.raises(ValueError, match="Invalid value for 'n_samples'"):
        fitted.sample(n_samples)


def test_a_numpy_integer_is_a_number_of_samples(fitted):
    assert fitted.sample(np.int64(3)).shape == (3, 4)


BAD_PARAMETERS = [
    ("n_transforms", 0),
    ("n_transforms", 1.5),
    ("n_transforms", "3"),
    ("hidden_layer_sizes", 8),
    ("activation", "sine"),
    ("activation", None),
    ("max_iter", 0),
    ("max_iter", 1.5),
    ("max_iter", "many"),
    ("batch_size", 0),
    ("batch_size", "small"),
    ("learning_rate", 0.0),
    ("learning_rate", -1e-3),
    ("learning_rate", "fast"),
    ("weight_decay", -1e-3),
    ("early_stopping", "yes"),
    ("early_stopping", None),
    ("validation_fraction", 0.0),
    ("validation_fraction", 1.0),
    ("n_iter_no_change", 0),
    ("n_iter_no_change", -1.0),
    ("n_iter_no_change", 2.5),
    ("n_iter_no_change", np.nan),
    ("tol", -1e-4),
    ("warm_start", "no"),
    ("verbose", -1),
    ("verbose", "yes"),
    ("device", 3),
    ("device", None),
    ("random_state", "seed"),
    ("random_state", -1),
]


@pytest.mark.parametrize(("name", "value"), BAD_PARAMETERS)
def test_a_bad_parameter_is_refused_in_fit_and_only_there(make_density, X, name, value):
    density = make_density().set_params(**{name: value})
    assert make_density(**{name: value}).get_params()[name] is value
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of {make_density.func.__name__} must be .* Got"):
        density.fit(X)


@pytest.mark.parametrize(("name", "value"), [("layer", "linear"), ("n_bins", 1), ("n_bins", 2.0), ("tail_bound", 0.0)])
def test_a_bad_parameter_of_splines_is_refused_in_fit(make_density, X, name, value):
    density = make_density()
    if name not in density.get_params():
        with pytest.raises(ValueError, match=f"Invalid parameter '{name}'"):
            density.set_params(**{name: value})
    else:
        with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of NeuralSplineFlowDensity must be"):
            density.set_params(**{name: value}).fit(X)


@pytest.mark.parametrize("sizes", [(0,), (8, -1), (2.5,), ("8",), "88", [[8]]])
def test_widths_that_are_not_positive_integers_are_refused(make_density, X, sizes):
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        make_density(hidden_layer_sizes=sizes).fit(X)


def test_widths_may_be_any_sequence_of_integers(make_density, X, fitted):
    for sizes in ([8], np.array([8]), (np.int64(8),)):
        np.testing.assert_array_equal(make_density(hidden_layer_sizes=sizes).fit(X).score_samples(X), fitted.score_samples(X))


@pytest.mark.parametrize("device", ["abacus", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(make_density, X, device):
    with pytest.raises(ValueError, match=f"The 'device' parameter of {make_density.func.__name__} must be 'auto' or a device"):
        make_density(device=device).fit(X)


BAD_REFITS = {
    "a table with NaN": (lambda density, X: density.fit(np.full((20, 3), np.nan)), "NaN"),
    "a narrower table with bad weights": (lambda density, X: density.fit(X[:, :2], sample_weight=np.zeros(30)), "zero"),
    "other names and a bad X_val": (
        lambda density, X: density.fit(pd.DataFrame(X, columns=NAMES), X_val=X[:, :2]),
        "2 features",
    ),
    "a bad parameter": (lambda density, X: density.set_params(n_transforms=0).fit(X), "n_transforms"),
    "a bad device": (lambda density, X: density.set_params(device="abacus").fit(X[:, :3]), "device"),
    "divergence": (lambda density, X: density.set_params(learning_rate=1e20).fit(X[:, :3]), "diverged"),
}


@pytest.mark.parametrize(("refit", "message"), BAD_REFITS.values(), ids=BAD_REFITS)
def test_a_failed_refit_keeps_the_fitted_model(make_density, X, refit, message):
    density = make_density().fit(X)
    learned = {name: value for name, value in vars(density).items() if name.endswith("_")}
    scores, samples = density.score_samples(X), density.sample(5, random_state=0)
    with pytest.raises(ValueError, match=message):
        refit(density, X)
    assert {name: value for name, value in vars(density).items() if name.endswith("_")} == learned
    np.testing.assert_array_equal(density.score_samples(X), scores)
    np.testing.assert_array_equal(density.sample(5, random_state=0), samples)


def test_a_refit_forgets_the_names_of_the_last_table(make_density, X):
    density = make_density().fit(pd.DataFrame(X, columns=NAMES))
    density.fit(X[:, :2])
    assert not hasattr(density, "feature_names_in_")
    assert density.n_features_in_ == 2
