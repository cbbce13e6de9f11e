"""What is as large as the table is copied no more often than need be; everything else happens in chunks."""

import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from sklearn import config_context

from sklearn_flows import RealNVPDensity
from sklearn_flows.density import _queries, _start

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@contextmanager
def peak_of_arrays():
    """Yield a list that gets the largest number of bytes that numpy's arrays had at once in the block (torch's don't count)."""
    peak = []
    tracemalloc.start()
    try:
        yield peak
        peak.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def density(make_density):
    density = make_density(n_transforms=1, max_iter=1).fit(np.random.RandomState(0).randn(100, 4))
    # What is loaded once: large queries use compiled kernels.
    density.inverse_transform(density.transform(density.sample(100_000, random_state=0)))
    return density


@pytest.fixture(params=["C", "F"])
def on_disk(request, tmp_path):
    """A map of 100,000 rows, 3.2 MB in float64."""
    file = tmp_path / "table.npy"
    np.save(file, np.asarray(np.random.RandomState(1).randn(100_000, 4), order=request.param))
    return np.load(file, mmap_mode="r")


def test_a_memory_map_is_scored_without_loading_it(density, on_disk):
    with peak_of_arrays() as peak:
        scores = density.score_samples(on_disk)
    assert scores.nbytes < peak[0] < scores.nbytes + on_disk.nbytes / 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_mapped_table_needs_no_more_than_the_result(density, dtype):
    X = np.random.RandomState(1).randn(400_000, 4).astype(dtype)
    for query in (density.transform, density.inverse_transform):
        with peak_of_arrays() as peak:
            out = query(X)
        assert out.nbytes < peak[0] < 1.3 * out.nbytes


def test_rows_are_sampled_in_their_own_place(density):
    # The draws are torch's.
    with peak_of_arrays() as peak:
        out = density.sample(400_000, random_state=0)
    assert out.nbytes < peak[0] < 1.3 * out.nbytes


@pytest.mark.parametrize("mebibytes", [0.05, 1.0, 1024])
def test_chunks_follow_the_working_memory_and_change_no_answer(density, monkeypatch, mebibytes):
    X = np.random.RandomState(1).randn(3000, 4)
    expected = density.score_samples(X), density.transform(X), density.sample(3000, random_state=0)
    sizes = set()
    log_prob = type(density.flow_).log_prob

    def recorded(flow, x):
        sizes.add(len(x))
        assert x.dtype == torch.float64
        assert not torch.is_grad_enabled()
        return log_prob(flow, x)

    monkeypatch.setattr(type(density.flow_), "log_prob", recorded)
    with config_context(working_memory=mebibytes):
        actual = density.score_samples(X), density.transform(X), density.sample(3000, random_state=0)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-7 * np.abs(b).max())
    widest = max(len(parameter) for parameter in density.flow_.parameters())
    assert max(sizes) * widest * 8 <= mebibytes * 2**20
    assert max(sizes) <= _queries.MAX_CHUNK
    if mebibytes == 1024:
        assert max(sizes) == _queries.MAX_CHUNK


def test_one_bad_value_at_the_end_of_a_memory_map_is_refused_before_anything_is_scored(density, tmp_path, monkeypatch):
    X = np.random.RandomState(1).randn(20_000, 4)
    X[-1, -1] = np.nan
    np.save(tmp_path / "table.npy", X)
    monkeypatch.setattr(type(density.flow_), "log_prob", lambda flow, x: pytest.fail("rows were scored"))
    with pytest.raises(ValueError, match="NaN"):
        density.score_samples(np.load(tmp_path / "table.npy", mmap_mode="r"))


@pytest.mark.parametrize("case", ["default", "no validation part", "weights", "X_val"])
def test_fit_stays_under_four_times_the_table(case):
    # Beside the table stands what the choice of a mixture needs, which is no more for larger ones.
    X = np.random.RandomState(0).randn(400_000, 10).astype(np.float32)
    arguments = {"weights": {"sample_weight": np.arange(len(X)) % 3}, "X_val": {"X_val": X[:5000] + 1}}.get(case, {})
    early_stopping = case != "no validation part"
    density = RealNVPDensity(1, hidden_layer_sizes=(4,), max_iter=1, batch_size=50_000, early_stopping=early_stopping)
    density.fit(X[:200])  # what is loaded once, on the first call
    with peak_of_arrays() as peak:
        density.fit(X, **arguments)
    # X was there before. Training itself is torch's, but shares its rows with numpy.
    assert X.nbytes + peak[0] < 4 * X.nbytes


def test_encoding_in_chunks_is_encoding_at_once(make_density, monkeypatch):
    X = np.random.RandomState(0).randn(300, 3)
    weight = np.random.RandomState(1).exponential(size=300)
    X_val = np.random.RandomState(2).randn(40, 3)
    expected = make_density().fit(X, sample_weight=weight, X_val=X_val)
    monkeypatch.setattr(_start, "ENCODING_CHUNK", 7)
    density = make_density().fit(X, sample_weight=weight, X_val=X_val)
    np.testing.assert_array_equal(density.score_samples(X), expected.score_samples(X))
    np.testing.assert_allclose(density.loss_curve_, expected.loss_curve_, rtol=1e-12)
    np.testing.assert_allclose(density.validation_scores_, expected.validation_scores_, rtol=1e-12)
