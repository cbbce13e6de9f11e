"""sklearn.tests.test_pipeline, by meaning."""

import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:A continuous density is not meaningful"),
]


@pytest.fixture(scope="module")
def iris():
    return load_iris(as_frame=True).data


@pytest.fixture(scope="module")
def weight():
    return np.random.RandomState(0).uniform(0, 2, size=150)


def test_pipeline_sample_weight_supported(make_density, iris, weight):
    pipe = make_pipeline(StandardScaler(), make_density()).fit(iris)
    expected = np.average(pipe.score_samples(iris), weights=weight)
    assert pipe.score(iris, sample_weight=weight) == pytest.approx(expected, rel=1e-12)
    assert pipe.score(iris, sample_weight=weight) != pipe.score(iris)

    step = pipe.steps[-1][0]
    weighted = make_pipeline(StandardScaler(), make_density()).fit(iris, **{f"{step}__sample_weight": weight})
    alone = make_density().fit(StandardScaler().fit_transform(iris), sample_weight=weight)
    assert weighted.score(iris) == pytest.approx(alone.score(StandardScaler().fit_transform(iris)), rel=1e-12)


def test_pipeline_sample_weight_unsupported(make_density, iris):
    pipe = make_pipeline(StandardScaler(), make_density()).fit(iris)
    assert pipe.score(iris, sample_weight=None) == pipe.score(iris, None) == pipe.score(iris)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_pipeline_set_output_integration(make_density, iris, library):
    frames = pytest.importorskip(library)
    pipe = make_pipeline(StandardScaler(), make_density()).set_output(transform=library).fit(iris)
    # Names are seen where scikit-learn itself sees them: its older versions and newer polars don't get on.
    seen = getattr(StandardScaler().fit(pipe[:-1].transform(iris)), "feature_names_in_", [])
    assert list(getattr(pipe[-1], "feature_names_in_", [])) == list(seen)
    assert library != "pandas" or list(seen) == list(iris.columns)
    Z = pipe.transform(iris)
    assert isinstance(Z, frames.DataFrame)
    assert list(Z.columns) == list(pipe.get_feature_names_out())
