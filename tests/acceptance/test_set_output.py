"""sklearn.utils.tests.test_set_output, by meaning."""

import numpy as np
import pytest
from sklearn.datasets import load_iris

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:A continuous density is not meaningful"),
]


@pytest.fixture(scope="module")
def iris():
    return load_iris(as_frame=True).data


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_method(make_density, iris, library):
    frames = pytest.importorskip(library)
    density = make_density().fit(iris)
    assert density.set_output(transform=None) is density
    plain = density.transform(iris)
    assert isinstance(plain, np.ndarray)

    density.set_output(transform=library)
    Z = density.transform(iris)
    assert isinstance(Z, frames.DataFrame)
    assert list(Z.columns) == list(density.get_feature_names_out())
    np.testing.assert_array_equal(Z.to_numpy(), plain)
    assert isinstance(density.fit_transform(iris), frames.DataFrame)
    # Only transform answers in frames.
    assert isinstance(density.score_samples(iris), np.ndarray)
    assert isinstance(density.sample(2), np.ndarray)
    assert isinstance(density.inverse_transform(Z.to_numpy()), np.ndarray)


def test_set_output_pandas_keep_index(make_density, iris):
    X = iris.set_axis([f"row {i}" for i in range(len(iris))])
    Z = make_density().set_output(transform="pandas").fit(X).transform(X)
    assert list(Z.index) == list(X.index)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_set_output_list_input(make_density, iris, library):
    frames = pytest.importorskip(library)
    rows = iris.to_numpy().tolist()
    Z = make_density().set_output(transform=library).fit(rows).transform(rows)
    assert isinstance(Z, frames.DataFrame)
    assert len(Z) == len(rows)
